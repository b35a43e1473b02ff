"""One agent for each WebSocket, with the token in every message."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.integration.inference.conftest import STATIC_TOKEN, Site

GOOD = {"observation": [1.0, 2.0, 3.0], "deterministic": True, "token": STATIC_TOKEN}


@asynccontextmanager
async def socket(site: Site) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    url = site.live.api.base_url + "/stream"
    async with site.live.api.session.ws_connect(url) as opened:
        yield opened


async def said(connection: aiohttp.ClientWebSocketResponse, message: Any) -> Any:
    text = message if isinstance(message, str) else json.dumps(message)
    await connection.send_str(text)
    return await connection.receive_json(timeout=30)


async def agents_of(site: Site) -> int:
    listed = await site.client.call("GET", "/api/v1/policies/adding")
    count: int = listed.body["versions"][0]["agent_count"]
    return count


async def test_each_connection_has_a_state_of_its_own(site: Site) -> None:
    async with socket(site) as first, socket(site) as second:
        assert await said(first, GOOD) == {
            "action": 2,
            "value": 6.0,
            "pressure": 6.0,
            "error": None,
        }
        assert (await said(first, GOOD))["value"] == 9.0
        assert (await said(second, GOOD))["value"] == 6.0
        assert await agents_of(site) == 2
    await until_gone(site)


async def until_gone(site: Site) -> None:
    async def gone() -> bool:
        return await agents_of(site) == 0

    for _ in range(100):
        if await gone():
            return
    pytest.fail("the state of a connection that is over is kept")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"observation": [1, 2, 3]}, "Missing 'token' field in message"),
        ({"token": STATIC_TOKEN}, "Missing 'observation' field"),
        ({"token": STATIC_TOKEN, "observation": []}, "Missing 'observation' field"),
        (
            {"token": STATIC_TOKEN, "observation": [1]},
            "Expected observation of length 3, got 1",
        ),
    ],
)
async def test_what_is_wrong_is_told_and_the_connection_goes_on(
    site: Site, message: Any, text: str
) -> None:
    async with socket(site) as connection:
        await said(connection, GOOD)
        told = await said(connection, message)
        assert told == {"action": None, "value": 0.0, "pressure": 0.0, "error": text}
        assert (await said(connection, GOOD))["value"] == 9.0


async def test_a_bad_token_is_told_and_many_end_the_connection(site: Site) -> None:
    async with socket(site) as connection:
        for _ in range(4):
            told = await said(connection, GOOD | {"token": "wrong"})
            assert told["error"].startswith("Authentication failed: ")
            assert told["action"] is None
        await connection.send_json(GOOD | {"token": "wrong"})
        closed = await connection.receive(timeout=30)
        assert closed.type is aiohttp.WSMsgType.CLOSE


@pytest.mark.parametrize("frame", ["no json", "[1]", '{"observation": "x"}', '{"unknown": 1}'])
async def test_what_is_no_message_is_told_and_keeps_no_state(site: Site, frame: str) -> None:
    async with socket(site) as connection:
        told = await said(connection, frame)
        assert told["error"]
        assert (await said(connection, GOOD))["value"] == 6.0
    await until_gone(site)
