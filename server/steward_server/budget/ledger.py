"""The ledger: what may be lent, spent and given back. Pure: no clock, no storage, no transport.

Money is free, leased or spent, in nano-dollars. A path is the accounts a lease draws on, that of
its agent first; every rule moves the whole path or nothing. What an account allows stands in
`allocation.py`. A rule returns new values and leaves its arguments be.
"""

from dataclasses import dataclass
from typing import NamedTuple

from steward_server.budget.allocation import lendable_nanousd, tightest
from steward_server.budget.ledger_errors import (
    BudgetExceeded,
    IllegalTransition,
    InvalidAmount,
    LeaseClosed,
    SequenceGap,
    SequenceReused,
)
from steward_server.budget.values import (
    MAX_BALANCE_NANOUSD,
    MAX_COST_NANOUSD,
    NEXT,
    Account,
    AgentId,
    Lease,
    LeaseId,
    LeasePolicy,
    LeaseState,
    Path,
)

_make = tuple.__new__
"""Makes a named tuple in half the time its own constructor takes; each usage makes several."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A lease was opened: free money became leased."""

    path: Path
    lease: Lease
    requested_nanousd: int
    """What was asked for, or the default tranche where nothing was said."""
    partial: bool


class Booking(NamedTuple):
    """A usage was booked: leased money became spent, and the rest overrun."""

    path: Path
    lease: Lease
    sequence: int
    cost_nanousd: int
    covered_nanousd: int
    overrun_nanousd: int
    """The part of this cost that the lease did not cover."""


@dataclass(frozen=True, slots=True)
class Growth:
    """A lease grew: free money became leased, and its expiry moved."""

    path: Path
    lease: Lease
    added_nanousd: int
    requested_nanousd: int
    partial: bool


@dataclass(frozen=True, slots=True)
class Denial:
    """A lease did not grow, and nothing changed. An answer, not an error."""

    reason: str
    """"insufficient_budget", "lease_draining", "lease_ended" or "lease_expired"."""
    scope: str = ""
    """Whose budget is insufficient."""


@dataclass(frozen=True, slots=True)
class Closing:
    """A lease ended: what it had not spent became free again."""

    path: Path
    lease: Lease
    returned_nanousd: int
    ended_at_us: int


def open_lease(
    path: Path,
    *,
    lease_id: LeaseId,
    agent_id: AgentId,
    requested_nanousd: int | None,
    minimum_nanousd: int,
    now_us: int,
    policy: LeasePolicy,
) -> Opening:
    """Lend money to a new lease: as much of the request as the whole path can give.

    The lease ends with the first period of the path to end, if not before.

    Args:
        path: where the money comes from, the agent's account first; none of it is over.
        lease_id: a name never used before.
        agent_id: who spends it.
        requested_nanousd: None asks for the default tranche; above the maximum is cut to it.
        minimum_nanousd: refuse rather than lend less; 0 accepts any amount.
        now_us: the time.
        policy: how much is lent, and for how long.

    Raises:
        InvalidAmount: the request is not above 0, or the minimum is negative or out of its reach.
        BudgetExceeded: nothing is available, or less than the minimum.
    """
    requested_nanousd, wanted_nanousd = _wanted(requested_nanousd, policy)
    if not 0 <= minimum_nanousd <= wanted_nanousd:
        raise InvalidAmount(
            "minimum_nanousd", minimum_nanousd, f"from 0 to what can be granted, {wanted_nanousd}"
        )
    granted_nanousd = min(wanted_nanousd, lendable_nanousd(path))
    if granted_nanousd == 0 or granted_nanousd < minimum_nanousd:
        source = tightest(path)
        raise BudgetExceeded(agent_id, requested_nanousd, granted_nanousd, source.scope_id)
    ends = [account.ends_at_us for account in path if account.ends_at_us is not None]
    period_ends_at_us = min(ends, default=None)
    expires_at_us = now_us + policy.lease_ttl_ms * 1_000
    lease = Lease(
        lease_id=lease_id,
        account_ids=tuple([account.account_id for account in path]),
        agent_id=agent_id,
        granted_nanousd=granted_nanousd,
        spent_nanousd=0,
        overrun_nanousd=0,
        sequence=0,
        state=LeaseState.ACTIVE,
        ending=None,
        expires_at_us=_within(period_ends_at_us, expires_at_us),
        settle_until_us=0,
        period_ends_at_us=period_ends_at_us,
    )
    return Opening(
        _lend(path, granted_nanousd), lease, requested_nanousd, granted_nanousd < requested_nanousd
    )


