"""What an agent may spend in all: each change of it with its history, and raises that end.

Works within the transaction of whoever changes it; other rooms are handed this module. What is
taken back, and when, is decided in `raises.py`.
"""

from __future__ import annotations

from steward_server.budget import chart, entries, history, raises, store
from steward_server.budget.allocation import reallocate
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.period import Period
from steward_server.budget.raises import Raise
from steward_server.budget.refusals import refused
from steward_server.budget.scopes import Scope
from steward_server.budget.values import Account, agent_of, scope_of_agent
from steward_server.budget_change import BudgetChange, BudgetSummary, Cause, Why
from steward_server.db import Reader, Transaction
from steward_server.events.store import NewEntry, append
from steward_server.versions import AGENTS


async def set_to(
    transaction: Transaction, agent_id: str, allocated_nanousd: int, why: Why, now_us: int
) -> None:
    """Set the allocation for good: raises that were to end are over with it.

    Raises:
        StewardError: it is out of range, or less than is spent and leased.
    """
    scope, account = await _now(transaction, agent_id, now_us)
    wanted = scope._replace(budget_nanousd=allocated_nanousd)
    await apply(transaction, account, wanted, why, now_us)
    await end_raises(transaction, agent_id)


async def end_raises(transaction: Transaction, agent_id: str) -> None:
    """Have raises of an agent owe nothing any more: its budget was set for good."""
    await transaction.execute(
        "UPDATE budget_raise SET owed_nanousd = 0 WHERE agent_id = ? AND owed_nanousd > 0",
        agent_id,
    )


async def raise_to(
    transaction: Transaction,
    agent_id: str,
    allocated_nanousd: int,
    why: Why,
    *,
    ends_at_us: int | None,
    now_us: int,
) -> None:
    """Raise the allocation; what that adds is taken back at `ends_at_us`, if that is given.

    Raises:
        StewardError: it is out of range, or less than is spent and leased.
    """
    scope, account = await _now(transaction, agent_id, now_us)
    granted = raises.grant(
        scope.budget_nanousd or 0,
        await _raises(transaction, agent_id),
        agent_id=agent_id,
        request_id=why.request_id,
        allocated_nanousd=allocated_nanousd,
        ends_at_us=ends_at_us,
        now_us=now_us,
        repeats=_repeats(scope),
    )
    wanted = scope._replace(budget_nanousd=allocated_nanousd)
    await apply(transaction, account, wanted, why, now_us)
    await _save(transaction, granted)
    await AGENTS.advance(transaction, agent_id)


async def write_off(transaction: Transaction, agent_id: str, now_us: int) -> int:
    """Have raises of an agent that are over owe nothing any more; its budget without them."""
    await take_back(transaction, agent_id, now_us)
    held = await _raises(transaction, agent_id)
    scope, _ = await chart.load(transaction, scope_of_agent(agent_id))
    await _save(
        transaction, [each._replace(owed_nanousd=0) for each in held if each.has_ended(now_us)]
    )
    return raises.lasting(scope.budget_nanousd or 0, held, now_us, repeats=_repeats(scope))


async def take_back(transaction: Transaction, agent_id: str, now_us: int) -> bool:
    """Take back what raises of an agent owe whose time is over; whether that changed anything.

    What is lent of them goes when its lease gives it back. Periods to come have nothing of them.
    """
    held = await _raises(transaction, agent_id)
    if not any(each.has_ended(now_us) for each in held):
        return False
    scope, account = await _now(transaction, agent_id, now_us)
    changed = raises.take_back(account, held, now_us, repeats=_repeats(scope))
    for each in changed:
        budget_nanousd = max(0, (scope.budget_nanousd or 0) - each.reduction_nanousd)
        scope = scope._replace(budget_nanousd=budget_nanousd)
        account = await apply(
            transaction,
            account,
            scope,
            Why(Cause.RAISE_ENDED, request_id=each.raised.request_id),
            now_us,
            allocated_nanousd=_allocated(account) - each.taken_nanousd,
        )
    await _save(transaction, [each.raised for each in changed])
    if changed:
        await AGENTS.advance(transaction, agent_id)
    return bool(changed)


async def take_back_overdue(transaction: Transaction, now_us: int, limit: int) -> int:
    """Take back what raises owe whose time is over, of `limit` at most; how many there were.

    Those of agents all of whose money is lent or spent are left out: nothing can be taken yet.
    """
    rows = await transaction.fetch_all(
        "SELECT agent_id FROM budget_raise"
        " JOIN scope ON scope.scope_id = 'agent:' || budget_raise.agent_id"
        " JOIN account ON account.account_id = scope.account_id"
        " WHERE owed_nanousd > 0 AND budget_raise.ends_at_us <= ?"
        " AND (allocated_nanousd > spent_nanousd + leased_nanousd OR leased_nanousd = 0"
        " OR (scope.period <> 'none' AND ended_in <> account.account_id))"
        " ORDER BY budget_raise.ends_at_us LIMIT ?",
        now_us,
        limit,
    )
    for agent_id in dict.fromkeys(row["agent_id"] for row in rows):
        await take_back(transaction, agent_id, now_us)
    return len(rows)


