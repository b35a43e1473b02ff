"""A command that runs in a machine, seen from the server: it holds the pipes' other ends."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import struct
import termios
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from steward_server.environments.driver import Exit, Gone, Stream
from steward_server.environments.sandbox.channel import Channel, readable, writable
from steward_server.environments.sandbox.inside.packets import close_all

READ_BYTES = 256 * 1024
DRAIN_S = 0.2
"""How long after a command's end its output is waited for that children hold open."""
_PIPE_BYTES = 256 * 1024
_LAST_WORD_S = 5


@dataclass(slots=True)
class Ends:
    """Our ends of a command's descriptors."""

    input: int
    outputs: dict[int, Stream]
    terminal: int = -1

    def take(self) -> set[int]:
        """All that are open: they are the caller's to close, and nobody else's to use."""
        fds = {self.input, self.terminal, *self.outputs} - {-1}
        self.input = self.terminal = -1
        self.outputs = {}
        return fds

    def close(self) -> None:
        for fd in self.take():
            os.close(fd)


def pipes() -> tuple[Ends, list[int]]:
    """Three pipes: our ends, and those of the command."""
    fds: list[int] = []
    try:
        for _ in range(3):
            fds += os.pipe2(os.O_CLOEXEC)
    except OSError:  # where descriptors are short, none may be lost
        close_all(fds)
        raise
    read_in, write_in, read_out, write_out, read_err, write_err = fds
    for fd in (write_in, read_out, read_err):
        os.set_blocking(fd, False)
    for fd in (read_in, read_out):
        with suppress(OSError):  # more than an ordinary user may have
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    ends = Ends(write_in, {read_out: Stream.STDOUT, read_err: Stream.STDERR})
    return ends, [read_in, write_out, write_err]


def terminal(master: int) -> Ends:
    """The one end of a terminal."""
    os.set_blocking(master, False)
    return Ends(master, {master: Stream.STDOUT}, master)


_KILLED = Exit(128 + signal.SIGKILL, signal.SIGKILL)


def _killed() -> asyncio.Future[Exit]:
    ended = asyncio.get_running_loop().create_future()
    ended.set_result(_KILLED)
    return ended


class RunningCommand:
    """The sandbox' `Running`."""

    def __init__(
        self,
        channel: Channel,
        ends: Ends,
        *,
        send: Callable[[int], Awaitable[None]],
        end: Callable[[], Awaitable[bool]],
    ) -> None:
        self._channel = channel
        self._ends = ends
        self._send = send
        self._end = end
        self._exit: asyncio.Future[Exit] = asyncio.get_running_loop().create_task(self._watch())
        self._closed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._turn = 0
        self._watching: dict[asyncio.Future[None], int] = {}  # what each waits for

    async def _watch(self) -> Exit:
        try:
            message, _ = await self._channel.receive()
            return Exit(message["exit"]["code"], message["exit"]["signal"] or None)
        except Gone:  # the whole machine is
            return _KILLED

    async def read(self) -> tuple[Stream, bytes] | None:
        while self._ends.outputs:
            found = self._read_now()
            if found is not None:
                return found
            if self._ends.outputs and not await self._readable():
                return None
        await asyncio.shield(self._exit)
        return None

    def _read_now(self) -> tuple[Stream, bytes] | None:
        """What is there; turns are taken, or a flood of one stream would hide the other."""
        fds = list(self._ends.outputs)
        self._turn += 1
        for place in range(len(fds)):
            fd = fds[(self._turn + place) % len(fds)]
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                if error.errno != errno.EIO:  # how a terminal says that nobody has it open
                    raise
                data = b""
            if data:
                return self._ends.outputs[fd], data
            self._end_of(fd)
        return None

    def _end_of(self, fd: int) -> None:
        del self._ends.outputs[fd]
        if fd != self._ends.terminal:
            os.close(fd)

    async def _readable(self) -> bool:
        """Wait for output; false if the command has ended and there will hardly be more."""
        async with self._watches({fd: readable(fd) for fd in self._ends.outputs}) as waits:
            first = asyncio.FIRST_COMPLETED
            if not self._exit.done():
                ends: list[asyncio.Future[Any]] = [*waits, self._exit, self._closed]
                await asyncio.wait(ends, return_when=first)
                if any(map(_is_ready, waits)):
                    return True
            if self._closed.done():
                return False
            await asyncio.wait([*waits, self._closed], timeout=DRAIN_S, return_when=first)
            return any(map(_is_ready, waits))

    @asynccontextmanager
    async def _watches(
        self, wanted: Mapping[int, Coroutine[Any, Any, None]]
    ) -> AsyncIterator[list[asyncio.Future[None]]]:
        """Wait for descriptors, in a way that whoever closes them can end."""
        waits: dict[asyncio.Future[None], int] = {
            asyncio.ensure_future(wait): fd for fd, wait in wanted.items()
        }
        self._watching |= waits
        try:
            yield list(waits)
        finally:
            await _cancel(waits)
            for wait in waits:
                del self._watching[wait]

    async def _close_all(self, fds: Collection[int]) -> None:
        """Close descriptors that nobody waits for any more: their numbers will be others'."""
        await _cancel([wait for wait, fd in self._watching.items() if fd in fds])
        close_all(list(fds))

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest and self._ends.input >= 0:
            try:
                rest = rest[os.write(self._ends.input, rest) :]
            except BlockingIOError:
                async with self._watches({self._ends.input: writable(self._ends.input)}) as waits:
                    await asyncio.wait([*waits, self._closed], return_when=asyncio.FIRST_COMPLETED)
            except OSError:  # it reads no more
                await self.close_input()

    async def close_input(self) -> None:
        if self._ends.terminal >= 0:
            await self.write(b"\x04")  # what Ctrl-D types
        elif self._ends.input >= 0:
            fd, self._ends.input = self._ends.input, -1
            await self._close_all([fd])

    async def resize(self, columns: int, rows: int) -> None:
        if self._ends.terminal >= 0:
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._ends.terminal, termios.TIOCSWINSZ, size)

    async def signal(self, number: int) -> None:
        if self._exit.done() or self._closed.done():
            return
        await self._send(number)

    async def wait(self) -> Exit:
        return await asyncio.shield(self._exit)

    async def aclose(self) -> None:
        if self._closed.done():
            return
        self._closed.set_result(None)
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        try:
            if await self._end():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORD_S):
                        await asyncio.shield(self._exit)
        finally:
            if not self._exit.done():  # the supervisor stands still with its machine
                watching, self._exit = self._exit, _killed()
                await _cancel([watching])
            await self._close_all(self._ends.take())
            self._channel.close()


def _is_ready(wait: asyncio.Future[None]) -> bool:
    return wait.done() and not wait.cancelled()


async def _cancel(waits: Iterable[asyncio.Future[Any]]) -> None:
    waits = list(waits)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
