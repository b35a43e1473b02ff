"""Concurrent callers of a bank with group commit, and the checker that judges what they saw."""

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from steward_server.budget.audit import check as audit
from steward_server.budget.audit import replay
from steward_server.budget.values import AccountId, Path
from tests.property.budget import history
from tests.property.budget.bank import Bank
from tests.property.budget.history import Call
from tests.property.budget.model import Answer, Model
from tests.property.budget.simulation import POLICY

Waiting = tuple[str, dict[str, Any], "asyncio.Future[tuple[Answer, int]]"]


def model() -> Model:
    return Model(
        default_tranche=POLICY.default_tranche_nanousd,
        maximum_tranche=POLICY.maximum_tranche_nanousd,
    )


class Counter:
    """A bank behind a queue: what waits is decided together, and answered after the commit."""

    def __init__(self, bank: Bank, seed: int) -> None:
        self.bank = bank
        self.calls: list[Call] = []
        self._random = random.Random(seed)
        self._clock = 0
        self._waiting: list[Waiting] = []
        self._stored: dict[str, tuple[Answer, int]] = {}

    async def ask(self, caller: str, operation: str, **arguments: Any) -> Answer:
        invoked = self._tick()
        answered: asyncio.Future[tuple[Answer, int]] = asyncio.get_running_loop().create_future()
        await self._linger()
        self._waiting.append((operation, arguments, answered))
        answer, lsn = await answered
        await self._linger()
        self.calls.append(
            Call(caller, invoked, self._tick(), operation, arguments, dict(answer), lsn)
        )
        return answer

    async def serve(self) -> None:
        while True:
            batch, self._waiting = self._waiting[:8], self._waiting[8:]
            decided = [(*self.decide(operation, said), future) for operation, said, future in batch]
            await self._linger()
            for answer, lsn, future in decided:
                future.set_result((answer, lsn))
            await asyncio.sleep(0)

    def decide(self, operation: str, arguments: dict[str, Any]) -> tuple[Answer, int]:
        request = arguments.get("request")
        if request in self._stored:
            return self._stored[request]
        answer = self.bank.do(operation, arguments, at_us=0)
        if request is not None and answer["outcome"] == "booked":
            self._stored[request] = answer, self.bank.lsn
        return answer, self.bank.lsn

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    async def _linger(self) -> None:
        for _ in range(self._random.randrange(4)):
            await asyncio.sleep(0)


async def use(counter: Counter, caller: int, seed: int, rounds: int) -> None:
    """One runtime among several of the same agents: borrows, spends, repeats, looks, returns."""
    draw = random.Random(seed * 1_000 + caller)
    name = f"caller_{caller}"
    for turn in range(rounds):
        agent, lease = f"agent_{draw.randrange(3)}", f"lease_{caller}_{turn}"
        opening = await counter.ask(
            name, "handshake", lease=lease, agent=agent, requested=draw.randrange(1, 200), minimum=0
        )
        if opening["outcome"] == "granted":
            for number in range(draw.randrange(4)):
                report = {
                    "lease": lease,
                    "request": f"{lease}_{number}",
                    "sequence": 0,
                    "cost": draw.randrange(80),
                }
                again = counter.ask(name, "report", **report) if draw.random() < 0.2 else None
                await asyncio.gather(
                    counter.ask(name, "report", **report), *([] if again is None else [again])
                )
            if draw.random() < 0.3:
                await counter.ask(name, "refresh", lease=lease, requested=draw.randrange(1, 50))
            if draw.random() < 0.1:
                await counter.ask("administrator", "revoke", lease=lease)
            await counter.ask(name, "give_back", lease=lease)
        await counter.ask(name, "balance", account=agent)
        if draw.random() < 0.1:
            await counter.ask(
                "administrator", "reallocate", account=agent, allocated=draw.randrange(2_000, 9_000)
            )


