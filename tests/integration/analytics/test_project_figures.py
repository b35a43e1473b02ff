"""Figures where agents share the budget of a project: nothing is counted twice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.analytics.conftest import House
from tests.live import create_agent
from tests.spending import Spender, borrow

PATHS = (
    "spending/total",
    "spending/by-agent",
    "spending/by-provider",
    "spending/avg-per-request",
    "usage/requests",
    "usage/tokens/by-agent",
    "usage/models",
    "budget/status",
    "/api/usage",
    "/api/v1/traces",
)


async def create_project(house: House, **terms: Any) -> str:
    made = await house.live.admin.call("POST", "/api/v1/projects", {"name": "crawl"} | terms)
    assert made.status == 201, made
    return str(made.body["id"])


async def member(house: House, project_id: str, lent_usd: float = 1, **named: Any) -> Spender:
    agent = await create_agent(house.live.admin, budget_usd=10, **named)
    await move(house, agent.agent_id, project_id)
    return await borrow(house.live, agent, lent_usd)


async def move(house: House, agent_id: str, project_id: str) -> None:
    path = f"/api/v1/agents/{agent_id}"
    moved = await house.live.admin.call("PATCH", path, {"project_id": project_id})
    assert moved.status == 200, moved


async def test_every_path_chooses_the_agents_of_a_project(house: House) -> None:
    project = await create_project(house)
    inside, outside = await member(house, project), await house.spender()
    await inside.spend("a", "0.25")
    await outside.spend("a", "0.5")
    chosen = f"project_id={project}"
    assert (await house.ask(f"spending/total?{chosen}"))["total_spend"] == 0.25
    assert (await house.ask(f"spending/avg-per-request?{chosen}"))["total_requests"] == 1
    assert (await house.ask(f"usage/requests?{chosen}"))["total_requests"] == 1
    assert (await house.ask(f"usage/models?{chosen}"))["summary"]["total_spend"] == 0.25
    providers = await house.ask(f"spending/by-provider?{chosen}")
    assert providers["summary"]["total_spend"] == 0.25
    assert providers["filters"]["project_id"] == project
    for path in ("spending/by-agent", "usage/tokens/by-agent", "budget/status"):
        rows = (await house.ask(f"{path}?{chosen}"))["data"]
        assert [row["agent_id"] for row in rows] == [inside.agent.agent_id], path
    usage = await house.ask(f"/api/usage?{chosen}")
    assert [row["agent_id"] for row in usage["agents"]] == [inside.agent.agent_id]
    assert (usage["totals"]["spent"], usage["totals"]["requests"]) == (0.25, 1)
    traces = (await house.ask(f"/api/v1/traces?{chosen}"))["traces"]
    assert [trace["agent_id"] for trace in traces] == [inside.agent.agent_id]
    neither = f"{chosen}&agent_id={outside.agent.agent_id}"
    assert (await house.ask(f"spending/total?{neither}"))["total_spend"] == 0
    assert (await house.ask(f"budget/status?{neither}"))["data"] == []


@pytest.mark.parametrize("path", PATHS)
async def test_a_project_the_caller_may_not_see_is_not_found(house: House, path: str) -> None:
    where = path if path.startswith("/api") else f"/api/v1/analytics/{path}"
    project = await create_project(house)
    ann_id, ann = await house.enter("ann")
    body = {"name": "hers", "budget_usd": 1, "owner_id": ann_id}
    hers = await house.live.admin.call("POST", "/api/v1/agents", body)
    refused = await ann.call("GET", f"{where}?project_id={project}")
    unknown = await house.live.admin.call("GET", f"{where}?project_id=project_nowhere")
    for answer in (refused, unknown):
        assert (answer.status, answer.body["error"]["reason"]) == (404, "PROJECT_NOT_FOUND")
    # An empty one is there for administrators, and for her once an agent of hers belongs to it.
    assert (await house.live.admin.call("GET", f"{where}?project_id={project}")).status == 200
    await move(house, hers.body["id"], project)
    assert (await ann.call("GET", f"{where}?project_id={project}")).status == 200


async def test_others_see_only_their_own_agents_of_a_project(house: House) -> None:
    project = await create_project(house)
    ann_id, ann = await house.enter("ann")
    body = {"name": "hers", "budget_usd": 1, "owner_id": ann_id, "project_id": project}
    await house.live.admin.call("POST", "/api/v1/agents", body)
    other = await member(house, project)
    await other.spend("a", "0.25")
    assert (await house.ask(f"spending/total?project_id={project}", ann))["total_spend"] == 0
    assert len((await house.ask(f"/api/usage?project_id={project}", ann))["agents"]) == 1


async def test_money_that_agents_share_is_counted_once(house: House) -> None:
    project = await create_project(house, budget_usd=4)
    for _ in range(2):
        await member(house, project, lent_usd=1)
    await house.spender(budget_usd=3, lent_usd=1)
    usage = await house.ask("/api/usage")
    assert sorted(row["available"] for row in usage["agents"]) == [2, 2, 2]
    # Two of the project together, and two of the agent that belongs to none.
    assert usage["totals"]["available"] == 4
    changed = await house.live.admin.call("PATCH", "/api/v1/organisation", {"budget_usd": 4.5})
    assert changed.status == 200, changed
    usage = await house.ask("/api/usage")
    assert usage["totals"]["available"] == 1.5
    assert (await house.ask(f"/api/usage?project_id={project}"))["totals"]["available"] == 1.5


async def test_what_projects_and_the_organisation_count_is_no_spending_of_its_own(
    house: House,
) -> None:
    project = await create_project(house, budget_usd=100)
    spender = await member(house, project)
    await spender.spend("a", "0.25")
    await spender.spend("b", "2")  # more than was lent: an overrun
    usage = await house.ask("/api/usage")
    assert usage["totals"]["spent"] == 2.25
    assert (await house.ask("spending/total"))["total_spend"] == 2.25
    assert house.ledger_used() == 2.25


async def test_an_agent_in_a_project_without_money_is_at_risk(house: House) -> None:
    project = await create_project(house, budget_usd=1)
    idle, busy = await create_agent(house.live.admin), await member(house, project)
    await move(house, idle.agent_id, project)
    await busy.spend("a", "0.96")
    rows = {row["agent_id"]: row for row in (await house.ask("budget/status"))["data"]}
    for agent_id, used in ((idle.agent_id, 0), (busy.agent.agent_id, 9.6)):
        row = rows[agent_id]
        assert (row["percent_used"], row["risk_level"]) == (used, "critical")
        assert row["risk_scope"] == f"project:{project}"
    await busy.spend("b", "0.04")
    found = await house.ask("budget/status?status=exhausted")
    assert {row["agent_id"] for row in found["data"]} == set(rows)
    # One that only counts stops nobody.
    path = f"/api/v1/projects/{project}"
    changed = await house.live.admin.call("PATCH", path, {"mode": "informative"})
    assert changed.status == 200, changed
    assert (await house.ask("budget/status"))["summary"]["low"] == 2
