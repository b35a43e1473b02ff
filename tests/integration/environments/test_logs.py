"""Logs: read as JSON, followed as server-sent events, resumed, and their end."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from steward_gateway.config import GatewayConfig
from tests.integration.environments.conftest import Site, Sites, until
from tests.live import Api

LOGS = "/api/v1/environments/{}/logs"


class Events:
    """Server-sent events of one answer, read one by one."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def next(self) -> dict[str, str]:
        """The fields of the next event; comments are passed over."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(10):
            while True:
                line = (await self.answer.content.readline()).decode()
                assert line, "the stream has ended"
                if line == "\n":
                    if fields:
                        return fields
                elif not line.startswith(":"):
                    name, _, text = line.rstrip("\n").partition(": ")
                    fields[name] = text


def follow(api: Api, environment_id: str, query: str = "", **headers: str) -> Any:
    path = f"{api.base_url}{LOGS.format(environment_id)}?follow=true{query}"
    sent = api.headers | {name.replace("_", "-"): text for name, text in headers.items()}
    return api.session.get(path, headers=sent)


async def test_lines_of_the_main_command_and_of_others_are_read(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "echo Starting; sleep 600"])
    await site.run(environment_id, "sh", "-c", "echo out; echo warning >&2; printf rest")

    async def lines() -> Any:
        answer = await site.admin.call("GET", f"{LOGS.format(environment_id)}?tail=100")
        return answer.body["logs"] if len(answer.body["logs"]) == 4 else None

    found = await until(lines, "they are there")
    assert {(each["stream"], each["message"]) for each in found} == {
        ("stdout", "Starting"),
        ("stdout", "out"),
        ("stderr", "warning"),
        ("stdout", "rest"),
    }
    assert all(set(each) == {"timestamp", "stream", "message"} for each in found)
    assert all(each["timestamp"].endswith("Z") for each in found)


async def test_tail_timestamps_and_after_choose_what_is_shown(site: Site) -> None:
    environment_id = await site.running()
    site.driver.host.machines[environment_id].write("stdout", *"abcde")
    path = LOGS.format(environment_id)

    async def messages(query: str) -> list[str]:
        answer = await site.admin.call("GET", f"{path}?{query}")
        assert answer.status == 200, answer
        return [each["message"] for each in answer.body["logs"]]

    assert await messages("") == ["a", "b", "c", "d", "e"]
    assert await messages("tail=2") == ["d", "e"]
    assert await messages("tail=0") == []
    assert await messages("after=3") == ["d", "e"]
    answer = await site.admin.call("GET", f"{path}?timestamps=false&follow=false")
    assert answer.body["logs"][0] == {"timestamp": None, "stream": "stdout", "message": "a"}
    assert answer.body["last_sequence"] == 5
    answer = await site.admin.call("GET", f"{path}?after=5")
    assert (answer.body["logs"], answer.body["last_sequence"]) == ([], 5)


@pytest.mark.parametrize("query", ["tail=-1", "tail=x", "after=-1", "follow=maybe", "colour=red"])
async def test_a_wrong_query_is_refused(site: Site, query: str) -> None:
    environment_id = await site.running()
    answer = await site.admin.call("GET", f"{LOGS.format(environment_id)}?{query}")
    assert answer.status == 400
    assert query.partition("=")[0] in answer.body["message"]
    refused = await site.admin.call("GET", f"{LOGS.format(environment_id)}?follow=true&tail=-1")
    assert refused.status == 400


async def test_following_sends_the_events_the_guide_prints(site: Site) -> None:
    environment_id = await site.running()
    machine = site.driver.host.machines[environment_id]
    machine.write("stdout", "Line 0", "Line 1")
    async with follow(site.admin, environment_id, "&tail=1") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = Events(answer)
        first = await events.next()
        machine.write("stderr", "Warning: something happened")
        second = await events.next()
    assert first["id"] == "2"
    data = json.loads(first["data"])
    assert (data["stream"], data["message"]) == ("stdout", "Line 1")
    assert list(data) == ["timestamp", "stream", "message"]
    assert json.loads(second["data"])["message"] == "Warning: something happened"


async def test_a_quiet_stream_sends_comments_and_is_not_cut_short(sites: Sites) -> None:
    def hurried(**chosen: Any) -> GatewayConfig:
        return GatewayConfig(**chosen | {"unary_timeout_s": 0.2, "heartbeat_s": 0.1})

    sites.monkeypatch.setattr("steward_server.doors.GatewayConfig", hurried)
    async with sites.open() as site:
        environment_id = await site.running()
        async with follow(site.admin, environment_id) as answer, asyncio.timeout(10):
            for _ in range(4):
                assert (await answer.content.readline()).startswith(b":")
                assert await answer.content.readline() == b"\n"
            site.driver.host.machines[environment_id].write("stdout", "at last")
            assert json.loads((await Events(answer).next())["data"])["message"] == "at last"


async def test_a_reader_who_comes_back_goes_on_where_it_was(site: Site) -> None:
    environment_id = await site.running()
    machine = site.driver.host.machines[environment_id]
    machine.write("stdout", "a", "b", "c")
    async with follow(site.admin, environment_id, "&tail=3", Last_Event_ID="2") as answer:
        event = await Events(answer).next()
    assert (event["id"], json.loads(event["data"])["message"]) == ("3", "c")


async def test_the_end_says_why(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "echo last words; sleep 0.3; exit 2"])
    async with follow(site.admin, environment_id) as answer:
        events = Events(answer)
        assert json.loads((await events.next())["data"])["message"] == "last words"
        end = await events.next()
        assert await answer.content.read() == b""
    assert end["event"] == "end"
    assert json.loads(end["data"]) == {
        "reason": "its main command ended with exit code 2",
        "status": "failed",
    }
    # And so for who comes later.
    async with follow(site.admin, environment_id) as answer:
        events = Events(answer)
        assert json.loads((await events.next())["data"])["message"] == "last words"
        assert (await events.next())["event"] == "end"


async def test_a_deletion_ends_the_stream(site: Site) -> None:
    environment_id = await site.running()
    async with follow(site.admin, environment_id) as answer:
        await site.admin.call("DELETE", f"/api/v1/environments/{environment_id}")
        end = await Events(answer).next()
    assert json.loads(end["data"]) == {"reason": "it was deleted", "status": None}


async def test_what_is_pending_is_followed_from_its_beginning(site: Site) -> None:
    site.driver.gates["create"] = asyncio.Event()
    environment_id = await site.create(command=["sh", "-c", "echo first; sleep 600"])
    async with follow(site.admin, environment_id) as answer:
        site.driver.gates["create"].set()
        assert json.loads((await Events(answer).next())["data"])["message"] == "first"


async def test_ndjson_is_sent_to_who_asks_for_it(site: Site) -> None:
    environment_id = await site.create(command=["sh", "-c", "echo one"])
    await site.becomes(environment_id, "terminated")
    async with follow(site.admin, environment_id, Accept="application/x-ndjson") as answer:
        lines = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert lines[0]["message"] == "one"
    assert lines[1] == {"end": {"reason": "its main command ended", "status": "terminated"}}


async def test_a_refusal_before_the_first_event_is_a_plain_answer(site: Site) -> None:
    async with follow(site.admin, "env-nothing") as answer:
        assert answer.status == 404
        assert (await answer.json())["code"] == 404


async def test_an_answer_holds_the_newest_lines_that_fit(site: Site) -> None:
    environment_id = await site.running()
    machine = site.driver.host.machines[environment_id]
    machine.write("stdout", *(f"{n:04}" + "x" * 10_000 for n in range(400)))
    answer = await site.admin.call("GET", LOGS.format(environment_id))
    assert answer.status == 200
    assert answer.body["truncated"] is True
    assert answer.body["logs"][-1]["message"].startswith("0399")
    assert answer.body["last_sequence"] == 400


async def test_a_number_of_a_log_that_was_lost_is_before_everything(site: Site) -> None:
    environment_id = await site.running()
    site.driver.host.machines[environment_id].write("stdout", "a", "b")

    page = await site.admin.call("GET", f"{LOGS.format(environment_id)}?after=900")
    assert [each["message"] for each in page.body["logs"]] == ["a", "b"]
    async with follow(site.admin, environment_id, Last_Event_ID="900") as answer:
        assert (await Events(answer).next())["id"] == "1"
