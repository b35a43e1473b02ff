"""AgentService over a real port: agents, their money, and whether they should run."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2 as pb
from steward.budget.v1 import scopes_pb2
from steward.providers.v1 import providers_pb2
from steward_server.auth.accounts import Role
from tests.integration.conftest import Server, ic_key, refusal, refusal_of

NOT_FOUND = grpc.StatusCode.NOT_FOUND
DOLLAR = 1_000_000_000


async def create(server: Server, metadata: Any = None, **fields: Any) -> Any:
    wanted: dict[str, Any] = {"name": "scout", "budget_nanousd": DOLLAR} | fields
    request = pb.CreateAgentRequest(**wanted)
    return await server.agents.CreateAgent(request, metadata=metadata or server.admin)


async def get(server: Server, agent_id: str, metadata: Any = None) -> Any:
    request = pb.GetAgentRequest(agent_id=agent_id)
    return (await server.agents.GetAgent(request, metadata=metadata or server.admin)).agent


async def status(server: Server, agent_id: str, metadata: Any = None) -> Any:
    request = pb.GetAgentStatusRequest(agent_id=agent_id)
    return await server.agents.GetAgentStatus(request, metadata=metadata or server.admin)


async def update(server: Server, agent_id: str, **fields: Any) -> Any:
    request = pb.UpdateAgentRequest(agent_id=agent_id, **fields)
    return (await server.agents.UpdateAgent(request, metadata=server.admin)).agent


async def delete(server: Server, agent_id: str) -> None:
    request = pb.DeleteAgentRequest(agent_id=agent_id)
    await server.agents.DeleteAgent(request, metadata=server.admin)


async def stop(server: Server, agent_id: str, reason: str = "", metadata: Any = None) -> Any:
    request = pb.StopAgentRequest(agent_id=agent_id, reason=reason)
    return await server.agents.StopAgent(request, metadata=metadata or server.admin)


async def start(server: Server, agent_id: str, metadata: Any = None) -> Any:
    request = pb.StartAgentRequest(agent_id=agent_id)
    return await server.agents.StartAgent(request, metadata=metadata or server.admin)


async def listed(server: Server, metadata: Any = None, **fields: Any) -> Any:
    request = pb.ListAgentsRequest(**fields)
    return await server.agents.ListAgents(request, metadata=metadata or server.admin)


async def create_provider(server: Server, name: str) -> None:
    request = providers_pb2.CreateProviderRequest(
        name=name, kind=providers_pb2.PROVIDER_KIND_OPENAI, api_key="sk-0123456789"
    )
    await server.provider_service.CreateProvider(request, metadata=server.admin)


async def started(server: Server, agent_id: str, runtime_id: str = "runtime_1") -> None:
    await server.database.run(
        lambda transaction: server.directory.mark_started(
            transaction, agent_id=agent_id, runtime_id=runtime_id, now_us=server.clock()
        )
    )


async def ended(
    server: Server, agent_id: str, exit_code: int | None, reason: str = "exited"
) -> None:
    await server.database.run(
        lambda transaction: server.directory.mark_stopped(
            transaction,
            agent_id=agent_id,
            runtime_id="runtime_1",
            exit_code=exit_code,
            reason=reason,
            now_us=server.clock(),
        )
    )


async def test_a_new_agent_has_its_budget_and_is_idle(server: Server) -> None:
    agent = (await create(server, budget_nanousd=5 * DOLLAR)).agent
    assert agent.id.startswith("agent_")
    assert (agent.status, agent.desired_state) == (
        pb.AGENT_STATUS_IDLE,
        pb.DESIRED_STATE_RUNNING,
    )
    assert agent.budget == pb.BudgetStatus(
        limit_nanousd=5 * DOLLAR,
        available_nanousd=5 * DOLLAR,
        state=pb.BUDGET_STATE_ACTIVE,
        period=scopes_pb2.BUDGET_PERIOD_NONE,
    )
    assert agent.created_at == agent.updated_at
    assert not agent.HasField("last_seen_at")
    assert await get(server, agent.id) == agent
    assert server.directory.owner_of(agent.id) == agent.owner_id


async def test_an_agent_may_be_made_for_someone_else(server: Server) -> None:
    ann_id, metadata = await server.enter("ann", Role.USER)
    agent = (await create(server, owner_id=ann_id)).agent
    assert (await get(server, agent.id, metadata)).owner_id == ann_id


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, {"name"}),
        ({"name": "  "}, {"name"}),
        ({"name": "n" * 101}, {"name"}),
        ({"name": "a\nb"}, {"name"}),
        ({"name": "a\0b"}, {"name"}),
        ({"budget_nanousd": None}, {"budget_usd"}),
        ({"budget_nanousd": 0}, {"budget_usd"}),
        ({"budget_nanousd": -1}, {"budget_usd"}),
        ({"budget_nanousd": 1_000_000 * DOLLAR + 1}, {"budget_usd"}),
        ({"budget_nanousd": 2**63 - 1}, {"budget_usd"}),
        ({"provider": "nowhere"}, {"provider"}),
        ({"owner_id": "user_none"}, {"owner_id"}),
        ({"provider": "nowhere", "owner_id": "user_none"}, {"provider", "owner_id"}),
        (
            {"name": "", "budget_nanousd": 0, "provider": "p" * 51},
            {"name", "budget_usd", "provider"},
        ),
    ],
)
async def test_every_malformed_field_is_named(
    server: Server, fields: dict[str, Any], wrong: set[str]
) -> None:
    refused = await refusal(create(server, **fields))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == wrong
    assert (await listed(server)).agents == []


@pytest.mark.parametrize("budget_nanousd", [1, 1_000_000 * DOLLAR])
async def test_the_bounds_of_a_budget_are_allowed(server: Server, budget_nanousd: int) -> None:
    agent = (await create(server, budget_nanousd=budget_nanousd)).agent
    assert agent.budget.limit_nanousd == budget_nanousd


async def test_people_see_and_touch_only_their_own(server: Server) -> None:
    ann_id, metadata = await server.enter("ann", Role.USER)
    foreign = (await create(server)).agent
    own = (await create(server, owner_id=ann_id)).agent
    assert [each.id for each in (await listed(server, metadata)).agents] == [own.id]
    for call in (get, status, stop, start):
        missing = await refusal(call(server, "agent_none", metadata=metadata))
        refused = await refusal(call(server, foreign.id, metadata=metadata))
        assert (refused.code, refused.reason) == (NOT_FOUND, "AGENT_NOT_FOUND")
        assert refused.message.replace(foreign.id, "agent_none") == missing.message
        await call(server, own.id, metadata=metadata)
    assert (await get(server, foreign.id)).desired_state == pb.DESIRED_STATE_RUNNING


async def test_a_list_of_another_owner_is_for_administrators(server: Server) -> None:
    ann_id, metadata = await server.enter("ann", Role.USER)
    await create(server)
    own = (await create(server, owner_id=ann_id)).agent
    for caller in (server.admin, metadata):
        answer = await listed(server, caller, owner_id=ann_id)
        assert [each.id for each in answer.agents] == [own.id]
    refused = await refusal(listed(server, metadata, owner_id="user_other"))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED


async def test_viewers_look_and_do_nothing_else(server: Server) -> None:
    vic_id, metadata = await server.enter("vic", Role.VIEWER)
    own = (await create(server, owner_id=vic_id)).agent
    await get(server, own.id, metadata)
    await status(server, own.id, metadata)
    for call in (stop, start):
        refused = await refusal(call(server, own.id, metadata=metadata))
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED


async def test_creating_changing_and_deleting_is_for_administrators(server: Server) -> None:
    ann_id, metadata = await server.enter("ann", Role.USER)
    own = (await create(server, owner_id=ann_id)).agent
    calls = [
        create(server, metadata),
        server.agents.UpdateAgent(pb.UpdateAgentRequest(agent_id=own.id), metadata=metadata),
        server.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=own.id), metadata=metadata),
    ]
    for call in calls:
        assert (await refusal(call)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_pages_hold_every_agent_once_even_of_one_instant(server: Server) -> None:
    made = {(await create(server)).agent.id for _ in range(7)}
    seen: list[str] = []
    token = ""
    for _ in range(4):
        answer = await listed(server, page_size=2, page_token=token)
        seen += [each.id for each in answer.agents]
        token = answer.next_page_token
    assert token == ""
    assert len(seen) == 7
    assert set(seen) == made


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"page_size": -1}, {"page_size"}),
        ({"page_size": 1_001}, {"page_size"}),
        ({"page_token": "x"}, {"page_token"}),
        ({"page_token": "é"}, {"page_token"}),
        ({"page_token": "e30"}, {"page_token"}),
        ({"page_token": "WzEsMl0"}, {"page_token"}),
        ({"page_size": -1, "page_token": "!"}, {"page_size", "page_token"}),
    ],
)
async def test_a_page_that_is_none_is_refused(
    server: Server, fields: dict[str, Any], wrong: set[str]
) -> None:
    assert (await refusal(listed(server, **fields))).fields.keys() == wrong


async def test_an_update_changes_what_is_given(server: Server) -> None:
    await create_provider(server, "ours")
    agent = (await create(server)).agent
    server.clock.advance(1)
    changed = await update(server, agent.id, name="ranger", budget_nanousd=3 * DOLLAR)
    assert (changed.name, changed.budget.limit_nanousd, changed.provider) == (
        "ranger",
        3 * DOLLAR,
        "",
    )
    assert changed.updated_at.ToMicroseconds() == server.clock()
    changed = await update(server, agent.id, provider="ours")
    assert (changed.name, changed.provider) == ("ranger", "ours")
    assert (await update(server, agent.id, provider="")).provider == ""


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": ""}, {"name"}),
        ({"budget_nanousd": 0}, {"budget_usd"}),
        ({"provider": "nowhere"}, {"provider"}),
        ({"name": "n" * 101, "budget_nanousd": -5}, {"name", "budget_usd"}),
    ],
)
async def test_a_wrong_update_changes_nothing(
    server: Server, fields: dict[str, Any], wrong: set[str]
) -> None:
    agent = (await create(server)).agent
    refused = await refusal(update(server, agent.id, **fields))
    assert refused.fields.keys() == wrong
    assert await get(server, agent.id) == agent


async def test_an_empty_update_is_told_what_it_may_give(server: Server) -> None:
    agent = (await create(server)).agent
    assert (await refusal(update(server, agent.id))).reason == "NO_FIELDS_PROVIDED"


async def test_a_budget_below_what_is_lent_is_refused_with_all_that_came_beside_it(
    server: Server,
) -> None:
    agent = (await create(server)).agent
    await server.lend(agent.id, "lease_1", DOLLAR // 2)
    before = await get(server, agent.id)
    refused = await refusal(update(server, agent.id, name="ranger", budget_nanousd=DOLLAR // 2 - 1))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "BUDGET_BELOW_COMMITTED",
    )
    assert await get(server, agent.id) == before
    assert await server.journal("agent.updated") == []
    await update(server, agent.id, budget_nanousd=DOLLAR // 2)


async def test_money_lent_shows_as_reserved_and_the_agent_as_running(server: Server) -> None:
    agent = (await create(server)).agent
    await server.lend(agent.id, "lease_1", DOLLAR)
    shown = await status(server, agent.id)
    assert shown.status == pb.AGENT_STATUS_RUNNING
    assert shown.open_leases == 1
    assert shown.budget == pb.BudgetStatus(
        limit_nanousd=DOLLAR,
        reserved_nanousd=DOLLAR,
        state=pb.BUDGET_STATE_EXHAUSTED,
        period=scopes_pb2.BUDGET_PERIOD_NONE,
    )
    newest = (await server.journal())[-1]["lsn"]
    assert shown.commit_number == newest


async def test_a_run_is_followed_from_start_to_end(server: Server) -> None:
    agent = (await create(server)).agent
    await started(server, agent.id)
    begun_us = server.clock()
    assert (await status(server, agent.id)).status == pb.AGENT_STATUS_RUNNING
    server.clock.advance(5)
    await ended(server, agent.id, 0)
    shown = await status(server, agent.id)
    assert shown.status == pb.AGENT_STATUS_STOPPED
    assert (shown.started_at.ToMicroseconds(), shown.stopped_at.ToMicroseconds()) == (
        begun_us,
        server.clock(),
    )
    assert shown.HasField("exit_code")
    assert shown.exit_code == 0


async def test_a_script_that_fails_shows_its_exit_code(server: Server) -> None:
    agent = (await create(server)).agent
    assert not (await status(server, agent.id)).HasField("exit_code")
    await started(server, agent.id)
    await ended(server, agent.id, 3)
    shown = await status(server, agent.id)
    assert (shown.status, shown.exit_code) == (pb.AGENT_STATUS_FAILED, 3)


async def test_a_silent_runtime_without_a_lease_counts_as_failed(server: Server) -> None:
    agent = (await create(server)).agent
    await started(server, agent.id)
    server.clock.advance(119)
    await server.database.run(
        lambda transaction: server.directory.mark_seen(
            transaction, agent_id=agent.id, now_us=server.clock()
        )
    )
    server.clock.advance(119)
    assert (await status(server, agent.id)).status == pb.AGENT_STATUS_RUNNING
    server.clock.advance(1)
    assert (await status(server, agent.id)).status == pb.AGENT_STATUS_FAILED


async def test_a_stop_drains_the_leases_and_is_told_in_the_journal(server: Server) -> None:
    agent = (await create(server)).agent
    await server.lend(agent.id, "lease_1", 1_000)
    answer = await stop(server, agent.id, "too dear")
    assert (answer.agent_id, answer.status) == (agent.id, pb.AGENT_STATUS_STOPPING)
    shown = await status(server, agent.id)
    assert (shown.status, shown.desired_state) == (
        pb.AGENT_STATUS_STOPPING,
        pb.DESIRED_STATE_STOPPED,
    )
    row = await server.database.fetch_one("SELECT state FROM lease")
    assert row is not None
    assert row["state"] == "draining"
    (entry,) = await server.journal("agent.stopping")
    assert json.loads(entry["body"])["reason"] == "too dear"
    assert entry["agent_id"] == agent.id
    await server.give_back(agent.id, "lease_1")
    assert (await status(server, agent.id)).status == pb.AGENT_STATUS_STOPPED
    record = await server.directory.record(server.database, agent.id)
    assert record.stop_wanted


async def test_stopping_and_starting_twice_is_the_same_as_once(server: Server) -> None:
    agent = (await create(server)).agent
    await asyncio.gather(*(stop(server, agent.id) for _ in range(5)))
    assert len(await server.journal("agent.stopping")) == 1
    answers = await asyncio.gather(*(start(server, agent.id) for _ in range(5)))
    assert {answer.status for answer in answers} == {pb.AGENT_STATUS_IDLE}
    assert len(await server.journal("agent.starting")) == 1


async def test_a_stopped_agent_may_run_again_as_if_nothing_had_been(server: Server) -> None:
    agent = (await create(server)).agent
    await started(server, agent.id)
    await stop(server, agent.id)
    await ended(server, agent.id, -15, "stopped")
    assert (await status(server, agent.id)).status == pb.AGENT_STATUS_STOPPED
    assert (await start(server, agent.id)).status == pb.AGENT_STATUS_IDLE
    assert not (await server.directory.record(server.database, agent.id)).stop_wanted


@pytest.mark.parametrize("reason", ["r" * 501, "a\0b"])
async def test_a_reason_is_shown_to_runtimes_and_so_has_bounds(server: Server, reason: str) -> None:
    agent = (await create(server)).agent
    assert (await refusal(stop(server, agent.id, reason))).fields.keys() == {"reason"}
    await stop(server, agent.id, "r" * 500)


async def test_an_agent_that_holds_money_is_not_deleted(server: Server) -> None:
    agent = (await create(server)).agent
    await server.lend(agent.id, "lease_1", 1_000)
    refused = await refusal(delete(server, agent.id))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "AGENT_HAS_LEASES",
    )
    await server.give_back(agent.id, "lease_1")
    await delete(server, agent.id)


async def test_a_deleted_agent_is_gone_with_its_token_and_its_streams(server: Server) -> None:
    agent = (await create(server)).agent
    token = (await server.create_token(agent.id)).token
    await server.knock(ic_key(token))
    reading = await server.listen(ic_key(token))
    await delete(server, agent.id)
    refused = await refusal(server.knock(ic_key(token)))
    assert refused.reason == "TOKEN_REVOKED"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(reading, 30)
    assert refusal_of(caught.value).code is grpc.StatusCode.UNAUTHENTICATED
    for again in (get, status, stop, start, delete):
        assert (await refusal(again(server, agent.id))).code is NOT_FOUND
    assert (await listed(server)).agents == []
    assert server.directory.owner_of(agent.id) is None
    kinds = [row["kind"] for row in await server.journal() if row["agent_id"] == agent.id]
    assert kinds[-2:] == ["token.revoked", "agent.deleted"]


@pytest.mark.parametrize("agent_id", ["", "a" * 101, "a\0b"])
async def test_what_cannot_be_an_id_is_malformed(server: Server, agent_id: str) -> None:
    for call in (get, status, stop, start, delete):
        assert (await refusal(call(server, agent_id))).fields.keys() == {"agent_id"}


async def test_the_directory_is_the_same_after_a_restart(server: Server) -> None:
    kept = (await create(server)).agent
    gone = (await create(server)).agent
    await delete(server, gone.id)
    loaded = await type(server.directory).load(server.database)
    assert loaded.owner_of(kept.id) == kept.owner_id
    assert loaded.owner_of(gone.id) is None


async def test_a_creation_repeated_by_its_id_makes_one_agent(server: Server) -> None:
    answers = await asyncio.gather(*(create(server, request_id="once") for _ in range(8)))
    assert len({answer.agent.id for answer in answers}) == 1
    assert len((await listed(server)).agents) == 1
    refused = await refusal(create(server, request_id="once", name="other"))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
    )
