"""What a caller is told when the gateway's own side breaks in the middle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from steward_gateway.app import build_app, serve_gateway
from steward_gateway.config import GatewayConfig
from steward_gateway.transport import Metadata


class BreakingStream:
    """Gives one message, then breaks as no transport should."""

    def __init__(self, message: Any) -> None:
        self._messages = [message]

    def __aiter__(self) -> BreakingStream:
        return self

    async def __anext__(self) -> Any:
        if self._messages:
            return self._messages.pop()
        raise RuntimeError("secret words of a program")

    async def initial_metadata(self) -> Metadata:
        return ()

    def trailing_metadata(self) -> Metadata:
        return ()

    async def aclose(self) -> None:
        self._messages.clear()


class BreakingTransport:
    def __init__(self, pb: Any) -> None:
        self._pb = pb

    async def unary(self, method: str, request: Any, **_: Any) -> Any:
        raise RuntimeError("secret words of a program")

    def stream(self, method: str, requests: Any, **_: Any) -> BreakingStream:
        tick = self._pb.Tick(number=1)
        return BreakingStream(self._pb.CountResponse(tick=tick))


@pytest.fixture
async def broken(workshop: Any) -> AsyncIterator[aiohttp.ClientSession]:
    gateway = build_app(
        BreakingTransport(workshop.pb),
        contracts=workshop.contracts,
        config=GatewayConfig(drain_grace_s=1),
    )
    running = await serve_gateway(gateway, port=0)
    headers = {"X-Request-Id": "r-7"}
    address = f"http://127.0.0.1:{running.port}"
    async with aiohttp.ClientSession(address, headers=headers) as session:
        yield session
    await running.stop()


INTERNAL = {
    "error": {"code": "INTERNAL_ERROR", "message": "internal error; quote request id r-7"},
}


async def test_a_broken_call_is_500_with_an_id_to_quote(broken: aiohttp.ClientSession) -> None:
    async with broken.get("/v1/tools/t1") as response:
        assert response.status == 500
        assert await response.json() == INTERNAL


async def test_a_broken_stream_ends_with_that_line(broken: aiohttp.ClientSession) -> None:
    async with broken.get("/v1/count?count=1") as response:
        first, last = (await response.text()).splitlines()
    assert json.loads(first)["number"] == 1
    assert json.loads(last) == INTERNAL


async def test_a_broken_socket_closes_with_that_reason(broken: aiohttp.ClientSession) -> None:
    async with broken.ws_connect("/ws/count/1") as socket:
        assert (await socket.receive_json(timeout=30))["number"] == 1
        message = await socket.receive(timeout=30)
        assert message.type is WSMsgType.CLOSE
        assert (message.data, message.extra) == (4013, "internal error; quote request id r-7")
