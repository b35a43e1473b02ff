"""Repeats of a mutation by its request id, over a real port and across restarts."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.tokens.v1 import tokens_pb2
from steward_server.agents.room import AgentRoom
from steward_server.auth.accounts import Role
from steward_server.errors import FailedPrecondition
from steward_server.idempotency.answers import Answers
from steward_server.idempotency.store import Key
from steward_server.vault import Vault
from tests.integration.conftest import Server, bearer, ic_key, refusal

DAY_S = 86_400


async def create_agent(server: Server, request_id: str, **fields: Any) -> Any:
    wanted: dict[str, Any] = {"name": "scout", "budget_nanousd": 1_000} | fields
    request = agents_pb2.CreateAgentRequest(request_id=request_id, **wanted)
    return await server.agents.CreateAgent(request, metadata=server.admin)


async def create_token(server: Server, agent_id: str, request_id: str, **fields: Any) -> Any:
    request = tokens_pb2.CreateTokenRequest(agent_id=agent_id, request_id=request_id, **fields)
    return await server.token_service.CreateToken(request, metadata=server.admin)


async def agent_count(server: Server) -> int:
    row = await server.database.fetch_one("SELECT count(*) AS agents FROM agent")
    assert row is not None
    return int(row["agents"])


def answers_of(server: Server, vault: Vault) -> Answers:
    """What a server that starts again over the same data remembers."""
    return Answers(server.database, vault, kept_us=DAY_S * 1_000_000, clock=server.clock)


async def test_a_repeat_is_told_the_first_answer_the_secret_included(server: Server) -> None:
    agent = await server.create_agent()
    first = await create_token(server, agent.id, "once")
    again = await create_token(server, agent.id, "once")
    assert again == first
    await server.knock(ic_key(again.ic_token.token))


async def test_the_same_id_with_another_body_is_refused(server: Server) -> None:
    agent = await server.create_agent()
    await create_token(server, agent.id, "once")
    refused = await refusal(create_token(server, agent.id, "once", name="other"))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )


async def test_without_an_id_every_call_is_its_own(server: Server) -> None:
    await create_agent(server, "")
    await create_agent(server, "")
    assert await agent_count(server) == 2


async def test_ids_of_two_methods_and_of_two_people_do_not_meet(server: Server) -> None:
    agent = (await create_agent(server, "once")).agent
    await create_token(server, agent.id, "once")
    _, other = await server.enter("bob", Role.ADMIN)
    request = agents_pb2.CreateAgentRequest(name="other", budget_nanousd=7, request_id="once")
    answer = await server.agents.CreateAgent(request, metadata=other)
    assert answer.agent.name == "other"


async def test_a_repeat_during_the_first_waits_for_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, seen = asyncio.Event(), asyncio.Event()
    create = AgentRoom.create

    async def slow(room: AgentRoom, *positional: Any, **named: Any) -> Any:
        seen.set()
        await held.wait()
        return await create(room, *positional, **named)

    monkeypatch.setattr(AgentRoom, "create", slow)
    calls = [asyncio.ensure_future(create_agent(server, "once"))]
    await seen.wait()
    calls += [asyncio.ensure_future(create_agent(server, "once")) for _ in range(4)]
    refused = await refusal(create_agent(server, "once", name="other"))
    assert refused.reason == "REQUEST_ID_REUSED"
    held.set()
    answers = await asyncio.gather(*calls)
    assert len({answer.agent.id for answer in answers}) == 1
    assert await agent_count(server) == 1


async def test_a_first_call_whose_caller_goes_away_is_finished_and_remembered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, seen = asyncio.Event(), asyncio.Event()
    create = AgentRoom.create

    async def slow(room: AgentRoom, *positional: Any, **named: Any) -> Any:
        seen.set()
        await held.wait()
        return await create(room, *positional, **named)

    monkeypatch.setattr(AgentRoom, "create", slow)
    leaving = server.agents.CreateAgent(
        agents_pb2.CreateAgentRequest(name="scout", budget_nanousd=1_000, request_id="once"),
        metadata=server.admin,
    )
    await asyncio.wait_for(seen.wait(), 30)
    leaving.cancel()
    held.set()
    answer = await create_agent(server, "once")
    assert await agent_count(server) == 1
    assert (await create_agent(server, "once")) == answer


async def test_a_refused_call_may_be_repeated_under_its_id(server: Server) -> None:
    refused = await refusal(create_agent(server, "once", name=""))
    assert refused.fields.keys() == {"name"}
    await create_agent(server, "once")


async def test_a_call_that_broke_is_not_done_again_blindly(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = AgentRoom.create

    async def broken(room: AgentRoom, *positional: Any, **named: Any) -> Any:
        await create(room, *positional, **named)
        raise ValueError("after the commit")

    monkeypatch.setattr(AgentRoom, "create", broken)
    assert (await refusal(create_agent(server, "once"))).code is grpc.StatusCode.INTERNAL
    monkeypatch.setattr(AgentRoom, "create", create)
    refused = await refusal(create_agent(server, "once"))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "OUTCOME_UNKNOWN",
    )
    assert await agent_count(server) == 1


async def test_answers_outlive_the_process(server: Server) -> None:
    first = await create_agent(server, "once")
    row = await server.database.fetch_one("SELECT * FROM remembered_answer")
    assert row is not None

    async def again() -> bytes:
        raise AssertionError("the work was done again")

    vault = Vault.open(server.folder / "master.key", create=False)
    restarted = answers_of(server, vault)
    key = Key(row["subject"], row["method"], row["request_id"])
    answer = await restarted.once(key, row["request_digest"], again)
    assert agents_pb2.CreateAgentResponse.FromString(answer) == first


async def test_a_call_cut_off_by_a_crash_is_not_done_again_blindly(server: Server) -> None:
    """The note that a call was begun is written before its work, so it outlives a crash."""
    await create_agent(server, "once")
    await server.database.run(
        lambda transaction: transaction.execute("UPDATE remembered_answer SET sealed_answer = NULL")
    )
    assert (await refusal(create_agent(server, "once"))).reason == "OUTCOME_UNKNOWN"
    assert await agent_count(server) == 1


async def test_an_answer_that_no_key_opens_is_not_made_anew(server: Server) -> None:
    await create_agent(server, "once")
    row = await server.database.fetch_one("SELECT * FROM remembered_answer")
    assert row is not None

    async def again() -> bytes:
        raise AssertionError("the work was done again")

    stranger = Vault.open(server.folder / "other.key", create=True)
    restarted = answers_of(server, stranger)
    key = Key(row["subject"], row["method"], row["request_id"])
    with pytest.raises(FailedPrecondition) as caught:
        await restarted.once(key, row["request_digest"], again)
    assert caught.value.reason == "ANSWER_LOST"


async def test_an_answer_is_remembered_for_a_day(server: Server) -> None:
    first = await create_agent(server, "once")
    server.clock.advance(DAY_S - 1)
    server.admin = bearer((await server.sign_in("admin")).access_token)
    assert await create_agent(server, "once") == first
    server.clock.advance(1)
    assert (await create_agent(server, "once")).agent.id != first.agent.id


async def test_old_answers_are_swept(server: Server) -> None:
    await create_agent(server, "old")
    server.clock.advance(DAY_S + 1)
    server.admin = bearer((await server.sign_in("admin")).access_token)
    await create_agent(server, "new")
    answers = answers_of(server, Vault.open(server.folder / "master.key", create=False))
    assert await answers.sweep() == 1
    rows = await server.database.fetch_all("SELECT request_id FROM remembered_answer")
    assert [row["request_id"] for row in rows] == ["new"]


async def test_what_is_remembered_is_sealed(server: Server) -> None:
    agent = await server.create_agent()
    made = (await create_token(server, agent.id, "once")).ic_token
    row = await server.database.fetch_one("SELECT sealed_answer FROM remembered_answer")
    assert row is not None
    assert made.token.encode() not in row["sealed_answer"]
    assert made.id.encode() not in row["sealed_answer"]


@pytest.mark.parametrize("request_id", ["r" * 101, "a\0b", "a\nb"])
async def test_what_cannot_be_an_id_is_refused(server: Server, request_id: str) -> None:
    refused = await refusal(create_agent(server, request_id))
    assert refused.fields.keys() == {"request_id"}
    assert await agent_count(server) == 0


async def test_an_id_may_be_as_long_as_is_said(server: Server) -> None:
    await create_agent(server, "r" * 100)
