"""WebSocket frames that break RFC 6455, written by hand: each ends the socket with its code."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from steward_gateway.app import RunningGateway
from steward_gateway.config import GatewayConfig
from tests.raw_http import RawAnswer, RawHttp, exchange, get

pytestmark = pytest.mark.parametrize("transport", ["in_process"], indirect=True)

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
FINAL = 0x80
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
LIMIT = 1024 * 1024


def handshake(target: str, *lines: str, version: str = "13") -> str:
    asked = ("Upgrade: websocket", "Connection: Upgrade", KEY, f"Sec-WebSocket-Version: {version}")
    return get(target, *asked, *lines)


def frame(first: int, payload: bytes, *, masked: bool = True, size: int | None = None) -> bytes:
    """A frame whose length may be a lie."""
    length = len(payload) if size is None else size
    bit = 0x80 if masked else 0
    if length < 126:
        head = bytes((first, bit | length))
    elif length < 2**16:
        head = struct.pack("!BBH", first, bit | 126, length)
    else:
        head = struct.pack("!BBQ", first, bit | 127, length)
    return head + (bytes(4) if masked else b"") + payload  # masked with zeros it stays as it is


class Socket(RawHttp):
    """One open socket, read frame by frame."""

    async def open(self, target: str = "/ws/infer", *lines: str) -> RawAnswer:
        await self.send(handshake(target, *lines))
        answer = await self.answer()
        assert answer.status == 101
        return answer

    async def receive(self) -> tuple[int, bytes]:
        async with asyncio.timeout(20):
            first, second = await self.reader.readexactly(2)
            size = second & 0x7F
            if size > 125:
                size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
            return first & 0xF, await self.reader.readexactly(size)

    async def close_code(self) -> int:
        kind, payload = await self.receive()
        assert kind == CLOSE, (kind, payload)
        return int.from_bytes(payload[:2])


@pytest.fixture
async def socket(gateway: RunningGateway) -> AsyncIterator[Socket]:
    async with Socket(gateway.port) as socket:
        await socket.open()
        yield socket
    assert (await exchange(gateway.port, get("/v1/tools/t1"))).status == 200


SAY = b'{"observation":[1]}'

BROKEN = {
    "not masked": (frame(FINAL | TEXT, SAY, masked=False), 1002),
    "not masked ping": (frame(FINAL | PING, b"", masked=False), 1002),
    "reserved bit 1": (frame(FINAL | 0x40 | TEXT, SAY), 1002),
    "reserved bit 2": (frame(FINAL | 0x20 | TEXT, SAY), 1002),
    "reserved bit 3": (frame(FINAL | 0x10 | TEXT, SAY), 1002),
    "unknown kind": (frame(FINAL | 0x3, SAY), 1002),
    "unknown control kind": (frame(FINAL | 0xB, b""), 1002),
    "a ping of 126 bytes": (frame(FINAL | PING, b"x" * 126), 1002),
    "a close of 126 bytes": (frame(FINAL | CLOSE, b"\x03\xe8" + b"x" * 124), 1002),
    "a ping in parts": (frame(PING, b"x"), 1002),
    "a part of nothing": (frame(FINAL, SAY), 1002),
    "a new text within one": (frame(TEXT, SAY) + frame(FINAL | TEXT, SAY), 1002),
    "a close of one byte": (frame(FINAL | CLOSE, b"\x03"), 1002),
    "the close code 999": (frame(FINAL | CLOSE, struct.pack("!H", 999)), 1002),
    "the close code 1004": (frame(FINAL | CLOSE, struct.pack("!H", 1004)), 1002),
    "the close code 1005": (frame(FINAL | CLOSE, struct.pack("!H", 1005)), 1002),
    "a close without UTF-8": (frame(FINAL | CLOSE, b"\x03\xe8\xff"), 1007),
    "a text without UTF-8": (frame(FINAL | TEXT, b'"\xff"'), 1007),
    "a text with half a letter": (frame(TEXT, b'"\xc3') + frame(FINAL, b'"'), 1007),
    "a text that is too long": (frame(FINAL | TEXT, b"", size=LIMIT), 1009),
    "a text beyond 63 bits": (frame(FINAL | TEXT, b"", size=2**64 - 1), 1009),
    "parts that are too long": (
        frame(TEXT, b"x" * 700_000) + frame(0, b"", size=700_000),
        1009,
    ),
}


async def test_a_broken_frame_ends_the_socket_with_its_code(gateway: RunningGateway) -> None:
    codes = {}
    for shape, (sent, code) in BROKEN.items():
        async with Socket(gateway.port) as socket:
            await socket.open()
            await socket.send(sent)
            codes[shape] = await socket.close_code()
            await socket.send(frame(FINAL | CLOSE, struct.pack("!H", code)))
            assert await socket.ended()
    assert codes == {shape: code for shape, (_, code) in BROKEN.items()}
    assert (await exchange(gateway.port, get("/v1/tools/t1"))).status == 200


async def test_a_frame_that_comes_byte_by_byte_is_a_frame(socket: Socket) -> None:
    for byte in frame(FINAL | TEXT, SAY):
        await socket.send(bytes((byte,)))
        await asyncio.sleep(0.002)
    kind, payload = await socket.receive()
    assert (kind, json.loads(payload)["action"]) == (TEXT, 1)


async def test_parts_and_pings_between_them_are_one_text(socket: Socket) -> None:
    parts = [frame(TEXT, SAY[:5]), frame(FINAL | PING, b"p"), frame(0, SAY[5:9])]
    await socket.send(b"".join([*parts, frame(FINAL, SAY[9:])]))
    assert await socket.receive() == (PONG, b"p")
    kind, payload = await socket.receive()
    assert (kind, json.loads(payload)["action"]) == (TEXT, 1)


async def test_a_binary_frame_is_answered_and_the_socket_goes_on(socket: Socket) -> None:
    await socket.send(frame(FINAL | BINARY, SAY))
    _, payload = await socket.receive()
    assert "must be text" in json.loads(payload)["error"]
    await socket.send(frame(FINAL | TEXT, SAY))
    assert (await socket.receive())[0] == TEXT


HARMFUL = [
    "[" * 100_000,
    '{"observation":' * 50_000,
    '{"observation":[1],"observation":[2]}',
    '{"observation":[1e400]}',
    json.dumps({f"k{number}": 1 for number in range(20_000)}),
    "",
    "\0",
]


async def test_a_text_that_means_harm_is_answered_in_short(socket: Socket) -> None:
    for text in HARMFUL:
        await socket.send(frame(FINAL | TEXT, text.encode()))
        kind, payload = await socket.receive()
        assert kind == TEXT
        assert "error" in json.loads(payload)
        assert len(payload) < 3_000
    await socket.send(frame(FINAL | TEXT, SAY))
    assert (await socket.receive())[0] == TEXT


async def test_compression_is_never_agreed_to(gateway: RunningGateway) -> None:
    async with Socket(gateway.port) as socket:
        asked = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        answer = await socket.open("/ws/infer", asked)
        assert "sec-websocket-extensions" not in answer.headers


@pytest.mark.parametrize("reads", ["reads", "never reads"])
async def test_a_flood_of_pings_holds_nobody_else_up(
    socket: Socket, gateway: RunningGateway, reads: str
) -> None:
    pings = frame(FINAL | PING, b"x" * 100) * 10_000

    async def flood() -> None:
        for _ in range(5):
            await socket.send(pings)

    async def drop() -> None:
        while await socket.reader.read(65_536):
            pass

    flooding = [asyncio.create_task(flood())]
    if reads == "reads":
        flooding.append(asyncio.create_task(drop()))
    for _ in range(20):
        async with asyncio.timeout(30):
            assert (await exchange(gateway.port, get("/v1/tools/t1"))).status == 200
    for task in flooding:
        task.cancel()
    await asyncio.wait(flooding)


async def test_a_close_is_answered_whatever_its_reason(gateway: RunningGateway) -> None:
    for code in (1000, 1001, 1006, 3_999, 4_999):  # 1006 may not be sent, but does no harm
        async with Socket(gateway.port) as socket:
            await socket.open()
            await socket.send(frame(FINAL | CLOSE, struct.pack("!H", code) + b"bye"))
            assert await socket.close_code() == 1000
            assert await socket.ended()


HANDSHAKES = [
    (handshake("/ws/infer", version="8"), 426, "sec-websocket-version"),
    (handshake("/ws/infer").replace("13", "13, 8"), 426, "sec-websocket-version"),
    (handshake("/ws/infer").replace(KEY, "X-A: b"), 400, ""),
    (handshake("/ws/infer").replace(KEY, "Sec-WebSocket-Key: short"), 400, ""),
    (handshake("/ws/infer").replace("Connection: Upgrade", "X-A: b"), 400, ""),
    (handshake("/ws/infer").replace("GET", "POST"), 405, "allow"),
    (handshake("/ws/nothing"), 404, ""),
    (handshake("/ws/infer?x=1"), 422, ""),
]


async def test_a_handshake_that_is_none_is_a_plain_refusal(gateway: RunningGateway) -> None:
    for sent, status, told in HANDSHAKES:
        answer = await exchange(gateway.port, sent)
        assert answer.status == status, sent
        assert not told or told in answer.headers


ORIGINS = [
    ("http://x", 101),
    ("https://x", 101),
    ("https://app.example", 403),
    ("http://x:8080", 403),
    ("http://evil.x", 403),
    ("http://x.evil.example", 403),
    ("null", 403),
    ("x", 403),
    ("", 403),
]


async def test_a_page_of_another_site_opens_no_socket(gateway: RunningGateway) -> None:
    statuses = []
    for origin, _ in ORIGINS:
        async with RawHttp(gateway.port) as http:
            await http.send(handshake("/ws/terminal", f"Origin: {origin}"))
            answer = await http.answer()
        statuses.append((origin, answer.status))
        if answer.status == 403:
            assert "cors_origins" in answer.json["message"]
    assert statuses == ORIGINS


class TestNamedOrigins:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        named = frozenset({"https://app.example"})
        return GatewayConfig(cors_origins=named, half_close_grace_s=0.2, drain_grace_s=1)

    async def test_a_page_that_may_call_may_open_a_socket(
        self, http: aiohttp.ClientSession, core: Any
    ) -> None:
        async with http.ws_connect("/ws/infer", origin="https://app.example") as socket:
            await socket.send_json({"observation": [1]})
            assert (await socket.receive_json(timeout=30))["action"] == 1
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await http.ws_connect("/ws/infer", origin="https://evil.example")
        assert refused.value.status == 403
