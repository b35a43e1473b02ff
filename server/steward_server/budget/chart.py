"""The chart of accounts: scopes as rows, and the accounts they have as of a time.

No rule lives here; what follows from a scope and a time is in `scopes.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steward_server.budget import history, store
from steward_server.budget.allocation import lendable_nanousd
from steward_server.budget.period import Period
from steward_server.budget.scopes import Scope, account_at, current, start_and_end
from steward_server.budget.values import ORGANISATION, Account, Path, ScopeId, agent_of
from steward_server.budget_change import Cause, Why
from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound
from steward_server.events.store import NewEntry, append

PERIODS = {period.value: period for period in Period}

_ACCOUNT = (
    "account.account_id, account.scope_id, account.allocated_nanousd, account.spent_nanousd,"
    " account.leased_nanousd, account.overrun_nanousd, account.mode, account.ends_at_us"
    " FROM scope LEFT JOIN account ON account.account_id = scope.account_id"
)

_SELECT = (
    "SELECT scope.scope_id AS of_scope, scope.parent_id, scope.budget_nanousd,"
    f" scope.mode AS wanted_mode, scope.period AS wanted_period, scope.since_us, {_ACCOUNT}"
)

Found = tuple[Scope, Account | None]
"""A scope, and the account it has; none before it was first needed."""


async def load(reader: Reader, scope_id: ScopeId) -> Found:
    """A scope and the account it has, be that over or not.

    Raises:
        NotFound: no such scope.
    """
    row = await reader.fetch_one(f"{_SELECT} WHERE scope.scope_id = ?", scope_id)
    if row is None:
        raise NotFound.of("budget", scope_id.partition(":")[2])
    return _found(row)


async def load_some(reader: Reader, scope_ids: Sequence[ScopeId]) -> dict[ScopeId, Found]:
    """Those of these scopes that exist, by id."""
    marks = ", ".join("?" * len(scope_ids))
    rows = await reader.fetch_all(f"{_SELECT} WHERE scope.scope_id IN ({marks})", *scope_ids)
    return {scope.scope_id: (scope, account) for scope, account in map(_found, rows)}


async def load_all(reader: Reader, scope_ids: Iterable[ScopeId]) -> dict[ScopeId, Found]:
    """Those of these scopes that exist and all above them, by id."""
    found: dict[ScopeId, Found] = {}
    wanted = list(dict.fromkeys(scope_ids))
    while wanted:
        level = await load_some(reader, wanted)
        found.update(level)
        above = {scope.parent_id for scope, _ in level.values() if scope.parent_id is not None}
        wanted = sorted(above - found.keys())
    return found


async def scopes_above(reader: Reader, agent_scope: ScopeId) -> set[ScopeId]:
    """The scopes that an agent spends from beside its own."""
    row = await reader.fetch_one("SELECT parent_id FROM scope WHERE scope_id = ?", agent_scope)
    return {ORGANISATION, *([ScopeId(row["parent_id"])] if row else [])}


async def children(
    reader: Reader, parent_id: ScopeId, *, after: str, limit: int
) -> list[tuple[Scope, Account | None]]:
    """Scopes right below one, in the order of their ids, from after one on."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE scope.parent_id = ? AND scope.scope_id > ?"
        " ORDER BY scope.scope_id LIMIT ?",
        parent_id,
        after,
        limit,
    )
    return [_found(row) for row in rows]


def path_in(found: dict[ScopeId, Found], scope_id: ScopeId, now_us: int) -> Path:
    """A scope's account and those above it as of now, of what was loaded; for showing."""
    accounts: list[Account] = []
    at: ScopeId | None = scope_id
    while at is not None:
        scope, account = found[at]
        accounts.append(current(scope, account, now_us))
        at = scope.parent_id
    return tuple(accounts)


async def available_nanousd(reader: Reader, agent_scope: ScopeId, now_us: int) -> int:
    """What could be lent to an agent.

    Raises:
        NotFound: no such scope.
    """
    found = await load_all(reader, [agent_scope])
    if agent_scope not in found:
        raise NotFound.of("budget", agent_scope.partition(":")[2])
    return lendable_nanousd(path_in(found, agent_scope, now_us))


