"""A terminal over WebSocket, as the guide's page opens it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp


class Terminal:
    """One open socket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, frame: Any) -> None:
        """Send a frame: bytes and text as they are, anything else as JSON."""
        if isinstance(frame, bytes):
            await self.socket.send_bytes(frame)
        elif isinstance(frame, str):
            await self.socket.send_str(frame)
        else:
            await self.socket.send_json(frame)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Every frame until it is closed."""
        async with asyncio.timeout(10):
            async for message in self.socket:
                yield message.json()

    async def type(self, text: str) -> None:
        await self.socket.send_json({"type": "stdin", "data": text})

    async def until(self, text: str) -> str:
        """What is written, up to a text."""
        seen = ""
        try:
            async with asyncio.timeout(10):
                while text not in seen:
                    frame = await self.socket.receive_json()
                    assert set(frame) == {"type", "data"}, frame
                    assert frame["type"] == "stdout", frame
                    seen += frame["data"]
        except TimeoutError:
            raise AssertionError(f"never seen: {text!r} in {seen!r}") from None
        return seen

    async def exit(self) -> Any:
        """The last frame."""
        async with asyncio.timeout(10):
            while True:
                frame = await self.socket.receive_json()
                if frame["type"] == "exit":
                    return frame


@asynccontextmanager
async def terminal(url: str, **options: Any) -> AsyncIterator[Terminal]:
    """Open one for the block; a refusal is a `WSServerHandshakeError`."""
    async with aiohttp.ClientSession() as session, session.ws_connect(url, **options) as socket:
        yield Terminal(socket)
