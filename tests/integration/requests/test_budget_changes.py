"""How budgets change: by hand, by approvals, and back when raises end; all of it in one history."""

from __future__ import annotations

import asyncio
from typing import Any

from steward.agents.v1 import agents_pb2
from steward.requests.v1 import requests_pb2 as pb
from steward_server.budget.config import BudgetConfig
from steward_server.settings import Settings
from tests.integration.conftest import refusal
from tests.integration.requests.conftest import USD, WHY, Desk
from tests.live import Live, create_agent, live_server, live_settings

SET = pb.BUDGET_CHANGE_CAUSE_SET
RAISED = pb.BUDGET_CHANGE_CAUSE_RAISED
ENDED = pb.BUDGET_CHANGE_CAUSE_RAISE_ENDED


async def set_budget(desk: Desk, budget_nanousd: int, reason: str = "") -> None:
    request = agents_pb2.UpdateAgentRequest(
        agent_id=desk.agent_id, budget_nanousd=budget_nanousd, budget_reason=reason
    )
    await desk.server.agents.UpdateAgent(request, metadata=desk.admin)


async def raised(desk: Desk, budget_usd: float, expires_in_s: int | None = None) -> Any:
    made = await desk.ask(budget_usd, expires_in_s=expires_in_s)
    return await desk.approve(made.id, desk.ann, review_notes="go on")


async def changes(desk: Desk) -> list[tuple[int, int, Any]]:
    return [
        (each.old_budget_nanousd, each.new_budget_nanousd, each.cause)
        for each in (await desk.history()).changes
    ]


async def test_every_change_is_in_the_history_with_who_and_why(desk: Desk) -> None:
    await set_budget(desk, 6 * USD, "a slow start")
    await set_budget(desk, 6 * USD, "no change at all")
    made = await raised(desk, 8, 60)
    desk.server.clock.advance(60)
    await desk.sweep()
    told = await desk.history(desk.owner)
    rows = [
        (each.change_nanousd, each.cause, each.changed_by, each.reason, each.budget_request_id)
        for each in told.changes
    ]
    admin_id = (await desk.server.create_agent()).owner_id
    assert rows == [
        (-2 * USD, ENDED, "", "", made.id),
        (2 * USD, RAISED, "user_ann", "go on", made.id),
        (USD, SET, admin_id, "a slow start", ""),
    ]
    assert told.changes[0].changed_at.ToMicroseconds() == desk.server.clock()
    assert told.summary == pb.BudgetSummary(
        initial_budget_nanousd=5 * USD,
        current_budget_nanousd=6 * USD,
        total_increases_nanousd=3 * USD,
        change_count=3,
    )
    desk.check_books()


