"""The server's own lending desk, store and journal over a disk whose power fails."""

import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar

import apsw
import pytest

from steward_server.budget import store
from steward_server.budget.audit import Balances, check, replay
from steward_server.budget.desk import Booked, Desk, Fact
from steward_server.budget.ledger import AccountId, LeaseId, LeasePolicy, LedgerError
from steward_server.budget.store import Terms
from steward_server.events.journal import JournalRow, verify_chain
from tests.property.budget.powercut import ApswTransaction, Disk
from tests.property.budget.simulation import without_signs_of_life

T = TypeVar("T")

POLICY = LeasePolicy(
    default_tranche_nanousd=500, maximum_tranche_nanousd=5_000, lease_ttl_ms=20, settle_grace_ms=5
)
TERMS = Terms("openai", "openai", "token_1", "runtime_1", None, b"", 0)
AGENTS = ("agent_1", "agent_2")


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of work that waits for nothing, as all work in a transaction does."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("work in a transaction waited for something else")


@dataclass
class Runtime:
    """What was asked for and what was acknowledged, as the callers know it."""

    draw: random.Random
    desk: Desk = field(default_factory=lambda: Desk(POLICY))
    now_us: int = 1_000_000
    leases: list[tuple[str, str]] = field(default_factory=list)
    asked: set[tuple[str, str]] = field(default_factory=set)
    acknowledged: dict[tuple[str, str], int] = field(default_factory=dict)
    """The cost of every report that was answered, by lease and request id."""

    def work(self, connection: apsw.Connection) -> None:
        """Commit one thing; what is noted after the commit was acknowledged."""
        transaction = ApswTransaction(connection)
        self.now_us += self.draw.randrange(1, 4_000)  # also what makes ids unique
        if not self.leases or self.draw.random() < 0.15:
            self._open(connection, transaction)
        elif self.draw.random() < 0.15:
            with connection:
                finished(self.desk.sweep(transaction, self.now_us))
        else:
            self._use(connection, transaction)

    def _open(self, connection: apsw.Connection, transaction: ApswTransaction) -> None:
        agent, lease = self.draw.choice(AGENTS), f"lease_{self.now_us}"
        with connection:
            opening = self.desk.open_lease(
                transaction,
                lease_id=lease,
                agent_id=agent,
                requested_nanousd=None,
                minimum_nanousd=0,
                terms=TERMS,
                now_us=self.now_us,
            )
            finished(opening)
        self.leases.append((lease, agent))

    def _use(self, connection: apsw.Connection, transaction: ApswTransaction) -> None:
        lease, agent = self.draw.choice(self.leases)
        who: dict[str, Any] = {"lease_id": lease, "agent_id": agent, "now_us": self.now_us}
        draw = self.draw.random()
        if draw < 0.8:
            facts = [self._fact(number) for number in range(self.draw.randrange(1, 6))]
            self.asked |= {(lease, fact.request_id) for fact in facts}
            with connection:
                booking = self.desk.book(transaction, facts_of=lambda _: facts, **who)
                outcomes = finished(booking)
            booked = zip(facts, outcomes, strict=True)
            self.acknowledged |= {
                (lease, fact.request_id): outcome.cost_nanousd
                for fact, outcome in booked
                if isinstance(outcome, Booked)
            }
        elif draw < 0.9:
            with connection:
                growth = self.desk.grow_lease(
                    transaction, requested_nanousd=200, request_id=None, **who
                )
                finished(growth)
        else:
            with connection:
                finished(self.desk.close_lease(transaction, believed_spent_nanousd=None, **who))

    def _fact(self, number: int) -> Fact:
        return Fact(
            request_id=f"request_{self.now_us}_{number}",
            sequence=0,
            provider="openai",
            model="m",
            input_tokens=1,
            output_tokens=1,
            cache_read_tokens=0,
            cache_write_tokens=0,
            cost_nanousd=self.draw.randrange(60),
            price_version="1",
            certainty="measured",
            at_us=0,
        )


