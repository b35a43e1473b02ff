"""The node of the stand-in: pods are child processes, with their logs and what is run in them."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import shutil
import signal
import struct
import termios
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import WSMsgType, web

Object = dict[str, Any]
MARK = "STANDIN_POD"
STOLEN_IMAGE = "registry.invalid/nothing:1"


@dataclass
class Machine:
    """One pod that has been started."""

    pod: Object
    folder: Path
    process: asyncio.subprocess.Process | None = None
    lines: list[tuple[str, bytes]] = field(default_factory=list)
    written: asyncio.Event = field(default_factory=asyncio.Event)
    exit_code: int | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def mark(self) -> str:
        return str(self.pod["metadata"]["uid"])

    def env(self) -> dict[str, str]:
        told = {each["name"]: _expanded(each["value"]) for each in self._container["env"]}
        return {"PATH": os.environ["PATH"], **told, MARK: self.mark}

    @property
    def _container(self) -> Object:
        container: Object = self.pod["spec"]["containers"][0]
        return container

    def argv(self) -> list[str]:
        return [_expanded(each) for each in self._container["command"]]

    def tell(self) -> None:
        self.written.set()
        self.written = asyncio.Event()


class Kubelet:
    """Runs pods."""

    def __init__(self, folder: Path, changed: Callable[[Object], None]) -> None:
        self._folder = folder
        self._changed = changed
        self.machines: dict[str, Machine] = {}
        self.begun: list[asyncio.subprocess.Process] = []
        """Every process that was started, so that none is left to the collector."""
        self.start_s = 0.01
        self.tools: Path | None = None
        """Where the shell and the tools of images are; None: they are this machine's."""
        self.is_dead = False
        """A node that is gone confirms nothing."""

    def start(self, pod: Object) -> None:
        """Begin to run a pod."""
        namespace = pod["metadata"]["namespace"]
        folder = self._folder / namespace
        folder.mkdir(exist_ok=True)
        machine = self.machines[namespace] = Machine(pod, folder)
        machine.tasks.append(asyncio.create_task(self._run(machine)))

    async def _run(self, machine: Machine) -> None:
        spec = machine.pod["spec"]
        await asyncio.sleep(self.start_s)
        if spec.get("nodeSelector"):
            why = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            self._status(machine, phase="Pending", conditions=[condition | {"message": why}])
            return
        scheduled = [{"type": "PodScheduled", "status": "True"}]
        self._state(machine, {"waiting": {"reason": "ContainerCreating"}}, conditions=scheduled)
        await asyncio.sleep(self.start_s)
        if spec["containers"][0]["image"] == STOLEN_IMAGE:
            message = f"failed to pull {STOLEN_IMAGE}: connection timed out"
            self._state(machine, {"waiting": {"reason": "ErrImagePull", "message": message}})
            await asyncio.sleep(self.start_s)
            self._state(machine, {"waiting": {"reason": "ImagePullBackOff", "message": message}})
            return
        if "not-there" in spec["containers"][0]["image"]:
            message = "rpc error: manifest for it not found: manifest unknown"
            self._state(machine, {"waiting": {"reason": "ErrImagePull", "message": message}})
            return
        try:
            machine.process = await asyncio.create_subprocess_exec(
                *machine.argv(),
                env=machine.env(),
                cwd=machine.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError:
            message = f'exec: "{machine.argv()[0]}": executable file not found in $PATH: unknown'
            ended = {"exitCode": 128, "reason": "StartError", "message": message}
            self._state(machine, {"terminated": ended}, phase="Failed")
            return
        self.begun.append(machine.process)
        self._state(machine, {"running": {"startedAt": _now()}}, phase="Running")
        await self._follow(machine)

    async def _follow(self, machine: Machine) -> None:
        process = machine.process
        assert process is not None
        assert process.stdout is not None
        machine.tasks.append(asyncio.create_task(_take_along(machine, process)))
        async for line in process.stdout:
            machine.lines.append((_now(), line))
            machine.tell()
        code = await process.wait()
        machine.exit_code = code if code >= 0 else 128 - code
        machine.tell()
        reason = "Completed" if machine.exit_code == 0 else "Error"
        ended = {"exitCode": machine.exit_code, "reason": reason}
        self._state(machine, {"terminated": ended}, phase="Succeeded" if code == 0 else "Failed")

    def _state(
        self, machine: Machine, state: Object, *, phase: str = "Pending", **more: Any
    ) -> None:
        containers = [{"name": "main", "state": state}]
        self._status(machine, phase=phase, startTime=_now(), containerStatuses=containers, **more)

    def _status(self, machine: Machine, **status: Any) -> None:
        machine.pod = {**machine.pod, "status": status}
        self._changed(machine.pod)

    def evict(self, namespace: str, reason: str, message: str) -> None:
        """Put a pod out, as a node does that runs out of disk."""
        machine = self.machines[namespace]
        for task in machine.tasks:
            task.cancel()
        kill(machine.mark)
        machine.exit_code = 137
        self._status(machine, phase="Failed", reason=reason, message=message, startTime=_now())
        machine.tell()

    async def end(self, namespace: str, grace_s: float) -> bool:
        """End a pod; whether that is confirmed."""
        machine = self.machines.get(namespace)
        if self.is_dead or machine is None:
            return not self.is_dead
        process = machine.process
        if process is not None and process.returncode is None:
            if grace_s > 0:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGTERM)
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended(process), grace_s)
            kill(machine.mark)
            await ended(process)
        kill(machine.mark)
        await asyncio.wait(machine.tasks, timeout=0.5)
        for task in machine.tasks:
            task.cancel()
        if self.machines.get(namespace) is machine:
            del self.machines[namespace]
        if machine.exit_code is None:
            machine.exit_code = 137
        machine.tell()
        shutil.rmtree(machine.folder, ignore_errors=True)
        return True

    async def aclose(self) -> None:
        self.is_dead = False
        for namespace in list(self.machines):
            await self.end(namespace, 0)
        for process in self.begun:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]

    def has_begun(self, namespace: str) -> bool:
        machine = self.machines.get(namespace)
        return machine is not None and machine.process is not None

    def runs(self, namespace: str) -> bool:
        return self.has_begun(namespace) and self.machines[namespace].exit_code is None

    async def log(self, namespace: str, *, since: str, follow: bool) -> AsyncIterator[bytes]:
        machine = self.machines[namespace]
        place = 0
        while True:
            written = machine.written
            is_over = machine.exit_code is not None
            for at, line in machine.lines[place:]:
                place += 1
                if at[:19] >= since[:19]:
                    yield f"{at} ".encode() + line
            if is_over or not follow:
                return
            if len(machine.lines) == place:
                await written.wait()


