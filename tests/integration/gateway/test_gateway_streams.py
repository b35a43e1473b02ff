"""Server streams over plain HTTP: a line of JSON per message, or server-sent events."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from steward_gateway.app import RunningGateway
from steward_gateway.config import GatewayConfig

Http = aiohttp.ClientSession


async def lines(response: aiohttp.ClientResponse) -> list[Any]:
    return [json.loads(line) async for line in response.content]


async def test_each_message_is_a_line(http: Http) -> None:
    async with http.get("/v1/count?count=3") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "application/x-ndjson"
        assert response.headers["x-accepted"] == "yes"
        assert [line["number"] for line in await lines(response)] == [1, 2, 3]


async def test_a_line_is_sent_before_the_next_is_made(http: Http, core: Any) -> None:
    async with http.get("/v1/count?count=1&hold=true") as response:
        assert json.loads(await response.content.readline())["number"] == 1
        core.release.set()
        assert await response.content.read() == b""


async def test_a_failure_later_is_the_last_line(http: Http) -> None:
    async with http.get("/v1/count?count=1&fail=5") as response:
        assert response.status == 200
        assert (await lines(response))[1] == {
            "error": {"code": "NOT_FOUND", "message": "told to fail"}
        }


async def test_a_refusal_is_an_http_status(http: Http) -> None:
    async with http.get("/v1/count?refuse=true") as response:
        assert response.status == 401
        assert (await response.json())["error"]["message"] == "who are you?"


async def test_a_reader_who_leaves_cancels_the_stream(http: Http, core: Any) -> None:
    response = await http.get("/v1/count?count=1&hold=true")
    await response.content.readline()
    assert await asyncio.wait_for(core.started.get(), 30) == "holding"
    response.close()
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"


async def test_a_deadline_ends_a_stream(http: Http) -> None:
    headers = {"X-Request-Timeout": "0.3"}
    async with http.get("/v1/count?count=1&hold=true", headers=headers) as response:
        assert (await lines(response))[-1]["error"]["code"] == "DEADLINE_EXCEEDED"


async def test_a_stream_without_a_word_is_opened_all_the_same(http: Http, core: Any) -> None:
    async with http.get("/v1/count?hold=true") as response:
        assert response.status == 200
        core.release.set()
        assert await lines(response) == []


async def test_head_of_a_stream_has_no_body(http: Http) -> None:
    async with http.head("/v1/count?count=3") as response:
        assert response.status == 200
        assert await response.read() == b""


async def test_a_slow_reader_holds_the_core_back(http: Http, core: Any) -> None:
    count = 20_000
    async with http.get(f"/v1/count?count={count}&padding_bytes=10000") as response:
        await response.content.readline()
        before = -1
        while core.counted != before:  # until the core no longer gets anywhere
            before = core.counted
            await asyncio.sleep(0.2)
        assert core.counted < count / 2


async def test_the_gateway_stops_a_stream_with_a_last_line(
    http: Http, gateway: RunningGateway, core: Any
) -> None:
    async with http.get("/v1/count?count=1&hold=true") as response:
        await response.content.readline()
        assert await asyncio.wait_for(core.started.get(), 30) == "holding"
        await gateway.stop()
        assert json.loads(await response.content.readline())["error"]["code"] == "UNAVAILABLE"
    assert await asyncio.wait_for(core.cancelled.get(), 30) == "count"


EVENTS = {"Accept": "text/event-stream"}


async def test_events_are_sent_to_who_accepts_them(http: Http) -> None:
    async with http.get("/v1/count?count=2&fail=8", headers=EVENTS) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        text = await response.text()
    first, second, failure, end = text.split("\n\n")
    assert json.loads(first.removeprefix("id: 1\ndata: "))["number"] == 1
    assert json.loads(second.removeprefix("id: 2\ndata: "))["number"] == 2
    assert failure.startswith("event: error\ndata: ")
    assert end == ""


async def test_a_browser_that_connects_again_goes_on_where_it_was(http: Http) -> None:
    again = {**EVENTS, "Last-Event-ID": "2"}
    async with http.get("/v1/count?count=3&after=0", headers=again) as response:
        assert (await response.text()).startswith("id: 3\ndata: ")


@pytest.mark.parametrize("left_at", ["two", "2147483648", "-2147483649", "1.0", "0x1"])
async def test_a_place_where_no_stream_was_left_is_refused(http: Http, left_at: str) -> None:
    again = {**EVENTS, "Last-Event-ID": left_at}
    async with http.get("/v1/count?count=3", headers=again) as response:
        assert response.status == 400
        assert list((await response.json())["error"]["fields"]) == ["Last-Event-ID"]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("text/event-stream", "text/event-stream"),
        ("Text/Event-Stream", "text/event-stream"),
        ("text/event-stream, */*;q=0.1", "text/event-stream"),
        ("text/event-stream;q=0, */*", "application/x-ndjson"),
        ("text/event-stream, application/x-ndjson", "text/event-stream"),
        ("text/event-stream;q=0.5, application/x-ndjson", "application/x-ndjson"),
        ("text/event-stream;q=0.5, application/json;q=0.6", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("application/json", "application/x-ndjson"),
    ],
)
async def test_the_form_of_a_stream_is_chosen_by_accept(
    http: Http, accept: str, content_type: str
) -> None:
    async with http.get("/v1/count?count=1", headers={"Accept": accept}) as response:
        assert response.headers["Content-Type"] == content_type


async def test_a_stream_in_a_form_that_nobody_makes_is_406(http: Http, core: Any) -> None:
    async with http.get("/v1/count?count=1", headers={"Accept": "text/html"}) as response:
        assert response.status == 406
    assert core.counted == 0


async def test_the_gateway_stops_events_with_a_last_event(
    http: Http, gateway: RunningGateway, core: Any
) -> None:
    async with http.get("/v1/count?count=1&hold=true", headers=EVENTS) as response:
        assert await asyncio.wait_for(core.started.get(), 30) == "holding"
        await gateway.stop()
        last = (await response.text()).split("\n\n")[-2]
    assert last.startswith("event: error\ndata: ")
    assert json.loads(last.removeprefix("event: error\ndata: "))["error"]["code"] == "UNAVAILABLE"


async def test_credentials_may_come_in_the_query_of_a_stream(http: Http) -> None:
    async with http.get("/v1/count?count=1&token=abc&api_key=k&ticket=t") as response:
        assert response.status == 200


class TestQuietEvents:
    @pytest.fixture
    def config(self) -> GatewayConfig:
        return GatewayConfig(heartbeat_s=0.05, accept_timeout_s=1, drain_grace_s=2)

    async def test_comments_keep_quiet_events_alive(self, http: Http) -> None:
        async with http.get("/v1/count?hold=true", headers=EVENTS) as response:
            assert await asyncio.wait_for(response.content.readline(), 30) == b": alive\n"
