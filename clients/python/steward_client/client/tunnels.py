"""Ports here that lead into an environment, and ports inside that lead here.

They are served by an `AsyncClient`; for code without an event loop on a thread of its own.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from steward_client.client.aside import Aside
from steward_client.errors import StewardError, Unavailable

if TYPE_CHECKING:
    from steward_client.client.awaiting import AsyncClient
    from steward_client.client.calls import Awaiting
    from steward_client.client.environments_ports import PortConnection, PortListener

READ_BYTES = 262_144
OnError = Callable[[StewardError], None]


class AsyncTunnel(ABC):
    """A port that leads to another, until it is closed; an asynchronous context manager."""

    def __init__(self, client: AsyncClient, on_error: OnError) -> None:
        self.port = 0
        """Where it begins."""
        self._ports = client.environments
        self._on_error = on_error
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._relays: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def _stop(self) -> None:
        """Take no more connections."""

    async def wait(self) -> None:
        """Wait until it is closed.

        Raises:
            StewardError: it has ended by itself; the error says why.
        """
        await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Close it, with every connection; may be called twice."""
        if not self._ended.done():
            self._ended.set_result(None)
        await self._stop()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._relays.add(task)
        task.add_done_callback(self._relays.discard)


class Forward(AsyncTunnel):
    """A port here that leads to one inside."""

    def __init__(
        self,
        client: AsyncClient,
        environment_id: str,
        port: int,
        local_port: int,
        on_error: OnError,
    ) -> None:
        super().__init__(client, on_error)
        self._environment_id = environment_id
        self._inner_port = port
        self._local_port = local_port
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(
            lambda reader, writer: self._spawn(self._serve(reader, writer)),
            "127.0.0.1",
            self._local_port,
            limit=READ_BYTES,
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            connection = await self._ports.connect(self._environment_id, self._inner_port)
        except StewardError as error:
            writer.transport.abort()
            self._on_error(error)
        except BaseException:
            writer.transport.abort()
            raise
        else:
            await _relay(reader, writer, connection)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()


class Expose(AsyncTunnel):
    """A port inside that leads to one here."""

    def __init__(
        self,
        client: AsyncClient,
        environment_id: str,
        local: tuple[str, int],
        port: int,
        on_error: OnError,
    ) -> None:
        super().__init__(client, on_error)
        self._environment_id = environment_id
        self._local = local
        self._wanted_port = port
        self._listener: PortListener[Awaiting] | None = None
        self._accepting: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._listener = await self._ports.listen(
            self._environment_id, self._wanted_port, on_cut=self._on_error
        )
        self.port = self._listener.port
        self._accepting = asyncio.create_task(self._accept(self._listener))

    async def _accept(self, listener: PortListener[Awaiting]) -> None:
        try:
            async for connection_id in listener:
                self._spawn(self._serve(connection_id))
        except Exception as error:  # noqa: BLE001 - raised by whoever waits for the end
            if not self._ended.done():
                self._ended.set_exception(error)
                self._ended.exception()  # nobody may wait

    async def _serve(self, connection_id: str) -> None:
        try:
            connection = await self._ports.accept(connection_id)
        except StewardError as error:
            self._on_error(error)
            return
        try:
            reader, writer = await asyncio.open_connection(*self._local, limit=READ_BYTES)
        except OSError as error:
            connection.close()
            host, port = self._local
            self._on_error(Unavailable(f"nobody answers on {host}:{port}: {error}"))
        except BaseException:
            connection.close()
            raise
        else:
            await _relay(reader, writer, connection)

    async def _stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._accepting is not None:
            self._accepting.cancel()
            await asyncio.gather(self._accepting, return_exceptions=True)


async def _relay(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    connection: PortConnection[Awaiting],
) -> None:
    """Pass on bytes both ways, and the end of each; whatever goes wrong ends both."""

    async def inwards() -> None:
        while data := await reader.read(READ_BYTES):
            await connection.write(data)
        await connection.end()

    async def outwards() -> None:
        async for data in connection:
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(inwards())
            both.create_task(outwards())
        await connection.finish()
        writer.close()
        await writer.wait_closed()
    except* (StewardError, OSError):
        pass  # each end finds it cut off
    finally:
        connection.close()
        writer.transport.abort()  # who does not read what is left would keep it open


class Tunnel(Aside[AsyncTunnel]):
    """An `AsyncTunnel` for code without an event loop; a context manager."""

    @property
    def port(self) -> int:
        """Where it begins."""
        return self._lasting.port

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it is closed.

        Raises:
            StewardError: it has ended by itself; the error says why.
            TimeoutError: it has not ended in time.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError("the tunnel is still open")
        if self._error:
            raise self._error[0]