async def test_a_history_is_paged_and_its_sum_is_of_all(desk: Desk) -> None:
    for dollars in (6, 7, 8):
        await set_budget(desk, dollars * USD)
    first = await desk.history(page_size=2)
    rest = await desk.history(page_size=2, page_token=first.next_page_token)
    new = [each.new_budget_nanousd // USD for each in (*first.changes, *rest.changes)]
    assert (new, rest.next_page_token) == ([8, 7, 6], "")
    assert first.summary == rest.summary
    assert first.summary.change_count == 3


async def test_an_agent_whose_budget_never_changed_has_an_empty_history(desk: Desk) -> None:
    told = await desk.history()
    assert told.changes == []
    assert told.summary.initial_budget_nanousd == told.summary.current_budget_nanousd == 5 * USD


async def test_a_malformed_history_is_told_everything_wrong(desk: Desk) -> None:
    wrong: dict[str, Any] = {"agent_id": "", "page_size": -1, "page_token": "x"}
    assert (await refusal(desk.history(**wrong))).fields.keys() == wrong.keys()


async def test_a_reason_is_of_a_budget_and_has_bounds(desk: Desk) -> None:
    request = agents_pb2.UpdateAgentRequest(
        agent_id=desk.agent_id, name="ranger", budget_reason="why not"
    )
    call = desk.server.agents.UpdateAgent(request, metadata=desk.admin)
    assert (await refusal(call)).fields.keys() == {"budget_reason"}
    refused = await refusal(set_budget(desk, USD, "x" * 501))
    assert refused.fields.keys() == {"budget_reason"}


# Raises that end.


async def test_a_raise_ends_by_itself(desk: Desk) -> None:
    made = await raised(desk, 8, 60)
    ends_at_us = desk.server.clock() + 60_000_000
    assert made.expires_at.ToMicroseconds() == ends_at_us
    summary = (await desk.history()).summary
    assert (summary.temporary_nanousd, summary.temporary_until) == (3 * USD, made.expires_at)
    desk.server.clock.advance(59.999999)
    await desk.sweep()
    assert await desk.allocated() == 8 * USD
    desk.server.clock.advance(0.000001)
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    await desk.sweep()
    assert len(await changes(desk)) == 2


async def test_what_is_lent_of_a_raise_goes_when_its_lease_gives_it_back(desk: Desk) -> None:
    await raised(desk, 8, 60)
    await desk.server.lend(desk.agent_id, "lease_1", 7 * USD)
    desk.server.clock.advance(60)
    await desk.sweep()
    assert await desk.allocated() == 7 * USD
    await desk.server.give_back(desk.agent_id, "lease_1")
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    assert await changes(desk) == [
        (7 * USD, 5 * USD, ENDED),
        (8 * USD, 7 * USD, ENDED),
        (5 * USD, 8 * USD, RAISED),
    ]
    desk.check_books()


async def test_nothing_of_a_raise_is_lent_once_its_time_is_over(desk: Desk) -> None:
    """Not even before the server has noticed, nor what a lease has just given back."""
    await raised(desk, 8, 60)
    await desk.server.lend(desk.agent_id, "lease_1", 8 * USD)
    desk.server.clock.advance(60)
    await desk.server.give_back(desk.agent_id, "lease_1")
    await desk.server.lend(desk.agent_id, "lease_2", 8 * USD)
    row = await desk.server.database.fetch_one(
        "SELECT granted_nanousd FROM lease WHERE lease_id = 'lease_2'"
    )
    assert row is not None
    assert row["granted_nanousd"] == 5 * USD
    assert await desk.allocated() == 5 * USD
    desk.check_books()


async def test_raises_stack_and_each_ends_by_itself(desk: Desk) -> None:
    await raised(desk, 8, 60)
    await raised(desk, 9)
    await raised(desk, 11, 30)
    seen = []
    for _ in range(2):
        desk.server.clock.advance(30)
        await desk.sweep()
        seen.append(await desk.allocated() // USD)
    assert seen == [9, 6]
    desk.check_books()


async def test_a_budget_that_is_set_is_for_good(desk: Desk) -> None:
    await raised(desk, 8, 60)
    await set_budget(desk, 7 * USD)
    assert (await desk.history()).summary.temporary_nanousd == 0
    desk.server.clock.advance(60)
    await desk.sweep()
    assert await desk.allocated() == 7 * USD


async def test_a_decision_is_about_what_the_agent_has_once_raises_have_ended(desk: Desk) -> None:
    await raised(desk, 8, 60)
    made = await desk.ask(9)
    desk.server.clock.advance(60)
    approved = await desk.approve(made.id, approved_budget_nanousd=6 * USD)
    assert (approved.previous_budget_nanousd, await desk.allocated()) == (5 * USD, 6 * USD)


async def test_a_budget_is_raised_while_money_is_lent(desk: Desk) -> None:
    await desk.server.lend(desk.agent_id, "lease_1", 5 * USD)
    await raised(desk, 8)
    await desk.server.lend(desk.agent_id, "lease_2", 3 * USD)
    refused = await refusal(set_budget(desk, 8 * USD - 1))
    assert refused.reason == "BUDGET_BELOW_COMMITTED"
    assert await changes(desk) == [(5 * USD, 8 * USD, RAISED)]
    desk.check_books()


async def test_a_raise_survives_a_restart(tmp_path: Any, clock: Any) -> None:
    settings = live_settings(
        tmp_path / "data", Settings(budget=BudgetConfig(sweep_interval_s=0.01))
    )
    async with live_server(settings, clock) as live:
        agent_id = (await create_agent(live.admin, budget_usd=5)).agent_id
        asked = {
            "agent_id": agent_id,
            "requested_budget_usd": 8,
            "justification": WHY,
            "expires_in_s": 60,
        }
        made = await live.admin.call("POST", "/api/v1/budget/requests", asked)
        assert made.status == 201, made
        path = f"/api/v1/budget/requests/{made.body['id']}/approve"
        assert (await live.admin.call("PATCH", path, {})).status == 200
    clock.advance(59)
    async with live_server(settings, clock) as live:
        path = f"/api/v1/agents/{agent_id}/budget/history"
        assert (await live.admin.call("GET", path)).body["summary"]["current_budget_usd"] == 8
    clock.advance(1)
    async with live_server(settings, clock) as live, asyncio.timeout(10):
        while (history := (await live.admin.call("GET", path)).body)["summary"]["change_count"] < 2:
            await asyncio.sleep(0.01)
        assert history["summary"]["current_budget_usd"] == 5
        assert history["changes"][0]["cause"] == "raise_ended"


async def test_a_dashboard_sees_requests_decisions_and_changes(live: Live) -> None:
    agent = await create_agent(live.admin, budget_usd=5)
    types = "type=BudgetRequested&type=BudgetReviewed&type=BudgetChanged"
    url = f"{live.api.base_url}/ws?{types}"
    async with live.api.session.ws_connect(url, headers=live.admin.headers) as socket:
        asked = {"requested_budget_usd": 8, "justification": WHY, "expires_in_s": 60}
        runtime = live.api.acting_as(x_ic_key=agent.ic_token)
        made = (await runtime.call("POST", "/api/v1/budget/requests", asked)).body
        path = f"/api/v1/budget/requests/{made['id']}/approve"
        approved = (await live.admin.call("PATCH", path, {"approved_budget_usd": 7})).body
        frames = [await socket.receive_json(timeout=30) for _ in range(3)]
    admin_id = approved["reviewer_id"]
    assert {frame["agent_id"] for frame in frames} == {agent.agent_id}
    assert {frame["type"]: frame["data"] for frame in frames} == {
        "BudgetRequested": {
            "budget_request_id": made["id"],
            "requester_id": agent.agent_id,
            "current_budget_usd": 5,
            "requested_budget_usd": 8,
            "expires_in_s": 60,
        },
        "BudgetChanged": {
            "old_budget_usd": 5,
            "new_budget_usd": 7,
            "cause": "raised",
            "changed_by": admin_id,
            "budget_request_id": made["id"],
            "scope": f"agent:{agent.agent_id}",
        },
        "BudgetReviewed": {
            "budget_request_id": made["id"],
            "status": "approved",
            "requester_id": agent.agent_id,
            "reviewer_id": admin_id,
            "requested_budget_usd": 8,
            "previous_budget_usd": 5,
            "approved_budget_usd": 7,
            "expires_at": approved["expires_at"],
        },
    }
