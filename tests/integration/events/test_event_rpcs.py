"""EventService over gRPC: the same events by the same rules as on the socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import orjson
import pytest

from steward.events.v1 import events_pb2 as pb
from steward.events.v1.events_pb2_grpc import EventServiceStub
from steward_server.events.config import EventsConfig
from steward_server.in_process import InProcess, InProcessStream
from steward_server.settings import Settings
from tests.integration.conftest import refusal_of
from tests.live import Live, create_agent, create_provider, live_server, live_settings
from tests.people import add_person
from tests.spending import Spender, borrow, spend_in_batches

SUBSCRIBE = "/steward.events.v1.EventService/Subscribe"
PATIENCE_S = 10


@pytest.fixture
async def spender(live: Live) -> Spender:
    await create_provider(live.admin)
    return await borrow(live, await create_agent(live.admin, budget_usd=10), 6)


def admin_of(live: Live) -> tuple[tuple[str, str], ...]:
    return (("authorization", live.admin.headers["authorization"]),)


class Reader:
    """A gRPC subscriber."""

    def __init__(self, live: Live, metadata: Any = None, **request: Any) -> None:
        stub = EventServiceStub(live.channel)
        self.call: Any = stub.Subscribe(
            pb.SubscribeRequest(**request), metadata=metadata or admin_of(live)
        )

    async def opened(self) -> Reader:
        """Wait until it is let in."""
        await self.call.initial_metadata()
        return self

    async def next(self) -> pb.Event:
        async with asyncio.timeout(PATIENCE_S):
            response = await self.call.read()
        assert response is not grpc.aio.EOF
        event: pb.Event = response.event
        return event

    async def until(self, last_id: str) -> list[pb.Event]:
        """Events up to the usage with this request id, included."""
        events = [await self.next()]
        while events[-1].cost_update.request_id != last_id:
            events.append(await self.next())
        return events


async def refused(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    return refusal_of(error.value)


async def test_a_cut_subscriber_resumes_without_loss_or_repetition(
    live: Live, spender: Spender
) -> None:
    ids = [f"call-{number}" for number in range(40)]
    whole = await Reader(live).opened()
    cut = await Reader(live).opened()
    for request_id in ids[:10]:
        await spender.spend(request_id)
    before = [await cut.next() for _ in range(7)]
    cut.call.cancel()
    spending = asyncio.gather(*(spender.spend(request_id) for request_id in ids[10:]))
    resumed = Reader(live, since=before[-1].sequence)
    await spending
    await spender.spend("last")
    after = await resumed.until("last")
    assert before + after == await whole.until("last")
    assert {event.cost_update.request_id for event in before + after} == {*ids, "last"}


async def test_everything_is_told_again_from_the_beginning(live: Live, spender: Spender) -> None:
    ids = [f"call-{number}" for number in range(2_500)]
    await spend_in_batches(live, spender, ids)
    events = await Reader(live, since=0, type=["CostUpdate"]).until(ids[-1])
    assert [event.cost_update.request_id for event in events] == ids


async def test_a_runtime_gets_its_own_events_alone(live: Live, spender: Spender) -> None:
    other = await borrow(live, await create_agent(live.admin))
    reader = await Reader(live, spender.agent.metadata).opened()
    await other.spend("theirs")
    await spender.spend("mine")
    assert (await reader.next()).cost_update.request_id == "mine"
    past = Reader(live, spender.agent.metadata, since=0)
    assert (await past.next()).cost_update.request_id == "mine"
    prying = Reader(live, spender.agent.metadata, agent_id=other.agent.agent_id)
    assert (await refused(prying.call)).reason == "AGENT_NOT_FOUND"


async def test_a_person_gets_the_events_of_agents_they_own(
    live: Live, tmp_path: Path, spender: Spender
) -> None:
    add_person(tmp_path / "data", "ada", "viewer")
    login = {"username": "ada", "password": "a long walk in the rain"}
    token = (await live.api.call("POST", "/api/auth/login", login)).body["access_token"]
    credential = (("authorization", f"Bearer {token}"),)
    prying = Reader(live, credential, agent_id=spender.agent.agent_id)
    assert (await refused(prying.call)).code is grpc.StatusCode.NOT_FOUND
    body = {"name": "hers", "budget_usd": 1, "owner_id": "user_ada"}
    hers = (await live.admin.call("POST", "/api/v1/agents", body)).body["id"]
    reader = await Reader(live, credential, since=0, agent_id=hers).opened()
    await spender.spend("other")
    started = pb.AgentStarted(runtime_id="r")
    token_answer = await live.admin.call("POST", "/api/tokens", {"agent_id": hers})
    await tell(
        live,
        (("x-ic-key", token_answer.body["token"]),),
        pb.ExchangeRequest(agent_started=started),
    )
    assert (await reader.next()).agent_started.runtime_id == "r"


async def tell(live: Live, metadata: Any, *requests: pb.ExchangeRequest) -> list[Any]:
    """Say all of this over one exchange; what is answered before it ends."""
    call: Any = EventServiceStub(live.channel).Exchange(iter(requests), metadata=metadata)
    return [response async for response in call]


async def test_what_a_runtime_tells_and_what_is_refused_over_one_exchange(
    live: Live, spender: Spender
) -> None:
    reader = await Reader(live, agent_id=spender.agent.agent_id).opened()
    answers = await tell(
        live,
        spender.agent.metadata,
        pb.ExchangeRequest(agent_started=pb.AgentStarted(runtime_id="r1", script="a.py")),
        pb.ExchangeRequest(),
        pb.ExchangeRequest(agent_id="other", agent_stopped=pb.AgentStopped(reason="exited")),
        pb.ExchangeRequest(
            cost_update=pb.CostUpdate(
                lease_id=spender.lease_id, request_id="c", model="own", cost_nanousd=7
            )
        ),
        pb.ExchangeRequest(
            agent_stopped=pb.AgentStopped(runtime_id="r1", reason="exited", exit_code=3)
        ),
    )
    reasons = [answer.refusal.message for answer in answers]
    assert len(reasons) == 2
    assert "holds no event" in reasons[0]
    assert "not 'other'" in reasons[1]
    told = [await reader.next() for _ in range(3)]
    assert [event.WhichOneof("data") for event in told] == [
        "agent_started",
        "cost_update",
        "agent_stopped",
    ]
    assert told[1].cost_update.cost_nanousd == 7
    status = await live.admin.call("GET", f"/api/agents/{spender.agent.agent_id}/status")
    assert status.body["exit_code"] == 3
    assert status.body["stopped_at"] is not None


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        ({"type": ["Gossip"]}, {"type"}),
        ({"type": ["CostUpdate", "usage"]}, {"type"}),
        ({"since": -1}, {"since"}),
    ],
)
async def test_a_subscription_that_cannot_be_is_refused(
    live: Live, request_: dict[str, Any], fields: set[str]
) -> None:
    refusal = await refused(Reader(live, **request_).call)
    assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.fields.keys() == fields


async def test_logout_and_rotation_end_streams(live: Live) -> None:
    agent = await create_agent(live.admin)
    person = await Reader(live).opened()
    runtime = await Reader(live, agent.metadata).opened()
    await live.admin.call("POST", f"/api/tokens/{agent.token_id}/rotate", {})
    assert (await refused(runtime.call)).reason == "CREDENTIAL_ENDED"
    await live.admin.call("POST", "/api/auth/logout", {})
    assert (await refused(person.call)).reason == "CREDENTIAL_ENDED"


async def test_heartbeats_tell_the_newest_number_that_was_passed(tmp_path: Path) -> None:
    settings = replace(Settings(), events=EventsConfig(heartbeat_s=0.05))
    async with live_server(live_settings(tmp_path / "data", settings)) as live:
        reader = await Reader(live, type=["BudgetWarning"]).opened()
        first = await reader.next()
        await create_agent(live.admin)
        beats = [await reader.next() for _ in range(2)]
    assert first.HasField("heartbeat")
    assert beats[-1].HasField("heartbeat")
    assert beats[-1].sequence > first.sequence
    assert beats[-1].timestamp.ToMicroseconds() > first.timestamp.ToMicroseconds()


async def test_a_slow_reader_is_told_of_its_gap_and_can_fill_it(tmp_path: Path) -> None:
    """Without a socket between, nothing but the bounded queue holds what is not read."""
    settings = replace(Settings(), events=EventsConfig(queue_events=10))
    async with live_server(live_settings(tmp_path / "data", settings)) as live:
        await create_provider(live.admin)
        spender = await borrow(live, await create_agent(live.admin, budget_usd=10))
        slow = subscribed(live)
        await slow.initial_metadata()
        await spender.spend("first")
        assert (await anext(slow)).event.cost_update.request_id == "first"  # type: ignore[attr-defined]
        quick = await Reader(live).opened()
        ids = [f"call-{number}" for number in range(30)]
        for request_id in ids:
            await spender.spend(request_id)
            assert (await quick.next()).cost_update.request_id == request_id
        gap, *late = [event async for event in taken(slow, 11)]
        await slow.aclose()
        missed = await Reader(live, since=gap.gap.from_sequence - 1).until(ids[19])

    assert [event.cost_update.request_id for event in late] == ids[20:]
    assert [event.cost_update.request_id for event in missed] == ids[:20]
    assert missed[0].sequence == gap.gap.from_sequence
    assert missed[-1].sequence == gap.gap.to_sequence == gap.sequence


def subscribed(live: Live) -> InProcessStream:
    transport = InProcess(live.running.dispatcher)
    return transport.stream(SUBSCRIBE, pb.SubscribeRequest(), metadata=admin_of(live))


async def taken(stream: InProcessStream, count: int) -> AsyncIterator[pb.Event]:
    for _ in range(count):
        response: Any = await anext(stream)
        yield response.event


async def test_events_over_plain_http_are_refused_before_they_begin(live: Live) -> None:
    bad = await live.admin.call("GET", "/api/v1/events?type=Gossip")
    nobody = await live.admin.call("GET", "/api/v1/events?agent_id=nobody")
    assert (bad.status, nobody.status) == (400, 404)
    assert bad.body["error"]["fields"].keys() == {"type"}


async def test_events_over_plain_http(live: Live, spender: Spender) -> None:
    headers = live.admin.headers | {"accept": "application/json"}
    url = f"{live.api.base_url}/api/v1/events?since=0&type=CostUpdate"
    async with live.api.session.get(url, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "application/x-ndjson")
        await spender.spend("call-1")
        async with asyncio.timeout(PATIENCE_S):
            line = await response.content.readline()
    assert orjson.loads(line)["cost_update"]["request_id"] == "call-1"


async def test_a_browser_that_connects_again_goes_on_after_the_last_event_it_saw(
    live: Live, spender: Spender
) -> None:
    headers = live.admin.headers | {"accept": "text/event-stream"}
    url = f"{live.api.base_url}/api/v1/events?since=0&type=CostUpdate"
    for number in range(1, 4):
        async with live.api.session.get(url, headers=headers) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            await spender.spend(f"call-{number}")
            async with asyncio.timeout(PATIENCE_S):
                event_id = (await response.content.readline()).removeprefix(b"id: ").strip()
                data = await response.content.readline()
        event = orjson.loads(data.removeprefix(b"data: "))
        assert event["cost_update"]["request_id"] == f"call-{number}"
        assert event["sequence"] == int(event_id)
        headers["Last-Event-ID"] = event_id.decode()


async def test_nothing_that_happens_after_a_stream_was_let_in_is_missed(
    live: Live, spender: Spender
) -> None:
    for number in range(20):
        reader = await Reader(live).opened()
        await spender.spend(f"call-{number}")
        assert (await reader.next()).cost_update.request_id == f"call-{number}"
        reader.call.cancel()


async def test_an_exchange_lets_in_whoever_waits_for_that_before_speaking(
    live: Live, spender: Spender
) -> None:
    call: Any = EventServiceStub(live.channel).Exchange(metadata=admin_of(live))
    async with asyncio.timeout(PATIENCE_S):
        await call.initial_metadata()
        await call.write(pb.ExchangeRequest(subscribe=pb.SubscribeRequest(since=0)))
        await spender.spend("call-1")
        assert (await call.read()).event.cost_update.request_id == "call-1"
    call.cancel()
