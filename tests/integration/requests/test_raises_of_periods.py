"""Raises that end, of budgets that begin anew: what a day, and the days after it, have of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from steward.agents.v1 import agents_pb2
from steward.api_keys.v1 import api_keys_pb2
from steward.requests.v1 import requests_pb2 as pb
from steward_server.budget.bookings import Answer, Batch, Booked, Fact, book
from tests.books import read_books
from tests.integration.conftest import api_key
from tests.integration.requests.conftest import USD, Desk
from tests.integration.requests.test_budget_changes import ENDED, RAISED, SET, changes, raised

DAY_S = 86_400
BEGAN = pb.BUDGET_CHANGE_CAUSE_PERIOD_BEGAN


@pytest.fixture
async def desk(desk: Desk) -> Desk:
    """With keys: the clock of these tests outruns whoever has signed in."""
    server, admin_role = desk.server, api_keys_pb2.KEY_ROLE_ADMIN
    ann = await server.create_key(desk.ann, role=admin_role)
    owner = await server.create_key(desk.owner)
    server.admin = api_key((await server.create_key(role=admin_role)).key)
    return replace(desk, ann=api_key(ann.key), owner=api_key(owner.key))


async def update(desk: Desk, **fields: Any) -> Any:
    request = agents_pb2.UpdateAgentRequest(agent_id=desk.agent_id, **fields)
    return (await desk.server.agents.UpdateAgent(request, metadata=desk.admin)).agent


async def begin_days(desk: Desk) -> None:
    """Have the agent spend 5 dollars a day, and go to the first hour of the next one."""
    await update(desk, budget_period="BUDGET_PERIOD_DAY")
    day_us = DAY_S * 1_000_000
    desk.server.clock.advance((day_us - desk.server.clock() % day_us) / 1e6 + 3_600)
    await desk.sweep()


async def spend(desk: Desk, lease_id: str, dollars: int) -> None:
    """Borrow as much, spend all of it and give the lease back."""
    server, agent_id = desk.server, desk.agent_id
    await server.lend(agent_id, lease_id, dollars * USD)
    call = Fact("call", 0, "openai", "own", 1, 1, 0, 0, dollars * USD, "1", "measured", 0)
    batch = Batch(lease_id, agent_id, 1, lambda _: [call])
    (answer,) = await server.database.run(
        lambda transaction: book(
            transaction, [batch], policy=server.desk.policy, now_us=server.clock()
        )
    )
    assert isinstance(answer, Answer)
    assert isinstance(answer.outcomes[0], Booked)
    await server.give_back(agent_id, lease_id)


async def test_the_days_after_a_raise_have_nothing_of_it_and_the_history_says_so(
    desk: Desk,
) -> None:
    await begin_days(desk)
    made = await raised(desk, 8, 60)
    await spend(desk, "lease_1", 7)
    desk.server.clock.advance(60)
    await desk.sweep()
    assert await desk.allocated() == 7 * USD
    desk.server.clock.advance(DAY_S)
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    assert await changes(desk) == [
        (7 * USD, 5 * USD, BEGAN),
        (8 * USD, 7 * USD, ENDED),
        (5 * USD, 8 * USD, RAISED),
    ]
    told = (await desk.history()).changes
    assert [each.budget_request_id for each in told] == ["", made.id, made.id]
    desk.check_books()


async def test_what_is_given_back_after_a_raise_has_ended_is_not_lent_again_that_day(
    desk: Desk,
) -> None:
    await begin_days(desk)
    await raised(desk, 8, 60)
    await desk.server.lend(desk.agent_id, "lease_1", 7 * USD)
    desk.server.clock.advance(60)
    await desk.sweep()
    assert await desk.allocated() == 7 * USD
    await desk.server.give_back(desk.agent_id, "lease_1")
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    assert (await desk.history()).summary.temporary_nanousd == 0
    desk.check_books()


async def test_a_raise_after_an_ended_one_that_was_spent_leaves_the_days_to_come_as_they_were(
    desk: Desk,
) -> None:
    await begin_days(desk)
    await raised(desk, 8, 60)
    await spend(desk, "lease_1", 7)
    desk.server.clock.advance(60)
    await desk.sweep()
    await raised(desk, 9, 60)
    desk.server.clock.advance(60)
    await desk.sweep()
    assert await desk.allocated() == 7 * USD
    desk.server.clock.advance(DAY_S)
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    desk.check_books()


async def test_a_raise_that_ends_overnight_with_all_of_it_lent_is_not_in_the_new_day(
    desk: Desk,
) -> None:
    await begin_days(desk)
    await raised(desk, 8, DAY_S - 3_600 - 1)
    desk.server.clock.advance(DAY_S - 3_600 - 60)
    await desk.server.lend(desk.agent_id, "lease_1", 8 * USD)
    desk.server.clock.advance(59)
    await desk.sweep()
    desk.server.clock.advance(1)
    await desk.sweep()
    await desk.server.lend(desk.agent_id, "lease_2", 8 * USD)
    assert await desk.allocated() == 5 * USD
    desk.check_books()


async def test_a_new_period_keeps_raises_that_are_to_end_unless_an_amount_is_given(
    desk: Desk,
) -> None:
    await raised(desk, 8, 3_600)
    await update(desk, budget_period="BUDGET_PERIOD_MONTH")
    assert await desk.allocated() == 8 * USD
    desk.server.clock.advance(3_600)
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    await raised(desk, 9, 60)
    await update(desk, budget_period="BUDGET_PERIOD_WEEK", budget_nanousd=6 * USD)
    desk.server.clock.advance(60)
    await desk.sweep()
    assert await desk.allocated() == 6 * USD
    assert await changes(desk) == [
        (9 * USD, 6 * USD, SET),
        (5 * USD, 9 * USD, RAISED),
        (8 * USD, 5 * USD, ENDED),
        (5 * USD, 8 * USD, RAISED),
    ]
    desk.check_books()


async def test_what_an_ended_raise_has_lent_is_not_in_a_period_that_begins(desk: Desk) -> None:
    await raised(desk, 8, 60)
    await desk.server.lend(desk.agent_id, "lease_1", 8 * USD)
    desk.server.clock.advance(60)
    await update(desk, budget_period="BUDGET_PERIOD_DAY")
    assert await desk.allocated() == 5 * USD
    await desk.server.give_back(desk.agent_id, "lease_1")
    await desk.sweep()
    assert await desk.allocated() == 5 * USD
    assert await changes(desk) == [(8 * USD, 5 * USD, SET), (5 * USD, 8 * USD, RAISED)]
    desk.check_books()


async def test_the_period_an_agent_has_may_be_given_again_after_a_raise_was_spent(
    desk: Desk,
) -> None:
    await begin_days(desk)
    await raised(desk, 8, 60)
    await spend(desk, "lease_1", 7)
    desk.server.clock.advance(60)
    await desk.sweep()
    agent = await update(desk, budget_period="BUDGET_PERIOD_DAY")
    assert agent.budget.limit_nanousd == 7 * USD
    assert await desk.allocated() == 7 * USD


async def test_raises_of_a_deleted_agent_do_not_begin_its_days_again(desk: Desk) -> None:
    await begin_days(desk)
    await raised(desk, 8, 3 * DAY_S)
    await desk.server.agents.DeleteAgent(
        agents_pb2.DeleteAgentRequest(agent_id=desk.agent_id), metadata=desk.admin
    )
    desk.server.clock.advance(4 * DAY_S)
    count = len(read_books(desk.server.folder).journal)
    await desk.sweep()
    desk.server.clock.advance(DAY_S)
    await desk.sweep()
    books = read_books(desk.server.folder)
    assert [row.kind for row in books.journal[count:] if row.agent_id == desk.agent_id] == []