async def run_in(
    kubelet: Kubelet, namespace: str, socket: web.WebSocketResponse, query: Any
) -> None:
    """Run a command for an exec, and pass on what goes in and out."""
    machine = kubelet.machines[namespace]
    is_terminal = query["tty"] == "true"
    env, argv = machine.env(), query.getall("command")
    if kubelet.tools is not None:
        env["PATH"] = f"{kubelet.tools}:{env['PATH']}"
        argv = [str(kubelet.tools / "sh") if argv[0] == "/bin/sh" else argv[0], *argv[1:]]
    ours, theirs = pty.openpty() if is_terminal else (-1, -1)
    pipe = theirs if is_terminal else asyncio.subprocess.PIPE
    has_input = query["stdin"] == "true"
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            env=env,
            cwd=machine.folder,
            stdin=pipe if has_input else asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            start_new_session=not is_terminal,
            preexec_fn=_take_terminal if is_terminal else None,
        )
    except OSError as error:
        message = f"error executing command in container: {error}"
        told = {"status": "Failure", "reason": "InternalError", "message": message}
        await socket.send_bytes(b"\x03" + json.dumps(told).encode())
        await socket.close()
        return
    finally:
        if is_terminal:
            os.close(theirs)
    kubelet.begun.append(process)
    feeding = asyncio.create_task(_feed(socket, process, ours))
    try:
        if is_terminal:
            await _pump_terminal(socket, ours)
        else:
            assert process.stdout is not None
            assert process.stderr is not None
            await asyncio.gather(_pump(socket, 1, process.stdout), _pump(socket, 2, process.stderr))
        code = await process.wait()
        await socket.send_bytes(b"\x03" + _status(code if code >= 0 else 128 - code))
        await socket.close()
    # As on a node: a command whose caller has gone goes on.
    finally:
        feeding.cancel()
        if is_terminal:
            os.close(ours)