def book(path: Path, lease: Lease, *, sequence: int, cost_nanousd: int, now_us: int) -> Booking:
    """Book one usage: a fact, taken whole whatever the lease can pay.

    What an open lease has left covers the cost; the rest is overrun, on the lease and on the whole
    path, and freezes an active lease: it drains and will end REVOKED. Nothing is left in it then,
    so it may settle as long as it would have lived. On an expired or revoked lease all is overrun.

    Args:
        path: the path of the lease's account.
        lease: as it stands; past its expiry or its grace it is still open until someone ends it.
        sequence: the report's number, 1 above the last; 0 takes the next. A repetition is not for
            this function: answer it from what was booked.
        cost_nanousd: 0 to `MAX_COST_NANOUSD`.
        now_us: the time.

    Raises:
        LeaseClosed: its runtime had returned it.
        SequenceGap: a report before this one is missing.
        SequenceReused: the number was booked already.
        InvalidAmount: the cost is out of range, or the overrun exceeds `MAX_BALANCE_NANOUSD`.
    """
    state = lease.state
    if state is LeaseState.CLOSED:
        raise LeaseClosed(lease.lease_id, state)
    if not 0 <= cost_nanousd <= MAX_COST_NANOUSD:
        raise InvalidAmount("cost_nanousd", cost_nanousd, f"from 0 to {MAX_COST_NANOUSD}")
    expected = lease.sequence + 1
    if sequence not in (0, expected):
        refusal = SequenceGap if sequence > expected else SequenceReused
        raise refusal(lease.lease_id, expected, sequence)
    if path[0].account_id != lease.account_ids[0] or len(path) != len(lease.account_ids):
        _check_path(path, lease)
    remaining_nanousd = lease.remaining_nanousd
    if cost_nanousd <= remaining_nanousd:
        covered_nanousd, overrun_nanousd = cost_nanousd, 0
    else:
        covered_nanousd, overrun_nanousd = remaining_nanousd, cost_nanousd - remaining_nanousd
        _check_overrun(path, cost_nanousd, overrun_nanousd)
    ending, settle_until_us = lease.ending, lease.settle_until_us
    if overrun_nanousd and state is LeaseState.ACTIVE:
        state = _next(lease, LeaseState.DRAINING)
        ending = LeaseState.REVOKED
        settle_until_us = max(lease.expires_at_us, now_us)
    booked_path = tuple(
        [
            _make(
                Account,
                (
                    account_id,
                    scope_id,
                    allocated_nanousd,
                    spent_nanousd + covered_nanousd,
                    leased_nanousd - covered_nanousd,
                    before_nanousd + overrun_nanousd,
                    mode,
                    ends_at_us,
                ),
            )
            for (
                account_id,
                scope_id,
                allocated_nanousd,
                spent_nanousd,
                leased_nanousd,
                before_nanousd,
                mode,
                ends_at_us,
            ) in path
        ]
    )
    booked_lease = _make(
        Lease,
        (
            lease.lease_id,
            lease.account_ids,
            lease.agent_id,
            lease.granted_nanousd,
            lease.spent_nanousd + covered_nanousd,
            lease.overrun_nanousd + overrun_nanousd,
            expected,
            state,
            ending,
            lease.expires_at_us,
            settle_until_us,
            lease.period_ends_at_us,
        ),
    )
    return _make(
        Booking,
        (booked_path, booked_lease, expected, cost_nanousd, covered_nanousd, overrun_nanousd),
    )


def grow(
    path: Path, lease: Lease, *, requested_nanousd: int | None, now_us: int, policy: LeasePolicy
) -> Growth | Denial:
    """Lend more to an active lease and renew its expiry; denied, it stays exactly as it is.

    None asks for the default tranche; above the maximum is cut to it.

    Raises:
        InvalidAmount: the request is not above 0.
    """
    _check_path(path, lease)
    requested_nanousd, wanted_nanousd = _wanted(requested_nanousd, policy)
    if lease.state is LeaseState.DRAINING:
        return Denial("lease_draining")
    if lease.state is not LeaseState.ACTIVE:
        return Denial("lease_ended")
    if lease.is_expiry_due(now_us):
        return Denial("lease_expired")
    added_nanousd = min(wanted_nanousd, lendable_nanousd(path))
    if added_nanousd == 0:
        return Denial("insufficient_budget", tightest(path).scope_id)
    grown = lease._replace(
        granted_nanousd=lease.granted_nanousd + added_nanousd,
        expires_at_us=_renewed_us(lease, now_us, policy),
    )
    return Growth(
        _lend(path, added_nanousd),
        grown,
        added_nanousd,
        requested_nanousd,
        added_nanousd < requested_nanousd,
    )


def touch(lease: Lease, *, now_us: int, policy: LeasePolicy) -> Lease:
    """Renew the expiry after a sign of life; never shortens it.

    The same lease comes back if there is nothing to renew: it is not active, or past its expiry.
    """
    if lease.state is not LeaseState.ACTIVE or now_us >= lease.expires_at_us:
        return lease
    expires_at_us = _renewed_us(lease, now_us, policy)
    if expires_at_us == lease.expires_at_us:
        return lease
    return Lease(
        lease.lease_id,
        lease.account_ids,
        lease.agent_id,
        lease.granted_nanousd,
        lease.spent_nanousd,
        lease.overrun_nanousd,
        lease.sequence,
        lease.state,
        lease.ending,
        expires_at_us,
        lease.settle_until_us,
        lease.period_ends_at_us,
    )


