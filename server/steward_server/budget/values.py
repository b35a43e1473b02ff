"""What the ledger's rules are about: accounts, leases, and how much is lent. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, NewType

AgentId = NewType("AgentId", str)
LeaseId = NewType("LeaseId", str)
AccountId = NewType("AccountId", str)

NANOUSD_PER_USD = 1_000_000_000
MAX_COST_NANOUSD = 1_000_000 * NANOUSD_PER_USD  # of one call; more is a mistake, not a price
MAX_BALANCE_NANOUSD = 1_000_000_000 * NANOUSD_PER_USD  # keeps every sum far inside 64 bits


class LeaseState(StrEnum):
    """Where a lease stands. The values are what the journal and the tables hold."""

    ACTIVE = "active"
    DRAINING = "draining"
    """Settles calls under way; starts no new ones and does not grow."""
    CLOSED = "closed"
    """Returned by its runtime, which vouched that nothing more will come."""
    EXPIRED = "expired"
    REVOKED = "revoked"


NEXT: dict[LeaseState, frozenset[LeaseState]] = {
    LeaseState.ACTIVE: frozenset({LeaseState.DRAINING, LeaseState.CLOSED}),
    LeaseState.DRAINING: frozenset({LeaseState.CLOSED, LeaseState.EXPIRED, LeaseState.REVOKED}),
    LeaseState.CLOSED: frozenset(),
    LeaseState.EXPIRED: frozenset(),
    LeaseState.REVOKED: frozenset(),
}


class Account(NamedTuple):
    """The money of one scope: an agent, or something above agents."""

    account_id: AccountId
    parent_id: AccountId | None
    allocated_nanousd: int
    spent_nanousd: int
    """Spent out of leases; what no lease covered is in `overrun_nanousd`."""
    leased_nanousd: int
    overrun_nanousd: int

    @property
    def committed_nanousd(self) -> int:
        return self.spent_nanousd + self.leased_nanousd

    @property
    def free_nanousd(self) -> int:
        """Neither spent nor leased; never negative."""
        return self.allocated_nanousd - self.spent_nanousd - self.leased_nanousd

    @property
    def available_nanousd(self) -> int:
        """What may be lent: money that was overspent already is not lent again."""
        return max(0, self.free_nanousd - self.overrun_nanousd)

    @property
    def used_nanousd(self) -> int:
        """All that was really used, covered by a lease or not."""
        return self.spent_nanousd + self.overrun_nanousd


Path = tuple[Account, ...]
"""An account and its parents, leaf first, root last; never empty."""


class Lease(NamedTuple):
    """Money lent to one runtime. Times are microseconds since 1970 by the server's clock."""

    lease_id: LeaseId
    account_id: AccountId
    agent_id: AgentId
    granted_nanousd: int
    spent_nanousd: int
    overrun_nanousd: int
    sequence: int
    """Number of the last report booked; 0 before the first."""
    state: LeaseState
    ending: LeaseState | None
    """EXPIRED or REVOKED: where a draining lease will end. None in every other state."""
    expires_at_us: int
    settle_until_us: int
    """From when on a draining lease may be ended; 0 before it drains."""

    @property
    def is_open(self) -> bool:
        """Holds what it has not spent."""
        return self.state is LeaseState.ACTIVE or self.state is LeaseState.DRAINING

    @property
    def remaining_nanousd(self) -> int:
        return self.granted_nanousd - self.spent_nanousd if self.is_open else 0

    def is_expiry_due(self, now_us: int) -> bool:
        """Its time is over, and nobody has acted on it."""
        return self.state is LeaseState.ACTIVE and now_us >= self.expires_at_us

    def is_ending_due(self, now_us: int) -> bool:
        """Its settle grace is over, and nobody has acted on it."""
        return self.state is LeaseState.DRAINING and now_us >= self.settle_until_us


@dataclass(frozen=True, slots=True)
class LeasePolicy:
    """How much is lent at a time, and for how long."""

    default_tranche_nanousd: int = 10 * NANOUSD_PER_USD
    """Lent to a caller that names no amount."""
    maximum_tranche_nanousd: int = 1_000 * NANOUSD_PER_USD
    """Lent at once at most; larger wishes are granted in part."""
    lease_ttl_ms: int = 15 * 60 * 1_000
    """Without a sign of life for this long a lease expires."""
    settle_grace_ms: int = 60 * 1_000
    """How long calls under way may still be settled after the end of a lease."""

    def within(self, most_nanousd: int | None) -> LeasePolicy:
        """The same policy where no more than this may be lent at once; None: no such bound."""
        if most_nanousd is None or most_nanousd >= self.maximum_tranche_nanousd:
            return self
        return replace(
            self,
            default_tranche_nanousd=min(self.default_tranche_nanousd, most_nanousd),
            maximum_tranche_nanousd=most_nanousd,
        )

    def __post_init__(self) -> None:
        if not 0 < self.default_tranche_nanousd <= self.maximum_tranche_nanousd:
            raise ValueError(
                f"default_tranche_nanousd is {self.default_tranche_nanousd}; it must be above 0 "
                f"and at most maximum_tranche_nanousd, {self.maximum_tranche_nanousd}"
            )
        if self.maximum_tranche_nanousd > MAX_BALANCE_NANOUSD:
            raise ValueError(
                f"maximum_tranche_nanousd is {self.maximum_tranche_nanousd}; "
                f"it must be at most {MAX_BALANCE_NANOUSD}"
            )
        if self.lease_ttl_ms <= 0:
            raise ValueError(f"lease_ttl_ms is {self.lease_ttl_ms}; it must be above 0")
        if self.settle_grace_ms < 0:
            raise ValueError(f"settle_grace_ms is {self.settle_grace_ms}; it must be 0 or more")
