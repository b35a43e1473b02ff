"""The desk's own SQL, committed in groups, on a disk whose power fails again and again.

After each cut the very rows that were acknowledged are there, told by the hash of the last of
them, and whoever asks again is told the same.
"""

import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar

import apsw
import pytest

from steward_server.balance import BudgetTerms
from steward_server.budget import allocations, store
from steward_server.budget.bookings import Batch, Booked, Fact, Outcome, book
from steward_server.budget.desk import Desk
from steward_server.budget.ledger_errors import LeaseClosed, LedgerError
from steward_server.budget.period import DAY_US
from steward_server.budget.store import Terms
from steward_server.budget.values import LeasePolicy
from steward_server.budget_change import Cause, Why
from steward_server.db import Transaction
from steward_server.errors import NotFound, StewardError
from steward_server.events.store import head
from tests.books import QUERIES, Books, books_of, wrong_in
from tests.property.budget.powercut import ApswTransaction, Disk

T = TypeVar("T")
Work = Callable[[Transaction], Coroutine[Any, Any, Any]]

POLICY = LeasePolicy(
    default_tranche_nanousd=500, maximum_tranche_nanousd=5_000, lease_ttl_ms=20, settle_grace_ms=5
)
MIDNIGHT_US = 1_709_251_200_000_000
"""After the 29th of February of a leap year."""
CUTS_PER_DISK = 4
ASKED_AGAIN = 12
"""Acknowledged operations that are repeated after each cut; the chain vouches for all."""


@dataclass(frozen=True)
class Asked:
    """One operation; `is_known` by an id, under which it may be asked again."""

    work: Work
    is_known: bool


@dataclass(frozen=True)
class Acknowledged:
    """An operation that was answered after its commit, whose last row was `lsn`."""

    asked: Asked
    answer: Any
    lsn: int
    hash: bytes


@dataclass
class Findings:
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    refused: int = 0
    causes: set[str] = field(default_factory=set)
    """Of changes of budgets that were found."""
    wrong: list[str] = field(default_factory=list)


