"""What the ledger ought to answer, in plain integers: written from the rules, not from the code."""

from dataclasses import dataclass, field
from typing import Any

Answer = dict[str, Any]
"""What a caller is told: an `outcome`, and the numbers that belong to it."""

MAX_COST = 10**15
MAX_BALANCE = 10**18
OPEN = ("active", "draining")


@dataclass(slots=True)
class Purse:
    parent: str | None
    allocated: int
    spent: int = 0
    leased: int = 0
    overrun: int = 0

    @property
    def available(self) -> int:
        return max(0, self.allocated - self.spent - self.leased - self.overrun)


@dataclass(slots=True)
class Loan:
    account: str
    granted: int
    expires_at_us: int
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


def refused(reason: str) -> Answer:
    return {"outcome": "refused", "reason": reason}


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
        self.purses: dict[str, Purse] = {}
        self.loans: dict[str, Loan] = {}
        self._default, self._maximum = default_tranche, maximum_tranche
        self._ttl_us, self._grace_us = ttl_us, grace_us

    def do(self, operation: str, arguments: dict[str, Any], at_us: int) -> Answer:
        answer: Answer = getattr(self, operation)(at_us=at_us, **arguments)
        return answer

    def path(self, account: str) -> list[Purse]:
        purses = []
        at: str | None = account
        while at is not None:
            purses.append(self.purses[at])
            at = self.purses[at].parent
        return purses

    def available(self, account: str) -> int:
        return min(purse.available for purse in self.path(account))

    def open_account(self, account: str, parent: str | None, allocated: int, at_us: int) -> Answer:
        self.purses[account] = Purse(parent, allocated)
        return {"outcome": "opened"}

    def reallocate(self, account: str, allocated: int, at_us: int) -> Answer:
        purse = self.purses[account]
        if not 0 <= allocated <= MAX_BALANCE:
            return refused("INVALID_AMOUNT")
        if allocated < purse.spent + purse.leased:
            return refused("BUDGET_BELOW_COMMITTED")
        purse.allocated = allocated
        return {"outcome": "reallocated", "available": self.available(account)}

    def handshake(
        self, lease: str, agent: str, requested: int | None, minimum: int, at_us: int
    ) -> Answer:
        asked = self._default if requested is None else requested
        wanted = min(asked, self._maximum)
        if asked <= 0 or minimum < 0 or minimum > wanted:
            return refused("INVALID_AMOUNT")
        granted = min(wanted, self.available(agent))
        if granted == 0 or granted < minimum:
            return refused("BUDGET_EXCEEDED")
        self.loans[lease] = Loan(agent, granted, at_us + self._ttl_us)
        for purse in self.path(agent):
            purse.leased += granted
        return {
            "outcome": "granted",
            "granted": granted,
            "partial": granted < asked,
            "expires_at_us": at_us + self._ttl_us,
            "available": self.available(agent),
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
        purses = self.path(loan.account)
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
            "available": self.available(loan.account),
        }
        loan.answers[request] = (cost, answer)
        return answer

    def refresh(self, lease: str, requested: int | None, at_us: int) -> Answer:
        loan = self.loans[lease]
        asked = self._default if requested is None else requested
        if asked <= 0:
            return refused("INVALID_AMOUNT")
        if loan.state != "active":
            draining = loan.state == "draining"
            return {"outcome": "denied", "reason": "lease_draining" if draining else "lease_ended"}
        if at_us >= loan.expires_at_us:
            return {"outcome": "denied", "reason": "lease_expired"}
        added = min(asked, self._maximum, self.available(loan.account))
        if added == 0:
            return {"outcome": "denied", "reason": "insufficient_budget"}
        loan.granted += added
        loan.expires_at_us = max(loan.expires_at_us, at_us + self._ttl_us)
        for purse in self.path(loan.account):
            purse.leased += added
        return {
            "outcome": "grown",
            "added": added,
            "partial": added < asked,
            "lease_granted": loan.granted,
            "expires_at_us": loan.expires_at_us,
            "available": self.available(loan.account),
        }

    def heartbeat(self, lease: str, at_us: int) -> Answer:
        loan = self.loans[lease]
        if loan.state == "active" and at_us < loan.expires_at_us:
            loan.expires_at_us = max(loan.expires_at_us, at_us + self._ttl_us)
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
        purse = self.purses[account]
        return {
            "outcome": "read",
            "allocated": purse.allocated,
            "spent": purse.spent,
            "leased": purse.leased,
            "overrun": purse.overrun,
            "available": self.available(account),
        }

    def _end(self, loan: Loan, state: str) -> Answer:
        returned = loan.left
        for purse in self.path(loan.account):
            purse.leased -= returned
        loan.state, loan.ending = state, None
        return {
            "outcome": "ended",
            "returned": returned,
            "state": state,
            "available": self.available(loan.account),
        }
