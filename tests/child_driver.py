"""A driver of environments for tests: machines are folders, commands are child processes.

It isolates nothing. What it has made stands in a `Host`, which outlives it as the kernel outlives a
server, so that another driver on the same host finds it. Its methods can be made slow or faulty.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import shutil
import signal
import socket
import struct
import termios
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steward_server.environments import host
from steward_server.environments.driver import (
    Capabilities,
    Capacity,
    Command,
    Connection,
    Exit,
    Feature,
    FileFault,
    FileInfo,
    Gone,
    Hold,
    LogRecord,
    Owned,
    Process,
    Stats,
    Stream,
    Unusable,
)
from steward_server.environments.environment import NetworkPolicy, Spec
from steward_server.environments.images.image import SNAPSHOTS, Image
from steward_server.environments.sandbox.ports import PortListener, line_of

MARK = "STEWARD_TEST_MACHINE"
DRAIN_S = 0.2


@dataclass
class Machine:
    """One machine, living or dead."""

    spec: Spec
    folder: Path
    exit: asyncio.Future[Exit] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    records: list[LogRecord] = field(default_factory=list)
    written: asyncio.Event = field(default_factory=asyncio.Event)
    is_started: bool = False
    is_paused: bool = False
    is_gone: bool = False
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def write(self, stream: str, *lines: str) -> None:
        for line in lines:
            record = LogRecord(len(self.records) + 1, time.time_ns() // 1000, stream, line)
            self.records.append(record)
        self.tell()

    def tell(self) -> None:
        self.written.set()
        self.written = asyncio.Event()

    def end(self, how: Exit) -> None:
        """Let its main command have ended."""
        if not self.exit.done():
            self.exit.set_result(how)
        self.tell()


@dataclass
class Host:
    """What there is, whoever made it."""

    folder: Path
    machines: dict[str, Machine] = field(default_factory=dict)
    snapshots: dict[str, Path] = field(default_factory=dict)
    """The folder of each image that is one."""


class ChildDriver:
    """Fulfils `Driver`. `calls` says what it was asked for."""

    def __init__(self, host: Host, *, unusable: str = "") -> None:
        self.host = host
        self.unusable = unusable
        self.may_come = False
        self.warnings: tuple[str, ...] = ()
        self.features = frozenset(Feature) - {Feature.WARM_POOL}
        self.faults: defaultdict[str, list[BaseException]] = defaultdict(list)
        """What the next calls of a method raise, the first of them first."""
        self.gates: dict[str, asyncio.Event] = {}
        """What calls of a method wait for."""
        self.calls: list[tuple[str, str]] = []
        self.files = ChildFiles(self)
        self.images = ChildImages(host)
        self._commands: set[Child] = set()

    def capabilities(self) -> Capabilities:
        limits = dict.fromkeys(("cpu", "memory", "storage"), Hold.NONE)
        features = frozenset() if self.unusable else self.features
        return Capabilities(
            "child",
            "test",
            features,
            limits,
            ("native",),
            self.unusable,
            warnings=self.warnings,
            may_come=self.may_come,
        )

    async def open(self) -> None:
        await self._pass("open", "")

    async def aclose(self) -> None:
        """The machines live on, and what commands leave in this process does not."""
        for command in list(self._commands):
            await command.aclose()

    async def capacity(self) -> Capacity:
        await self._pass("capacity", "")
        return await host.capacity()

    async def create(self, environment_id: str, spec: Spec) -> None:
        await self._pass("create", environment_id)
        if spec.image == "nothing":
            raise Unusable("UNKNOWN_IMAGE", "there is no image 'nothing'; there is python:3.11")
        assert environment_id not in self.host.machines
        folder = self.host.folder / environment_id
        kept = self.host.snapshots.get(spec.image)
        if kept is None and spec.image.startswith(SNAPSHOTS):
            raise Unusable("UNKNOWN_IMAGE", f"there is no image {spec.image!r}")
        if kept is None:
            folder.mkdir()
        else:
            shutil.copytree(kept, folder)
        self.host.machines[environment_id] = Machine(spec, folder)

    async def start(self, environment_id: str) -> None:
        await self._pass("start", environment_id)
        machine = self._machine(environment_id)
        assert not machine.is_started
        machine.is_started = True
        if not machine.spec.command:
            return
        main = await self.exec(environment_id, Command(machine.spec.command))

        async def follow() -> None:
            begun: defaultdict[Stream, bytes] = defaultdict(bytes)
            while (item := await main.read()) is not None:
                *lines, begun[item[0]] = (begun[item[0]] + item[1]).split(b"\n")
                machine.write(item[0].value, *(line.decode() for line in lines))
            for stream, rest in begun.items():
                machine.write(stream.value, *filter(None, [rest.decode()]))
            machine.end(await main.wait())

        machine.tasks.add(asyncio.create_task(follow()))

    async def wait(self, environment_id: str) -> Exit:
        await self._pass("wait", environment_id)
        return await asyncio.shield(self._machine(environment_id).exit)

    async def exec(self, environment_id: str, command: Command) -> Child:
        await self._pass("exec", environment_id)
        machine = self._machine(environment_id)
        if machine.exit.done():
            raise Gone(environment_id)
        child = await Child.start(environment_id, machine, command)
        self._commands.add(child)
        child.on_closed = self._commands.discard
        return child

    async def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogRecord]:
        await self._pass("logs", environment_id)
        machine = self._machine(environment_id)
        if tail is not None:
            after = max(after, len(machine.records) - tail)
        while True:
            for record in machine.records[after:]:
                after = record.sequence
                yield record
            if not follow or machine.is_gone or machine.exit.done():
                return
            written = machine.written
            if len(machine.records) == after and not machine.is_gone:
                await written.wait()

    async def log(self, environment_id: str, stream: str, lines: Sequence[str]) -> None:
        await self._pass("log", environment_id)
        self._machine(environment_id).write(stream, *lines)

    async def stats(self, environment_id: str) -> Stats:
        await self._pass("stats", environment_id)
        self._machine(environment_id)
        return Stats(125, 256 * 1024**2, 3 * 1024**2, 2)

    async def processes(self, environment_id: str) -> Sequence[Process]:
        await self._pass("processes", environment_id)
        self._machine(environment_id)
        return [
            Process(pid, 1, os.getuid(), "child", 1_000_000, 4096)
            for pid in _marked(environment_id)
        ]

    async def signal(self, environment_id: str, pid: int, number: int) -> None:
        await self._pass("signal", environment_id)
        self._machine(environment_id)
        if pid not in _marked(environment_id):
            raise Gone(f"no process {pid}")
        os.kill(pid, number)

    async def pause(self, environment_id: str) -> None:
        await self._pass("pause", environment_id)
        self._machine(environment_id).is_paused = True

    async def resume(self, environment_id: str) -> None:
        await self._pass("resume", environment_id)
        self._machine(environment_id).is_paused = False

    async def connect(self, environment_id: str, port: int) -> Connection:
        await self._pass("connect", environment_id)
        allowed = self._machine(environment_id).spec.network.allowed_ingress_ports
        if port not in allowed:
            raise Unusable("PORT_CLOSED", f"port {port} may not be reached; {allowed} may")
        sock = socket.socket()
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        except OSError:
            sock.close()
            raise Unusable("PORT_REFUSED", f"nothing answers on port {port}") from None
        return await line_of(sock)

    async def listen(self, environment_id: str, port: int) -> PortListener:
        await self._pass("listen", environment_id)
        ended = asyncio.ensure_future(asyncio.shield(self._machine(environment_id).exit))
        try:
            sock = socket.create_server(("127.0.0.1", port))
        except OSError:
            raise Unusable("PORT_IN_USE", f"port {port} is taken") from None
        sock.setblocking(False)
        return PortListener(sock, ended)

    async def change_network(self, environment_id: str, policy: NetworkPolicy) -> None:
        await self._pass("change_network", environment_id)
        machine = self._machine(environment_id)
        machine.spec = replace(machine.spec, network=policy)

    async def snapshot(self, environment_id: str, name: str) -> int:
        machine = self._machine(environment_id)
        machine.is_paused = True
        kept = self.host.folder / f"kept-{len(self.calls)}"
        try:
            await self._pass("snapshot", environment_id)
            shutil.copytree(machine.folder, kept)
        finally:
            machine.is_paused = False
        self.host.snapshots[name] = kept
        return sum(each.stat().st_size for each in kept.rglob("*") if each.is_file())

    async def delete(self, environment_id: str, *, grace_s: float) -> None:
        await self._pass("delete", environment_id)
        machine = self._machine(environment_id)
        if grace_s and "grace" in self.gates:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await self.gates["grace"].wait()
        _kill(environment_id)
        machine.is_gone = True
        machine.end(Exit(137, signal.SIGKILL))
        for task in machine.tasks:
            task.cancel()
        shutil.rmtree(machine.folder, ignore_errors=True)
        self.host.machines.pop(environment_id, None)

    async def list_owned(self) -> Sequence[Owned]:
        await self._pass("list_owned", "")
        return [
            Owned(name, not each.exit.done(), each.exit.result() if each.exit.done() else None)
            for name, each in self.host.machines.items()
        ]

    def _machine(self, environment_id: str) -> Machine:
        try:
            return self.host.machines[environment_id]
        except KeyError:
            raise Gone(environment_id) from None

    async def _pass(self, method: str, environment_id: str) -> None:
        self.calls.append((method, environment_id))
        if self.faults[method]:
            raise self.faults[method].pop(0)
        if method in self.gates:
            await self.gates[method].wait()


class Child:
    """A command as a child process, with every process it leaves behind."""

    def __init__(self, machine: Machine, marker: str, terminal: int | None) -> None:
        self._machine = machine
        self._marker = marker
        self._terminal = terminal
        self._items: asyncio.Queue[tuple[Stream, bytes] | None] = asyncio.Queue(64)
        self._process: asyncio.subprocess.Process
        self._pumps: list[asyncio.Task[None]] = []
        self.on_closed: Callable[[Child], None] = lambda _: None

    @classmethod
    async def start(cls, environment_id: str, machine: Machine, command: Command) -> Child:
        marker = f"{environment_id}.{time.monotonic_ns()}"
        home = str(machine.folder)
        env = {"PATH": os.environ["PATH"], "HOME": home} | dict(machine.spec.env)
        env |= dict(command.env) | {MARK: marker}
        if command.working_dir and not Path(command.working_dir).is_dir():
            raise Unusable("NO_SUCH_DIRECTORY", f"cannot work in {command.working_dir!r}")
        ours, theirs = pty.openpty() if command.tty else (None, None)
        child = cls(machine, marker, ours)
        if command.tty:
            await child.resize(*command.tty)
        pipe = asyncio.subprocess.PIPE if theirs is None else theirs
        try:
            child._process = await asyncio.create_subprocess_exec(
                *(() if theirs is None else ("setsid", "--ctty")),
                *command.argv,
                env=env,
                cwd=command.working_dir or home,
                start_new_session=theirs is None,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
            )
        except OSError as error:
            raise Unusable("NOT_EXECUTABLE", f"cannot run {command.argv[0]!r}: {error}") from None
        finally:
            if theirs is not None:
                os.close(theirs)
        child._pumps = [asyncio.create_task(each) for each in child._reading()]
        child._pumps.append(asyncio.create_task(child._finish()))
        return child

    def _reading(self) -> list[Any]:
        if self._terminal is not None:
            return [self._read_terminal(self._terminal)]
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        return [
            self._read_pipe(Stream.STDOUT, self._process.stdout),
            self._read_pipe(Stream.STDERR, self._process.stderr),
        ]

    async def _read_pipe(self, stream: Stream, pipe: asyncio.StreamReader) -> None:
        while data := await pipe.read(65_536):
            await self._items.put((stream, data))

    async def _read_terminal(self, terminal: int) -> None:
        while True:
            try:
                data = await asyncio.to_thread(os.read, terminal, 65_536)
            except OSError:  # its other end is closed
                return
            if not data:
                return
            await self._items.put((Stream.STDOUT, data))

    async def _ended(self) -> int:
        """Its return code; asyncio's own wait goes on while a child of it holds a pipe."""
        while (code := self._process.returncode) is None:
            await asyncio.sleep(0.003)
        return code

    async def _finish(self) -> None:
        await self._ended()
        await asyncio.wait(self._pumps[:-1], timeout=DRAIN_S)
        await self._items.put(None)

    async def read(self) -> tuple[Stream, bytes] | None:
        item = await self._items.get()
        if item is None:
            self._items.put_nowait(None)
        return item

    async def write(self, data: bytes) -> None:
        if self._terminal is not None:
            os.write(self._terminal, data)
            return
        assert self._process.stdin is not None
        with suppress(ConnectionError, RuntimeError):
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    async def close_input(self) -> None:
        if self._terminal is None:
            assert self._process.stdin is not None
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    async def signal(self, number: int) -> None:
        # One that has only just begun does not show its marker yet.
        own = [] if self._process.returncode is not None else [self._process.pid]
        for pid in {*own, *_marked(self._marker)}:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    async def wait(self) -> Exit:
        code = await self._ended()
        return Exit(128 - code, -code) if code < 0 else Exit(code)

    async def aclose(self) -> None:
        _kill(self._marker)
        if self._process.returncode is None:  # as with signals
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)  # its own `kill` would also wait for it
        await self._ended()
        if self._items.full():
            self._items.get_nowait()
        await asyncio.wait(self._pumps, timeout=DRAIN_S)
        for pump in self._pumps:
            pump.cancel()
        # A pipe that is full is not read to its end, and would stay open.
        self._process._transport.close()  # type: ignore[attr-defined]
        if self._terminal is not None:
            terminal, self._terminal = self._terminal, None
            with suppress(OSError):
                os.close(terminal)
        self.on_closed(self)