async def record(counter: Counter, *, seed: int, callers: int = 8, rounds: int = 12) -> list[Call]:
    """The history of some callers at once, the opening of the accounts included."""
    administrator = "administrator"
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(counter.serve())
        await counter.ask(
            administrator, "open_account", account="org", parent=None, allocated=9_000
        )
        for number in range(3):
            agent = f"agent_{number}"
            await counter.ask(
                administrator, "open_account", account=agent, parent="org", allocated=4_000
            )
        async with asyncio.TaskGroup() as runtimes:
            for caller in range(callers):
                runtimes.create_task(use(counter, caller, seed, rounds))
        serving.cancel()
    return counter.calls


@pytest.mark.parametrize("seed", range(10))
async def test_concurrent_callers_see_one_order_of_events(seed: int) -> None:
    bank = Bank(POLICY)
    calls = await record(Counter(bank, seed), seed=seed)
    assert len(calls) > 300
    assert sum(call.operation == "report" for call in calls) > 80
    assert history.check(calls, model=model()) == []
    assert audit(bank.accounts.values(), bank.leases.values(), complete=True) == []
    assert replay(bank.journal) == bank.balances()


async def test_the_order_of_the_list_does_not_matter() -> None:
    calls = await record(Counter(Bank(POLICY), 1), seed=1)
    random.Random(1).shuffle(calls)
    assert history.check(calls, model=model()) == []


class StaleBank(Bank):
    """Decides on balances loaded a moment ago: a check that is not in the act's transaction."""

    def __init__(self) -> None:
        super().__init__(POLICY)
        self._loaded: dict[str, Path] = {}
        self._turn = 0

    def path_at(self, scope: str, at_us: int) -> Path:
        self._turn += 1
        if self._turn % 5 == 0 or scope not in self._loaded:
            self._loaded[scope] = super().path_at(scope, at_us)
        return self._loaded[scope]


async def test_a_check_then_act_race_is_found() -> None:
    calls = await record(Counter(StaleBank(), 1), seed=1)
    assert any("it should have been" in text for text in history.check(calls, model=model()))


class ReplicaCounter(Counter):
    """Reads from a copy that lags, and honestly names the commit it has."""

    def __init__(self, bank: Bank, seed: int) -> None:
        super().__init__(bank, seed)
        self._past: list[tuple[dict[AccountId, Any], int]] = []

    def decide(self, operation: str, arguments: dict[str, Any]) -> tuple[Answer, int]:
        self._past.append((dict(self.bank.accounts), self.bank.lsn))
        if operation != "balance":
            return super().decide(operation, arguments)
        present = self.bank.accounts
        self.bank.accounts, lsn = self._past[max(4, len(self._past) - 30)]  # the accounts are there
        answer = self.bank.do(operation, arguments, at_us=0)
        self.bank.accounts = present
        return answer, lsn


async def test_a_read_that_misses_what_was_acknowledged_before_is_found() -> None:
    calls = await record(ReplicaCounter(Bank(POLICY), 1), seed=1)
    wrong = history.check(calls, model=model())
    assert wrong
    assert all("was made after" in text for text in wrong)


class ForgetfulCounter(Counter):
    """Answers before the commit, and then the commit fails once."""

    def decide(self, operation: str, arguments: dict[str, Any]) -> tuple[Answer, int]:
        bank = self.bank
        before = dict(bank.accounts), dict(bank.leases), bank.lsn
        answer, lsn = super().decide(operation, arguments)
        if operation == "report" and lsn % 50 == 0:
            bank.accounts, bank.leases, bank.lsn = before
        return answer, lsn


async def test_an_acknowledged_report_that_was_lost_is_found() -> None:
    calls = await record(ForgetfulCounter(Bank(POLICY), 2), seed=2)
    wrong = history.check(calls, model=model())
    assert any("shares its commit with" in text for text in wrong)
    assert any("it should have been" in text for text in wrong)


# --- the checker by itself