class Callers:
    """What those outside know: what they asked for, and what was acknowledged."""

    def __init__(self, draw: random.Random) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.reported: set[tuple[str, str]] = set()
        self.agents: list[str] = []
        self.projects: list[str] = []
        self.leases: list[tuple[str, str]] = []
        self._draw = draw
        self._desk = Desk(POLICY)
        self._now_us = MIDNIGHT_US - 100_000  # a day ends under way

    def draw_operation(self) -> Asked:
        self._now_us += self._draw.randrange(1, 2_000)  # also what makes ids unique
        if self._draw.random() < 0.04:
            # A day is about to end, often with raises that end before it does.
            ends_at_us = self._now_us + DAY_US - self._now_us % DAY_US
            self._now_us = max(self._now_us, ends_at_us - self._draw.randrange(1, 20_000))
        if len(self.agents) < 2 or self._draw.random() < 0.02:
            return self._open_account()
        if not self.leases or self._draw.random() < 0.2:
            return self._open_lease()
        operations = {
            self._book: 60,
            self._grow: 10,
            self._close: 10,
            self._sweep: 20,
            self._set_budget: 4,
            self._set_agent: 2,
            self._raise: 12,
            self._move: 1,
        }
        (operation,) = self._draw.choices(list(operations), list(operations.values()))
        return operation()

    def _open_account(self) -> Asked:
        agent, project, now_us = f"agent_{self._now_us}", f"project_{self._now_us}", self._now_us
        parent = self._draw.choice(["", *self.projects])
        period = self._draw.choice(("none", "day", "day"))
        terms = self._some_terms()
        self.agents.append(agent)

        async def work(transaction: Transaction) -> None:
            await self._desk.open_project(
                transaction, project_id=project, terms=terms, now_us=now_us
            )
            await self._desk.open_account(
                transaction,
                agent_id=agent,
                allocated_nanousd=100,
                now_us=now_us,
                project_id=parent,
                period=period,
            )

        return Asked(work, is_known=False)

    def _set_budget(self) -> Asked:
        scope = self._draw.choice(["organisation", *(f"project:{each}" for each in self.projects)])
        terms, now_us = self._some_terms(), self._now_us
        return Asked(
            lambda transaction: self._desk.set_budget(
                transaction, scope=scope, terms=terms, now_us=now_us
            ),
            is_known=False,
        )

    def _set_agent(self) -> Asked:
        """For good, or with another period, in which raises that are to end go on."""
        agent, now_us = self._draw.choice(self.agents), self._now_us
        amount = self._draw.choice((None, None, 100, 800))
        period = self._draw.choice(("none", "day", "week"))
        return Asked(
            lambda transaction: self._desk.set_period(
                transaction, agent_id=agent, period=period, allocated_nanousd=amount, now_us=now_us
            ),
            is_known=False,
        )

    def _raise(self) -> Asked:
        agent, now_us = self._draw.choice(self.agents), self._now_us
        more, holds_us = self._draw.randrange(1, 1_500), self._draw.randrange(1, 10_000)
        ends_at_us = None if self._draw.random() < 0.1 else now_us + holds_us
        why = Why(Cause.RAISED, "user", "", f"breq_{now_us}")

        async def work(transaction: Transaction) -> None:
            await allocations.take_back(transaction, agent, now_us)
            balance = (await self._desk.balances(transaction, [agent], now_us))[agent]
            await allocations.raise_to(
                transaction,
                agent,
                balance.allocated_nanousd + more,
                why,
                ends_at_us=ends_at_us,
                now_us=now_us,
            )

        return Asked(work, is_known=False)

    def _move(self) -> Asked:
        agent, project = self._draw.choice(self.agents), self._draw.choice(["", *self.projects])

        async def work(transaction: Transaction) -> None:
            if not await store.open_leases(transaction, agent):
                await self._desk.move(transaction, agent_id=agent, project_id=project)

        return Asked(work, is_known=False)

    def _some_terms(self) -> BudgetTerms:
        return BudgetTerms(
            self._draw.choice((None, 15_000, 60_000)),
            self._draw.choice(("restrictive", "informative")),
            self._draw.choice(("none", "none", "day", "month")),
        )

    def _open_lease(self) -> Asked:
        now_us = self._now_us
        agent, lease = self._draw.choice(self.agents), f"lease_{now_us}"
        requested = self._draw.choice((None, 1, 2_000, 2_000))
        terms = Terms("openai", "openai", "token", "runtime", f"request_{now_us}", b"", 0)
        self.leases.append((lease, agent))

        async def work(transaction: Transaction) -> Any:
            lent = await self._desk.open_lease(
                transaction,
                lease_id=lease,
                agent_id=agent,
                requested_nanousd=requested,
                minimum_nanousd=0,
                terms=terms,
                now_us=now_us,
            )
            return (lent.lease.lease_id, lent.granted_nanousd, lent.available_nanousd, lent.lsn)

        return Asked(work, is_known=True)

    def _book(self) -> Asked:
        who = self._some_lease()
        facts = [self._fact(number) for number in range(self._draw.randrange(1, 6))]
        self.reported |= {(who["lease_id"], fact.request_id) for fact in facts}

        async def work(transaction: Transaction) -> list[Outcome]:
            batch = Batch(who["lease_id"], who["agent_id"], len(facts), lambda _: facts)
            (answer,) = await book(transaction, [batch], policy=POLICY, now_us=who["now_us"])
            if isinstance(answer, NotFound):
                raise answer
            # A refusal is not remembered: later the same report may be taken.
            return [outcome for outcome in answer.outcomes if isinstance(outcome, Booked)]

        return Asked(work, is_known=True)

    def _grow(self) -> Asked:
        who, amount = self._some_lease(), self._draw.randrange(1, 400)
        request_id = f"request_{self._now_us}"
        return Asked(
            lambda transaction: self._desk.grow_lease(
                transaction, requested_nanousd=amount, request_id=request_id, **who
            ),
            is_known=True,
        )

    def _close(self) -> Asked:
        who = self._some_lease()
        return Asked(
            lambda transaction: self._desk.close_lease(
                transaction, believed_spent_nanousd=None, **who
            ),
            is_known=False,
        )

    def _sweep(self) -> Asked:
        now_us = self._now_us
        return Asked(lambda transaction: self._desk.sweep(transaction, now_us), is_known=False)

    def _some_lease(self) -> dict[str, Any]:
        lease, agent = self._draw.choice(self.leases[-8:])
        return {"lease_id": lease, "agent_id": agent, "now_us": self._now_us}

    def _fact(self, number: int) -> Fact:
        return Fact(
            request_id=f"request_{self._now_us}_{number}",
            sequence=0,
            provider="openai",
            model="m",
            input_tokens=1,
            output_tokens=1,
            cache_read_tokens=0,
            cache_write_tokens=0,
            cost_nanousd=self._draw.randrange(200),
            price_version="1",
            certainty="measured",
            at_us=0,
        )


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that waits for nothing, as all work in a transaction does."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("work in a transaction waited for something else")


def new_disk() -> Disk:
    disk = Disk()
    with disk.connected() as connection:
        for room in ("events", "agents", "budget"):
            folder = files(f"steward_server.{room}") / "migrations"
            for script in sorted(folder.iterdir(), key=lambda script: script.name):
                connection.execute(script.read_text())
    return disk


