"""`/ws` as dashboards and runtimes use it."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from steward_server.events.config import EventsConfig
from steward_server.settings import Settings
from tests.e2e.curl import TIME, differences, error, invalid
from tests.live import Agent, Live, create_agent, create_provider, live_server, live_settings
from tests.people import add_person
from tests.spending import Spender, borrow, spend_in_batches

Socket = aiohttp.ClientWebSocketResponse
PATIENCE_S = 10


def event(kind: str, agent: Agent, data: Any) -> dict[str, Any]:
    """The shape of an event."""
    return {
        "type": kind,
        "event_id": str,
        "sequence": int,
        "timestamp": TIME,
        "agent_id": agent.agent_id,
        "data": data,
    }


def of_the_stream(kind: str, data: Any) -> dict[str, Any]:
    """The shape of what the stream itself says."""
    return {
        "type": kind,
        "event_id": "",
        "sequence": int,
        "timestamp": TIME,
        "agent_id": "",
        "data": data,
    }


def refusal(shape: dict[str, Any]) -> dict[str, Any]:
    """The shape of a refused frame."""
    return {"type": "Error", **shape}


def assert_like(shape: Any, frame: Any) -> None:
    assert list(differences(shape, frame, "frame")) == [], frame


async def receive(socket: Socket) -> Any:
    return await socket.receive_json(timeout=PATIENCE_S)


async def receive_until(socket: Socket, last_id: str) -> list[Any]:
    """Frames up to the CostUpdate of this request, included."""
    frames: list[Any] = []
    while not frames or frames[-1]["data"].get("request_id") != last_id:
        frames.append(await receive(socket))
    return frames


async def closing(socket: Socket) -> tuple[int | None, str | None]:
    message = await socket.receive(timeout=PATIENCE_S)
    assert message.type is WSMsgType.CLOSE, message
    return socket.close_code, message.extra


def admin_header(live: Live) -> dict[str, str]:
    return {"Authorization": live.admin.headers["authorization"]}


def jwt_of(live: Live) -> str:
    return live.admin.headers["authorization"].removeprefix("Bearer ")


@asynccontextmanager
async def listening(live: Live, query: str = "", **options: Any) -> AsyncIterator[Socket]:
    """A dashboard's socket."""
    url = f"ws://{live.running.http_address}/ws{query}"
    options = {"headers": admin_header(live)} | options
    async with live.api.session.ws_connect(url, **options) as socket:
        yield socket


@pytest.fixture
async def spender(live: Live) -> Spender:
    await create_provider(live.admin)
    return await borrow(live, await create_agent(live.admin, budget_usd=10), 6)


async def test_the_four_events_have_the_shape_of_the_contract(live: Live, spender: Spender) -> None:
    agent = spender.agent
    async with (
        listening(live) as dashboard,
        listening(live, headers={"X-IC-Key": agent.ic_token}) as runtime,
    ):
        await runtime.send_json(
            {
                "type": "AgentStarted",
                "agent_id": agent.agent_id,
                "data": {
                    "runtime_id": "r1",
                    "runtime_version": "0.1.0",
                    "script": "scout.py",
                    "budget_usd": 6,
                },
            }
        )
        await runtime.send_json(
            {
                "type": "CostUpdate",
                "agent_id": agent.agent_id,
                "data": {
                    "lease_id": spender.lease_id,
                    "request_id": "call-1",
                    "model": "gpt-4o",
                    "input_tokens": 1_000,
                    "output_tokens": 500,
                    "cost_usd": 5.000000001,
                },
            }
        )
        await runtime.send_json(
            {
                "type": "PiiAlert",
                "agent_id": agent.agent_id,
                "data": {
                    "request_id": "call-1",
                    "direction": "output",
                    "action": "redact",
                    "findings": [{"kind": "email", "count": 2}, {"kind": "iban", "count": 1}],
                },
            }
        )
        frames = [await receive(dashboard) for _ in range(4)]
        echoed = [await receive(runtime) for _ in range(4)]

    started = {
        "runtime_id": "r1",
        "runtime_version": "0.1.0",
        "script": "scout.py",
        "budget_usd": 6,
    }
    cost = {
        "lease_id": spender.lease_id,
        "request_id": "call-1",
        "provider": "openai",
        "model": "gpt-4o",
        "input_tokens": 1_000,
        "output_tokens": 500,
        "cost_usd": 5.000000001,
        "spent_usd": 5.000000001,
        "remaining_usd": 4,
        "lease_remaining_usd": 0.999999999,
    }
    warning = {
        "threshold_percent": 50,
        "spent_usd": 5.000000001,
        "limit_usd": 10,
        "scope": f"agent:{agent.agent_id}",
    }
    alert = {
        "request_id": "call-1",
        "direction": "output",
        "action": "redact",
        "findings": [{"kind": str, "count": int}],
    }
    assert_like(event("AgentStarted", agent, started), frames[0])
    assert_like(event("CostUpdate", agent, cost), frames[1])
    assert_like(event("BudgetWarning", agent, warning), frames[2])
    assert_like(event("PiiAlert", agent, alert), frames[3])
    assert frames[3]["data"]["findings"] == [
        {"kind": "email", "count": 2},
        {"kind": "iban", "count": 1},
    ]
    assert echoed == frames
    status = await live.admin.call("GET", f"/api/agents/{agent.agent_id}/status")
    assert status.body["status"] == "running"
    assert status.body["budget"]["spent_usd"] == 5.000000001


