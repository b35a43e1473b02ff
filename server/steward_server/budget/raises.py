"""Raises that end: what is taken back, and what stays because it is spent or lent. Pure.

A raise ends by itself and gives back what it added. What is free by then goes at once. What is lent
stays with its lease; what the lease gives back later goes then. What is spent stays for good. So
once all has ended and no lease is open, an agent has what it had without the raises, or what it has
spent, if that is more. Raises do not know of each other: each takes back its own part.

Of a budget with periods, the periods to come have nothing of an ended raise, whatever was spent;
what is said above is so for the account of the period it ended in, and over with that.
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
    ended_in: str = ""
    """The account that owes it since it has ended; empty before that is noted."""

    def has_ended(self, now_us: int) -> bool:
        """Whether its time is over, for good then; it may owe something all the same."""
        return bool(self.ended_in) or now_us >= self.ends_at_us


class Taken(NamedTuple):
    """What one raise gives back now."""

    raised: Raise
    """As it stands after that."""
    taken_nanousd: int
    """Out of the account."""
    reduction_nanousd: int
    """By how much the budget, as it is wanted from now on, falls."""


def lasting(
    budget_nanousd: int, raises: Iterable[Raise], now_us: int, *, repeats: bool = False
) -> int:
    """What a budget is without what ended raises still owe in it.

    `repeats` for a budget with periods: what is known to have ended is in its account only.
    """
    over = [each for each in raises if each.has_ended(now_us) and not (repeats and each.ended_in)]
    return budget_nanousd - sum(each.owed_nanousd for each in over)


def grant(
    budget_nanousd: int,
    raises: Iterable[Raise],
    *,
    agent_id: str,
    request_id: str,
    allocated_nanousd: int,
    ends_at_us: int | None,
    now_us: int,
    repeats: bool = False,
) -> list[Raise]:
    """The raises that come or change when a budget is raised to this much.

    Whoever decides that saw the budget with what ended raises still owe in it. So those owe nothing
    from now on, and the new raise counts from what the budget would have fallen to. None for
    `ends_at_us` raises for good.
    """
    raises = list(raises)
    changed = [each._replace(owed_nanousd=0) for each in raises if each.has_ended(now_us)]
    if ends_at_us is not None:
        added_nanousd = allocated_nanousd - lasting(budget_nanousd, raises, now_us, repeats=repeats)
        changed.append(Raise(request_id, agent_id, ends_at_us, added_nanousd))
    return changed


def take_back(
    account: Account, raises: Iterable[Raise], now_us: int, *, repeats: bool = False
) -> list[Taken]:
    """What raises whose time is over give back, in the order in which they ended.

    Only those that change are among it. None owes more after it than open leases could give back.
    `repeats` for a budget with periods, whose present account this is.
    """
    free_nanousd = max(0, account.free_nanousd or 0)
    leased_nanousd = account.leased_nanousd
    changed = []
    for each in sorted(raises, key=lambda one: (one.ends_at_us, one.request_id)):
        if not each.has_ended(now_us):
            continue
        # What a period that is over has lent or spent of it is of no concern to this one.
        due_nanousd = each.owed_nanousd if each.ended_in in ("", account.account_id) else 0
        taken_nanousd = min(due_nanousd, free_nanousd)
        owed_nanousd = min(due_nanousd - taken_nanousd, leased_nanousd)
        free_nanousd -= taken_nanousd
        leased_nanousd -= owed_nanousd
        after = each._replace(owed_nanousd=owed_nanousd, ended_in=account.account_id)
        reduction_nanousd = taken_nanousd
        if repeats:
            reduction_nanousd = 0 if each.ended_in else each.owed_nanousd
        if after != each:
            changed.append(Taken(after, taken_nanousd, reduction_nanousd))
    return changed
