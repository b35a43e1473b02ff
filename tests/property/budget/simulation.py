"""A seeded simulation: random operations on a bank, compared with the model step by step.

The same seed gives the same run. Money, time and trees are drawn to meet the edges often: grants
that just fit, reports over by one, times a microsecond around an expiry or the end of a period.
"""

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from steward_server.budget.audit import EMPTY, Balances, JournalContradiction, check, replay
from steward_server.budget.values import (
    Account,
    AccountId,
    Lease,
    LeaseId,
    LeasePolicy,
    LeaseState,
    agent_of,
)
from tests.changed import replace
from tests.property.budget.bank import LEDGER, Bank, Rules
from tests.property.budget.model import Model

POLICY = LeasePolicy(
    default_tranche_nanousd=1_000,
    maximum_tranche_nanousd=20_000,
    lease_ttl_ms=15 * 60 * 1_000,
    settle_grace_ms=60 * 1_000,
)
START_US = 1_700_000_000_000_000
FULL_CHECK_STEPS = 1_000
COMPLETE_CHECK_STEPS = 10_000
REPLAY_STEPS = 100_000
REMEMBERED_ENDED = 200
"""Ended leases that still receive late reports and repetitions."""

# (operation, weight); a report is far the commonest, as in life.
MIX = {
    "handshake": 9,
    "report": 56,
    "refresh": 7,
    "heartbeat": 6,
    "give_back": 5,
    "sweep": 9,
    "revoke": 3,
    "reallocate": 3,
    "raise": 2,
    "take_back": 1,
    "balance": 1,
    "roll": 1,
    "move": 0.5,
    "change_period": 0.2,
}
PERIODS = ("none", "none", "day", "week", "month")
MODES = ("restrictive", "restrictive", "informative")


class Counterexample(AssertionError):
    """The ledger went wrong; the seed and the step bring it back."""

    def __init__(self, seed: int, step: int, what: str) -> None:
        super().__init__(f"seed {seed}, step {step}: {what}")
        self.seed, self.step = seed, step


@dataclass(frozen=True)
class Stats:
    """What a run did."""

    seed: int
    operations: int
    outcomes: Mapping[str, int]
    """How often each answer was given, as "operation: outcome"."""
    journal_entries: int
    replays: int
    leases: int
    billed_nanousd: int
    """The sum of every cost that was booked, counted outside the ledger."""


def run(seed: int, operations: int, *, rules: Rules = LEDGER) -> Stats:
    """Run a simulation and return what it did.

    Raises:
        Counterexample: an answer, a balance or a law was wrong.
    """
    return _Simulation(seed, rules).run(operations)


