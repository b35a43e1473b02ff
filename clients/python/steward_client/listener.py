"""An HTTP server on 127.0.0.1, on the low level of aiohttp: no routes, middlewares or logs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

MAX_BODY_BYTES = 64 * 2**20
"""A request larger than this is refused: pictures fit, whole libraries do not."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Listener:
    """Serves a handler. `cancels` says that a handler is cancelled when its caller goes away."""

    def __init__(self, handler: Handler, *, cancels: bool) -> None:
        self._handler = handler
        self._cancels = cancels
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(self, port: int = 0) -> None:
        """Listen; 0 picks a free port."""
        server = web.Server(
            self._handler,
            request_factory=_sized_request,
            handler_cancellation=self._cancels,
            access_log=None,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening and end every connection; may be called twice."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


def _sized_request(
    message: RawRequestMessage,
    payload: StreamReader,
    protocol: web.RequestHandler,
    writer: AbstractStreamWriter,
    task: asyncio.Task[None],
) -> web.BaseRequest:
    return web.BaseRequest(
        message,
        payload,
        protocol,
        writer,
        task,
        asyncio.get_running_loop(),
        client_max_size=MAX_BODY_BYTES,
    )
