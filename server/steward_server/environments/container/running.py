"""A command in a container: the engine starts it and passes on its streams."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import aiohttp
from aiodocker.exceptions import DockerError
from aiodocker.execs import Exec
from aiodocker.stream import Message
from aiodocker.stream import Stream as Hijacked

from steward_server.environments.container.engine import Engine
from steward_server.environments.container.reach import Reach
from steward_server.environments.driver import Command, Exit, Gone, Stream, Unusable
from steward_server.environments.sandbox.channel import readable
from steward_server.environments.sandbox.processes import open_pid

DRAIN_S = 0.2
"""How long after a command's end its output is waited for that children hold open."""
_LAST_WORD_S = 5
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.005, 0.1
_START_S = 30
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}
_NOT_STARTED = (126, 127)
_KILLED = Exit(128 + signal.SIGKILL, signal.SIGKILL)

# What engines and their runtimes say instead of running a command.
_RUNTIME = re.compile("OCI runtime|OCI permission|crun:|runc|exec failed|container_linux")
_NOT_RUNNING = re.compile("not running|on running containers|state improper")
_NO_DIRECTORY = re.compile("chdir|cwd|working directory", re.IGNORECASE)
_NO_PROCESSES = re.compile(
    "resource temporarily unavailable|cannot fork|can't fork|fork/exec.*unavailable|pids",
    re.IGNORECASE,
)


def exit_of(code: int) -> Exit:
    """How something ended, from the code that an engine tells: a signal is 128 and its number."""
    number = code - 128
    return Exit(code, number if 0 < number < signal.NSIG else None)


class EngineCommand:
    """The container driver's `Running`."""

    def __init__(
        self,
        exec_: Exec,
        stream: Hijacked,
        *,
        has_terminal: bool,
        signal_all: Callable[[int], None],
        end: Callable[[], Awaitable[bool]],
        pid: int,
        ended: Exit | None,
        before: Sequence[Message] = (),
    ) -> None:
        self._exec = exec_
        self._stream = stream
        self._has_terminal = has_terminal
        self._signal_all = signal_all
        self._end = end
        self._before = deque(before)
        self._next: asyncio.Task[Message | None] | None = None
        self._exit = asyncio.create_task(self._watch(pid, ended))
        self._is_closed = False

    async def _watch(self, pid: int, ended: Exit | None) -> Exit:
        if ended is not None:
            return ended
        fd = open_pid(pid)
        if fd is not None:
            try:
                await readable(fd)
            finally:
                os.close(fd)
        wait_s = _FIRST_LOOK_S
        while True:
            try:
                told = await self._exec.inspect()
            except DockerError:  # the whole container is gone, or its engine
                return _KILLED
            if not told["Running"]:
                return _KILLED if told["ExitCode"] is None else exit_of(told["ExitCode"])
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _LONGEST_LOOK_S)

    async def read(self) -> tuple[Stream, bytes] | None:
        while True:
            if self._before:
                first = self._before.popleft()
                return _STREAMS.get(first.stream, Stream.STDOUT), first.data
            if self._next is None:
                self._next = asyncio.create_task(self._read())
            if not self._next.done():
                await asyncio.wait({self._next, self._exit}, return_when=asyncio.FIRST_COMPLETED)
            if not self._next.done():
                await asyncio.wait({self._next}, timeout=DRAIN_S)
            if not self._next.done():
                return None
            if self._next.cancelled():  # by a close
                return None
            message = self._next.result()
            if message is None:
                await asyncio.shield(self._exit)
                return None
            self._next = None
            if message.data:
                return _STREAMS.get(message.stream, Stream.STDOUT), message.data

    async def _read(self) -> Message | None:
        try:
            return await self._stream.read_out()
        except (aiohttp.ClientError, OSError):
            return None

    async def write(self, data: bytes) -> None:
        if not data or self._is_closed or self._exit.done():
            return
        writing = asyncio.create_task(self._stream.write_in(data))
        try:
            await asyncio.wait({writing, self._exit}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)  # it reads no more

    async def close_input(self) -> None:
        if self._has_terminal:
            await self.write(b"\x04")  # what Ctrl-D types
            return
        response = self._stream._resp  # noqa: SLF001 - aiodocker closes both directions or none
        connection = response.connection if response is not None else None
        transport = connection.transport if connection is not None else None
        if transport is not None and transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()

    async def resize(self, columns: int, rows: int) -> None:
        if self._has_terminal and not self._exit.done():
            with suppress(DockerError):  # it ends at this moment
                await self._exec.resize(h=rows, w=columns)

    async def signal(self, number: int) -> None:
        if not self._exit.done() and not self._is_closed:
            self._signal_all(number)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            await asyncio.shield(self._close())

    async def _close(self) -> None:
        try:
            if await self._end():
                await asyncio.wait({self._exit}, timeout=_LAST_WORD_S)
        finally:
            if not self._exit.done():  # it stands still with its machine
                self._exit.cancel()
                self._exit = asyncio.create_task(_killed())
            if self._next is not None:
                self._next.cancel()
                await asyncio.gather(self._next, return_exceptions=True)
            await _close(self._stream)


