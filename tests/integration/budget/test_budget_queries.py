"""No statement of the room reads a whole table: the tables grow for years."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest_asyncio

from steward_server.analytics.rollups import Rollups
from steward_server.balance import BudgetTerms
from steward_server.budget import allocations
from steward_server.budget.bookings import Batch, Fact, book
from steward_server.budget.desk import Desk
from steward_server.budget.receipts import Receipts
from steward_server.budget.store import Terms
from steward_server.budget.values import LeasePolicy
from steward_server.budget_change import Cause, Why
from steward_server.db import Row, Transaction
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite

POLICY = LeasePolicy(lease_ttl_ms=1_000, settle_grace_ms=1_000)
SMALL = ("SCAN lease USING INDEX lease_open", "SCAN CONSTANT ROW", "SCAN asked")
"""The index of open leases holds those that are open now, and is made to be read through; what is
asked for is read through, too."""


class Explained:
    """A transaction that keeps the plan of every statement it runs."""

    def __init__(self, transaction: Transaction, plans: dict[str, list[str]]) -> None:
        self._transaction = transaction
        self._plans = plans

    async def execute(self, sql: str, *parameters: object) -> int:
        await self._explain(sql, parameters)
        return await self._transaction.execute(sql, *parameters)

    async def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        await self._transaction.execute_many(sql, rows)

    async def fetch_one(self, sql: str, *parameters: object) -> Row | None:
        await self._explain(sql, parameters)
        return await self._transaction.fetch_one(sql, *parameters)

    async def fetch_all(self, sql: str, *parameters: object) -> list[Row]:
        await self._explain(sql, parameters)
        return await self._transaction.fetch_all(sql, *parameters)

    async def _explain(self, sql: str, parameters: Sequence[object]) -> None:
        rows = await self._transaction.fetch_all(f"EXPLAIN QUERY PLAN {sql}", *parameters)
        self._plans[sql] = [row["detail"] for row in rows]


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    opened = await Sqlite.open(tmp_path / "steward.db")
    rooms = ("events", "agents", "budget", "analytics")
    await migrate(opened, [f"steward_server.{room}" for room in rooms])
    yield opened
    await opened.close()


async def everything(transaction: Transaction) -> None:
    """All that the desk does, once."""
    desk = Desk(POLICY)
    who: dict[str, Any] = {"lease_id": "lease", "agent_id": "agent", "now_us": 2}
    terms_of = partial(BudgetTerms, mode="restrictive")
    await desk.open_project(
        transaction, project_id="project", terms=terms_of(None, period="day"), now_us=1
    )
    await desk.open_account(
        transaction,
        agent_id="agent",
        allocated_nanousd=10**9,
        now_us=1,
        project_id="project",
        period="week",
    )
    await desk.reallocate(transaction, agent_id="agent", allocated_nanousd=2 * 10**9, now_us=1)
    terms = Terms("openai", "openai", "token", "runtime", "request", b"", 0)
    for _ in range(2):
        await desk.open_lease(
            transaction, requested_nanousd=100, minimum_nanousd=0, terms=terms, **who
        )
    facts = [Fact("call", 0, "openai", "m", 1, 1, 0, 0, 5, "1", "measured", 0)]
    for _ in range(2):
        batch = Batch("lease", "agent", 1, lambda _: facts)
        await book(transaction, [batch], policy=POLICY, now_us=2, listeners=[Rollups()])
    assert await Receipts().booked(transaction, "agent", [("call", 2)]) == {"call"}
    for _ in range(2):
        await desk.grow_lease(transaction, requested_nanousd=5, request_id="grow", **who)
    await desk.touch_lease(transaction, **who)
    await desk.balances(transaction, ["agent", "other"], 3)
    scope = "project:project"
    await desk.scope_balances(transaction, [scope], 3)
    await desk.child_balances(transaction, scope, after="", limit=5, now_us=3)
    await desk.set_budget(transaction, scope=scope, terms=terms_of(10**9, period="month"), now_us=3)
    await desk.set_period(
        transaction, agent_id="agent", period="none", allocated_nanousd=None, now_us=3
    )
    why = Why(Cause.RAISED, request_id="breq")
    await allocations.raise_to(transaction, "agent", 3 * 10**9, why, ends_at_us=5, now_us=2)
    await allocations.take_back(transaction, "agent", 6)
    await allocations.changes(transaction, "agent", before_lsn=10**9, limit=10)
    await allocations.summary(transaction, "agent")
    await desk.drain(transaction, agent_id="agent", why="test", now_us=3)
    await desk.sweep(transaction, 10**9)
    again = {**who, "lease_id": "again"}
    await desk.open_lease(
        transaction,
        requested_nanousd=100,
        minimum_nanousd=0,
        terms=Terms("openai", "openai", "token", "runtime", None, b"", 0),
        **again,
    )
    await desk.close_lease(transaction, believed_spent_nanousd=None, **again)
    await desk.move(transaction, agent_id="agent", project_id="")
    await desk.sweep(transaction, 10**15)
    await desk.retire(transaction, scope=scope)


async def test_every_statement_of_the_desk_finds_its_rows_by_an_index(database: Sqlite) -> None:
    plans: dict[str, list[str]] = {}
    await database.run(lambda transaction: everything(Explained(transaction, plans)))
    read = {sql: plan for sql, plan in plans.items() if plan}
    assert len(read) > 8
    slow = {
        sql: plan
        for sql, plan in read.items()
        if any(step.startswith("SCAN") and not step.startswith(SMALL) for step in plan)
    }
    # The newest row of the journal is the first that is looked at.
    newest = [sql for sql in slow if sql.endswith(" FROM journal ORDER BY lsn DESC LIMIT 1")]
    assert slow.keys() == set(newest)
