"""Raises that end: what is taken back, and what stays because it is spent or lent. Pure.

A raise ends by itself and gives back what it added. What is free by then goes at once. What is lent
stays with its lease; what the lease gives back later goes then. What is spent stays for good. So
once all has ended and no lease is open, an agent has what it had without the raises, or what it has
spent, if that is more. Raises do not know of each other: each takes back its own part.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from steward_server.budget.values import Account


class Raise(NamedTuple):
    """One raise of an agent's allocation that is to end."""

    request_id: str
    """Of the request that it was granted for."""
    agent_id: str
    ends_at_us: int
    owed_nanousd: int
    """What is still to be taken back once it has ended; 0 when that is over."""

    def has_ended(self, now_us: int) -> bool:
        """Whether its time is over; it may owe something all the same."""
        return now_us >= self.ends_at_us


class Taken(NamedTuple):
    """What one raise gives back now."""

    raised: Raise
    """As it stands after that."""
    taken_nanousd: int
    owed_nanousd: int
    """What it owed before."""


def grant(
    present_nanousd: int,
    raises: Iterable[Raise],
    *,
    agent_id: str,
    request_id: str,
    allocated_nanousd: int,
    ends_at_us: int | None,
    now_us: int,
) -> list[Raise]:
    """The raises that come or change when the present allocation is raised to this much.

    Whoever decides that saw the allocation with what ended raises still owe in it. So those owe
    nothing from now on, and the new raise counts from what the allocation would have fallen to.
    None for `ends_at_us` raises for good.
    """
    over = [each for each in raises if each.has_ended(now_us)]
    owed_nanousd = sum(each.owed_nanousd for each in over)
    changed = [each._replace(owed_nanousd=0) for each in over]
    if ends_at_us is not None:
        added_nanousd = allocated_nanousd - (present_nanousd - owed_nanousd)
        changed.append(Raise(request_id, agent_id, ends_at_us, added_nanousd))
    return changed


def take_back(
    account: Account, raises: Iterable[Raise], now_us: int, *, at_once: bool = False
) -> list[Taken]:
    """What raises whose time is over give back, in the order in which they ended.

    Only those that change are among it. None owes more after it than open leases could give back;
    `at_once`, none owes anything.
    """
    free_nanousd = max(0, account.free_nanousd or 0)
    leased_nanousd = 0 if at_once else account.leased_nanousd
    changed = []
    for each in sorted(raises, key=lambda one: (one.ends_at_us, one.request_id)):
        if not each.has_ended(now_us):
            continue
        taken_nanousd = min(each.owed_nanousd, free_nanousd)
        owed_nanousd = min(each.owed_nanousd - taken_nanousd, leased_nanousd)
        free_nanousd -= taken_nanousd
        leased_nanousd -= owed_nanousd
        if owed_nanousd != each.owed_nanousd:
            after = each._replace(owed_nanousd=owed_nanousd)
            changed.append(Taken(after, taken_nanousd, each.owed_nanousd))
    return changed