async def test_a_cut_reader_resumes_without_loss_or_repetition(
    live: Live, spender: Spender
) -> None:
    ids = [f"call-{number}" for number in range(60)]
    async with listening(live) as whole:
        async with listening(live) as cut:
            for request_id in ids[:20]:
                await spender.spend(request_id)
            before = [await receive(cut) for _ in range(7)]
            assert cut._response.connection is not None
            transport = cut._response.connection.transport
            assert transport is not None
            transport.abort()
        spending = asyncio.gather(*(spender.spend(request_id) for request_id in ids[20:]))
        async with listening(live, f"?since={before[-1]['sequence']}") as resumed:
            await spending
            await spender.spend("last")
            after = await receive_until(resumed, "last")
        everything = await receive_until(whole, "last")

    assert before + after == everything
    sequences = [frame["sequence"] for frame in everything]
    assert sequences == sorted(set(sequences))
    assert {frame["data"]["request_id"] for frame in everything} == {*ids, "last"}


async def test_filters_by_type_and_agent(live: Live, spender: Spender) -> None:
    other = await borrow(live, await create_agent(live.admin, budget_usd=10), 6)
    mine = f"?agent_id={spender.agent.agent_id}"
    async with (
        listening(live, mine) as of_agent,
        listening(live, "?type=BudgetWarning") as of_type,
        listening(live, f"{mine}&type=CostUpdate&type=PiiAlert") as of_both,
    ):
        await other.spend("theirs", 5)
        await spender.spend("mine", 5)
        assert [(await receive(of_agent))["type"] for _ in range(2)] == [
            "CostUpdate",
            "BudgetWarning",
        ]
        warned = [(await receive(of_type))["agent_id"] for _ in range(2)]
        assert warned == [other.agent.agent_id, spender.agent.agent_id]
        assert (await receive(of_both))["data"]["request_id"] == "mine"


@pytest.mark.parametrize(
    ("query", "shape"),
    [
        ("?type=Gossip", invalid("type")),
        ("?since=-1", invalid("since")),
        ("?agent_id=nobody", error("NOT_FOUND", "AGENT_NOT_FOUND", details={"agent": "nobody"})),
    ],
)
async def test_a_subscription_that_cannot_be_is_told_so_and_may_be_mended(
    live: Live, spender: Spender, query: str, shape: dict[str, Any]
) -> None:
    async with listening(live, query) as socket:
        assert_like(refusal(shape), await receive(socket))
        await socket.send_json({"type": "Subscribe", "data": {"since": 0, "type": ["CostUpdate"]}})
        await spender.spend("call-1")
        assert (await receive(socket))["data"]["request_id"] == "call-1"


