"""What the budget room writes into the journal."""

from __future__ import annotations

from steward_server.budget import allocation
from steward_server.budget.ledger import Booking
from steward_server.budget.values import Account, Lease, agent_of
from steward_server.events.store import NewEntry


def warnings(before: Account, after: Account) -> list[NewEntry]:
    """One for each threshold that the use of an account has reached by this change."""
    return [
        NewEntry(
            "budget.warning",
            {
                "threshold": percent,
                "spent": after.used_nanousd,
                "limit": after.allocated_nanousd,
                "scope": after.scope_id,
            },
            agent_of(after.scope_id),
            after.account_id,
        )
        for percent in allocation.thresholds_crossed(before, after, frozenset())
    ]


def overrun(booking: Booking) -> NewEntry:
    """More was used than a lease could pay."""
    lease = booking.lease
    body = {"over": booking.overrun_nanousd, "cost": booking.cost_nanousd}
    return NewEntry("budget.overrun", body, lease.agent_id, lease.lease_id)


def draining(lease: Lease, why: str) -> NewEntry:
    """A lease settles what is under way and starts nothing more."""
    body = {
        "ending": lease.ending,
        "settle_until_us": lease.settle_until_us,
        "why": why,
    }
    return NewEntry("lease.draining", body, lease.agent_id, lease.lease_id)


def ended(lease: Lease, returned_nanousd: int) -> NewEntry:
    """A lease is over."""
    body = {"state": lease.state, "returned": returned_nanousd}
    return NewEntry("lease.ended", body, lease.agent_id, lease.lease_id)
