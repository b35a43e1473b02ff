"""Requests, raises that end and leases, driven by hypothesis over a real database.

The model knows nothing of who owes what. It says: once raises whose time is over have been taken
back, an agent has what it has for good and what raises that hold have added, or what is spent and
lent, if that is more. What is more than that and spent is for good from the next decision on.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from steward.gateway.v1.options_pb2 import ROLE_ADMIN
from steward_server.budget import allocations, chart
from steward_server.budget.bookings import Batch, Fact, book
from steward_server.budget.desk import Desk
from steward_server.budget.ledger_errors import BudgetExceeded
from steward_server.budget.store import Terms
from steward_server.budget.values import Account, LeasePolicy, scope_of_agent
from steward_server.db import Reader, T, Transaction
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.errors import FailedPrecondition, InvalidArgument
from steward_server.principals import Kind, Principal
from steward_server.requests.request import AlreadyReviewed
from steward_server.requests.room import Approval, Asked, RequestRoom
from tests.books import read_books, wrong_in

POLICY = LeasePolicy(
    default_tranche_nanousd=10,
    maximum_tranche_nanousd=10_000,
    lease_ttl_ms=10**9,
    settle_grace_ms=1,
)
ROOMS = [f"steward_server.{room}" for room in ("events", "audit", "agents", "budget", "requests")]
AGENT = "agent_1"
ANN = Principal(Kind.PERSON, "user_ann", ROLE_ADMIN)
BOB = Principal(Kind.PERSON, "user_bob", ROLE_ADMIN)
WHY = "the crawl has grown a lot"
SECOND_US = 1_000_000
amounts = st.integers(1, 60)


@dataclass(frozen=True)
class Scout:
    """The agent, and everybody else the room asks about."""

    name: str = "scout"
    owner_id: str = ANN.subject

    async def record(self, reader: Reader, agent_id: str) -> Scout:
        return self

    def owner_of(self, agent_id: str) -> str | None:
        return self.owner_id

    async def name_of(self, reader: Reader, user_id: str) -> str:
        return user_id

    async def is_sole_administrator(self, reader: Reader, user_id: str) -> bool:
        return False


class RequestMachine(RuleBasedStateMachine):
    """One agent, two administrators, and a clock that only the rules move."""

    requests: Bundle[str] = Bundle("requests")
    leases: Bundle[str] = Bundle("leases")

    @initialize(budget=st.integers(1, 100))
    def open(self, budget: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name) / "steward.db"
        self.now_us = SECOND_US
        self.names = map(str, itertools.count(1))
        self.desk = Desk(POLICY)
        scout = Scout()
        self.database = self.wait(Sqlite.open(self.file))
        self.wait(migrate(self.database, ROOMS))
        self.room = RequestRoom(
            self.database, scout, scout, self.desk, allocations, 1_000, lambda: self.now_us
        )
        self.wait(
            self.database.run(
                lambda transaction: self.desk.open_account(
                    transaction, agent_id=AGENT, allocated_nanousd=budget, now_us=self.now_us
                )
            )
        )
        # What is expected.
        self.allocated = self.base = self.initial = budget
        self.raises: dict[str, tuple[int, int]] = {}
        self.decided: dict[str, str] = {}
        self.over: list[str] = []
        """Requests that are decided, or whose approval was refused."""
        self.spent = 0
        self.left: dict[str, int] = {}

    def teardown(self) -> None:
        if not hasattr(self, "database"):
            return
        assert wrong_in(read_books(self.file)) == []
        self.wait(self.database.close())
        self.loop.close()
        self.folder.cleanup()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @property
    def committed(self) -> int:
        return self.spent + sum(self.left.values())

    @property
    def held(self) -> int:
        return sum(added for added, ends_at_us in self.raises.values() if ends_at_us > self.now_us)

    def settle(self) -> None:
        """What the server does before it lends or approves, and by itself."""
        self.allocated = min(self.allocated, max(self.base + self.held, self.committed))

    def account(self) -> Account:
        _, account = self.wait(chart.load(self.database, scope_of_agent(AGENT)))
        assert account is not None
        return account

    @rule(target=requests, more=amounts, expires_in_s=st.none() | st.integers(1, 20))
    def ask(self, more: int, expires_in_s: int | None) -> str:
        wanted = (self.account().allocated_nanousd or 0) + more
        seen = self.wait(self.room.create(ANN, Asked(AGENT, wanted, WHY, expires_in_s)))
        return seen.request.request_id

    @rule(request_id=consumes(requests), less=st.integers(-1, 20))
    def approve(self, request_id: str, less: int) -> None:
        """As was asked (-1), or so much less."""
        asked = self.wait(self.room.get(BOB, request_id)).request
        self.over.append(request_id)
        amount = asked.requested_nanousd - max(less, 0)
        approval = Approval(amount if less >= 0 else None, None, "")
        try:
            seen = self.wait(self.room.approve(BOB, request_id, approval)).request
        except InvalidArgument as refused:
            if refused.reason != "APPROVAL_DECREASES_BUDGET":
                raise
            assert amount <= min(self.allocated, max(self.base + self.held, self.committed))
            return
        self.decided[request_id] = "approved"
        self.settle()
        assert (seen.previous_nanousd, seen.approved_nanousd) == (self.allocated, amount)
        assert self.allocated < amount <= asked.requested_nanousd
        still_lent = min(self.allocated - self.base - self.held, sum(self.left.values()))
        if asked.expires_in_s is None:
            self.base = amount - self.held
        else:
            ends_at_us = self.now_us + asked.expires_in_s * SECOND_US
            assert seen.ends_at_us == ends_at_us
            self.base = self.allocated - self.held - still_lent
            self.raises[request_id] = amount - self.allocated + still_lent, ends_at_us
        self.allocated = amount

    @precondition(lambda self: self.over)
    @rule(data=st.data(), how=st.sampled_from(["approved", "rejected", "cancelled"]))
    def decide_again(self, data: st.DataObject, how: str) -> None:
        request_id = data.draw(st.sampled_from(self.over))
        if request_id not in self.decided:
            return
        with pytest.raises(AlreadyReviewed) as refused:
            self.wait(self.decision(request_id, how))
        assert refused.value.facts["status"] == self.decided[request_id]

    def decision(self, request_id: str, how: str) -> Coroutine[Any, Any, Any]:
        if how == "approved":
            return self.room.approve(BOB, request_id, Approval(None, None, ""))
        if how == "rejected":
            return self.room.reject(BOB, request_id, WHY)
        return self.room.cancel(ANN, request_id)

    @rule(request_id=consumes(requests), how=st.sampled_from(["rejected", "cancelled"]))
    def turn_down(self, request_id: str, how: str) -> None:
        self.wait(self.decision(request_id, how))
        self.decided[request_id] = how
        self.over.append(request_id)

    @rule(budget=st.integers(0, 200))
    def set_budget(self, budget: int) -> None:
        try:
            self.wait(
                self.database.run(
                    lambda transaction: self.desk.reallocate(
                        transaction, agent_id=AGENT, allocated_nanousd=budget, now_us=self.now_us
                    )
                )
            )
        except FailedPrecondition:
            assert budget < self.committed
            return
        assert budget >= self.committed
        self.allocated = self.base = budget
        self.raises.clear()

    @rule(target=leases, amount=st.integers(1, 80))
    def lend(self, amount: int) -> str:
        lease_id = f"lease_{next(self.names)}"
        terms = Terms("openai", "openai", "token", "runtime", None, b"", 0)

        async def work(transaction: Transaction) -> int:
            lent = await self.desk.open_lease(
                transaction,
                lease_id=lease_id,
                agent_id=AGENT,
                requested_nanousd=amount,
                minimum_nanousd=0,
                terms=terms,
                now_us=self.now_us,
            )
            return lent.granted_nanousd

        try:
            granted = self.wait(self.database.run(work))
        except BudgetExceeded:
            # A refusal takes nothing back either: it leaves no trace.
            assert max(self.base + self.held, self.committed) - self.committed <= 0
            return lease_id
        self.settle()
        assert granted == min(amount, self.allocated - self.committed)
        self.left[lease_id] = granted
        return lease_id

    @rule(lease_id=leases, cost=st.integers(0, 40))
    def spend(self, lease_id: str, cost: int) -> None:
        cost = min(cost, self.left.get(lease_id, 0))
        if lease_id not in self.left:
            return
        fact = Fact(f"call_{next(self.names)}", 0, "openai", "m", 1, 1, 0, 0, cost, "1", "m", 0)
        batch = Batch(lease_id, AGENT, 1, lambda _: [fact])
        self.wait(
            self.database.run(
                lambda transaction: book(transaction, [batch], policy=POLICY, now_us=self.now_us)
            )
        )
        self.left[lease_id] -= cost
        self.spent += cost

    @rule(lease_id=consumes(leases))
    def give_back(self, lease_id: str) -> None:
        if self.left.pop(lease_id, None) is None:
            return
        self.wait(
            self.database.run(
                lambda transaction: self.desk.close_lease(
                    transaction,
                    lease_id=lease_id,
                    agent_id=AGENT,
                    believed_spent_nanousd=None,
                    now_us=self.now_us,
                )
            )
        )

    @rule(seconds=st.integers(1, 12))
    def pass_time(self, seconds: int) -> None:
        self.now_us += seconds * SECOND_US

    @rule()
    def sweep(self) -> None:
        self.wait(self.database.run(lambda transaction: self.desk.sweep(transaction, self.now_us)))
        self.settle()

    @invariant()
    def the_account_is_as_expected(self) -> None:
        if not hasattr(self, "database"):
            return
        account = self.account()
        assert account.allocated_nanousd == self.allocated
        assert account.committed_nanousd == self.committed

    @invariant()
    def the_history_adds_up(self) -> None:
        if not hasattr(self, "database"):
            return
        changes, summary = self.wait(self.room.changes(ANN, AGENT, before_lsn=None, limit=1_000))
        at = self.initial
        for change in reversed(changes):
            assert change.old_nanousd == at != change.new_nanousd
            at = change.new_nanousd
        assert at == summary.current_nanousd == self.allocated
        assert (summary.initial_nanousd, summary.change_count) == (self.initial, len(changes))


def test_requests_raises_and_leases_keep_to_the_model() -> None:
    run_state_machine_as_test(
        RequestMachine,
        settings=settings(max_examples=20, stateful_step_count=30, deadline=None),
    )
