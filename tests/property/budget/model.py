"""What the ledger ought to answer, in plain integers: written from the rules, not from the code."""

from calendar import monthrange
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Answer = dict[str, Any]
"""What a caller is told: an `outcome`, and the numbers that belong to it."""

MAX_COST = 10**15
MAX_BALANCE = 10**18
OPEN = ("active", "draining")


@dataclass(slots=True)
class Wish:
    """What a scope is to have, and the purse it has now."""

    parent: str | None
    allocated: int | None
    mode: str
    period: str
    purse: str
    since_us: int = 0
    """When the newest period it ever had began; an earlier one does not come back."""
    base: int = 0
    """Of an agent: what it is to have for good, without raises that are to end."""
    raises: list[tuple[int, int]] = field(default_factory=list)
    """What each that is to end has added, and when it ends."""

    @property
    def repeats(self) -> bool:
        return self.period != "none"

    @property
    def lasting(self) -> int:
        """What it is to have while the raises hold that have not ended."""
        return self.base + sum(added for added, _ in self.raises)


@dataclass(slots=True)
class Purse:
    allocated: int | None
    mode: str = "restrictive"
    ends_at_us: int | None = None
    spent: int = 0
    leased: int = 0
    overrun: int = 0

    @property
    def blocks(self) -> bool:
        return self.mode == "restrictive" and self.allocated is not None

    @property
    def available(self) -> int | None:
        if self.allocated is None or not self.blocks:
            return None
        return max(0, self.allocated - self.spent - self.leased - self.overrun)


@dataclass(slots=True)
class Loan:
    agent: str
    purses: list[str]
    granted: int
    expires_at_us: int
    period_ends_at_us: int | None
    spent: int = 0
    overrun: int = 0
    sequence: int = 0
    state: str = "active"
    ending: str | None = None
    settle_until_us: int = 0
    answers: dict[str, tuple[int, Answer]] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return self.granted - self.spent if self.state in OPEN else 0


def least(purses: Iterable[Purse]) -> int:
    """What the tightest of these purses that block would let be lent."""
    return min(purse.available for purse in purses if purse.available is not None)


def refused(reason: str) -> Answer:
    return {"outcome": "refused", "reason": reason}


