"""Single calls: seen by their owners, for as long as they are kept."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.analytics.conftest import House
from tests.live import create_agent


async def listed(house: House, query: str = "") -> list[Any]:
    body = await house.ask(f"/api/v1/traces?{query}")
    assert body["next_page_token"] == ""
    return list(body["traces"])


async def test_a_booked_call_is_shown_with_all_that_was_reported(house: House) -> None:
    spender = await house.spender(lent_usd=1)
    body = {
        "lease_id": spender.lease_id,
        "request_id": "call-1",
        "model": "gpt-5",
        "input_tokens": 10,
        "output_tokens": 4,
        "cache_read_tokens": 3,
        "cost_usd": 1.5,
        "certainty": "counted",
        "duration_ms": 830,
        "timestamp": "2026-01-02T03:04:05Z",
    }
    assert (await spender.api.call("POST", "/api/budget/report", body)).status == 200
    (trace,) = await listed(house)
    recorded_at = trace.pop("recorded_at")
    assert recorded_at.startswith(house.event()["timestamp"][:19])
    assert trace == {
        "id": trace["id"],
        "agent_id": spender.agent.agent_id,
        "lease_id": spender.lease_id,
        "request_id": "call-1",
        "provider": "openai",
        "model": "gpt-5",
        "status": "completed",
        "billed": True,
        "input_tokens": 10,
        "output_tokens": 4,
        "cache_read_tokens": 3,
        "cache_write_tokens": 0,
        "total_tokens": 17,
        "cost_usd": 1.5,
        "overrun_usd": 0.5,
        "claimed_cost_usd": None,
        "certainty": "counted",
        "error_code": "",
        "error_message": "",
        "duration_ms": 830,
        "ended_at": "2026-01-02T03:04:05Z",
    }
    again = await spender.api.call("POST", "/api/budget/report", body | {"duration_ms": 1})
    assert again.status == 200  # how long it took makes it no other call
    shown = await house.ask(f"/api/v1/traces/{trace['id']}")
    assert shown == trace | {"recorded_at": recorded_at}


@pytest.mark.parametrize("duration_ms", [-1, 604_800_001])
async def test_no_call_takes_less_than_no_time(house: House, duration_ms: int) -> None:
    spender = await house.spender()
    body = {
        "lease_id": spender.lease_id,
        "request_id": "a",
        "model": "own",
        "cost_usd": 1,
        "duration_ms": duration_ms,
    }
    answer = await spender.api.call("POST", "/api/budget/report", body)
    assert (answer.status, list(answer.body["error"]["fields"])) == (400, ["duration_ms"])


async def test_a_failed_call_is_shown_with_its_error(house: House) -> None:
    agent = await create_agent(house.live.admin)
    failed = house.event(
        "f",
        event_type="llm_request_failed",
        error_code="429",
        error_message="slow down",
        duration_ms=12,
        cost_usd=0.5,
    )
    await house.tell(agent, failed)
    (trace,) = await listed(house, "status=failed")
    told = {name: trace[name] for name in ("status", "billed", "error_code", "error_message")}
    assert told == {
        "status": "failed",
        "billed": False,
        "error_code": "429",
        "error_message": "slow down",
    }
    assert (trace["cost_usd"], trace["claimed_cost_usd"], trace["duration_ms"]) == (0, 0.5, 12)
    assert await house.ask(f"/api/v1/traces/{trace['id']}") == trace
    assert await listed(house, "status=completed") == []


async def test_traces_are_chosen_and_paged(house: House) -> None:
    spender, other = await house.spender(), await house.spender()
    for number in range(5):
        house.clock.advance(1)
        await spender.spend(f"call-{number}")
        await house.tell(spender.agent, house.event(f"event-{number}"))
    await other.spend("call")
    names: list[str] = []
    token = ""
    while True:
        body = await house.ask(
            f"/api/v1/traces?agent_id={spender.agent.agent_id}&page_size=3&page_token={token}"
        )
        names += [trace["request_id"] for trace in body["traces"]]
        token = body["next_page_token"]
        if not token:
            break
    assert sorted(names) == [f"{kind}-{n}" for kind in ("call", "event") for n in range(5)]
    assert [name for name in names if name.startswith("call")] == [
        f"call-{number}" for number in (4, 3, 2, 1, 0)
    ]
    assert len(await listed(house, "model=own")) == 6
    assert len(await listed(house, "model=own&provider=openai")) == 6
    assert await listed(house, "provider=anthropic") == []
    for bad in (
        "page_token=nowhere",
        "page_token=WzEsIngiXQ",
        "page_size=1001",
        "status=odd",
        "since=yesterday",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
    ):
        answer = await house.live.admin.call("GET", f"/api/v1/traces?{bad}")
        assert answer.status == 400, bad


async def test_the_calls_of_others_are_not_there(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a")
    await house.tell(spender.agent, house.event())
    _, ann = await house.enter("ann")
    assert (await house.ask("/api/v1/traces", ann))["traces"] == []
    for trace in await listed(house):
        answer = await ann.call("GET", f"/api/v1/traces/{trace['id']}")
        assert (answer.status, answer.body["error"]["reason"]) == (404, "TRACE_NOT_FOUND")
    answer = await house.runtime(spender.agent).call("GET", "/api/v1/traces")
    assert answer.status == 403


@pytest.mark.parametrize("trace_id", ["trace_1", "trace_01", "1", "trace_", "trace_-5", "none"])
async def test_what_is_no_call_is_not_found(house: House, trace_id: str) -> None:
    spender = await house.spender()
    await spender.spend("a")
    answer = await house.live.admin.call("GET", f"/api/v1/traces/{trace_id}")
    assert (answer.status, answer.body["error"]["reason"]) == (404, "TRACE_NOT_FOUND")


async def test_traces_end_with_their_retention_and_sums_do_not(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a", "0.5")
    told = house.event("f", event_type="llm_request_failed", error_message="sad story")
    await house.tell(spender.agent, told)
    house.clock.advance(30 * 86_400 - 10)
    house.live.admin.headers.update((await house.live.api.sign_in()).headers)
    kept = await listed(house)
    assert len(kept) == 2
    house.clock.advance(20)
    assert await listed(house) == []
    for trace in kept:
        answer = await house.live.admin.call("GET", f"/api/v1/traces/{trace['id']}")
        assert answer.status == 404
    assert (await house.ask("spending/total"))["total_spend"] == 0.5
    assert (await house.tell(spender.agent, told))["duplicates"] == 1
