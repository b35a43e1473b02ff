"""Several decide about one request at the same moment: one of them wins, and money moves once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.requests.v1 import requests_pb2 as pb
from tests.books import read_books
from tests.integration.conftest import Refusal, refusal_of
from tests.integration.requests.conftest import USD, Desk

AT_ONCE = 20
STATUS = {
    "approve": pb.BUDGET_REQUEST_STATUS_APPROVED,
    "reject": pb.BUDGET_REQUEST_STATUS_REJECTED,
    "cancel": pb.BUDGET_REQUEST_STATUS_CANCELLED,
}


async def outcome(call: Awaitable[Any]) -> Refusal | None:
    """How a call was refused; None if it was answered."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    return None


async def race(desk: Desk, agent_id: str, budget_usd: int, *ways: str) -> str:
    """Let the administrators decide in these ways at once; the way that won."""
    made = await desk.ask(budget_usd, agent_id=agent_id, by=desk.owner)
    by = [desk.admin, desk.ann, desk.admin]
    calls = [getattr(desk, way)(made.id, who) for way, who in zip(ways, by, strict=False)]
    outcomes = await asyncio.gather(*map(outcome, calls))
    winners = [way for way, refused in zip(ways, outcomes, strict=True) if refused is None]
    lost = {refused.reason for refused in outcomes if refused is not None}
    assert len(winners) == 1, outcomes
    assert lost == {"REQUEST_ALREADY_REVIEWED"}
    assert (await desk.get(made.id)).status == STATUS[winners[0]]
    return winners[0]


async def races(desk: Desk, count: int, *ways: str) -> Counter[str]:
    """So many races, on several agents at once; how often each way won."""
    won: Counter[str] = Counter()

    async def one_after_another(agent_id: str) -> None:
        budget_usd, approved = 5, 0
        for turn in range(count // AT_ONCE):
            # Who is sent first mostly wins: each way is that in turn.
            order = ways[turn % len(ways) :] + ways[: turn % len(ways)]
            winner = await race(desk, agent_id, budget_usd + 1, *order)
            won[winner] += 1
            if winner == "approve":
                budget_usd += 1
                approved += 1
        told = await desk.history(agent_id=agent_id)
        assert told.summary.current_budget_nanousd == budget_usd * USD
        assert told.summary.change_count == approved
        books = read_books(desk.server.folder)
        assert books.account(agent_id).allocated_nanousd == budget_usd * USD

    agents = [await desk.server.create_agent(owner_id=desk.owner_id) for _ in range(AT_ONCE)]
    await asyncio.gather(*(one_after_another(agent.id) for agent in agents))
    desk.check_books()
    assert won.total() == count // AT_ONCE * AT_ONCE
    return won


async def test_of_two_administrators_one_decides(desk: Desk) -> None:
    won = await races(desk, 100, "approve", "reject")
    assert set(won) == {"approve", "reject"}


@pytest.mark.proof
async def test_of_two_administrators_one_decides_a_thousand_times(desk: Desk) -> None:
    won = await races(desk, 1_000, "approve", "reject")
    print(won)
    assert set(won) == {"approve", "reject"}


async def test_two_approvals_raise_a_budget_once(desk: Desk) -> None:
    assert await races(desk, 40, "approve", "approve") == {"approve": 40}


async def test_a_cancellation_and_decisions_do_not_both_count(desk: Desk) -> None:
    await races(desk, 40, "cancel", "approve", "reject")


async def test_an_approval_and_the_end_of_its_agent_do_not_both_count(desk: Desk) -> None:
    ends = Counter[str]()
    for turn in range(20):
        agent = await desk.server.create_agent(owner_id=desk.owner_id)
        made = await desk.ask(agent_id=agent.id)
        delete = agents_pb2.DeleteAgentRequest(agent_id=agent.id)
        calls: list[Awaitable[Any]] = [
            desk.approve(made.id, desk.ann),
            desk.server.agents.DeleteAgent(delete, metadata=desk.admin),
        ]
        if turn % 2:
            calls.reverse()
        outcomes = await asyncio.gather(*map(outcome, calls))
        approved, deleted = outcomes[:: -1 if turn % 2 else 1]
        request = await desk.get(made.id)
        assert deleted is None
        if approved is None:
            assert request.status == pb.BUDGET_REQUEST_STATUS_APPROVED
        else:
            assert approved.reason == "REQUEST_ALREADY_REVIEWED"
            assert request.status == pb.BUDGET_REQUEST_STATUS_CANCELLED
        ends["approved" if approved is None else "cancelled"] += 1
        account = read_books(desk.server.folder).account(agent.id)
        assert account.allocated_nanousd == (8 if approved is None else 5) * USD
    assert ends.total() == 20
    desk.check_books()