def give_back(path: Path, lease: Lease, *, now_us: int) -> Closing:
    """End a lease on its runtime's word that nothing more will come.

    A revoked lease ends REVOKED, any other CLOSED.

    Raises:
        LeaseClosed: it has ended already, and its money is back.
    """
    if not lease.is_open:
        raise LeaseClosed(lease.lease_id, lease.state)
    revoked = lease.ending is LeaseState.REVOKED
    return _end(path, lease, LeaseState.REVOKED if revoked else LeaseState.CLOSED, now_us)


def begin_expiry(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    """Let an active lease drain once its time is over; its settle grace starts now.

    The same lease comes back if it is not due.
    """
    if not lease.is_expiry_due(now_us):
        return lease
    return cut_short(lease, now_us, policy)


def cut_short(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    """Let an active lease drain before its time, to end EXPIRED: its money is of another period.

    The same lease comes back if it is not active.
    """
    if lease.state is not LeaseState.ACTIVE:
        return lease
    return lease._replace(
        state=_next(lease, LeaseState.DRAINING),
        ending=LeaseState.EXPIRED,
        settle_until_us=now_us + policy.settle_grace_ms * 1_000,
    )


def revoke(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    """Let an open lease drain, to end REVOKED a settle grace from now, or sooner if it would.

    The same lease comes back if it has ended, or if there is nothing left to change.
    """
    if not lease.is_open:
        return lease
    settle_until_us = now_us + policy.settle_grace_ms * 1_000
    if lease.state is LeaseState.ACTIVE:
        return lease._replace(
            state=_next(lease, LeaseState.DRAINING),
            ending=LeaseState.REVOKED,
            settle_until_us=settle_until_us,
        )
    settle_until_us = min(lease.settle_until_us, settle_until_us)
    if lease.ending is LeaseState.REVOKED and settle_until_us == lease.settle_until_us:
        return lease
    return lease._replace(ending=LeaseState.REVOKED, settle_until_us=settle_until_us)


def end_draining(path: Path, lease: Lease, now_us: int) -> Closing:
    """End a draining lease whose settle grace is over, and free exactly what it did not spend.

    Raises:
        IllegalTransition: it is not draining, or may still settle; ask `is_ending_due` first.
    """
    to = lease.ending or LeaseState.EXPIRED
    if lease.state is LeaseState.ACTIVE:
        raise IllegalTransition(lease.lease_id, lease.state, to, "it has to drain first")
    if lease.state is LeaseState.DRAINING and now_us < lease.settle_until_us:
        raise IllegalTransition(
            lease.lease_id, lease.state, to, f"it settles until {lease.settle_until_us} µs"
        )
    return _end(path, lease, to, now_us)


def _wanted(requested_nanousd: int | None, policy: LeasePolicy) -> tuple[int, int]:
    """What was asked for, and how much of it may be lent at once."""
    if requested_nanousd is None:
        requested_nanousd = policy.default_tranche_nanousd
    if requested_nanousd <= 0:
        raise InvalidAmount("requested_nanousd", requested_nanousd, "above 0")
    return requested_nanousd, min(requested_nanousd, policy.maximum_tranche_nanousd)


def _lend(path: Path, amount_nanousd: int) -> Path:
    """Move free money to leased along the path; back, if negative."""
    return tuple(
        [
            account._replace(leased_nanousd=account.leased_nanousd + amount_nanousd)
            for account in path
        ]
    )


def _end(path: Path, lease: Lease, to: LeaseState, now_us: int) -> Closing:
    _check_path(path, lease)
    state = _next(lease, to)
    returned_nanousd = lease.remaining_nanousd
    return Closing(
        _lend(path, -returned_nanousd),
        lease._replace(state=state, ending=None),
        returned_nanousd,
        now_us,
    )


def _next(lease: Lease, to: LeaseState) -> LeaseState:
    if to not in NEXT[lease.state]:
        raise IllegalTransition(lease.lease_id, lease.state, to)
    return to


def _renewed_us(lease: Lease, now_us: int, policy: LeasePolicy) -> int:
    """Never earlier than promised before, should the policy or the clock have moved."""
    expires_at_us = max(lease.expires_at_us, now_us + policy.lease_ttl_ms * 1_000)
    return _within(lease.period_ends_at_us, expires_at_us)


def _within(period_ends_at_us: int | None, expires_at_us: int) -> int:
    if period_ends_at_us is None or expires_at_us < period_ends_at_us:
        return expires_at_us
    return period_ends_at_us


def _check_path(path: Path, lease: Lease) -> None:
    account_ids = tuple([account.account_id for account in path])
    if account_ids != lease.account_ids:
        raise ValueError(
            f"lease {lease.lease_id!r} draws on {lease.account_ids}; the path is {account_ids}"
        )


def _check_overrun(path: Path, cost_nanousd: int, overrun_nanousd: int) -> None:
    most_nanousd = max(account.overrun_nanousd for account in path)
    if most_nanousd + overrun_nanousd > MAX_BALANCE_NANOUSD:
        raise InvalidAmount(
            "cost_nanousd",
            cost_nanousd,
            f"small enough to keep the overrun, {most_nanousd}, within {MAX_BALANCE_NANOUSD}",
        )