@pytest.mark.parametrize("query", ["?since=x", "?colour=red", "?since=9223372036854775808"])
async def test_a_query_that_cannot_be_read_is_refused_before_the_upgrade(
    live: Live, query: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with listening(live, query):
            pass
    assert refused.value.status == 400


async def test_a_new_subscription_takes_the_place_of_the_old(live: Live, spender: Spender) -> None:
    async with listening(live, "?type=CostUpdate") as socket:
        await spender.spend("first", 1)
        assert (await receive(socket))["data"]["request_id"] == "first"
        await socket.send_json({"type": "Subscribe", "data": {"type": ["BudgetWarning"]}})
        await socket.send_json({"type": "AgentStopped", "data": {}})
        assert (await receive(socket))["error"]["reason"] == "ROLE_NOT_ALLOWED"
        await spender.spend("second", 5)
        assert (await receive(socket))["type"] == "BudgetWarning"


async def test_nothing_that_happens_after_the_upgrade_is_missed(
    live: Live, spender: Spender
) -> None:
    for number in range(20):
        async with listening(live) as socket:
            await spender.spend(f"call-{number}")
            assert (await receive(socket))["data"]["request_id"] == f"call-{number}"


# Who may see what.


async def test_people_see_the_agents_they_own_and_administrators_all(
    live: Live, tmp_path: Path, spender: Spender
) -> None:
    ada_id = add_person(tmp_path / "data", "ada", "user")
    add_person(tmp_path / "data", "bob", "viewer")
    body = {"name": "hers", "budget_usd": 10, "owner_id": ada_id}
    made = await live.admin.call("POST", "/api/v1/agents", body)
    token = await live.admin.call("POST", "/api/tokens", {"agent_id": made.body["id"]})
    hers = await borrow(live, Agent(made.body["id"], token.body["id"], token.body["token"]))
    ada = {"Authorization": f"Bearer {await sign_in(live, 'ada')}"}
    bob = {"Authorization": f"Bearer {await sign_in(live, 'bob')}"}
    async with (
        listening(live, headers=ada) as ada_socket,
        listening(live, "?since=0", headers=bob) as bob_socket,
        listening(live) as admin_socket,
        listening(live, f"?agent_id={spender.agent.agent_id}", headers=ada) as prying,
    ):
        no_agent = error("NOT_FOUND", "AGENT_NOT_FOUND", details={"agent": str})
        assert_like(refusal(no_agent), await receive(prying))
        await spender.spend("other")
        await hers.spend("hers")
        assert (await receive(ada_socket))["data"]["request_id"] == "hers"
        seen = [(await receive(admin_socket))["data"]["request_id"] for _ in range(2)]
        assert seen == ["other", "hers"]
        # Had bob seen anything, it would come before the answer to this.
        await bob_socket.send_json({"type": "AgentStopped", "data": {}})
        assert (await receive(bob_socket))["type"] == "Error"
    async with listening(live, "?since=0", headers=ada) as ada_socket:
        assert (await receive(ada_socket))["data"]["request_id"] == "hers"


async def sign_in(live: Live, username: str) -> str:
    login = {"username": username, "password": "a long walk in the rain"}
    return str((await live.api.call("POST", "/api/auth/login", login)).body["access_token"])


async def test_a_jwt_comes_by_header_query_or_subprotocol(live: Live) -> None:
    token = jwt_of(live)
    ways: list[tuple[str, dict[str, Any], str | None]] = [
        ("", {}, None),
        (f"?token={token}", {"headers": {}}, None),
        ("", {"headers": {}, "protocols": ("Authorization", f"Bearer {token}")}, "Authorization"),
        ("", {"headers": {}, "protocols": ("Authorization", token)}, "Authorization"),
    ]
    for query, options, agreed in ways:
        async with listening(live, query, **options) as socket:
            assert socket.protocol == agreed
            await socket.send_json({"type": "Nothing"})
            assert (await receive(socket))["type"] == "Error"


@pytest.mark.parametrize(
    "options",
    [
        {"headers": {}},
        {"headers": {"Authorization": "Bearer a.b.c"}},
        {"headers": {"X-IC-Key": "ic_nonsense"}},
        {"headers": {}, "protocols": ("Authorization",)},
        {"headers": {}, "protocols": ("Authorization", "a.b.c")},
    ],
)
async def test_without_a_good_credential_there_is_no_upgrade(
    live: Live, options: dict[str, Any]
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with listening(live, **options):
            pass
    assert refused.value.status == 401


async def test_a_token_without_the_scope_is_refused_before_the_upgrade(live: Live) -> None:
    agent = await create_agent(live.admin)
    await live.admin.call("DELETE", f"/api/tokens/{agent.token_id}")
    body = {"agent_id": agent.agent_id, "scopes": ["budget"]}
    token = (await live.admin.call("POST", "/api/tokens", body)).body["token"]
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        async with listening(live, headers={"X-IC-Key": token}):
            pass
    assert refused.value.status == 403


async def test_logout_ends_the_socket(live: Live) -> None:
    async with listening(live) as socket:
        assert (await live.admin.call("POST", "/api/auth/logout", {})).status == 204
        assert await closing(socket) == (4016, "CREDENTIAL_ENDED")


async def test_a_revoked_token_ends_the_socket(live: Live) -> None:
    agent = await create_agent(live.admin)
    async with listening(live, headers={"X-IC-Key": agent.ic_token}) as socket:
        await live.admin.call("DELETE", f"/api/tokens/{agent.token_id}")
        assert await closing(socket) == (4016, "CREDENTIAL_ENDED")


# What runtimes send.


async def test_a_refused_frame_is_told_and_the_socket_goes_on(live: Live, spender: Spender) -> None:
    other = await create_agent(live.admin)
    usage = {"lease_id": spender.lease_id, "request_id": "c", "model": "own", "cost_usd": 0.1}
    alert = {"request_id": "c", "direction": "input", "action": "alert"}
    refused: list[tuple[str | bytes | dict[str, Any], dict[str, Any]]] = [
        ("{", error("VALIDATION_ERROR")),
        (b"\x00", error("VALIDATION_ERROR")),
        ("[]", error("VALIDATION_ERROR")),
        ({"type": "Gossip", "data": {}}, invalid("type")),
        ({"data": {}}, invalid("type")),
        ({"type": "BudgetWarning", "data": {}}, invalid("type")),
        ({"type": "AgentStarted", "data": {"colour": "red"}}, invalid("data.colour")),
        ({"type": "CostUpdate", "data": usage | {"cost_usd": -1}}, invalid("cost_usd")),
        ({"type": "CostUpdate", "data": usage | {"cost_usd": "NaN"}}, invalid("data.cost_usd")),
        ({"type": "CostUpdate", "data": usage | {"request_id": ""}}, invalid("request_id")),
        (
            {"type": "CostUpdate", "data": usage | {"lease_id": "none"}},
            error("NOT_FOUND", "LEASE_NOT_FOUND", details={"lease": "none"}),
        ),
        ({"type": "PiiAlert", "data": alert}, invalid("findings")),
        (
            {"type": "PiiAlert", "data": alert | {"findings": [{"kind": "email", "count": 0}]}},
            invalid("findings[0].count"),
        ),
        ({"type": "AgentStopped", "data": {"reason": "bored"}}, invalid("reason")),
        (
            {"type": "AgentStarted", "agent_id": other.agent_id, "data": {}},
            error("FORBIDDEN", "OTHER_AGENT"),
        ),
        (
            {"type": "Subscribe", "data": {"agent_id": other.agent_id}},
            error("NOT_FOUND", "AGENT_NOT_FOUND", details={"agent": other.agent_id}),
        ),
    ]
    async with listening(live, headers={"X-IC-Key": spender.agent.ic_token}) as socket:
        for frame, shape in refused:
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            elif isinstance(frame, str):
                await socket.send_str(frame)
            else:
                await socket.send_json(frame)
            assert_like(refusal(shape), await receive(socket))
        await socket.send_json({"type": "CostUpdate", "data": usage})
        booked = await receive(socket)
    assert booked["data"]["request_id"] == "c"
    status = await live.admin.call("GET", f"/api/agents/{spender.agent.agent_id}/status")
    assert status.body["budget"]["spent_usd"] == 0.1
    assert status.body["started_at"] is None


async def test_a_cost_told_twice_is_booked_once_and_priced_where_it_is_not_told(
    live: Live, spender: Spender
) -> None:
    usage = {
        "lease_id": spender.lease_id,
        "request_id": "c1",
        "model": "gpt-4o",
        "input_tokens": 1_000,
        "output_tokens": 500,
    }
    free = usage | {"request_id": "c2", "cost_usd": 0}
    async with listening(live, headers={"X-IC-Key": spender.agent.ic_token}) as socket:
        for data in (usage, usage, free):
            await socket.send_json({"type": "CostUpdate", "data": data})
        first, second = await receive(socket), await receive(socket)
    assert (first["data"]["request_id"], first["data"]["cost_usd"]) == ("c1", 0.0075)
    assert (second["data"]["request_id"], second["data"]["cost_usd"]) == ("c2", 0)
    assert second["data"]["spent_usd"] == 0.0075


async def test_booking_a_cost_needs_the_scope_for_it(live: Live, spender: Spender) -> None:
    agent = spender.agent
    await live.admin.call("DELETE", f"/api/tokens/{agent.token_id}")
    body = {"agent_id": agent.agent_id, "scopes": ["events"]}
    token = (await live.admin.call("POST", "/api/tokens", body)).body["token"]
    usage = {"lease_id": spender.lease_id, "request_id": "c", "model": "own", "cost_usd": 0.1}
    async with listening(live, headers={"X-IC-Key": token}) as socket:
        await socket.send_json({"type": "CostUpdate", "data": usage})
        assert_like(refusal(error("FORBIDDEN", "SCOPE_MISSING")), await receive(socket))
        await socket.send_json({"type": "AgentStarted", "data": {"runtime_id": "r"}})
        assert (await receive(socket))["type"] == "AgentStarted"


async def test_people_may_not_publish(live: Live) -> None:
    async with listening(live) as socket:
        await socket.send_json({"type": "AgentStarted", "data": {}})
        assert_like(refusal(error("FORBIDDEN", "ROLE_NOT_ALLOWED")), await receive(socket))


# How streams behave.


def with_events(tmp_path: Path, **events: Any) -> Settings:
    settings = replace(Settings(), events=EventsConfig(**events))
    return live_settings(tmp_path / "data", settings)


async def test_a_quiet_socket_has_a_heartbeat(tmp_path: Path) -> None:
    async with (
        live_server(with_events(tmp_path, heartbeat_s=0.1)) as live,
        listening(live) as socket,
    ):
        beats = [await receive(socket) for _ in range(2)]
    for beat in beats:
        assert_like(of_the_stream("Heartbeat", {}), beat)


async def test_everything_is_told_again_from_the_beginning(live: Live, spender: Spender) -> None:
    ids = [f"call-{number}" for number in range(2_500)]
    await spend_in_batches(live, spender, ids)
    async with listening(live, "?since=0&type=CostUpdate") as socket:
        frames = await receive_until(socket, ids[-1])
    assert [frame["data"]["request_id"] for frame in frames] == ids


async def test_a_slow_reader_is_told_of_its_gap_and_stalls_nobody(tmp_path: Path) -> None:
    ids = [f"{number:0100}" for number in range(8_000)]

    def narrow(address: Any) -> sockets.socket:
        made = sockets.socket(address[0], address[1], address[2])
        made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        return made

    async with live_server(with_events(tmp_path, queue_events=500)) as live:
        await create_provider(live.admin)
        spender = await borrow(live, await create_agent(live.admin))
        connector = aiohttp.TCPConnector(socket_factory=narrow)
        async with aiohttp.ClientSession(connector=connector) as narrow_session:
            url = f"ws://{live.running.http_address}/ws"
            slow = await narrow_session.ws_connect(url, headers=admin_header(live))
            async with listening(live) as quick:
                frames = []
                for first in range(0, len(ids), 500):
                    part = ids[first : first + 500]
                    await spend_in_batches(live, spender, part, model="m" * 100)
                    frames += await receive_until(quick, part[-1])
            assert [frame["data"]["request_id"] for frame in frames] == ids
            late = await receive_until(slow, ids[-1])
            await slow.close()

    gaps = [frame for frame in late if frame["type"] == "Gap"]
    assert gaps
    missed: set[int] = set()
    for gap in gaps:
        assert_like(of_the_stream("Gap", {"from_sequence": int, "to_sequence": int}), gap)
        missed |= {*range(gap["data"]["from_sequence"], gap["data"]["to_sequence"] + 1)}
    got = [frame["sequence"] for frame in late if frame["type"] == "CostUpdate"]
    assert got == [frame["sequence"] for frame in frames if frame["sequence"] not in missed]


async def test_many_dashboards_see_the_same(live: Live, spender: Spender) -> None:
    async with contextlib.AsyncExitStack() as stack:
        dashboards = [await stack.enter_async_context(listening(live)) for _ in range(20)]
        for number in range(20):
            await spender.spend(f"call-{number}")
        seen = [await receive_until(each, "call-19") for each in dashboards]
    assert all(frames == seen[0] for frames in seen)
