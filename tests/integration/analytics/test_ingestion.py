"""Events of LLM calls: taken once, and never money."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from steward.analytics.v1 import analytics_pb2 as pb
from steward.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from tests.integration.analytics.conftest import House
from tests.integration.conftest import refusal
from tests.live import create_agent

EVENTS = "/api/v1/analytics/events"


async def test_an_event_is_taken_once(house: House) -> None:
    agent = await create_agent(house.live.admin)
    first = await house.tell(agent, house.event())
    again = await house.tell(agent, {"events": [house.event()]})
    assert first == {"status": "accepted", "accepted": 1, "duplicates": 0, "rejected": []}
    assert again == {"status": "accepted", "accepted": 0, "duplicates": 1, "rejected": []}
    assert (await house.ask("usage/requests"))["total_requests"] == 1


async def test_the_same_id_is_another_agents_own(house: House) -> None:
    for _ in range(2):
        agent = await create_agent(house.live.admin)
        assert (await house.tell(agent, house.event()))["accepted"] == 1


async def test_another_event_under_the_same_id_is_refused(house: House) -> None:
    agent = await create_agent(house.live.admin)
    told = await house.tell(
        agent, {"events": [house.event(), house.event(input_tokens=1), house.event()]}
    )
    assert (told["status"], told["accepted"], told["duplicates"]) == ("partial", 1, 1)
    (rejected,) = told["rejected"]
    assert rejected["index"] == 1
    assert "another event has" in rejected["reason"]


async def test_what_is_wrong_with_one_event_refuses_that_one(house: House) -> None:
    agent = await create_agent(house.live.admin)
    clock = house.clock
    before = house.event()["timestamp"]
    events: list[dict[str, Any]] = [
        house.event("good"),
        house.event("negative", input_tokens=-1),
        house.event("x" * 101),
        house.event("odd", event_type="llm_request_pondered"),
        house.event("early", timestamp="2020-01-01T00:00:00Z"),
        house.event("costly", cost_usd=-0.5),
    ]
    clock.advance(-301)
    events.append(house.event("late", timestamp=before))
    told = await house.tell(agent, {"events": events})
    reasons = {each["index"]: each["reason"] for each in told["rejected"]}
    # Seen from five minutes before, what was good is in the future, too.
    assert 0 in reasons
    clock.advance(301)
    told = await house.tell(agent, {"events": events[:6]})
    reasons = {each["index"]: each["reason"] for each in told["rejected"]}
    assert told["accepted"] == 1
    assert reasons == {
        1: "input_tokens is -1; it must be from 0 to 1000000000000",
        2: "event_id has 101 characters; at most 100 are allowed",
        3: "event_type is 'llm_request_pondered'; it must be one of llm_request_completed, "
        "llm_request_failed",
        4: "timestamp is more than 400 days ago",
        5: "cost_usd is -500000000 nano-dollars; it must be from $0 to $1,000,000",
    }


async def test_an_event_that_stands_alone_is_refused_by_its_fields(house: House) -> None:
    agent = await create_agent(house.live.admin)
    body = house.event(model="", output_tokens=-3)
    answer = await house.runtime(agent).call("POST", EVENTS, body)
    assert answer.status == 400
    assert answer.body["error"]["code"] == "VALIDATION_ERROR"
    assert set(answer.body["error"]["fields"]) == {"model", "output_tokens"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"events": []},
        {"event_id": "a", "events": [{"event_id": "b"}]},
        {"events": [{"event_id": "a"}] * 1_001},
        {"events": [{"event_id": "a", "colour": "red"}]},
        {"event_id": "a", "cost_usd": "NaN"},
    ],
)
async def test_what_is_no_list_of_events_is_refused_whole(house: House, body: Any) -> None:
    agent = await create_agent(house.live.admin)
    answer = await house.runtime(agent).call("POST", EVENTS, body)
    assert answer.status == 400
    assert answer.body["error"]["fields"]


async def test_a_thousand_events_are_taken_in_one_go(house: House) -> None:
    agent = await create_agent(house.live.admin)
    events = [house.event(f"event-{number}") for number in range(1_000)]
    assert (await house.tell(agent, {"events": events}))["accepted"] == 1_000
    assert (await house.tell(agent, {"events": events}))["duplicates"] == 1_000


async def test_an_event_of_a_booked_call_adds_nothing(house: House) -> None:
    spender = await house.spender()
    await spender.spend("call-1", "0.25")
    before = await house.ask("usage/models")
    told = await house.tell(spender.agent, house.event("call-1", cost_usd=7))
    after = await house.ask("usage/models")
    assert (told["accepted"], told["duplicates"]) == (0, 1)
    assert after | {"calculated_at": ""} == before | {"calculated_at": ""}


async def test_a_call_told_of_first_counts_as_booked_once_it_is(house: House) -> None:
    spender = await house.spender()
    await house.tell(spender.agent, house.event("call-1", cost_usd=7))
    told_only = await house.ask("usage/requests")
    await spender.spend("call-1", "0.25")
    booked = await house.ask("usage/requests")
    again = await house.tell(spender.agent, house.event("call-1", cost_usd=7))

    assert (told_only["total_requests"], told_only["unbilled_requests"]) == (1, 1)
    assert (booked["total_requests"], booked["unbilled_requests"]) == (1, 0)
    assert again["duplicates"] == 1
    tokens = await house.ask("usage/tokens/by-agent")
    assert tokens["summary"]["total_tokens"] == 0
    assert (await house.ask("spending/total"))["total_spend"] == 0.25
    assert [trace["billed"] for trace in (await house.ask("/api/v1/traces"))["traces"]] == [True]


async def test_what_an_event_claims_to_have_cost_is_never_spending(house: House) -> None:
    spender = await house.spender()
    await spender.spend("call-1", "0.000000001")
    await house.tell(spender.agent, house.event("call-2", cost_usd=100))
    await house.tell(
        spender.agent,
        house.event("call-3", event_type="llm_request_failed", error_code="429", cost_usd=3),
    )
    assert (await house.ask("spending/total"))["total_spend"] == 1e-09
    assert (await house.ask("spending/by-agent"))["summary"]["total_spend"] == 1e-09
    status = await house.ask(f"/api/usage?agent_id={spender.agent.agent_id}")
    assert status["totals"]["spent"] == 1e-09
    requests = await house.ask("usage/requests")
    assert requests["failed_requests"] == 1
    assert requests["unbilled_requests"] == 1
    assert requests["success_rate"] == pytest.approx(200 / 3)


async def test_a_clock_that_runs_ahead_hides_no_call(house: House) -> None:
    agent = await create_agent(house.live.admin)
    house.clock.advance(250)
    ahead = house.event()
    house.clock.advance(-250)
    await house.tell(agent, ahead)
    assert (await house.ask("usage/requests?period=last-7-days"))["total_requests"] == 1


async def test_only_runtimes_tell_of_calls(house: House) -> None:
    answer = await house.live.admin.call("POST", EVENTS, house.event())
    assert (answer.status, answer.body["error"]["reason"]) == (403, "ROLE_NOT_ALLOWED")
    answer = await house.live.api.call("POST", EVENTS, house.event())
    assert answer.status == 401


async def test_a_moment_out_of_all_ranges_is_refused_over_grpc(house: House) -> None:
    agent = await create_agent(house.live.admin)
    stub: Any = AnalyticsServiceStub(house.live.channel)
    request = pb.IngestEventsRequest(
        event_id="a", event_type="llm_request_completed", model="m", provider="p"
    )
    for seconds in (2**62, -(2**62)):
        request.timestamp.seconds = seconds
        told = await refusal(stub.IngestEvents(request, metadata=agent.metadata))
        assert told.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(told.fields) == ["timestamp"]