def opened(account: str = "a", allocated: int = 100) -> Call:
    arguments = {"account": account, "parent": None, "allocated": allocated}
    return Call("admin", 1, 2, "open_account", arguments, {"outcome": "opened"}, 1)


def handshake(lease: str, granted: int, *, lsn: int, at: tuple[int, int]) -> Call:
    arguments = {"lease": lease, "agent": "a", "requested": 60, "minimum": 0}
    answer = {"outcome": "granted", "granted": granted}
    return Call(lease, *at, "handshake", arguments, answer, lsn)


def test_an_overlapping_pair_may_have_happened_in_either_order() -> None:
    first = handshake("l1", 60, lsn=2, at=(3, 9))
    second = handshake("l2", 40, lsn=3, at=(4, 5))
    assert history.check([opened(), first, second]) == []
    swapped = [replace(first, lsn=3), replace(second, lsn=2)]
    assert len(history.check([opened(), *swapped])) == 2


def test_money_granted_twice_is_found() -> None:
    calls = [opened(), handshake("l1", 60, lsn=2, at=(3, 4))]
    wrong = history.check([*calls, handshake("l2", 60, lsn=3, at=(3, 4))])
    assert len(wrong) == 1
    assert "'granted': 40" in wrong[0]


@pytest.mark.parametrize(("invoked", "violations"), [(5, 0), (6, 0), (7, 1)])
def test_a_call_made_after_a_later_commit_had_returned_is_found(
    invoked: int, violations: int
) -> None:
    early = handshake("l1", 60, lsn=2, at=(invoked, 9))
    late = handshake("l2", 40, lsn=3, at=(5, 6))
    assert len(history.check([opened(), early, late])) == violations


def test_a_repetition_may_be_told_its_first_answer_and_commit_later_on() -> None:
    first = handshake("l1", 60, lsn=2, at=(3, 4))
    other = handshake("l2", 40, lsn=3, at=(5, 6))
    again = replace(first, invoked=7, returned=8)
    assert history.check([opened(), first, other, again]) == []
    told_otherwise = replace(again, answer={"outcome": "granted", "granted": 59})
    assert len(history.check([opened(), first, other, told_otherwise])) == 1


def test_a_commit_number_given_to_two_calls_is_found() -> None:
    calls = [handshake("l1", 60, lsn=2, at=(3, 4)), handshake("l2", 40, lsn=2, at=(3, 4))]
    assert any("shares its commit" in text for text in history.check([opened(), *calls]))


def test_a_call_about_a_lease_nobody_opened_is_found() -> None:
    call = Call("c", 3, 4, "give_back", {"lease": "l9"}, {"outcome": "ended"}, 2)
    assert history.check([opened(), call]) == [
        "c's give_back {'lease': 'l9'} at commit 2 is about 'l9', which does not exist yet"
    ]


def test_endings_by_the_clock_take_their_place_without_a_time() -> None:
    calls = [
        opened(),
        handshake("l1", 60, lsn=2, at=(3, 4)),
        Call("server", 5, 6, "expire", {"lease": "l1"}, {"outcome": "draining"}, 3),
        Call("server", 7, 8, "end", {"lease": "l1"}, {"outcome": "ended", "returned": 60}, 4),
        Call("c", 9, 10, "balance", {"account": "a"}, {"outcome": "read", "available": 100}, 4),
    ]
    assert history.check(calls) == []


def test_a_hundred_thousand_calls_are_checked_in_linear_time() -> None:
    calls = [opened(allocated=10**9), handshake("l1", 60, lsn=2, at=(3, 4))]
    for number in range(1, 100_000):
        report = {"lease": "l1", "request": str(number), "sequence": number, "cost": 0}
        answer = {"outcome": "booked", "sequence": number}
        at = number * 2 + 5
        calls.append(Call("c", at, at + 1, "report", report, answer, number + 2))
    assert history.check(calls) == []
