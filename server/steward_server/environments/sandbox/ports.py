"""Connections to ports inside a machine, and from a port inside to this server.

The machine needs no network for them: a process in it connects, or listens, and hands the socket
out.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

from steward_server.environments.driver import Connection, Gone, Unusable
from steward_server.environments.sandbox.channel import readable
from steward_server.environments.sandbox.inside.packets import close_all
from steward_server.environments.sandbox.worked import Worked

_READ_BYTES = 256 * 1024
_TRY_AGAIN_S = 0.1
_GONE_S = 1.0
_MOST_WORDS = 200
"""Characters of what it says went wrong."""


async def open_port(machine: Worked, port: int) -> Connection:
    """Connect to a port of a machine's own loopback.

    Raises:
        Unusable: reason PORT_REFUSED; nothing listens there.
    """
    sock, told = await _handed_out(machine, "connect", port)
    if sock is None:
        raise Unusable(
            "PORT_REFUSED",
            f"nothing answers on port {port} of environment {machine.name!r}: {told['error']}",
        )
    return await line_of(sock)


async def listen(machine: Worked, port: int, ended: Awaitable[Any]) -> PortListener:
    """Listen on a port of a machine's own loopback until it has ended; 0: any that is free.

    Raises:
        Unusable: reason PORT_IN_USE, or PORT_REFUSED; it is not for the machine's user.
    """
    watch = asyncio.ensure_future(ended)
    try:
        sock, told = await _handed_out(machine, "listen", port)
        if sock is None:
            is_taken = told["errno"] == errno.EADDRINUSE
            raise Unusable(
                "PORT_IN_USE" if is_taken else "PORT_REFUSED",
                f"environment {machine.name!r} cannot listen on port {port}: {told['error']}; "
                "take another, above 1023, or 0 for one that is free",
            )
    except BaseException:
        watch.cancel()
        raise
    return PortListener(sock, watch)


async def _handed_out(
    machine: Worked, work: str, port: int
) -> tuple[socket.socket | None, dict[str, Any]]:
    """A socket that a process in the machine has made; None, and why there is none.

    Commands of the machine may have got hold of that process: its answer is not believed.
    """
    channel = await machine.connect()
    fds: list[int] = []
    try:
        told, fds = await channel.ask(
            {
                "op": "files",
                "work": work,
                "path": "/",
                "port": port,
                "user": machine.record.user,
                "group": machine.record.group,
            }
        )
        # Until whoever has made it is gone, a port that is let go of is not free.
        with suppress(Gone, TimeoutError):
            async with asyncio.timeout(_GONE_S):
                _, more = await channel.receive()
                fds += more
    except BaseException:
        close_all(fds)
        raise
    finally:
        channel.close()
    if "errno" in told:
        close_all(fds)
        return None, {"errno": told["errno"], "error": str(told.get("error"))[:_MOST_WORDS]}
    if (sock := _socket_of(fds)) is None:
        close_all(fds)
        return None, {"errno": errno.EIO, "error": "it has meddled with who works for it"}
    return sock, told


def _socket_of(fds: list[int]) -> socket.socket | None:
    """The one descriptor as a socket, if it is of TCP on the loopback."""
    if len(fds) != 1:
        return None
    try:
        sock = socket.socket(fileno=fds[0])
    except OSError:
        return None
    if (sock.family, sock.type) != (socket.AF_INET, socket.SOCK_STREAM):
        sock.detach()
        return None
    sock.setblocking(False)
    return sock


class PortListener:
    """The sandbox' `Listener`."""

    def __init__(self, sock: socket.socket, ended: asyncio.Future[Any]) -> None:
        self.port: int = sock.getsockname()[1]
        self._socket = sock
        self._ended = ended  # else an open socket would keep a dead machine's network
        self._waiting: asyncio.Future[None] | None = None

    def __aiter__(self) -> PortListener:
        return self

    async def __anext__(self) -> Connection:
        while not self._ended.done():
            try:
                sock, _ = self._socket.accept()
            except BlockingIOError:
                await self._wait()
            except OSError:  # the connection has gone, or this server has too many files open
                await asyncio.sleep(_TRY_AGAIN_S)
            else:
                sock.setblocking(False)
                return await line_of(sock)
        raise StopAsyncIteration

    async def _wait(self) -> None:
        self._waiting = asyncio.ensure_future(readable(self._socket.fileno()))
        try:
            await asyncio.wait({self._waiting, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._watch_no_more()

    async def _watch_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)

    async def aclose(self) -> None:
        self._ended.cancel()
        await self._watch_no_more()  # before its number may be another's
        self._socket.close()


async def line_of(sock: socket.socket) -> Connection:
    """Both halves of a socket, which is theirs from now on."""
    reader, writer = await asyncio.open_connection(sock=sock, limit=_READ_BYTES)
    # What was written is then with the kernel, and arrives even if this end lets go at once.
    writer.transport.set_write_buffer_limits(0)
    line = _Line(reader, writer)
    return line, line


class _Line:
    """Both halves of a connection. It is over once each has ended, or the reading one is closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._all_read = self._all_written = False

    def __aiter__(self) -> _Line:
        return self

    async def __anext__(self) -> bytes:
        data = b"" if self._all_read else await self._reader.read(_READ_BYTES)
        if not data:
            self._all_read = True
            self._let_go()
            raise StopAsyncIteration
        return data

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        if not self._all_written:
            self._all_written = True
            with suppress(OSError, RuntimeError):  # it was broken off
                self._writer.write_eof()
            self._let_go()

    def _let_go(self) -> None:
        if self._all_read and self._all_written:
            self._writer.close()

    async def aclose(self) -> None:
        self._all_read = self._all_written = True
        self._writer.transport.abort()