async def _pump(socket: web.WebSocketResponse, channel: int, pipe: asyncio.StreamReader) -> None:
    while data := await pipe.read(32_768):
        await socket.send_bytes(bytes((channel,)) + data)


async def _pump_terminal(socket: web.WebSocketResponse, terminal: int) -> None:
    loop = asyncio.get_running_loop()
    os.set_blocking(terminal, False)
    while True:
        ready = loop.create_future()
        loop.add_reader(terminal, _wake, ready)
        try:
            await ready
        finally:
            loop.remove_reader(terminal)
        try:
            data = os.read(terminal, 32_768)
        except BlockingIOError:
            continue
        except OSError:
            return
        if not data:
            return
        await socket.send_bytes(b"\x01" + data)


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _feed(
    socket: web.WebSocketResponse, process: asyncio.subprocess.Process, terminal: int
) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == 0 and terminal >= 0:
            os.write(terminal, data)
        elif channel == 0 and process.stdin is not None:
            with suppress(ConnectionError):
                process.stdin.write(data)
                await process.stdin.drain()
        elif channel == 4 and terminal >= 0:
            size = json.loads(data)
            packed = struct.pack("HHHH", size["Height"], size["Width"], 0, 0)
            fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)
        elif channel == 255 and data == b"\0" and process.stdin is not None:
            assert socket.ws_protocol == "v5.channel.k8s.io"
            process.stdin.close()


def _status(code: int) -> bytes:
    if code == 0:
        return json.dumps({"metadata": {}, "status": "Success"}).encode()
    causes = [{"reason": "ExitCode", "message": str(code)}]
    told = {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": causes},
    }
    return json.dumps(told).encode()


async def forward(socket: web.WebSocketResponse, port: int) -> None:
    """Pass a connection on to a port; the network of the stand-in's pods is this machine's."""
    head = struct.pack("<H", port)
    await socket.send_bytes(b"\x00" + head)
    await socket.send_bytes(b"\x01" + head)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError as error:
        await socket.send_bytes(b"\x01" + f"failed to connect: {error}".encode())
        await socket.close()
        return

    async def come() -> None:
        while data := await reader.read(32_768):
            await socket.send_bytes(b"\x00" + data)
        await socket.close()

    coming = asyncio.create_task(come())
    try:
        async for message in socket:
            if message.type is WSMsgType.BINARY and message.data[0] == 0:
                writer.write(message.data[1:])
                await writer.drain()
    finally:
        coming.cancel()
        writer.close()


def marked(mark: str) -> list[int]:
    """The processes of a pod, wherever they went."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


async def ended(process: asyncio.subprocess.Process) -> None:
    """Wait for its end; asyncio's own wait goes on while a child of it holds a pipe."""
    while process.returncode is None:
        await asyncio.sleep(0.005)


async def _take_along(machine: Machine, process: asyncio.subprocess.Process) -> None:
    """End what a main command has left behind, as its container ends with it."""
    await ended(process)
    kill(machine.mark)


def kill(mark: str) -> None:
    deadline = time.monotonic() + 5
    while (pids := marked(mark)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _expanded(text: str) -> str:
    """A value as a kubelet puts it in: no variables are used here, and $$ is $."""
    return text.replace("$$", "$")


def _now() -> str:
    nanoseconds = time.time_ns()
    head = datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{head}.{nanoseconds % 10**9:09d}Z"