async def _killed() -> Exit:
    return _KILLED


async def start(
    engine: Engine, container_id: str, reach: Reach, command: Command, body: dict[str, object],
    number: int, *, on_close: Callable[[], None],
) -> EngineCommand:  # fmt: skip
    """Run a command, and put it and what it starts into a group of its own.

    No other may be started in the container meanwhile.

    Raises:
        Gone: the container has ended.
        Unusable: reason NOT_EXECUTABLE, NO_SUCH_DIRECTORY or TOO_MANY_PROCESSES.
    """
    docker = engine.docker
    stream: Hijacked | None = None
    try:
        made = await engine.post(f"containers/{container_id}/exec", body)
        exec_ = Exec(docker, made["Id"], tty=command.tty is not None)
        stream = exec_.start()
        await stream.__aenter__()
        pid, ended = await _started(exec_)
        before: Sequence[Message] = ()
        if command.tty and ended is None:
            # Podman before 4.4 knows no size at the start.
            with suppress(DockerError):
                await exec_.resize(h=command.tty[1], w=command.tty[0])
        if ended is not None and ended.code in _NOT_STARTED and not pid:
            before = await _look_at_refusal(stream, command, str(body["WorkingDir"]))
        group = reach.take(number)
    except DockerError as error:
        await _close(stream)
        if error.status in (404, 409) or _NOT_RUNNING.search(error.message):
            raise Gone(f"there is no machine that runs: {error.message}") from None
        raise _refusal(error.message, command, str(body["WorkingDir"])) from None
    except FileNotFoundError:  # its control group
        await _close(stream)
        raise Gone("the machine has ended") from None
    except BaseException:
        await _close(stream)
        raise

    async def end() -> bool:
        on_close()
        return await reach.end(group)

    return EngineCommand(
        exec_,
        stream,
        has_terminal=command.tty is not None,
        signal_all=lambda signal_: reach.signal_command(group, signal_),
        end=end,
        pid=pid,
        ended=ended,
        before=before,
    )


async def _started(exec_: Exec) -> tuple[int, Exit | None]:
    """The pid of a command once it has one, or how it ended before that was seen."""
    wait_s = _FIRST_LOOK_S
    async with asyncio.timeout(_START_S):
        while True:
            told = await exec_.inspect()
            if told.get("Pid"):
                return told["Pid"], None if told["Running"] else exit_of(told["ExitCode"] or 0)
            if not told["Running"] and told.get("ExitCode") is not None:
                return 0, exit_of(told["ExitCode"])
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, _LONGEST_LOOK_S)


async def _look_at_refusal(
    stream: Hijacked, command: Command, working_dir: str
) -> Sequence[Message]:
    """Raise why a command did not run; what it wrote, if it did and was only short."""
    found = []
    with suppress(TimeoutError, aiohttp.ClientError):
        async with asyncio.timeout(DRAIN_S):
            while (message := await stream.read_out()) is not None:
                found.append(message)
    text = b"".join(message.data for message in found).decode(errors="replace")
    if _RUNTIME.search(text):
        raise _refusal(text, command, working_dir)
    return found


def _refusal(text: str, command: Command, working_dir: str) -> Unusable:
    short = text.strip().splitlines()[0][:500] if text.strip() else "its engine does not say why"
    if _NO_DIRECTORY.search(text):
        return Unusable("NO_SUCH_DIRECTORY", f"cannot work in {working_dir!r}: {short}")
    if _NO_PROCESSES.search(text):
        return Unusable("TOO_MANY_PROCESSES", f"the machine can start no more processes: {short}")
    return Unusable("NOT_EXECUTABLE", f"cannot run {command.argv[0]!r}: {short}")


async def _close(stream: Hijacked | None) -> None:
    if stream is not None:
        with suppress(aiohttp.ClientError, OSError, AssertionError):
            await stream.close()
