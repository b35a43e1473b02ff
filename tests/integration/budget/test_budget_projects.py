"""Agents that share a project's money: what is lent, spent and given back moves all at once."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import EventServiceStub
from tests.books import Books
from tests.integration.budget.conftest import USD, WAIT_S, Bank, lease_is, open_bank
from tests.integration.conftest import refusal
from tests.live import Agent
from tests.people import add_person

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def create_project(bank: Bank, budget_usd: float | None = 10, **fields: Any) -> str:
    body = {"name": "shared", "budget_usd": budget_usd, **fields}
    created = await bank.live.admin.call("POST", "/api/v1/projects", body)
    assert created.status == 201, created
    return str(created.body["id"])


async def agent_in(bank: Bank, project: str, budget_usd: float = 10) -> Agent:
    agent = await bank.agent(budget_usd)
    moved = await patch_agent(bank, agent, project_id=project)
    assert moved.status == 200, moved
    return agent


async def patch_agent(bank: Bank, agent: Agent, **fields: Any) -> Any:
    return await bank.live.admin.call("PATCH", f"/api/v1/agents/{agent.agent_id}", fields)


async def patch_project(bank: Bank, project: str, **fields: Any) -> Any:
    return await bank.live.admin.call("PATCH", f"/api/v1/projects/{project}", fields)


def money(books: Books, account: str) -> tuple[int, int, int]:
    """Spent, leased, overrun."""
    found = books.account(account)
    return found.spent_nanousd, found.leased_nanousd, found.overrun_nanousd


def warned(books: Books, scope: str) -> list[int]:
    rows = books.of_kind("budget.warning")
    return [row.body["threshold"] for row in rows if row.body["scope"] == scope]


async def test_two_agents_at_once_are_never_lent_more_than_their_project_has(bank: Bank) -> None:
    project = await create_project(bank, 10)
    agents = [await agent_in(bank, project, budget_usd=50) for _ in range(2)]

    asked = [bank.handshake(agents[number % 2], 700_000_000) for number in range(64)]
    answers = await asyncio.gather(*asked, return_exceptions=True)

    granted = [
        each.budget_granted_nanousd for each in answers if not isinstance(each, BaseException)
    ]
    assert (len(granted), sum(granted), min(granted)) == (15, 10 * USD, 200_000_000)
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {each.code() for each in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    books = bank.sound_books()
    assert money(books, project) == (0, 10 * USD, 0)
    assert sum(books.account(each.agent_id).leased_nanousd for each in agents) == 10 * USD


async def test_a_refusal_names_what_is_empty(bank: Bank) -> None:
    project = await create_project(bank, 1)
    agent = await agent_in(bank, project)
    await bank.handshake(agent, 5 * USD)
    refused = await refusal(bank.handshake(agent, 5 * USD))
    assert (refused.reason, refused.facts) == (
        "BUDGET_EXCEEDED",
        {
            "agent_id": agent.agent_id,
            "requested_nanousd": str(5 * USD),
            "available_nanousd": "0",
            "scope": f"project:{project}",
        },
    )
    assert f"'project:{project}' can lend $0" in refused.message


async def test_every_move_of_money_reaches_the_whole_path(bank: Bank) -> None:
    project = await create_project(bank, 10)
    agent = await agent_in(bank, project)
    await bank.lent()
    before = bank.books().account("organisation")

    def moved() -> list[tuple[int, int, int]]:
        books = bank.sound_books()
        spent, leased, overrun = money(books, "organisation")
        start = before.spent_nanousd, before.leased_nanousd, before.overrun_nanousd
        above = (spent - start[0], leased - start[1], overrun - start[2])
        return [money(books, agent.agent_id), money(books, project), above]

    lease = (await bank.handshake(agent, 2 * USD)).lease_id
    assert moved() == [(0, 2 * USD, 0)] * 3
    await bank.refresh(agent, lease, USD)
    await bank.report(agent, lease, cost_nanousd=USD // 2)
    assert moved() == [(USD // 2, 5 * USD // 2, 0)] * 3
    await bank.give_back(agent, lease)
    assert moved() == [(USD // 2, 0, 0)] * 3
    over = (await bank.handshake(agent, USD)).lease_id
    await bank.report(agent, over, cost_nanousd=3 * USD)
    assert moved() == [(3 * USD // 2, 0, 2 * USD)] * 3
    status = await bank.status(agent)
    assert status.budget.available_nanousd == 10 * USD - 7 * USD // 2
    await bank.handshake(agent, USD)
    await bank.stop(agent)
    assert moved() == [(3 * USD // 2, USD, 2 * USD)] * 3
    await bank.pass_time(61, lambda books: books.account(project).leased_nanousd == 0)
    assert moved() == [(3 * USD // 2, 0, 2 * USD)] * 3


async def test_an_expired_lease_gives_its_rest_back_to_the_project(bank: Bank) -> None:
    project = await create_project(bank, 10)
    agent = await agent_in(bank, project)
    lease = (await bank.handshake(agent, 4 * USD)).lease_id
    await bank.report(agent, lease, cost_nanousd=USD)
    await bank.pass_time(900, lease_is(lease, "draining"))
    await bank.pass_time(60, lease_is(lease, "expired"))
    assert money(bank.sound_books(), project) == (USD, 0, 0)


async def test_what_is_spent_is_what_is_least_of_an_agents_and_its_projects(bank: Bank) -> None:
    project = await create_project(bank, 10)
    poor, rich = await agent_in(bank, project, 1), await agent_in(bank, project, 50)
    assert (await bank.handshake(poor, 5 * USD)).budget_granted_nanousd == USD
    granted = await bank.handshake(rich, 50 * USD)
    assert (granted.budget_granted_nanousd, granted.partial) == (9 * USD, True)
    assert (await bank.status(rich)).budget.available_nanousd == 0
    assert (await bank.refresh(rich, granted.lease_id)).reason == "insufficient_budget"


async def test_an_informative_budget_goes_over_and_warns_once_of_each_threshold(
    bank: Bank,
) -> None:
    project = await create_project(bank, 10, mode="informative")
    first, second = [await agent_in(bank, project, 20) for _ in range(2)]
    leases = [(await bank.handshake(each, 15 * USD)).lease_id for each in (first, second)]
    seen = []
    for agent, lease, cost_usd in [
        (first, leases[0], 4),
        (second, leases[1], 1),
        (first, leases[0], 3),
        (second, leases[1], 2),
        (first, leases[0], 5),
        (second, leases[1], 9),
    ]:
        await bank.report(agent, lease, cost_nanousd=cost_usd * USD)
        seen.append(warned(bank.books(), f"project:{project}"))
    assert seen == [[], [50], [50, 80], [50, 80, 95, 100]] + [[50, 80, 95, 100]] * 2
    assert money(bank.sound_books(), project) == (24 * USD, 6 * USD, 0)
    shown = await bank.live.admin.call("GET", f"/api/v1/projects/{project}")
    budget = shown.body["budget"]
    assert (budget["available_usd"], budget["percent_used"]) == (None, 240.0)


async def test_a_budget_that_begins_to_block_must_cover_what_is_committed(bank: Bank) -> None:
    project = await create_project(bank, 1, mode="informative")
    agent = await agent_in(bank, project)
    lease = (await bank.handshake(agent, 5 * USD)).lease_id
    refused = await patch_project(bank, project, mode="restrictive")
    assert (refused.status, refused.body["error"]["reason"]) == (409, "BUDGET_BELOW_COMMITTED")
    changed = await patch_project(bank, project, mode="restrictive", budget_usd=5)
    assert (changed.status, changed.body["budget"]["available_usd"]) == (200, 0)
    assert (await bank.refresh(agent, lease)).reason == "insufficient_budget"
    lifted = await patch_project(bank, project, unlimited=True)
    assert (lifted.body["budget"]["limit_usd"], lifted.body["budget"]["available_usd"]) == (
        None,
        None,
    )
    assert (await bank.refresh(agent, lease, USD)).status == "approved"
    bank.sound_books()


async def test_an_agent_moves_only_while_it_holds_nothing_and_leaves_its_history(
    bank: Bank,
) -> None:
    old, new = await create_project(bank, 10), await create_project(bank, 10)
    agent = await agent_in(bank, old)
    lease = (await bank.handshake(agent, 2 * USD)).lease_id
    await bank.report(agent, lease, cost_nanousd=USD)

    refused = await patch_agent(bank, agent, project_id=new)
    assert (refused.status, refused.body["error"]["reason"]) == (409, "AGENT_HAS_LEASES")
    await bank.give_back(agent, lease)
    assert (await patch_agent(bank, agent, project_id=new)).body["project_id"] == new
    again = (await bank.handshake(agent, 3 * USD)).lease_id
    await bank.report(agent, again, cost_nanousd=2 * USD)

    books = bank.sound_books()
    assert money(books, old) == (USD, 0, 0)
    assert money(books, new) == (2 * USD, USD, 0)
    assert money(books, agent.agent_id) == (3 * USD, USD, 0)
    await bank.give_back(agent, again)
    assert (await patch_agent(bank, agent, project_id="")).body["project_id"] == ""
    assert (await bank.handshake(agent, USD)).budget_granted_nanousd == USD
    assert money(bank.sound_books(), new) == (2 * USD, 0, 0)


async def test_a_project_with_agents_is_not_deleted(bank: Bank) -> None:
    project = await create_project(bank)
    agent = await agent_in(bank, project)
    path = f"/api/v1/projects/{project}"
    refused = await bank.live.admin.call("DELETE", path)
    assert (refused.status, refused.body["error"]["reason"]) == (409, "PROJECT_HAS_AGENTS")
    await bank.delete(agent)
    assert (await bank.live.admin.call("DELETE", path)).status == 204
    assert (await bank.live.admin.call("GET", path)).status == 404
    unknown = await bank.live.admin.call(
        "POST", "/api/v1/agents", {"name": "a", "budget_usd": 1, "project_id": project}
    )
    assert (unknown.status, list(unknown.body["error"]["fields"])) == (400, ["project_id"])


async def test_the_organisations_budget_holds_every_agent(tmp_path: Any) -> None:
    async with open_bank(tmp_path) as bank:
        project = await create_project(bank, None)
        agents = [await bank.agent(50), await agent_in(bank, project, 50)]
        first = await bank.handshake(agents[0], 6 * USD)
        path = "/api/v1/organisation"
        too_low = await bank.live.admin.call("PATCH", path, {"budget_usd": 5})
        assert (too_low.status, too_low.body["error"]["reason"]) == (409, "BUDGET_BELOW_COMMITTED")
        assert (await bank.live.admin.call("PATCH", path, {"budget_usd": 10})).status == 200
        second = await bank.handshake(agents[1], 6 * USD)
        assert (second.budget_granted_nanousd, second.partial) == (4 * USD, True)
        refused = await refusal(bank.handshake(agents[1], USD))
        assert refused.facts["scope"] == "organisation"
        await bank.give_back(agents[0], first.lease_id)
        assert (await bank.status(agents[1])).budget.available_nanousd == 6 * USD
        shown = (await bank.live.admin.call("GET", f"{path}/budget")).body
        assert (shown["budget"]["limit_usd"], shown["budget"]["reserved_usd"]) == (10, 4)
        assert {child["scope"].partition(":")[0] for child in shown["children"]} == {
            "project",
            "agent",
        }
        bank.sound_books()


async def test_what_a_project_is_warned_of_reaches_administrators_only(bank: Bank) -> None:
    project = await create_project(bank, 10)
    agent = await agent_in(bank, project, 100)
    owner = add_person(bank.folder, "owner", role="user")
    signed_in = await bank.live.api.call(
        "POST", "/api/auth/login", {"username": "owner", "password": "a long walk in the rain"}
    )
    created = await bank.live.admin.call(
        "POST",
        "/api/v1/agents",
        {"name": "mine", "budget_usd": 8, "owner_id": owner, "project_id": project},
    )
    token = await bank.live.admin.call("POST", "/api/tokens", {"agent_id": created.body["id"]})
    mine = Agent(created.body["id"], token.body["id"], token.body["token"])

    for spender, cost in ((agent, 5 * USD), (mine, 4 * USD)):
        lease = (await bank.handshake(spender, cost)).lease_id
        await bank.report(spender, lease, cost_nanousd=cost)

    stub: Any = EventServiceStub(bank.live.channel)
    request = events_pb2.SubscribeRequest(type=["BudgetWarning"], since=0)

    async def first(metadata: Any, wanted: str) -> Any:
        async with asyncio.timeout(WAIT_S):
            async for answer in stub.Subscribe(request, metadata=metadata):
                scope = answer.event.budget_warning.scope
                if scope in (wanted, f"project:{project}"):
                    return answer.event
        raise AssertionError("the stream ended")

    seen = await first(bank.admin, f"agent:{mine.agent_id}")
    as_owner = (("authorization", f"Bearer {signed_in.body['access_token']}"),)
    own = await first(as_owner, f"agent:{mine.agent_id}")
    as_agent = await first(mine.metadata, f"agent:{mine.agent_id}")
    assert (seen.budget_warning.scope, seen.agent_id) == (f"project:{project}", "")
    assert seen.budget_warning.limit_nanousd == 10 * USD
    assert {each.budget_warning.scope for each in (own, as_agent)} == {f"agent:{mine.agent_id}"}
