"""What accounts allow: how much may be lent, and what its use is worth a warning. Pure.

A restrictive account blocks: nothing is lent beyond it. An informative one counts and warns, and
may go over; so may one without an allocation, of which there is nothing to warn.
"""

from collections import Counter
from collections.abc import Mapping

from steward_server.budget.ledger_errors import BudgetBelowCommitted, InvalidAmount
from steward_server.budget.values import (
    MAX_BALANCE_NANOUSD,
    ORGANISATION,
    Account,
    Mode,
    Path,
    ScopeId,
    agent_of,
)

WARNING_PERCENTS = (50, 80, 95, 100)


def tightest(path: Path) -> Account:
    """The account of the path that can lend least: the limit on what a lease can get.

    Raises:
        ValueError: no account of the path has a limit.
    """
    if len(path) == 1 and path[0].limit_nanousd is not None:
        return path[0]
    found: Account | None = None
    least_nanousd = 0
    for account in path:
        available_nanousd = account.available_nanousd
        if available_nanousd is None or (found is not None and available_nanousd >= least_nanousd):
            continue
        found, least_nanousd = account, available_nanousd
    if found is None:
        raise ValueError("a path needs an account that limits it")
    return found


def lendable_nanousd(path: Path) -> int:
    """What could be lent to a lease on this path."""
    least_nanousd: int | None = None
    for _, _, allocated_nanousd, spent_nanousd, leased_nanousd, overrun_nanousd, mode, _ in path:
        if allocated_nanousd is None or mode is not Mode.RESTRICTIVE:
            continue
        free_nanousd = allocated_nanousd - spent_nanousd - leased_nanousd - overrun_nanousd
        if least_nanousd is None or free_nanousd < least_nanousd:
            least_nanousd = free_nanousd
    if least_nanousd is None:
        raise ValueError("a path needs an account that limits it")
    return max(0, least_nanousd)


def most_used(path: Path) -> Account:
    """The account of the path that is closest to its end, of those that block.

    Raises:
        ValueError: no account of the path has a limit.
    """
    blocking = [account for account in path if account.limit_nanousd is not None]
    if not blocking:
        raise ValueError("a path needs an account that limits it")
    return max(blocking, key=lambda account: account.percent_used)


def lendable_together(accounts: Mapping[ScopeId, tuple[ScopeId | None, Account]]) -> int:
    """What could be lent to all agents among these accounts; each is given with what is above it.

    What several agents share is counted once.
    """
    from_below: Counter[ScopeId] = Counter()
    for agents_turn in (True, False):
        for scope_id, (parent_id, account) in accounts.items():
            is_agent = bool(agent_of(scope_id))
            if parent_id is None or is_agent is not agents_turn:
                continue
            free_nanousd = account.available_nanousd
            if is_agent:
                from_below[parent_id] += free_nanousd or 0
            else:
                asked_nanousd = from_below[scope_id]
                from_below[parent_id] += (
                    asked_nanousd if free_nanousd is None else min(asked_nanousd, free_nanousd)
                )
    if ORGANISATION not in accounts:
        return 0
    free_nanousd = accounts[ORGANISATION][1].available_nanousd
    asked_nanousd = from_below[ORGANISATION]
    return asked_nanousd if free_nanousd is None else min(asked_nanousd, free_nanousd)


def reallocate(account: Account, allocated_nanousd: int | None, mode: Mode) -> Account:
    """Set what an account may lend in all, and whether that blocks. Others stay as they are.

    Raises:
        InvalidAmount: negative, or above `MAX_BALANCE_NANOUSD`.
        BudgetBelowCommitted: it blocks, and is less than is spent and leased.
    """
    if allocated_nanousd is not None:
        if not 0 <= allocated_nanousd <= MAX_BALANCE_NANOUSD:
            raise InvalidAmount(
                "allocated_nanousd", allocated_nanousd, f"from 0 to {MAX_BALANCE_NANOUSD}"
            )
        if mode is Mode.RESTRICTIVE and allocated_nanousd < account.committed_nanousd:
            raise BudgetBelowCommitted(
                account.account_id, allocated_nanousd, account.committed_nanousd
            )
    return account._replace(allocated_nanousd=allocated_nanousd, mode=mode)


def thresholds_crossed(before: Account, after: Account, already: frozenset[int]) -> tuple[int, ...]:
    """The percents of its allocation that the account's use has reached by this change.

    Those in `already` are left out. An account that used nothing has reached nothing, and of no
    limit there are no percents.
    """
    allocated_nanousd = after.allocated_nanousd
    if allocated_nanousd is None:
        return ()
    used_before, used_after = before.used_nanousd, after.used_nanousd
    if (
        before.allocated_nanousd == allocated_nanousd > 0
        and used_before > 0
        and used_before * 20 // allocated_nanousd == used_after * 20 // allocated_nanousd
    ):
        return ()  # every percent is a twentieth: within one, and that is nearly always, none lies
    return tuple(
        [
            percent
            for percent in WARNING_PERCENTS
            if _reached(used_after, allocated_nanousd, percent)
            and not _reached(used_before, before.allocated_nanousd, percent)
            and percent not in already
        ]
    )


def _reached(used_nanousd: int, allocated_nanousd: int | None, percent: int) -> bool:
    if allocated_nanousd is None:
        return False
    return used_nanousd > 0 and used_nanousd * 100 >= percent * allocated_nanousd
