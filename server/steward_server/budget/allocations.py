"""What an agent may spend in all: each change of it with its history, and raises that end.

Works within the transaction of whoever changes it; other rooms are handed this module. What is
taken back, and when, is decided in `raises.py`.
"""

from __future__ import annotations

from steward_server.budget import entries, ledger, raises, store
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.raises import Raise
from steward_server.budget.refusals import refused
from steward_server.budget.values import Account, Path
from steward_server.budget_change import BudgetChange, BudgetSummary, Cause, Why
from steward_server.db import Reader, Row, Transaction
from steward_server.events.store import NewEntry, append


async def set_to(
    transaction: Transaction, agent_id: str, allocated_nanousd: int, why: Why, now_us: int
) -> None:
    """Set the allocation for good: raises that were to end are over with it.

    Raises:
        StewardError: it is out of range, or less than is spent and leased.
    """
    await _change(
        transaction, await store.path(transaction, agent_id), allocated_nanousd, why, now_us
    )
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
    path = await store.path(transaction, agent_id)
    granted = raises.grant(
        path[0],
        await _raises(transaction, agent_id),
        request_id=why.request_id,
        allocated_nanousd=allocated_nanousd,
        ends_at_us=ends_at_us,
        now_us=now_us,
    )
    await _change(transaction, path, allocated_nanousd, why, now_us)
    await _save(transaction, granted)


async def take_back(transaction: Transaction, agent_id: str, now_us: int) -> bool:
    """Take back what raises of an agent owe whose time is over; whether that changed anything."""
    held = await _raises(transaction, agent_id)
    if not any(each.has_ended(now_us) for each in held):
        return False
    path = await store.path(transaction, agent_id)
    changed = raises.take_back(path[0], held, now_us)
    for raised, taken_nanousd in changed:
        if taken_nanousd:
            why = Why(Cause.RAISE_ENDED, request_id=raised.request_id)
            left_nanousd = path[0].allocated_nanousd - taken_nanousd
            path = await _change(transaction, path, left_nanousd, why, now_us)
    await _save(transaction, [raised for raised, _ in changed])
    return bool(changed)


async def take_back_overdue(transaction: Transaction, now_us: int, limit: int) -> int:
    """Take back what raises owe whose time is over, of `limit` at most; how many there were.

    Those of agents all of whose money is lent or spent are left out: nothing can be taken yet.
    """
    rows = await transaction.fetch_all(
        "SELECT agent_id FROM budget_raise JOIN account ON account_id = agent_id"
        " WHERE owed_nanousd > 0 AND ends_at_us <= ?"
        " AND (allocated_nanousd > spent_nanousd + leased_nanousd OR leased_nanousd = 0)"
        " ORDER BY ends_at_us LIMIT ?",
        now_us,
        limit,
    )
    for agent_id in dict.fromkeys(row["agent_id"] for row in rows):
        await take_back(transaction, agent_id, now_us)
    return len(rows)


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
    account = (await store.path(reader, agent_id))[0]
    row = await reader.fetch_one(
        "SELECT count(*) AS change_count, COALESCE(sum(CASE WHEN new_nanousd > old_nanousd"
        " THEN new_nanousd - old_nanousd ELSE 0 END), 0) AS increases, min(lsn) AS first_lsn"
        " FROM budget_change WHERE agent_id = ?",
        agent_id,
    )
    assert row is not None  # noqa: S101 - an aggregate gives a row
    first = await reader.fetch_one(
        "SELECT old_nanousd FROM budget_change WHERE lsn = ?", row["first_lsn"]
    )
    held = await _raises(reader, agent_id)
    return BudgetSummary(
        initial_nanousd=first["old_nanousd"] if first else account.allocated_nanousd,
        current_nanousd=account.allocated_nanousd,
        increases_nanousd=int(row["increases"]),
        change_count=row["change_count"],
        temporary_nanousd=sum(each.owed_nanousd for each in held),
        temporary_until_us=min((each.ends_at_us for each in held), default=None),
    )


async def _change(
    transaction: Transaction, path: Path, allocated_nanousd: int, why: Why, now_us: int
) -> Path:
    before = path[0]
    try:
        changed = ledger.reallocate(path, allocated_nanousd)
    except LedgerError as error:
        raise refused(error) from error
    await store.save_accounts(transaction, changed[:1])
    warnings = entries.warnings(before, changed[0])
    entry = NewEntry(
        "account.reallocated",
        {
            "allocated": allocated_nanousd,
            "previous": before.allocated_nanousd,
            "cause": why.cause,
            "by": why.by,
            "request": why.request_id,
        },
        before.account_id,
        before.account_id,
    )
    last_lsn = await append(transaction, now_us, entry, *warnings)
    if before.allocated_nanousd != allocated_nanousd:
        await _write_down(transaction, last_lsn - len(warnings), before, changed[0], why, now_us)
    return changed


async def _write_down(
    transaction: Transaction, lsn: int, before: Account, after: Account, why: Why, now_us: int
) -> None:
    change = BudgetChange(
        lsn,
        before.account_id,
        now_us,
        before.allocated_nanousd,
        after.allocated_nanousd,
        why.cause.value,
        why.by,
        why.reason,
        why.request_id,
    )
    marks = ", ".join("?" * len(change))
    await transaction.execute(f"INSERT INTO budget_change VALUES ({marks})", *change)


async def _raises(reader: Reader, agent_id: str) -> list[Raise]:
    """Those that owe something, whether their time is over or not."""
    rows = await reader.fetch_all(
        "SELECT request_id, agent_id, ends_at_us, owed_nanousd FROM budget_raise"
        " WHERE agent_id = ? AND owed_nanousd > 0",
        agent_id,
    )
    return [_raise(row) for row in rows]


def _raise(row: Row) -> Raise:
    return Raise(row["request_id"], row["agent_id"], row["ends_at_us"], row["owed_nanousd"])


async def _save(transaction: Transaction, changed: list[Raise]) -> None:
    await transaction.execute_many(
        "INSERT INTO budget_raise (request_id, agent_id, ends_at_us, owed_nanousd)"
        " VALUES (?, ?, ?, ?)"
        " ON CONFLICT (request_id) DO UPDATE SET owed_nanousd = excluded.owed_nanousd",
        changed,
    )