def new_disk(desk: Desk) -> Disk:
    disk = Disk()
    with disk.connected() as connection:
        for room in ("events", "budget"):
            folder = files(f"steward_server.{room}") / "migrations"
            for script in sorted(folder.iterdir(), key=lambda script: script.name):
                connection.execute(script.read_text())
        with connection:
            for agent in AGENTS:
                opening = desk.open_account(
                    ApswTransaction(connection),
                    agent_id=agent,
                    allocated_nanousd=20_000,
                    now_us=1,
                )
                finished(opening)
    return disk


def live_until_the_power_fails(disk: Disk, runtime: Runtime, synchronous: str) -> Disk:
    draw = runtime.draw
    if draw.random() < 0.7:
        disk.fail_after(draw.randrange(1, 150))
    try:
        with disk.connected(synchronous=synchronous) as connection:
            connection.wal_autocheckpoint(draw.choice((8, 1_000)))
            for _ in range(draw.randrange(1, 40)):
                try:
                    runtime.work(connection)
                except LedgerError:
                    continue
            return disk.cut(draw)
    except apsw.Error:
        if not disk.is_dark:
            raise
        return disk.cut(draw)


def acknowledged_but_lost(found: Disk, runtime: Runtime) -> int:
    """How many answered reports are missing; everything else that could be wrong is asserted."""
    with found.connected() as connection:
        assert connection.pragma("integrity_check") == "ok"
        transaction = ApswTransaction(connection)
        journal = finished(
            transaction.fetch_all(
                "SELECT lsn, at_us, kind, agent_id, subject, key, body, hash"
                " FROM journal ORDER BY lsn"
            )
        )
        rows = [JournalRow(**row) for row in journal]
        accounts = [store.account_of(row) for row in finished(_rows(transaction, "account"))]
        names = [
            (row["lease_id"], row["agent_id"]) for row in finished(_rows(transaction, "lease"))
        ]
        leases = [finished(store.lease(transaction, *name))[0] for name in names]
    assert verify_chain(rows) is None
    entries = [row.entry() for row in rows]
    kept = Balances(
        rows[-1].lsn,
        {AccountId(account.account_id): account for account in accounts},
        {LeaseId(lease.lease_id): lease for lease in leases},
    )
    assert without_signs_of_life(replay(entries), kept) == kept
    assert check(accounts, leases, complete=True) == []
    booked = {
        (entry.subject, entry.key): entry.body["cost"] for entry in entries if entry.kind == "usage"
    }
    assert booked.keys() <= runtime.asked
    return len(runtime.acknowledged.items() - booked.items())


def _rows(transaction: ApswTransaction, table: str) -> Coroutine[Any, Any, list[Any]]:
    return transaction.fetch_all(f"SELECT * FROM {table}")


def lost_in(lives: int, *, seed: int, synchronous: str) -> tuple[int, int]:
    """Of how many answered reports how many were lost, over so many power cuts."""
    answered = lost = 0
    for life in range(lives):
        runtime = Runtime(random.Random(seed * 1_000_000 + life))
        disk = live_until_the_power_fails(new_disk(runtime.desk), runtime, synchronous)
        answered += len(runtime.acknowledged)
        lost += acknowledged_but_lost(disk, runtime)
    return answered, lost


def test_no_answered_report_is_lost_by_a_power_cut() -> None:
    answered, lost = lost_in(150, seed=1, synchronous="FULL")
    assert answered > 1_000
    assert lost == 0


def test_a_server_that_did_not_wait_for_the_disk_would_be_caught() -> None:
    answered, lost = lost_in(40, seed=1, synchronous="NORMAL")
    assert lost > answered // 10


@pytest.mark.proof
def test_no_answered_report_is_lost_by_thousands_of_power_cuts() -> None:
    answered, lost = lost_in(3_000, seed=2, synchronous="FULL")
    assert answered > 20_000
    assert lost == 0