async def apply(
    transaction: Transaction,
    account: Account,
    wanted: Scope,
    why: Why,
    now_us: int,
    *,
    allocated_nanousd: int | None = None,
    follows: Account | None = None,
) -> Account:
    """Save what is wanted of a scope, and have the account it has now allow that.

    Args:
        transaction: where.
        account: the one it has.
        wanted: what it is to be.
        why: what led to it.
        now_us: the time.
        allocated_nanousd: what this account is to allow, if that is not what the next ones do.
        follows: the account it had up to now, if this one is new to it.

    Raises:
        StewardError: it is out of range, or less than is spent and leased.
    """
    allocated = wanted.budget_nanousd if allocated_nanousd is None else allocated_nanousd
    try:
        after = reallocate(account, allocated, wanted.mode)
    except LedgerError as error:
        raise refused(error) from error
    await chart.save(transaction, wanted)
    if after != account:
        await store.save_allocation(transaction, after)
        body = {
            "scope": wanted.scope_id,
            "allocated": after.allocated_nanousd,
            "previous": account.allocated_nanousd,
            "mode": after.mode,
            "cause": why.cause,
            "by": why.by,
            "request": why.request_id,
        }
        entry = NewEntry("account.reallocated", body, agent_of(wanted.scope_id), after.account_id)
        warnings = entries.warnings(account, after)
        last_lsn = await append(transaction, now_us, entry, *warnings)
        if follows is None:
            lsn = last_lsn - len(warnings)
            await history.write_down(transaction, lsn, account, after, why, now_us)
    if follows is not None:
        await history.follow(transaction, follows, after, why, now_us)
    return after


async def _now(transaction: Transaction, agent_id: str, now_us: int) -> tuple[Scope, Account]:
    """The scope of an agent, and the account it has as of now."""
    scope, account = await chart.load(transaction, scope_of_agent(agent_id))
    if account is None or account.is_over(now_us):
        account = await chart.open_next(transaction, scope, account, now_us)
        scope, _ = await chart.load(transaction, scope.scope_id)
    return scope, account


def _repeats(scope: Scope) -> bool:
    return scope.period is not Period.NONE


def _allocated(account: Account) -> int:
    return account.allocated_nanousd or 0


async def changes(
    reader: Reader, agent_id: str, *, before_lsn: int | None, limit: int
) -> list[BudgetChange]:
    """Changes of an agent's allocation, the newest first, before the last of the page before."""
    earlier, parameters = "", list[object]()
    if before_lsn is not None:
        earlier = " AND lsn < ?"
        parameters.append(before_lsn)
    rows = await reader.fetch_all(
        "SELECT lsn, agent_id, at_us, old_nanousd, new_nanousd, cause, changed_by, reason,"
        f" request_id FROM budget_change WHERE agent_id = ?{earlier} ORDER BY lsn DESC LIMIT ?",
        agent_id,
        *parameters,
        limit,
    )
    return [BudgetChange(**row) for row in rows]


async def summary(reader: Reader, agent_id: str) -> BudgetSummary:
    """What all changes of an agent's allocation add up to."""
    scope, account = await chart.load(reader, scope_of_agent(agent_id))
    allocated = (account.allocated_nanousd if account else scope.budget_nanousd) or 0
    [row] = await reader.fetch_all(
        "SELECT count(*) AS change_count, COALESCE(sum(CASE WHEN new_nanousd > old_nanousd"
        " THEN new_nanousd - old_nanousd ELSE 0 END), 0) AS increases, min(lsn) AS first_lsn"
        " FROM budget_change WHERE agent_id = ?",
        agent_id,
    )
    first = await reader.fetch_one(
        "SELECT old_nanousd FROM budget_change WHERE lsn = ?", row["first_lsn"]
    )
    held = await _raises(reader, agent_id)
    return BudgetSummary(
        initial_nanousd=first["old_nanousd"] if first else allocated,
        current_nanousd=allocated,
        increases_nanousd=int(row["increases"]),
        change_count=row["change_count"],
        temporary_nanousd=sum(each.owed_nanousd for each in held),
        temporary_until_us=min((each.ends_at_us for each in held), default=None),
    )


async def _raises(reader: Reader, agent_id: str) -> list[Raise]:
    """Those that owe something, whether their time is over or not."""
    rows = await reader.fetch_all(
        "SELECT request_id, agent_id, ends_at_us, owed_nanousd, ended_in FROM budget_raise"
        " WHERE agent_id = ? AND owed_nanousd > 0",
        agent_id,
    )
    return [Raise(**row) for row in rows]


async def _save(transaction: Transaction, changed: list[Raise]) -> None:
    await transaction.execute_many(
        "INSERT INTO budget_raise (request_id, agent_id, ends_at_us, owed_nanousd, ended_in)"
        " VALUES (?, ?, ?, ?, ?) ON CONFLICT (request_id) DO UPDATE"
        " SET owed_nanousd = excluded.owed_nanousd, ended_in = excluded.ended_in",
        changed,
    )