def first_day(period: str, at_us: int) -> datetime:
    """The midnight that the period of this time began with."""
    at = datetime.fromtimestamp(at_us // 1_000_000, UTC)
    midnight = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "week":
        return midnight - timedelta(days=midnight.weekday())
    return midnight.replace(day=1) if period == "month" else midnight


def end_us(period: str, at_us: int) -> int | None:
    if period == "none":
        return None
    first = first_day(period, at_us)
    days = {"day": 1, "week": 7, "month": monthrange(first.year, first.month)[1]}[period]
    return int((first + timedelta(days=days)).timestamp()) * 1_000_000


class Model:
    """Answers every operation that a bank answers. Times are microseconds."""

    def __init__(
        self,
        *,
        default_tranche: int = 10 * 10**9,
        maximum_tranche: int = 1_000 * 10**9,
        ttl_us: int = 900 * 10**6,
        grace_us: int = 60 * 10**6,
    ) -> None:
        self.wishes: dict[str, Wish] = {}
        self.purses: dict[str, Purse] = {}
        self.loans: dict[str, Loan] = {}
        self.agents: set[str] = set()
        self._default, self._maximum = default_tranche, maximum_tranche
        self._ttl_us, self._grace_us = ttl_us, grace_us

    def do(self, operation: str, arguments: dict[str, Any], at_us: int) -> Answer:
        answer: Answer = getattr(self, operation)(at_us=at_us, **arguments)
        return answer

    def present(self, scope: str, at_us: int) -> tuple[str, Purse]:
        """The purse a scope has at a time; a new one if the last is over, not kept yet."""
        wish = self.wishes[scope]
        purse = self.purses.get(wish.purse)
        if purse is not None and (purse.ends_at_us is None or at_us < purse.ends_at_us):
            return wish.purse, purse
        at_us = max(at_us, wish.since_us)
        name = self.name_of(scope, wish.period, at_us)
        known = self.purses.get(name)
        ends_at_us = end_us(wish.period, at_us)
        return name, known or Purse(wish.allocated, wish.mode, ends_at_us)

    def name_of(self, scope: str, period: str, at_us: int) -> str:
        if period == "none":
            return scope
        return f"{scope}/{period}/{first_day(period, at_us):%Y-%m-%d}"

    def path(self, scope: str, at_us: int) -> dict[str, Purse]:
        purses: dict[str, Purse] = {}
        at: str | None = scope
        while at is not None:
            name, purses_at = self.present(at, at_us)
            purses[name] = purses_at
            at = self.wishes[at].parent
        return purses

    def available(self, scope: str, at_us: int) -> int:
        return least(self.path(scope, at_us).values())

    def left_to_lend(self, loan: Loan) -> int:
        return least(self.purses[name] for name in loan.purses)

    def enter(self, scope: str, at_us: int) -> Purse:
        """Have the scope and all above it spend from the purses of their present periods."""
        at: str | None = scope
        while at is not None:
            self.enter_one(at, at_us)
            at = self.wishes[at].parent
        return self.purses[self.wishes[scope].purse]

    def enter_one(self, scope: str, at_us: int) -> Purse:
        name, purse = self.present(scope, at_us)
        self.purses[name] = purse
        wish = self.wishes[scope]
        wish.since_us, wish.purse = self.since_us(scope, at_us), name
        return purse

    def since_us(self, scope: str, at_us: int) -> int:
        """When the newest period of a scope began, once it has entered the present one."""
        wish = self.wishes[scope]
        if self.present(scope, at_us)[0] == wish.purse or wish.period == "none":
            return wish.since_us
        first = first_day(wish.period, max(at_us, wish.since_us))
        return max(wish.since_us, int(first.timestamp()) * 1_000_000)

    def open_account(
        self,
        account: str,
        parent: str | None,
        allocated: int | None,
        at_us: int,
        mode: str = "restrictive",
        period: str = "none",
    ) -> Answer:
        self.wishes[account] = Wish(parent, allocated, mode, period, "", base=allocated or 0)
        self.agents.update([account] if account.startswith("agent") else [])
        self.enter_one(account, at_us)
        return {"outcome": "opened"}

    def roll(self, account: str, at_us: int) -> Answer:
        before = self.wishes[account].purse
        self.enter_one(account, at_us)
        rolled = self.wishes[account].purse != before
        return {"outcome": "opened" if rolled else "unchanged"}

    def move(self, account: str, parent: str | None, at_us: int) -> Answer:
        self.wishes[account].parent = parent
        return {"outcome": "moved"}

    def settle(self, agent: str, at_us: int) -> None:
        """Leave it what it is to have, or what is spent and lent, if that is more."""
        wish = self.wishes[agent]
        wish.raises = [each for each in wish.raises if at_us < each[1]]
        purse = self.present(agent, at_us)[1]
        left = min(purse.allocated or 0, max(wish.lasting, purse.spent + purse.leased))
        wanted = wish.lasting if wish.repeats else left
        if (left, wanted) != (purse.allocated, wish.allocated):
            self.enter_one(agent, at_us).allocated = left
            wish.allocated = wanted

    def keep_what_was_spent(self, agent: str, at_us: int) -> None:
        """What ended raises have spent of a budget for ever is its own from now on."""
        wish, purse = self.wishes[agent], self.present(agent, at_us)[1]
        if not wish.repeats:
            surplus = (purse.allocated or 0) - wish.lasting
            wish.base += surplus - min(surplus, purse.leased)

    def take_back(self, account: str, at_us: int) -> Answer:
        self.settle(account, at_us)
        allocated, wanted = (
            self.present(account, at_us)[1].allocated,
            self.wishes[account].allocated,
        )
        return {"outcome": "settled", "allocated": allocated, "wanted": wanted}

    def raise_to(
        self, account: str, request: str, allocated: int, holds_us: int | None, at_us: int
    ) -> Answer:
        self.settle(account, at_us)
        wish, purse = self.wishes[account], self.present(account, at_us)[1]
        if allocated <= (purse.allocated or 0):
            return refused("APPROVAL_DECREASES_BUDGET")
        if holds_us is None:
            wish.base += allocated - wish.lasting
        else:
            self.keep_what_was_spent(account, at_us)
            wish.raises.append((allocated - wish.lasting, at_us + holds_us))
        purse = self.enter_one(account, at_us)
        wish.allocated = purse.allocated = allocated
        return {"outcome": "raised", "available": purse.available}

    def change_period(self, account: str, period: str, at_us: int) -> Answer:
        wish = self.wishes[account]
        if period == wish.period:
            return {"outcome": "unchanged"}
        wanted = wish.allocated
        if account in self.agents:
            self.settle(account, at_us)
            self.keep_what_was_spent(account, at_us)
            wanted = wish.lasting
        from_us = max(at_us, self.since_us(account, at_us))
        known = self.purses.get(self.name_of(account, period, from_us))
        limit = wanted if wish.mode == "restrictive" else None
        if known and limit is not None and limit < known.spent + known.leased:
            return refused("BUDGET_BELOW_COMMITTED")
        self.enter_one(account, at_us)
        drained = [
            lease
            for lease, loan in self.loans.items()
            if loan.state == "active" and wish.purse in loan.purses
        ]
        for lease in drained:
            loan = self.loans[lease]
            loan.state, loan.ending = "draining", "expired"
            loan.settle_until_us = at_us + self._grace_us
        wish.period, wish.purse = period, ""
        wish.allocated = wanted
        purse = self.enter_one(account, at_us)
        purse.allocated, purse.mode = wanted, wish.mode
        return {"outcome": "begun", "drained": drained}

    def reallocate(
        self, account: str, allocated: int | None, at_us: int, mode: str = "restrictive"
    ) -> Answer:
        _, purse = self.present(account, at_us)
        if allocated is not None:
            if not 0 <= allocated <= MAX_BALANCE:
                return refused("INVALID_AMOUNT")
            if mode == "restrictive" and allocated < purse.spent + purse.leased:
                return refused("BUDGET_BELOW_COMMITTED")
        wish = self.wishes[account]
        purse = self.enter_one(account, at_us)
        wish.allocated = purse.allocated = allocated
        wish.mode = purse.mode = mode
        wish.base, wish.raises = allocated or 0, []
        return {"outcome": "reallocated", "available": purse.available}

    def handshake(
        self, lease: str, agent: str, requested: int | None, minimum: int, at_us: int
    ) -> Answer:
        self.settle(agent, at_us)
        asked = self._default if requested is None else requested
        wanted = min(asked, self._maximum)
        if asked <= 0 or minimum < 0 or minimum > wanted:
            return refused("INVALID_AMOUNT")
        granted = min(wanted, self.available(agent, at_us))
        if granted == 0 or granted < minimum:
            return refused("BUDGET_EXCEEDED")
        self.enter(agent, at_us)
        path = self.path(agent, at_us)
        ends = [purse.ends_at_us for purse in path.values() if purse.ends_at_us is not None]
        expires_at_us = min([at_us + self._ttl_us, *ends])
        self.loans[lease] = Loan(agent, list(path), granted, expires_at_us, min(ends, default=None))
        for purse in path.values():
            purse.leased += granted
        return {
            "outcome": "granted",
            "granted": granted,
            "partial": granted < asked,
            "expires_at_us": expires_at_us,
            "available": self.available(agent, at_us),
        }

    def report(self, lease: str, request: str, sequence: int, cost: int, at_us: int) -> Answer:
        loan = self.loans[lease]
        if request in loan.answers:
            known_cost, answer = loan.answers[request]
            return answer if known_cost == cost else refused("REQUEST_ID_REUSED")
        if loan.state == "closed":
            return refused("LEASE_CLOSED")
        if cost < 0 or cost > MAX_COST:
            return refused("INVALID_AMOUNT")
        if sequence not in (0, loan.sequence + 1):
            return refused("SEQUENCE_GAP" if sequence > loan.sequence else "SEQUENCE_REUSED")
        over = max(0, cost - loan.left)
        purses = [self.purses[name] for name in loan.purses]
        if over and max(purse.overrun for purse in purses) + over > MAX_BALANCE:
            return refused("INVALID_AMOUNT")
        for purse in purses:
            purse.leased -= cost - over
            purse.spent += cost - over
            purse.overrun += over
        loan.spent += cost - over
        loan.overrun += over
        loan.sequence += 1
        if over and loan.state == "active":
            loan.state, loan.ending = "draining", "revoked"
            loan.settle_until_us = max(loan.expires_at_us, at_us)
        answer = {
            "outcome": "booked",
            "sequence": loan.sequence,
            "cost": cost,
            "overrun": over,
            "lease_spent": loan.spent,
            "lease_remaining": loan.left,
            "state": loan.state,
            "available": self.left_to_lend(loan),
        }
        loan.answers[request] = (cost, answer)
        return answer

    def refresh(self, lease: str, requested: int | None, at_us: int) -> Answer:
        loan = self.loans[lease]
        self.settle(loan.agent, at_us)
        asked = self._default if requested is None else requested
        if asked <= 0:
            return refused("INVALID_AMOUNT")
        if loan.state != "active":
            draining = loan.state == "draining"
            return {"outcome": "denied", "reason": "lease_draining" if draining else "lease_ended"}
        if at_us >= loan.expires_at_us:
            return {"outcome": "denied", "reason": "lease_expired"}
        added = min(asked, self._maximum, self.left_to_lend(loan))
        if added == 0:
            return {"outcome": "denied", "reason": "insufficient_budget"}
        loan.granted += added
        self._renew(loan, at_us)
        for name in loan.purses:
            self.purses[name].leased += added
        return {
            "outcome": "grown",
            "added": added,
            "partial": added < asked,
            "lease_granted": loan.granted,
            "expires_at_us": loan.expires_at_us,
            "available": self.left_to_lend(loan),
        }

    def heartbeat(self, lease: str, at_us: int) -> Answer:
        loan = self.loans[lease]
        if loan.state == "active" and at_us < loan.expires_at_us:
            self._renew(loan, at_us)
        return {"outcome": "heard", "state": loan.state, "expires_at_us": loan.expires_at_us}

    def give_back(self, lease: str, at_us: int) -> Answer:
        loan = self.loans[lease]
        if loan.state not in OPEN:
            return refused("LEASE_CLOSED")
        return self._end(loan, "revoked" if loan.ending == "revoked" else "closed")

    def expire(self, lease: str, at_us: int) -> Answer:
        loan = self.loans[lease]
        if loan.state != "active" or at_us < loan.expires_at_us:
            return {"outcome": "unchanged", "state": loan.state}
        loan.state, loan.ending = "draining", "expired"
        loan.settle_until_us = at_us + self._grace_us
        return {"outcome": "draining", "state": loan.state}

    def revoke(self, lease: str, at_us: int) -> Answer:
        loan = self.loans[lease]
        end_us = at_us + self._grace_us
        if loan.state == "draining":
            end_us = min(loan.settle_until_us, end_us)
        unchanged = loan.ending == "revoked" and loan.settle_until_us == end_us
        if unchanged or loan.state not in OPEN:
            return {"outcome": "unchanged", "state": loan.state}
        loan.state, loan.ending, loan.settle_until_us = "draining", "revoked", end_us
        return {"outcome": "draining", "state": loan.state}

    def end(self, lease: str, at_us: int) -> Answer:
        loan = self.loans[lease]
        if loan.state != "draining" or at_us < loan.settle_until_us:
            return refused("ILLEGAL_TRANSITION")
        assert loan.ending is not None
        return self._end(loan, loan.ending)

    def balance(self, account: str, at_us: int) -> Answer:
        _, purse = self.present(account, at_us)
        return {
            "outcome": "read",
            "allocated": purse.allocated,
            "spent": purse.spent,
            "leased": purse.leased,
            "overrun": purse.overrun,
            "available": self.available(account, at_us),
        }

    def _renew(self, loan: Loan, at_us: int) -> None:
        loan.expires_at_us = max(loan.expires_at_us, at_us + self._ttl_us)
        if loan.period_ends_at_us is not None:
            loan.expires_at_us = min(loan.expires_at_us, loan.period_ends_at_us)

    def _end(self, loan: Loan, state: str) -> Answer:
        returned = loan.left
        for name in loan.purses:
            self.purses[name].leased -= returned
        loan.state, loan.ending = state, None
        return {
            "outcome": "ended",
            "returned": returned,
            "state": state,
            "available": self.left_to_lend(loan),
        }