async def path(transaction: Transaction, agent_scope: ScopeId, now_us: int) -> Path:
    """An agent's account and those above it; an account that is over is followed by the next.

    Raises:
        NotFound: no such scope.
    """
    # One statement: an agent's parent is a project or the organisation, which is above every one.
    rows = await transaction.fetch_all(
        f"SELECT scope.scope_id AS of_scope, scope.parent_id, {_ACCOUNT} WHERE scope.scope_id IN"
        " (?, (SELECT parent_id FROM scope WHERE scope_id = ?), ?)",
        agent_scope,
        agent_scope,
        ORGANISATION,
    )
    found = {row["of_scope"]: row for row in rows}
    accounts: list[Account] = []
    at: str | None = agent_scope
    while at is not None:
        if at not in found:
            raise NotFound.of("budget", at.partition(":")[2])
        row = found[at]
        account = store.account_of(row) if row["account_id"] else None
        if account is None or account.is_over(now_us):
            scope, account = await load(transaction, ScopeId(at))
            account = await open_next(transaction, scope, account, now_us)
        accounts.append(account)
        at = row["parent_id"]
    return tuple(accounts)


async def open_next(
    transaction: Transaction, scope: Scope, before: Account | None, now_us: int
) -> Account:
    """Give a scope the account of the period it is in now, after one that is over, or the first."""
    account = await enter(transaction, scope, before, now_us)
    if before is not None:
        await history.follow(transaction, before, account, Why(Cause.PERIOD_BEGAN), now_us)
    return account


async def enter(
    transaction: Transaction, scope: Scope, before: Account | None, now_us: int
) -> Account:
    """Have a scope spend from the account of the period it is in now, a new one if need be.

    `before` is the one it had.
    """
    account = account_at(scope, now_us)
    known = await store.accounts(transaction, [account.account_id])
    account = known.get(account.account_id, account)
    starts_at_us, _ = start_and_end(scope, now_us)
    await transaction.execute(
        "UPDATE scope SET account_id = ?, ends_at_us = ?, since_us = ? WHERE scope_id = ?",
        account.account_id,
        account.ends_at_us,
        max(scope.since_us, starts_at_us),
        scope.scope_id,
    )
    body = {
        "scope": scope.scope_id,
        "follows": before.account_id if before else None,
        "allocated": account.allocated_nanousd,
        "mode": account.mode,
        "period": scope.period,
        "starts_at_us": starts_at_us,
        "ends_at_us": account.ends_at_us,
    }
    kind = "account.resumed" if known else "account.opened"
    if not known:
        await store.insert_account(
            transaction, account, period=scope.period, starts_at_us=starts_at_us
        )
    entry = NewEntry(kind, body, agent_of(scope.scope_id), account.account_id)
    await append(transaction, now_us, entry)
    return account


async def insert(transaction: Transaction, scope: Scope) -> None:
    await transaction.execute(
        "INSERT INTO scope (scope_id, parent_id, budget_nanousd, mode, period, account_id,"
        " ends_at_us, since_us) VALUES (?, ?, ?, ?, ?, NULL, NULL, 0)",
        scope.scope_id,
        scope.parent_id,
        scope.budget_nanousd,
        scope.mode,
        scope.period,
    )


async def save(transaction: Transaction, scope: Scope) -> None:
    """Save what is wanted of a scope, and where it belongs."""
    await transaction.execute(
        "UPDATE scope SET parent_id = ?, budget_nanousd = ?, mode = ?, period = ?"
        " WHERE scope_id = ?",
        scope.parent_id,
        scope.budget_nanousd,
        scope.mode,
        scope.period,
        scope.scope_id,
    )


async def retire(transaction: Transaction, scope_id: ScopeId) -> None:
    """Open no more accounts for a scope by the clock: what it was for is gone."""
    await transaction.execute("UPDATE scope SET ends_at_us = NULL WHERE scope_id = ?", scope_id)


async def next_end_us(reader: Reader) -> int | None:
    """When the next period ends; None if none does."""
    row = await reader.fetch_one(
        "SELECT ends_at_us FROM scope WHERE ends_at_us IS NOT NULL ORDER BY ends_at_us LIMIT 1"
    )
    return row["ends_at_us"] if row else None


async def roll(transaction: Transaction, now_us: int, limit: int) -> int:
    """Open the next accounts of scopes whose period is over; how many, at most `limit`."""
    rows = await transaction.fetch_all(
        f"{_SELECT} WHERE scope.ends_at_us <= ? ORDER BY scope.ends_at_us LIMIT ?", now_us, limit
    )
    for scope, account in map(_found, rows):
        await open_next(transaction, scope, account, now_us)
    return len(rows)


def _found(row: Row) -> Found:
    parent_id = row["parent_id"]
    scope = Scope(
        ScopeId(row["of_scope"]),
        ScopeId(parent_id) if parent_id else None,
        row["budget_nanousd"],
        store.MODES[row["wanted_mode"]],
        PERIODS[row["wanted_period"]],
        row["since_us"],
    )
    return scope, store.account_of(row) if row["account_id"] else None
