"""Bare clients for loads: general ones would cost more than the server they measure."""

from __future__ import annotations

import asyncio
from typing import Self

import orjson

HEAD_END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"
PING, PONG = 0x89, 0x8A


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time; answers must state their length."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, address: str) -> Self:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(lambda: cls(address), host, int(port))
        return connection

    def request(self, method: str, path: str, headers: dict[str, str], body: object) -> bytes:
        """The bytes of a request with a JSON body."""
        text = orjson.dumps(body)
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += ["Content-Type: application/json", f"Content-Length: {len(text)}", "", ""]
        return "\r\n".join(lines).encode() + text

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send and give status and body."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError("the server hung up")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(HEAD_END)
        if not found or self._answer is None:
            return
        lower = head.lower()
        at = lower.index(LENGTH) + len(LENGTH)
        end = lower.find(b"\r\n", at)
        length = int(lower[at:] if end < 0 else lower[at:end])
        if len(rest) >= length:
            self._received = rest[length:]
            self._answer.set_result((int(head[9:12]), rest[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))


class Socket(asyncio.Protocol):
    """One WebSocket; answers pings. Each message sent is answered by one, of less than 64 kB."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_open = False

    @classmethod
    async def open(cls, address: str, path: str) -> Self:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        _, socket = await loop.create_connection(cls, host, int(port))
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        head = (
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        answer = await socket._ask(head.encode())
        assert answer.startswith(b"HTTP/1.1 101"), answer
        socket._is_open = True
        return socket

    @staticmethod
    def message(body: object) -> bytes:
        """The frame of a JSON text, with a mask of zeros."""
        text = orjson.dumps(body)
        size = len(text)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        return b"\x81" + length + bytes(4) + text

    async def send(self, message: bytes) -> bytes:
        """Send a frame and give the text of the next."""
        return await self._ask(message)

    async def _ask(self, data: bytes) -> bytes:
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._is_open:
            self._read_frames()
        elif self._answer is not None:
            head, found, rest = self._received.partition(HEAD_END)
            if found:
                self._received = rest
                self._answer.set_result(head)

    def _read_frames(self) -> None:
        while len(received := self._received) >= 2:
            size, at = received[1] & 0x7F, 2
            if size == 126:
                size, at = int.from_bytes(received[2:4], "big"), 4
            if len(received) < at + size:
                return
            text = received[at : at + size]
            if received[0] == PING:
                assert self._transport is not None
                self._transport.write(bytes([PONG, 0x80 | size]) + bytes(4) + text)
            elif self._answer is not None and not self._answer.done():
                self._answer.set_result(text)
            else:
                return
            self._received = received[at + size :]

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server hung up"))
