"""What gathers is booked together, and one fault among many stays alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest_asyncio

from steward_server.agents.directory import Directory
from steward_server.budget.bookings import Answer, Batch, Booked, Fact
from steward_server.budget.desk import Desk
from steward_server.budget.store import Terms
from steward_server.budget.teller import MAX_USAGES, Teller
from steward_server.budget.values import LeasePolicy
from steward_server.db import Transaction
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.errors import NotFound, Unavailable
from tests.books import read_books, wrong_in

POLICY = LeasePolicy()
AGENTS = 40


@dataclass
class Counted:
    """The database, with the transactions of the teller counted."""

    database: Sqlite
    transactions: int = 0
    refusing: bool = False

    async def run(self, work: Callable[[Transaction], Awaitable[Any]]) -> Any:
        self.transactions += 1
        if self.refusing:
            raise Unavailable("the disk is full")
        return await self.database.run(work)


@dataclass
class Shop:
    """A teller, and agents who have a lease each."""

    folder: Path
    database: Counted
    teller: Teller
    booked: dict[str, int] = field(default_factory=dict)

    def batch(self, agent: int, *request_ids: str, cost: int = 5) -> Batch:
        facts = [
            Fact(name, 0, "openai", "m", 1, 1, 0, 0, cost, "1", "measured", 0)
            for name in request_ids
        ]
        return Batch(f"lease-{agent}", f"agent-{agent}", len(facts), lambda _: facts)

    def spent(self, agent: int) -> int:
        books = read_books(self.folder)
        assert wrong_in(books) == []
        return books.lease(f"lease-{agent}").spent_nanousd


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    database = await Sqlite.open(tmp_path / "steward.db")
    rooms = ("events", "auth", "tokens", "agents", "providers", "budget")
    await migrate(database, [f"steward_server.{room}" for room in rooms])
    desk = Desk(POLICY)

    async def lend(transaction: Transaction) -> None:
        for number in range(AGENTS):
            agent_id = f"agent-{number}"
            await desk.open_account(
                transaction, agent_id=agent_id, allocated_nanousd=10_000, now_us=1
            )
            await desk.open_lease(
                transaction,
                lease_id=f"lease-{number}",
                agent_id=agent_id,
                requested_nanousd=1_000,
                minimum_nanousd=0,
                terms=Terms("openai", "openai", "token", "runtime", None, b"", 0),
                now_us=1,
            )

    await database.run(lend)
    counted: Any = Counted(database)
    yield Shop(tmp_path, counted, Teller(counted, Directory({}), POLICY, lambda: 2))
    await database.close()


def whole(answer: Answer | NotFound) -> list[Booked]:
    assert isinstance(answer, Answer)
    booked = [outcome for outcome in answer.outcomes if isinstance(outcome, Booked)]
    assert len(booked) == len(answer.outcomes)
    return booked


async def test_reports_of_many_agents_at_once_share_a_transaction(shop: Shop) -> None:
    answers = await asyncio.gather(
        *(shop.teller.book([shop.batch(number, "call")]) for number in range(AGENTS))
    )
    numbers = [whole(answer)[0].lsn for (answer,) in answers]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == AGENTS
    assert [shop.spent(number) for number in range(AGENTS)] == [5] * AGENTS
    assert shop.database.transactions == 1


async def test_what_does_not_fit_into_one_transaction_goes_into_the_next(shop: Shop) -> None:
    calls = [shop.teller.book([shop.batch(0, f"call-{n}")]) for n in range(2 * MAX_USAGES + 1)]
    answers = await asyncio.gather(*calls)
    assert [whole(answer)[0].sequence for (answer,) in answers] == [*range(1, len(calls) + 1)]
    assert shop.database.transactions == 3


async def test_a_report_told_twice_at_once_is_booked_once(shop: Shop) -> None:
    told = [shop.teller.book([shop.batch(0, "call")]) for _ in range(10)]
    answers = [whole(answer)[0] for (answer,) in await asyncio.gather(*told)]
    assert set(answers) == {answers[0]}
    assert shop.spent(0) == 5


async def test_an_id_used_for_two_costs_at_once_is_refused_the_second_time(shop: Shop) -> None:
    first = shop.teller.book([shop.batch(0, "call", cost=5)])
    second = shop.teller.book([shop.batch(0, "call", cost=6)])
    (answered,), (refused,) = await asyncio.gather(first, second)
    assert whole(answered)[0].cost_nanousd == 5
    assert isinstance(refused, Answer)
    assert getattr(refused.outcomes[0], "reason", "") == "REQUEST_ID_REUSED"
    assert shop.spent(0) == 5


async def test_a_lease_of_somebody_else_is_not_found_and_disturbs_nobody(shop: Shop) -> None:
    stolen = shop.batch(1, "call")._replace(agent_id="agent-2")
    mine, theirs = await asyncio.gather(
        shop.teller.book([shop.batch(0, "call")]), shop.teller.book([stolen])
    )
    assert whole(mine[0])
    assert isinstance(theirs[0], NotFound)
    assert (shop.spent(0), shop.spent(1)) == (5, 0)


async def test_a_fault_of_one_report_does_not_take_the_others_with_it(shop: Shop) -> None:
    def burst(_: Terms) -> list[Fact]:
        raise ZeroDivisionError

    broken = Batch("lease-1", "agent-1", 1, burst)
    before, fault, after = await asyncio.gather(
        shop.teller.book([shop.batch(0, "call")]),
        shop.teller.book([broken]),
        shop.teller.book([shop.batch(2, "call")]),
        return_exceptions=True,
    )
    assert isinstance(fault, ZeroDivisionError)
    assert not isinstance(before, BaseException)
    assert not isinstance(after, BaseException)
    assert (whole(before[0])[0].sequence, whole(after[0])[0].sequence) == (1, 1)
    assert [shop.spent(number) for number in range(3)] == [5, 0, 5]


async def test_a_caller_that_leaves_has_reported_all_the_same(shop: Shop) -> None:
    leaving = asyncio.create_task(shop.teller.book([shop.batch(0, "call")]))
    await asyncio.sleep(0)
    leaving.cancel()
    (answer,) = await shop.teller.book([shop.batch(1, "call")])
    assert whole(answer)
    assert (shop.spent(0), shop.spent(1)) == (5, 5)


async def test_a_database_that_cannot_write_is_told_to_everyone_who_waits(shop: Shop) -> None:
    shop.database.refusing = True
    calls = [shop.teller.book([shop.batch(number, "call")]) for number in range(3)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    shop.database.refusing = False
    (answer,) = await shop.teller.book([shop.batch(0, "call")])
    assert whole(answer)[0].sequence == 1
    assert shop.spent(0) == 5