class _Simulation:
    def __init__(self, seed: int, rules: Rules) -> None:
        self._seed = seed
        self._random = random.Random(seed)
        self._bank = Bank(POLICY, rules)
        self._model = Model(
            default_tranche=POLICY.default_tranche_nanousd,
            maximum_tranche=POLICY.maximum_tranche_nanousd,
            ttl_us=POLICY.lease_ttl_ms * 1_000,
            grace_us=POLICY.settle_grace_ms * 1_000,
        )
        self._now_us = START_US
        self._at_edge: LeaseId | None = None
        self._step = 0
        self._outcomes: Counter[str] = Counter()
        self._billed = 0
        self._requests = self._leases = 0
        self._replayed = EMPTY
        self._entries = self._replays = 0
        self._agents: list[str] = []
        self._parents: list[str] = []
        self._over: dict[AccountId, Account] = {}
        """Accounts that were followed and lent nothing, as they were found."""
        self._open: dict[str, list[LeaseId]] = {}
        self._ended: list[LeaseId] = []
        self._last_reports: dict[LeaseId, list[dict[str, Any]]] = {}

    def run(self, operations: int) -> Stats:
        self._plant_trees()
        names, weights = list(MIX), list(MIX.values())
        for name in self._random.choices(names, weights, k=operations):
            self._step += 1
            self._pass_time()
            at_edge = self._at_edge is not None and self._random.random() < 0.3
            getattr(self, "_sweep" if at_edge else f"_{name}")()
            if self._step % FULL_CHECK_STEPS == 0:
                self._check_all()
            if self._step % REPLAY_STEPS == 0:
                self._check_replay()
        self._check_all(complete=True)
        self._check_replay()
        return Stats(
            self._seed,
            operations,
            dict(self._outcomes),
            self._entries,
            self._replays,
            len(self._bank.leases),
            self._billed,
        )

    # --- the world

    def _plant_trees(self) -> None:
        """For each depth from 1 to 5 a tree whose leaves, the agents, share their ancestors."""
        for depth in range(1, 6):
            parent: str | None = None
            for level in range(depth - 1):
                name = f"tree_{depth}_{level}"
                allocated = self._random.choice((None, self._random.randrange(100_000, 400_000)))
                mode = self._random.choice(MODES)
                self._open_account(name, parent, allocated, mode)
                self._parents.append(name)
                parent = name
            for leaf in range(3):
                agent = f"agent_{depth}_{leaf}"
                allocated = self._random.randrange(50_000, 200_000)
                self._open_account(agent, parent, allocated, "restrictive")
                self._agents.append(agent)
                self._open[agent] = []

    def _open_account(
        self, name: str, parent: str | None, allocated: int | None, mode: str
    ) -> None:
        period = self._random.choice(PERIODS)
        self._do(
            "open_account",
            account=name,
            parent=parent,
            allocated=allocated,
            mode=mode,
            period=period,
        )

    def _pass_time(self) -> None:
        draw = self._random.random()
        if draw < 0.02:
            self._now_us += self._random.randrange(60_000_000)
        elif draw < 0.026 and (lease := self._some_open()) is not None:
            draining = lease.state is LeaseState.DRAINING
            edge_us = lease.settle_until_us if draining else lease.expires_at_us
            self._now_us = max(self._now_us, edge_us + self._random.choice((-1, 0, 1)))
            self._at_edge = lease.lease_id
        elif draw < 0.03:
            self._now_us -= self._random.randrange(1_000)  # clocks are set back at times
        elif draw < 0.031:
            self._pass_to_the_end_of_a_period()
        elif draw < 0.036 and self._bank.raises:
            self._pass_to_the_end_of_a_raise()
        else:
            self._now_us += self._random.randrange(200_000)

    def _pass_to_the_end_of_a_period(self) -> None:
        """Often a while before it; else it is begun by the clock, which is then set back."""
        scope = self._some_scope()
        account = self._bank.accounts[self._bank.account_ids[scope]]
        if account.ends_at_us is None:
            return
        if self._random.random() < 0.5:
            before_us = account.ends_at_us - self._random.randrange(POLICY.lease_ttl_ms * 1_000)
            self._now_us = max(self._now_us, before_us)
            return
        for off_us in (-1, 0, -1):
            self._now_us = max(self._now_us + off_us, account.ends_at_us + off_us)
            self._do("roll", account=scope)
            self._check_scope(scope)

    def _pass_to_the_end_of_a_raise(self) -> None:
        raised = self._random.choice(list(self._bank.raises.values()))
        edge_us = raised.ends_at_us + self._random.choice((-1, 0, 1))
        if edge_us < self._now_us + 3 * 10**9:  # the others end by and by
            self._now_us = max(self._now_us, edge_us)
            self._do("take_back", account=raised.agent_id)
            self._check_scope(raised.agent_id)

    # --- the operations

    def _handshake(self) -> None:
        agent = self._random.choice(self._agents)
        available = self._model.available(agent, self._now_us)
        requested: int | None = self._amount()
        minimum = 0
        if self._random.random() < 0.2:
            edges = (None, available, available + 1, available - 1, 20_000, 20_001, 0)
            requested = self._random.choice(edges)
            minimum = self._random.choice((0, 1, available, available + 1, requested or 0, -1))
        self._borrow(agent, requested, minimum)

    def _borrow(self, agent: str, requested: int | None, minimum: int = 0) -> bool:
        self._leases += 1
        lease_id = LeaseId(f"lease_{self._leases}")
        answer = self._do(
            "handshake", lease=lease_id, agent=agent, requested=requested, minimum=minimum
        )
        if answer["outcome"] == "granted":
            self._open[agent].append(lease_id)
            self._last_reports[lease_id] = []
        self._check_scope(agent)
        return bool(answer["outcome"] == "granted")

    def _report(self) -> None:
        lease = self._some_lease()
        if lease is None:
            self._handshake()
            return
        reports = self._last_reports[lease.lease_id]
        draw = self._random.random()
        if reports and draw < 0.1:
            report = self._random.choice(reports)
            if draw < 0.01:
                report = report | {"cost": report["cost"] + 1}
        else:
            self._requests += 1
            report = {
                "lease": lease.lease_id,
                "request": f"request_{self._requests}",
                "sequence": self._sequence(lease),
                "cost": self._cost(lease),
            }
        before = self._model.loans[lease.lease_id].sequence
        answer = self._do("report", **report)
        if self._model.loans[lease.lease_id].sequence > before:
            self._billed += answer["cost"]
            reports.append(report)
            del reports[:-20]
        self._check_lease(lease)

    def _refresh(self) -> None:
        lease = self._some_lease()
        if lease is None:
            return
        available = self._model.left_to_lend(self._model.loans[lease.lease_id])
        requested: int | None = self._amount()
        if self._random.random() < 0.2:
            requested = self._random.choice((None, available, available + 1, 20_001, 0))
        self._do("refresh", lease=lease.lease_id, requested=requested)
        self._check_lease(lease)

    def _heartbeat(self) -> None:
        if (lease := self._some_lease()) is not None:
            self._do("heartbeat", lease=lease.lease_id)
            self._check_lease(lease)

    def _give_back(self) -> None:
        if (lease := self._some_lease()) is not None:
            self._do("give_back", lease=lease.lease_id)
            self._check_lease(lease)

    def _revoke(self) -> None:
        if (lease := self._some_lease()) is not None:
            self._do("revoke", lease=lease.lease_id)
            self._check_lease(lease)

    def _sweep(self) -> None:
        """What the server does by its clock; sometimes on a lease that is not due."""
        if (lease := self._some_lease()) is not None:
            likely = 0.7 if lease.state is LeaseState.DRAINING else 0.05
            operation = "end" if self._random.random() < likely else "expire"
            self._do(operation, lease=lease.lease_id)
            self._check_lease(lease)

    def _reallocate(self) -> None:
        scope = self._some_scope()
        _, purse = self._model.present(scope, self._now_us)
        committed = purse.spent + purse.leased
        is_agent = scope in self._open
        mode = "restrictive" if is_agent else self._random.choice(MODES)
        room = 60_000 if is_agent else 400_000
        edges: tuple[int | None, ...] = (committed, committed - 1, committed + purse.overrun, -1)
        usual = (committed + purse.overrun + self._random.randrange(room),) * 12
        unlimited = () if is_agent else (None,)
        allocated = self._random.choice(edges + usual + unlimited)
        self._do("reallocate", account=scope, allocated=allocated, mode=mode)
        self._check_scope(scope)

    def _raise(self) -> None:
        """At times all of it is lent at once, so that it ends under its leases."""
        agent = self._some_raised()
        _, purse = self._model.present(agent, self._now_us)
        more = self._random.choice((0, 1, self._random.randrange(30_000)))
        holds_us = self._random.choice((None, 1, 1_000_000, self._random.randrange(2 * 10**8)))
        self._requests += 1
        self._do(
            "raise_to",
            account=agent,
            request=f"request_{self._requests:09d}",
            allocated=(purse.allocated or 0) + more,
            holds_us=holds_us,
        )
        self._check_scope(agent)
        if self._random.random() < 0.2:
            while self._borrow(agent, 20_000):
                pass

    def _take_back(self) -> None:
        """What the server does by its clock when a raise is over; mostly none is."""
        agent = self._some_raised()
        self._do("take_back", account=agent)
        self._check_scope(agent)

    def _balance(self) -> None:
        self._do("balance", account=self._random.choice(self._agents))

    def _roll(self) -> None:
        """What the server does by its clock when a period is over; mostly none is."""
        scope = self._some_scope()
        self._do("roll", account=scope)
        self._check_scope(scope)

    def _move(self) -> None:
        """An agent that holds nothing goes to another parent."""
        agent = self._random.choice(self._agents)
        if not self._open[agent]:
            self._do("move", account=agent, parent=self._random.choice([None, *self._parents]))

    def _change_period(self) -> None:
        scope = self._some_scope() if self._random.random() < 0.5 else self._some_raised()
        self._do("change_period", account=scope, period=self._random.choice(PERIODS))
        self._check_scope(scope)

    def _do(self, operation: str, **arguments: Any) -> dict[str, Any]:
        expected = self._model.do(operation, arguments, self._now_us)
        answer = self._bank.do(operation, arguments, self._now_us)
        if answer != expected:
            self._fail(f"{operation} {arguments}: answered {answer}, expected {expected}")
        self._outcomes[f"{operation}: {answer.get('reason', answer['outcome'])}"] += 1
        if "lease" in arguments:
            self._file(arguments["lease"])
        return answer

    def _file(self, lease_id: LeaseId) -> None:
        """Move a lease that has just ended to those that only hear late facts."""
        lease = self._bank.leases.get(lease_id)
        if lease is None or lease.is_open or lease_id not in self._open[lease.agent_id]:
            return
        self._open[lease.agent_id].remove(lease_id)
        self._ended.append(lease_id)
        if len(self._ended) > REMEMBERED_ENDED:
            forgotten = self._ended.pop(self._random.randrange(REMEMBERED_ENDED // 2))
            self._last_reports.pop(forgotten)
            self._bank.forget_answers(forgotten)
            self._model.loans[forgotten].answers.clear()

    # --- drawing

    def _amount(self) -> int:
        return self._random.choice((1, self._random.randrange(1, 1_000), 5_000))

    def _cost(self, lease: Lease) -> int:
        left = lease.remaining_nanousd
        draw = self._random.random()
        if draw < 0.90:
            return self._random.randrange(0, 60)
        if draw < 0.97:
            return left - self._random.choice((0, 1)) if left else 0
        if draw < 0.99:
            return left + self._random.choice((1, 1, 50))
        return self._random.choice((-1, 10**15 + 1))

    def _sequence(self, lease: Lease) -> int:
        draw = self._random.random()
        if draw < 0.9:
            return self._random.choice((0, lease.sequence + 1))
        return lease.sequence + self._random.choice((-1, 0, 1, 2, 3))

    def _some_scope(self) -> str:
        return self._random.choice(self._agents + self._parents)

    def _some_raised(self) -> str:
        """An agent, often one whose raises owe something, or will."""
        if self._bank.raises and self._random.random() < 0.6:
            return self._random.choice(list(self._bank.raises.values())).agent_id
        return self._random.choice(self._agents)

    def _some_open(self) -> Lease | None:
        for agent in self._random.sample(self._agents, k=5):
            if leases := self._open[agent]:
                return self._bank.leases[self._random.choice(leases)]
        return None

    def _some_lease(self) -> Lease | None:
        """An open lease, above all the one whose edge the clock stands at; or a stale one."""
        if self._at_edge is not None:
            lease_id, self._at_edge = self._at_edge, None
            return self._bank.leases[lease_id]
        if self._ended and self._random.random() < 0.06:
            return self._bank.leases[self._random.choice(self._ended)]
        return self._some_open()

    # --- the laws

    def _fail(self, what: str) -> None:
        raise Counterexample(self._seed, self._step, what)

    def _check_scope(self, scope: str) -> None:
        """The laws on the accounts a scope has now."""
        at: str | None = scope
        while at is not None:
            self._check_account(self._bank.account_ids[at])
            at = self._model.wishes[at].parent

    def _check_lease(self, lease: Lease) -> None:
        """The laws on what a step with a lease can have touched."""
        for account_id in lease.account_ids:
            self._check_account(account_id)
        leases = [self._bank.leases[lease_id] for lease_id in self._open[lease.agent_id]]
        left = sum(each.remaining_nanousd for each in leases if each.account_id == lease.account_id)
        leased = self._bank.accounts[lease.account_id].leased_nanousd
        if left != leased:
            self._fail(f"{lease.account_id}: {leased} leased, {left} in leases")

    def _check_account(self, account_id: AccountId) -> None:
        """Every number against the model."""
        account, purse = self._bank.accounts[account_id], self._model.purses[account_id]
        spent, leased = account.spent_nanousd, account.leased_nanousd
        limit = account.limit_nanousd
        free = 0 if limit is None else limit - spent - leased
        if min(spent, leased, free, account.overrun_nanousd) < 0:
            self._fail(f"below zero: {account}")
        if (purse.spent, purse.leased, purse.overrun, purse.allocated, purse.ends_at_us) != (
            spent,
            leased,
            account.overrun_nanousd,
            account.allocated_nanousd,
            account.ends_at_us,
        ):
            self._fail(f"{account} should be {purse}")

    def _check_closed(self) -> list[str]:
        """An account that a newer period has followed, and that lends nothing, never changes again.

        But for facts that come later: they are its overrun.
        """
        wrong = []
        for account in self._bank.accounts.values():
            found = self._over.get(account.account_id)
            if (
                found is not None
                and account._replace(overrun_nanousd=found.overrun_nanousd) != found
            ):
                wrong.append(f"{found} became {account}")
            if self._bank.was_followed(account) and account.leased_nanousd == 0:
                self._over[account.account_id] = account
        return wrong

    def _check_all(self, *, complete: bool = False) -> None:
        complete = complete or self._step % COMPLETE_CHECK_STEPS == 0
        open_ids = [lease_id for leases in self._open.values() for lease_id in leases]
        leases = [self._bank.leases[lease_id] for lease_id in open_ids]
        everything = self._bank.leases.values()
        wrong = check(
            self._bank.accounts.values(), everything if complete else leases, complete=complete
        )
        wrong += self._check_closed()
        own = [one for one in self._bank.accounts.values() if agent_of(one.scope_id) in self._open]
        booked = sum(one.used_nanousd for one in own)
        if booked != self._billed:
            wrong.append(f"{self._billed} was billed, {booked} is booked")
        for lease in everything if complete else leases:
            loan = self._model.loans[lease.lease_id]
            if list(lease.account_ids) != loan.purses or (
                lease.state,
                lease.ending,
                lease.expires_at_us,
                lease.settle_until_us,
                lease.period_ends_at_us,
            ) != (
                loan.state,
                loan.ending,
                loan.expires_at_us,
                loan.settle_until_us,
                loan.period_ends_at_us,
            ):
                wrong.append(f"{lease} should be {loan}")
        if wrong:
            self._fail("; ".join(wrong[:5]))

    def _check_replay(self) -> None:
        """The journal since the last replay, in several partitions, gives what the bank holds."""
        entries = self._bank.journal
        actual = self._bank.balances()
        cuts = sorted(self._random.sample(range(len(entries) + 1), k=min(7, len(entries))))
        partitions = [[], [len(entries) // 2], cuts]
        for partition in partitions:
            balances = self._replayed
            edges = [0, *partition, len(entries)]
            try:
                for start, stop in pairwise(edges):
                    balances = replay(entries[start:stop], onto=balances)
            except JournalContradiction as contradiction:
                self._fail(str(contradiction))
            if without_signs_of_life(balances, actual) != actual:
                self._fail(f"the journal replayed in parts {partition} gives other balances")
            self._replays += 1
        self._replayed = balances
        self._entries += len(entries)
        self._bank.journal = []


def without_signs_of_life(balances: Balances, like: Balances) -> Balances:
    """The balances with expiries as in `like`: heartbeats move those without an entry."""
    leases = {}
    for lease_id, lease in balances.leases.items():
        expires_at_us = like.leases.get(lease_id, lease).expires_at_us
        unmoved = lease.expires_at_us == expires_at_us
        leases[lease_id] = lease if unmoved else replace(lease, expires_at_us=expires_at_us)
    return Balances(balances.lsn, balances.accounts, leases)