def _marked(marker: str) -> list[int]:
    """The processes that a machine or a command has, wherever they went."""
    wanted = f"{MARK}={marker}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(each == wanted or each.startswith(wanted + b".") for each in variables):
                found.append(int(entry.name))
    return found


def _kill(marker: str) -> None:
    while pids := [pid for pid in _marked(marker) if not _is_zombie(pid)]:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class ChildImages:
    """A catalogue that has every image but one, which can be removed as often as one likes."""

    def __init__(self, host: Host) -> None:
        self._snapshots = host.snapshots

    async def find(self, name: str) -> Any:
        if name.startswith(SNAPSHOTS) and name not in self._snapshots:
            raise Unusable("UNKNOWN_IMAGE", f"there is no image {name!r}")
        if name == "nothing":
            raise Unusable("UNKNOWN_IMAGE", "there is no image 'nothing'; there is python:3.11")
        return Image(name, "sha256:0", Path("/"))

    async def list(self) -> Sequence[Any]:
        return [await self.find(name) for name in ("python:3.11", *self._snapshots)]

    async def receive(self, content: AsyncIterator[bytes], *, name: str, most_bytes: int) -> Any:
        async for _ in content:
            pass
        return await self.find(name)

    async def remove(self, name: str) -> None:
        await self.find(name)
        if (kept := self._snapshots.pop(name, None)) is not None:
            shutil.rmtree(kept)

    async def clear(self) -> None:
        """There is nothing to clear."""


