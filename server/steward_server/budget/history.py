"""The history of what agents may spend in all: a row for each change, beside the journal's."""

from __future__ import annotations

from steward_server.budget.values import Account, agent_of
from steward_server.budget_change import BudgetChange, Why
from steward_server.db import Transaction
from steward_server.events.store import NewEntry, append


async def follow(
    transaction: Transaction, before: Account, after: Account, why: Why, now_us: int
) -> None:
    """Write down that an agent goes on with another account, if that allows another amount."""
    if not agent_of(after.scope_id) or before.allocated_nanousd == after.allocated_nanousd:
        return
    body = {
        "scope": after.scope_id,
        "previous": before.allocated_nanousd,
        "allocated": after.allocated_nanousd,
        "cause": why.cause,
        "by": why.by,
        "request": why.request_id,
    }
    entry = NewEntry("budget.changed", body, agent_of(after.scope_id), after.account_id)
    lsn = await append(transaction, now_us, entry)
    await write_down(transaction, lsn, before, after, why, now_us)


async def write_down(
    transaction: Transaction, lsn: int, before: Account, after: Account, why: Why, now_us: int
) -> None:
    """Keep a change that is entry `lsn` of the journal, if it is an agent's."""
    agent_id = agent_of(after.scope_id)
    if not agent_id or before.allocated_nanousd == after.allocated_nanousd:
        return
    change = BudgetChange(
        lsn,
        agent_id,
        now_us,
        before.allocated_nanousd or 0,
        after.allocated_nanousd or 0,
        why.cause.value,
        why.by,
        why.reason,
        why.request_id,
    )
    marks = ", ".join("?" * len(change))
    await transaction.execute(f"INSERT INTO budget_change VALUES ({marks})", *change)
