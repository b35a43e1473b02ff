"""Callers that are slow, silent or too many: bounded in time and in number."""

from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from steward_gateway.app import RunningGateway
from steward_gateway.config import GatewayConfig
from steward_gateway.connections import Gate
from tests.raw_http import RawHttp, exchange, get

pytestmark = pytest.mark.parametrize("transport", ["in_process"], indirect=True)


@pytest.fixture
def config() -> GatewayConfig:
    return GatewayConfig(head_timeout_s=0.4, body_timeout_s=0.4, drain_grace_s=1)


async def trickle(http: RawHttp, text: str) -> None:
    """A byte at a time, until the server has had enough."""
    for byte in text:
        await asyncio.sleep(0.02)
        if http.reader.at_eof() or http.writer.is_closing():
            return
        await http.send(byte)


@pytest.mark.parametrize(
    ("beginning", "rest"),
    [
        ("", "GET /" + "a" * 1_000),
        ("\r\n", "GET /" + "a" * 1_000),
        ("GET /v1/tools/t1 HTTP/1.1\r\nHost: x\r\n", "X-A: b\r\n" * 100),
    ],
)
async def test_a_head_that_trickles_is_cut_off(
    gateway: RunningGateway, beginning: str, rest: str
) -> None:
    begun_s = time.monotonic()
    async with RawHttp(gateway.port) as http:
        await http.send(beginning)
        trickling = asyncio.create_task(trickle(http, rest))
        answer = await http.answer()
        assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
        assert answer.headers["connection"] == "close"
        assert await http.ended()
        assert 0.3 < time.monotonic() - begun_s < 15  # the whole takes longer than that
        trickling.cancel()
    assert (await exchange(gateway.port, get("/v1/tools/t1"))).status == 200


async def test_so_it_is_after_other_requests_on_the_connection(gateway: RunningGateway) -> None:
    async with RawHttp(gateway.port) as http:
        for _ in range(3):
            await http.send(get("/v1/tools/t1"))
            assert (await http.answer()).status == 200
        await http.send("GET /v1/tools/t1 HTTP/1.1\r\n")
        assert (await http.answer()).status == 408
        assert await http.ended()


async def test_a_body_that_trickles_is_cut_off(gateway: RunningGateway) -> None:
    head = "POST /v1/tools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    for framing in ("Content-Length: 1000", "Transfer-Encoding: chunked"):
        async with RawHttp(gateway.port) as http:
            await http.send(f"{head}{framing}\r\n\r\n")
            trickling = asyncio.create_task(trickle(http, "1\r\n \r\n" * 100))
            answer = await http.answer()
            assert (answer.status, answer.code) == (408, "REQUEST_TIMEOUT")
            assert await http.ended()
            trickling.cancel()


async def test_a_socket_is_no_head_that_comes_too_slowly(
    gateway: RunningGateway, http: aiohttp.ClientSession
) -> None:
    async with http.ws_connect("/ws/infer") as socket:
        await asyncio.sleep(0.6)
        await socket.send_json({"observation": [1]})
        assert (await socket.receive_json(timeout=30))["action"] == 1


class TestPauses:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(head_timeout_s=2, drain_grace_s=1)

    async def test_one_within_the_bound_and_between_requests_is_no_harm(
        self, gateway: RunningGateway
    ) -> None:
        async with RawHttp(gateway.port) as http:
            for _ in range(2):
                await http.send("GET /v1/tools/t1 HTTP/1.1\r\n")
                await asyncio.sleep(0.02)
                await http.send("Host: x\r\n\r\n")
                assert (await http.answer()).status == 200
                await asyncio.sleep(2.2)


class TestCrowds:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(max_connections=5, drain_grace_s=1)

    async def test_one_too_many_is_told_so_and_closed(self, gateway: RunningGateway) -> None:
        crowd = [RawHttp(gateway.port) for _ in range(5)]
        for each in crowd:
            await each.__aenter__()
            await each.send(get("/v1/tools/t1"))
            assert (await each.answer()).status == 200
        for _ in range(3):
            async with RawHttp(gateway.port) as http:
                answer = await http.answer()
                assert (answer.status, answer.code) == (503, "UNAVAILABLE")
                assert answer.headers["retry-after"] == "1"
                assert await http.ended()
        for each in crowd:  # those who were first are served as before
            await each.send(get("/v1/tools/t1"))
            assert (await each.answer()).status == 200
            await each.__aexit__(None, None, None)
        async with asyncio.timeout(30):
            while (await exchange(gateway.port, get("/v1/tools/t1"))).status != 200:
                await asyncio.sleep(0.01)


def test_a_gate_counts_addresses_apart(transport: str) -> None:
    gate = Gate(4, 2)
    assert [gate.enter(address) for address in "aaabb"] == [True, True, False, True, True]
    assert not gate.enter("c")
    gate.leave("a")
    assert gate.enter("a")
    for address in "aabb":
        gate.leave(address)
    assert [gate.enter(address) for address in "ccc"] == [True, True, False]
