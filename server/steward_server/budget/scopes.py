"""Scopes: who has a budget, and which account keeps its money in a period. Pure.

An organisation holds projects and agents, a project holds agents. Each scope has one account at a
time. When its period is over it gets another: nothing is zeroed, and nothing is lent from the old
one again. A lease draws on the accounts that its scopes had when it was opened, and never outlives
the first of them to end; then it drains, its reports land where its money came from, and what it
did not spend goes back there. So every usage belongs to the period in which its money was set
aside, whenever it is reported: after the end of its lease it is an overrun of that period, which
changes nothing that was spent or lent in it.
"""

from __future__ import annotations

from typing import NamedTuple

from steward_server.budget.period import Period, date_text, period_of
from steward_server.budget.values import ORGANISATION, Account, AccountId, Mode, ScopeId


class Scope(NamedTuple):
    """Something that has a budget, as it is wanted from now on."""

    scope_id: ScopeId
    parent_id: ScopeId | None
    budget_nanousd: int | None
    """None: no limit."""
    mode: Mode
    period: Period
    since_us: int = 0
    """When the newest period it ever had began: no earlier one comes back."""


def account_id_of(scope_id: ScopeId, period: Period, starts_at_us: int) -> AccountId:
    """The name of a scope's account: its own id, with the period and its first day if any."""
    own = scope_id if scope_id == ORGANISATION else scope_id.partition(":")[2]
    if period is Period.NONE:
        return AccountId(own)
    return AccountId(f"{own}/{period}/{date_text(starts_at_us)}")


def account_at(scope: Scope, at_us: int) -> Account:
    """The account of a scope for the period a time lies in, before anything was moved.

    A clock that was set back does not bring an earlier period back.
    """
    starts_at_us, ends_at_us = start_and_end(scope, at_us)
    return Account(
        account_id_of(scope.scope_id, scope.period, starts_at_us),
        scope.scope_id,
        scope.budget_nanousd,
        0,
        0,
        0,
        scope.mode,
        ends_at_us,
    )


def start_and_end(scope: Scope, at_us: int) -> tuple[int, int | None]:
    """Of the period a scope is in at a time; it ends at None if it is for ever."""
    return period_of(scope.period, max(at_us, scope.since_us))


def current(scope: Scope, account: Account | None, now_us: int) -> Account:
    """The scope's account as of now: the one it has, or the next if that is over."""
    if account is None or account.is_over(now_us):
        return account_at(scope, now_us)
    return account