class ChildFiles:
    """The files below a machine's folder."""

    def __init__(self, driver: ChildDriver) -> None:
        self._driver = driver

    def _path(self, environment_id: str, path: str) -> Path:
        folder = self._driver._machine(environment_id).folder
        # Its processes know their files by where they are here.
        return Path(path) if Path(path).is_relative_to(folder) else folder / path.lstrip("/")

    def _info(self, environment_id: str, path: str) -> FileInfo:
        found = self._path(environment_id, path)
        try:
            stat = found.lstat()
        except OSError as error:
            raise _fault(error, path) from None
        kind = "link" if found.is_symlink() else "directory" if found.is_dir() else "file"
        return FileInfo(
            path,
            kind,
            stat.st_size,
            stat.st_mode & 0o7777,
            stat.st_uid,
            stat.st_gid,
            stat.st_mtime_ns // 1000,
        )

    async def stat(self, environment_id: str, path: str) -> FileInfo:
        return self._info(environment_id, path)

    async def list(self, environment_id: str, path: str) -> Sequence[FileInfo]:
        try:
            names = _names(self._path(environment_id, path))
        except OSError as error:
            raise _fault(error, path) from None
        return [self._info(environment_id, f"{path.rstrip('/')}/{name}") for name in names]

    async def read(
        self, environment_id: str, path: str, *, offset: int = 0
    ) -> AsyncIterator[bytes]:
        with self._path(environment_id, path).open("rb") as file:
            file.seek(offset)
            while data := file.read(1_000_000):
                yield data

    async def write(
        self, environment_id: str, path: str, content: AsyncIterator[bytes], *, mode: int = 0o644
    ) -> FileInfo:
        target = self._path(environment_id, path)
        draft = target.with_name(f".{target.name}.draft")
        try:
            with draft.open("wb") as file:
                async for data in content:
                    file.write(data)
            draft.chmod(mode)
            draft.replace(target)
        except OSError as error:
            raise _fault(error, path) from None
        finally:
            draft.unlink(missing_ok=True)
        return self._info(environment_id, path)

    async def make_directory(self, environment_id: str, path: str) -> FileInfo:
        try:
            self._path(environment_id, path).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _fault(error, path) from None
        return self._info(environment_id, path)

    async def remove(self, environment_id: str, path: str, *, recursive: bool) -> None:
        target = self._path(environment_id, path)
        try:
            if recursive and target.is_dir():
                shutil.rmtree(target)
            elif target.is_dir():
                target.rmdir()
            else:
                target.unlink()
        except OSError as error:
            raise _fault(error, path) from None

    async def move(self, environment_id: str, path: str, to: str) -> None:
        try:
            self._path(environment_id, path).rename(self._path(environment_id, to))
        except OSError as error:
            raise _fault(error, path) from None

    async def watch(self, environment_id: str, path: str) -> AsyncIterator[tuple[str, str]]:
        folder = self._path(environment_id, path)
        seen = set(_names(folder))
        while True:
            await asyncio.sleep(0.02)
            present = set(_names(folder))
            for name in sorted(present - seen):
                yield "created", f"{path.rstrip('/')}/{name}"
            for name in sorted(seen - present):
                yield "removed", f"{path.rstrip('/')}/{name}"
            seen = present


def _names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def _fault(error: OSError, path: str) -> FileFault:
    import errno

    kind = errno.errorcode.get(error.errno or 0, "EIO")
    return FileFault(kind, f"{path!r}: {error.strerror}")
