"""The ledger driven by hypothesis, which shrinks what it finds to the shortest story."""

from typing import Any

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from steward_server.budget import ledger
from steward_server.budget.audit import EMPTY, JournalContradiction, check, replay
from steward_server.budget.ledger import Closing
from steward_server.budget.values import Account, AccountId, Lease, LeasePolicy, Path
from tests.property.budget.bank import LEDGER, Bank, Rules
from tests.property.budget.model import Answer, Model
from tests.property.budget.simulation import without_signs_of_life

POLICY = LeasePolicy(
    default_tranche_nanousd=10, maximum_tranche_nanousd=100, lease_ttl_ms=20, settle_grace_ms=5
)
amounts = st.none() | st.integers(-1, 120)
levels = st.integers(0, 4)
modes = st.sampled_from(["restrictive", "informative"])
periods = st.sampled_from(["none", "day", "week", "month"])
MIDNIGHT_US = 1_709_164_800_000_000
"""Before the 29th of February of a leap year."""


class LedgerMachine(RuleBasedStateMachine):
    """A bank, the model beside it, and a clock that only the rules move."""

    decided_by: Rules = LEDGER
    leases: Bundle[str] = Bundle("leases")
    reports: Bundle[dict[str, Any]] = Bundle("reports")

    @initialize(
        agents=st.lists(st.tuples(st.integers(0, 200), periods), min_size=1, max_size=3),
        above=st.lists(st.tuples(st.none() | st.integers(0, 200), modes, periods), max_size=4),
    )
    def plant_a_tree(
        self, agents: list[tuple[int, str]], above: list[tuple[int | None, str, str]]
    ) -> None:
        self.now_us = MIDNIGHT_US - 30_000
        self.bank = Bank(POLICY, self.decided_by)
        self.model = Model(
            default_tranche=POLICY.default_tranche_nanousd,
            maximum_tranche=POLICY.maximum_tranche_nanousd,
            ttl_us=POLICY.lease_ttl_ms * 1_000,
            grace_us=POLICY.settle_grace_ms * 1_000,
        )
        self.over: dict[AccountId, Account] = {}
        self.parents: list[str | None] = [None]
        self.agents: list[str] = []
        for level, (allocated, mode, period) in enumerate(above):
            self.open(f"level_{level}", allocated, mode, period)
            self.parents.append(f"level_{level}")
        for number, (budget, period) in enumerate(agents):
            self.open(f"agent_{number}", budget, "restrictive", period)
            self.agents.append(f"agent_{number}")
        self.scopes = [*self.agents, *(name for name in self.parents if name)]

    def open(self, name: str, allocated: int | None, mode: str, period: str) -> None:
        self.do(
            "open_account",
            account=name,
            parent=self.parents[-1],
            allocated=allocated,
            mode=mode,
            period=period,
        )

    def do(self, operation: str, **arguments: Any) -> Answer:
        answer = self.bank.do(operation, arguments, self.now_us)
        assert answer == self.model.do(operation, arguments, self.now_us)
        return answer

    def agent(self, number: int) -> str:
        return self.agents[number % len(self.agents)]

    def scope(self, number: int) -> str:
        return self.scopes[number % len(self.scopes)]

    def mode_of(self, scope: str, wanted: str) -> str:
        """An agent's budget always blocks."""
        return "restrictive" if scope in self.agents else wanted

    # --- what runtimes do

    @rule(target=leases, level=levels, requested=amounts, minimum=st.integers(-1, 20))
    def handshake(self, level: int, requested: int | None, minimum: int) -> Any:
        lease = f"lease_{len(self.model.loans)}"
        answer = self.do(
            "handshake",
            lease=lease,
            agent=self.agent(level),
            requested=requested,
            minimum=minimum,
        )
        return lease if answer["outcome"] == "granted" else multiple()

    report_count = 0

    @rule(target=reports, lease=leases, cost=st.integers(-1, 60), skip=st.integers(-2, 2))
    def report(self, lease: str, cost: int, skip: int) -> dict[str, Any]:
        loan = self.model.loans[lease]
        self.report_count += 1
        request = f"request_{self.report_count}"
        sequence = max(0, loan.sequence + 1 + skip)
        report = {"lease": lease, "request": request, "sequence": sequence, "cost": cost}
        self.do("report", **report)
        return report

    @rule(lease=leases, over=st.integers(-1, 1))
    def report_what_is_left(self, lease: str, over: int) -> None:
        loan = self.model.loans[lease]
        request = f"last_{self.bank.lsn}_{len(loan.answers)}"
        self.do("report", lease=lease, request=request, sequence=0, cost=loan.left + over)

    @rule(report=reports)
    def repeat_a_report(self, report: dict[str, Any]) -> None:
        lsn = self.bank.lsn
        known = report["request"] in self.model.loans[report["lease"]].answers
        self.do("report", **report)
        assert not known or self.bank.lsn == lsn

    @rule(report=reports)
    def repeat_a_report_with_another_cost(self, report: dict[str, Any]) -> None:
        assume(report["request"] in self.model.loans[report["lease"]].answers)
        answer = self.do("report", **report | {"cost": report["cost"] + 1})
        assert answer["reason"] == "REQUEST_ID_REUSED"

    @rule(lease=leases, requested=amounts)
    def refresh(self, lease: str, requested: int | None) -> None:
        self.do("refresh", lease=lease, requested=requested)

    @rule(lease=leases)
    def heartbeat(self, lease: str) -> None:
        self.do("heartbeat", lease=lease)

    @rule(lease=consumes(leases))
    def give_back(self, lease: str) -> None:
        self.do("give_back", lease=lease)
        assert self.do("give_back", lease=lease)["reason"] == "LEASE_CLOSED"

    @rule(target=leases, lease=consumes(leases))
    def give_back_and_keep_the_ticket(self, lease: str) -> str:
        self.do("give_back", lease=lease)
        return lease

    # --- what administrators and the clock do

    @rule(lease=leases)
    def revoke(self, lease: str) -> None:
        self.do("revoke", lease=lease)
        assert self.do("revoke", lease=lease)["outcome"] == "unchanged"

    @rule(level=levels, allocated=st.integers(-1, 300), mode=modes)
    def reallocate(self, level: int, allocated: int, mode: str) -> None:
        scope = self.scope(level)
        self.do("reallocate", account=scope, allocated=allocated, mode=self.mode_of(scope, mode))

    @rule(level=levels, off=st.integers(-1, 1), mode=modes)
    def reallocate_to_what_is_committed(self, level: int, off: int, mode: str) -> None:
        scope = self.scope(level)
        _, purse = self.model.present(scope, self.now_us)
        allocated = purse.spent + purse.leased + off
        self.do("reallocate", account=scope, allocated=allocated, mode=self.mode_of(scope, mode))

    @rule(level=levels)
    def take_a_limit_away(self, level: int) -> None:
        scope = self.scope(level)
        if scope not in self.agents:
            self.do("reallocate", account=scope, allocated=None)

    @rule(level=levels, period=periods)
    def change_a_period(self, level: int, period: str) -> None:
        self.do("change_period", account=self.scope(level), period=period)

    @rule(level=levels, to=levels)
    def move_an_agent(self, level: int, to: int) -> None:
        agent = self.agent(level)
        held = [lease for lease in self.bank.leases.values() if lease.agent_id == agent]
        if not any(lease.is_open for lease in held):
            self.do("move", account=agent, parent=self.parents[to % len(self.parents)])

    @rule(passed_us=st.integers(-5, 30_000))
    def pass_time(self, passed_us: int) -> None:
        self.now_us += passed_us

    @rule(level=levels, off_us=st.integers(-1, 1))
    def pass_time_to_the_end_of_a_period(self, level: int, off_us: int) -> None:
        _, purse = self.model.present(self.scope(level), self.now_us)
        if purse.ends_at_us is not None:
            self.now_us = purse.ends_at_us + off_us

    @rule(level=levels)
    def begin_a_period_by_the_clock(self, level: int) -> None:
        scope = self.scope(level)
        self.do("roll", account=scope)
        assert self.do("roll", account=scope)["outcome"] == "unchanged"

    @rule(lease=leases, off_us=st.integers(-1, 1))
    def pass_time_to_the_edge_of_a_lease(self, lease: str, off_us: int) -> None:
        loan = self.model.loans[lease]
        self.now_us = (loan.settle_until_us or loan.expires_at_us) + off_us

    @rule(lease=leases)
    def sweep(self, lease: str) -> None:
        self.do("expire", lease=lease)
        self.do("end", lease=lease)

    # --- what must hold

    @invariant()
    def every_law_holds(self) -> None:
        accounts, leases = self.bank.accounts.values(), self.bank.leases.values()
        assert check(accounts, leases, complete=True) == []
        for account in accounts:
            if account.ends_at_us is not None and self.now_us < account.ends_at_us:
                self.over.pop(account.account_id, None)  # the clock has gone back before its end
            elif self.bank.was_followed(account) and not account.leased_nanousd:
                self.over.setdefault(account.account_id, account)
            if before := self.over.get(account.account_id):
                assert account == before._replace(overrun_nanousd=account.overrun_nanousd)

    @invariant()
    def every_number_is_the_models(self) -> None:
        for account in self.bank.accounts.values():
            purse = self.model.purses[account.account_id]
            assert (
                account.allocated_nanousd,
                account.spent_nanousd,
                account.leased_nanousd,
                account.overrun_nanousd,
                account.available_nanousd,
            ) == (purse.allocated, purse.spent, purse.leased, purse.overrun, purse.available)
        for lease in self.bank.leases.values():
            loan = self.model.loans[lease.lease_id]
            assert (lease.state, lease.ending, lease.expires_at_us, lease.settle_until_us) == (
                loan.state,
                loan.ending,
                loan.expires_at_us,
                loan.settle_until_us,
            )

    def teardown(self) -> None:
        bank = self.bank
        balances = EMPTY
        for entry in bank.journal:
            balances = replay([entry], onto=balances)
        actual = bank.balances()
        assert without_signs_of_life(balances, actual) == actual
        assert replay(bank.journal) == balances


def test_every_story_of_the_ledger_keeps_its_laws() -> None:
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=300, stateful_step_count=40, deadline=None)
    )


@pytest.mark.proof
def test_many_long_stories_of_the_ledger_keep_its_laws() -> None:
    run_state_machine_as_test(
        LedgerMachine, settings=settings(max_examples=2_000, stateful_step_count=80, deadline=None)
    )


def test_a_bug_is_told_as_a_short_story() -> None:
    def pay_twice(path: Path, lease: Lease, *, now_us: int) -> Closing:
        if lease.is_open:
            return ledger.give_back(path, lease, now_us=now_us)
        return Closing(path, lease, lease.granted_nanousd - lease.spent_nanousd, now_us)

    class Buggy(LedgerMachine):
        decided_by = Rules(give_back=pay_twice)

    with pytest.raises((AssertionError, JournalContradiction)) as story:
        run_state_machine_as_test(
            Buggy,
            settings=settings(
                max_examples=200,
                stateful_step_count=40,
                deadline=None,
                database=None,
                derandomize=True,
            ),
        )
    lines = "\n".join(story.value.__notes__).splitlines()
    told = [line for line in lines if "state." in line and "every_" not in line]
    assert len(told) <= 6
    assert any("give_back" in line for line in told)