def work_until_the_power_fails(
    disk: Disk, callers: Callers, draw: random.Random, findings: Findings, synchronous: str
) -> Disk:
    """Commit groups of operations and return what is found of the disk after a cut.

    Mostly the power fails in the middle of something, else between two commits.
    """
    if draw.random() < 0.7:
        disk.fail_after(draw.randrange(1, 120))
    try:
        with disk.connected(synchronous=synchronous) as connection:
            connection.pragma("foreign_keys", True)
            connection.wal_autocheckpoint(draw.choice((8, 40, 1_000)))
            for _ in range(draw.randrange(1, 20)):
                commit_together(connection, callers, draw, findings)
            return disk.cut(draw)
    except apsw.Error:
        if not disk.is_dark:
            raise
        return disk.cut(draw)


def commit_together(
    connection: apsw.Connection, callers: Callers, draw: random.Random, findings: Findings
) -> None:
    """One commit for several operations, each in a savepoint of its own, as the server does it."""
    transaction = ApswTransaction(connection)
    answered: list[tuple[Asked, Any, int, bytes]] = []
    with connection:
        for _ in range(draw.randrange(1, 5)):
            asked = callers.draw_operation()
            try:
                with connection:
                    answer = finished(asked.work(transaction))
            except (LedgerError, StewardError):
                findings.refused += 1
                continue
            answered.append((asked, answer, *finished(head(transaction))))
    callers.acknowledged += [Acknowledged(*each) for each in answered]


def inspect(disk: Disk, callers: Callers, draw: random.Random, findings: Findings) -> None:
    with disk.connected() as connection:
        transaction = ApswTransaction(connection)
        assert connection.pragma("integrity_check") == "ok"
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        books = read(transaction)
        hashes = {row.lsn: row.hash for row in books.journal}
        kept = [each for each in callers.acknowledged if hashes.get(each.lsn) == each.hash]
        findings.cuts += 1
        findings.acknowledged += len(callers.acknowledged)
        findings.lost += len(callers.acknowledged) - len(kept)
        findings.wrong += wrong_in(books)
        findings.causes |= {row.cause for row in books.changes}
        used = {(row.subject, row.key or "") for row in books.of_kind("usage")}
        findings.wrong += [f"nobody reported {each}" for each in used - callers.reported]
        known = [each for each in kept if each.asked.is_known]
        for each in draw.sample(known, min(ASKED_AGAIN, len(known))):
            if (again := ask_again(connection, transaction, each)) != each.answer:
                findings.wrong.append(f"told {each.answer} and then {again}")
    # What was found is what counts from here on.
    callers.acknowledged = kept
    scopes = {account.scope_id.partition(":")[::2] for account in books.accounts.values()}
    callers.agents = sorted(name for kind, name in scopes if kind == "agent")
    callers.projects = sorted(name for kind, name in scopes if kind == "project")
    callers.leases = [(str(lease.lease_id), str(lease.agent_id)) for lease in books.leases.values()]


def read(transaction: ApswTransaction) -> Books:
    return books_of(finished(transaction.fetch_all(query)) for query in QUERIES)


class _Undo(Exception):
    pass


def ask_again(connection: apsw.Connection, transaction: ApswTransaction, each: Acknowledged) -> Any:
    """The answer to a repetition; nothing it might do stays."""
    answer = None
    with suppress(_Undo), connection:
        try:
            answer = finished(each.asked.work(transaction))
        except LeaseClosed:
            answer = each.answer  # a lease that has ended meanwhile is not handed over again
        raise _Undo
    return answer


def cut_the_power(times: int, *, seed: int, synchronous: str) -> Findings:
    """Some cuts in a row for each disk, the next life beginning on what was found."""
    draw = random.Random(seed)
    findings = Findings()
    while findings.cuts < times and not findings.wrong:
        disk, callers = new_disk(), Callers(draw)
        for _ in range(CUTS_PER_DISK):
            disk = work_until_the_power_fails(disk, callers, draw, findings, synchronous)
            inspect(disk, callers, draw, findings)
    return findings


def test_what_the_desk_acknowledged_outlives_every_power_cut() -> None:
    findings = cut_the_power(200, seed=1, synchronous="FULL")
    assert findings.wrong == []
    assert findings.lost == 0
    assert findings.acknowledged > 2_000
    assert findings.refused > 40
    assert findings.causes == set(Cause)


@pytest.mark.proof
def test_what_the_desk_acknowledged_outlives_ten_thousand_power_cuts() -> None:
    findings = cut_the_power(10_000, seed=2, synchronous="FULL")
    assert findings.wrong == []
    assert findings.lost == 0
    assert findings.acknowledged > 100_000
    assert findings.refused > 1_000
    assert findings.causes == set(Cause)


def test_a_commit_that_does_not_wait_for_the_disk_is_caught_losing_what_it_acknowledged() -> None:
    findings = cut_the_power(60, seed=1, synchronous="NORMAL")
    assert findings.wrong == []  # it forgets, but what is left is in itself true
    assert findings.lost > 50
