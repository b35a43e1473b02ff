"""What the ledger's rules are about: accounts, leases, and how much is lent. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, NewType

AgentId = NewType("AgentId", str)
LeaseId = NewType("LeaseId", str)
AccountId = NewType("AccountId", str)
ScopeId = NewType("ScopeId", str)
"""`agent:…`, `project:…` or `organisation`."""

ORGANISATION = ScopeId("organisation")
"""The scope that holds every other. There is one."""

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


class Mode(StrEnum):
    """What a budget does. The values are what the journal and the tables hold."""

    RESTRICTIVE = "restrictive"
    """Nothing is lent beyond it."""
    INFORMATIVE = "informative"
    """It counts and warns, and stops nobody."""


class Account(NamedTuple):
    """The money of one scope in one period."""

    account_id: AccountId
    scope_id: ScopeId
    allocated_nanousd: int | None
    """None: no limit."""
    spent_nanousd: int
    """Spent out of leases; what no lease covered is in `overrun_nanousd`."""
    leased_nanousd: int
    overrun_nanousd: int
    mode: Mode = Mode.RESTRICTIVE
    ends_at_us: int | None = None
    """When its period is over; None: never."""

    @property
    def committed_nanousd(self) -> int:
        return self.spent_nanousd + self.leased_nanousd

    @property
    def limit_nanousd(self) -> int | None:
        """What spent and leased never exceed; None if nothing is blocked."""
        return self.allocated_nanousd if self.mode is Mode.RESTRICTIVE else None

    @property
    def free_nanousd(self) -> int | None:
        """Neither spent nor leased: below 0 only if the budget blocks nothing; None: no limit."""
        if self.allocated_nanousd is None:
            return None
        return self.allocated_nanousd - self.spent_nanousd - self.leased_nanousd

    @property
    def available_nanousd(self) -> int | None:
        """What may be lent: money that was overspent already is not lent again. None: no limit."""
        limit_nanousd = self.limit_nanousd
        if limit_nanousd is None:
            return None
        taken_nanousd = self.spent_nanousd + self.leased_nanousd + self.overrun_nanousd
        return max(0, limit_nanousd - taken_nanousd)

    @property
    def used_nanousd(self) -> int:
        """All that was really used, covered by a lease or not."""
        return self.spent_nanousd + self.overrun_nanousd

    @property
    def percent_used(self) -> float:
        """Used as a share of what is allocated, 0 without a limit; for showing only."""
        if self.allocated_nanousd is None:
            return 0.0
        if not self.allocated_nanousd:
            return 100.0
        return self.used_nanousd * 100 / self.allocated_nanousd

    def is_over(self, now_us: int) -> bool:
        """Its period has ended: nothing is lent from it any more."""
        return self.ends_at_us is not None and now_us >= self.ends_at_us


Path = tuple[Account, ...]
"""The accounts a lease draws on: its agent's, which has a limit, then those above; never empty."""


def scope_of_agent(agent_id: str) -> ScopeId:
    return ScopeId(f"agent:{agent_id}")


def scope_of_project(project_id: str) -> ScopeId:
    return ScopeId(f"project:{project_id}")


def agent_of(scope_id: ScopeId) -> str:
    """The agent a scope is of; empty for projects and the organisation."""
    kind, _, name = scope_id.partition(":")
    return name if kind == "agent" else ""


class Lease(NamedTuple):
    """Money lent to one runtime. Times are microseconds since 1970 by the server's clock."""

    lease_id: LeaseId
    account_ids: tuple[AccountId, ...]
    """The accounts it draws on, its agent's first; the same until its end."""
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
    period_ends_at_us: int | None = None
    """When the first of its accounts is over, which it never outlives; None: never."""

    @property
    def account_id(self) -> AccountId:
        """Its agent's account."""
        return self.account_ids[0]

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
