"""A run's way to the network: a SOCKS server on loopback that all its pages go through.

Here names are resolved, what they stand for is checked, and what was checked is connected to: no
redirect, no name that changes its meaning, no request of any kind gets around it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any
from urllib.parse import urlsplit

from steward_server.executions.steps.closed import is_closed

MAX_CONNECTIONS = 256
"""Of one run at a time; a browser opens 32 through a proxy."""

MAX_REASONS = 100
"""Failures that are remembered."""

RESOLVERS = 4
"""Names of one run that are resolved at a time."""

HANDSHAKE_S = 10.0
CONNECT_S = 10.0
"""To one address; a name may have several."""

CHUNK_BYTES = 65_536

_GRANTED, _NOT_ALLOWED, _UNREACHABLE = 0, 2, 4
_REFUSED, _UNKNOWN_COMMAND = 5, 7


class Unreachable(Exception):
    """There is no way there; the message says why."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Relay:
    """Connects the pages of one run, and remembers why it could not."""

    def __init__(self) -> None:
        # Its own: names that hang keep neither other runs waiting nor the server.
        self._resolver = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="page-names")
        self._reasons: dict[tuple[str, int], str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Relay]:
        """Listening; at the end every connection is closed."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"socks5://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._resolver.shutdown(wait=False, cancel_futures=True)

    def why(self, url: str) -> str:
        """Why the host of a URL could not be reached when it was last tried; else nothing."""
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            return ""
        return self._reasons.get((parts.hostname or "", port), "")

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._serve(reader, writer), name="page connection")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                target = await _asked(reader, writer)
            if target is None:
                writer.write(_reply(_UNKNOWN_COMMAND))
                return
            try:
                far_reader, far_writer = await self._connected(*target)
            except Unreachable as error:
                self._remember(target, str(error))
                writer.write(_reply(error.code))
                return
            self._reasons.pop(target, None)
            try:
                writer.write(_reply(_GRANTED))
                # Neither side of HTTP goes on when the other has ended.
                await _first(_pass_on(reader, far_writer), _pass_on(far_reader, writer))
            finally:
                far_writer.close()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _connected(
        self, host: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to one of the addresses of a host.

        Raises:
            Unreachable: there is none, or pages may not go there.
        """
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(
                self._resolver, socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM
            )
        except (OSError, UnicodeError):
            raise Unreachable(f"there is no host {host!r}", _UNREACHABLE) from None
        addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
        for address in addresses:
            if is_closed(ip_address(address)):
                where = host if host == address else f"{host}, which is {address},"
                message = f"{where} belongs to the cloud's metadata, which is closed to pages"
                raise Unreachable(message, _NOT_ALLOWED)
        problem = Unreachable(f"there is no host {host!r}", _UNREACHABLE)
        for address in addresses:
            try:
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection(address, port)
            except TimeoutError:
                problem = Unreachable(f"{host}:{port} does not answer", _UNREACHABLE)
            except ConnectionRefusedError:
                problem = Unreachable(f"{host}:{port} refuses connections", _REFUSED)
            except OSError as error:
                reason = errno.errorcode.get(error.errno or 0, "unknown")
                words = f"{host}:{port} cannot be reached: {error.strerror or reason}"
                problem = Unreachable(words, _UNREACHABLE)
        raise problem

    def _remember(self, target: tuple[str, int], reason: str) -> None:
        self._reasons.pop(target, None)
        self._reasons[target] = reason
        if len(self._reasons) > MAX_REASONS:
            del self._reasons[next(iter(self._reasons))]


async def _asked(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> tuple[str, int] | None:
    """Where a client of SOCKS wants to go; None if it wants anything else (RFC 1928)."""
    version, count = await reader.readexactly(2)
    if version != 5:
        raise EOFError
    await reader.readexactly(count)
    writer.write(b"\x05\x00")
    _, command, _, kind = await reader.readexactly(4)
    match kind:
        case 1:
            host = str(IPv4Address(await reader.readexactly(4)))
        case 3:
            (length,) = await reader.readexactly(1)
            host = (await reader.readexactly(length)).decode("ascii", "replace")
        case 4:
            host = str(IPv6Address(await reader.readexactly(16)))
        case _:
            return None
    port = int.from_bytes(await reader.readexactly(2), "big")
    return (host, port) if command == 1 else None


def _reply(code: int) -> bytes:
    return bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Do them until one has ended."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
