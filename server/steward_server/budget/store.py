"""Accounts and leases as rows. No rule lives here: rows in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from steward_server.budget.period import Period
from steward_server.budget.values import (
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeaseState,
    Mode,
    Path,
    ScopeId,
)
from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound

IS_OPEN = "state IN ('active', 'draining')"
"""Word for word what the index of open leases says: with parameters it would not be used."""

STATES = {state.value: state for state in LeaseState}

MODES = {mode.value: mode for mode in Mode}

ACCOUNT_COLUMNS = (
    "account_id, scope_id, allocated_nanousd, spent_nanousd, leased_nanousd, overrun_nanousd, mode,"
    " ends_at_us"
)

LEASE_COLUMNS = (
    "lease_id, account_id, project_account_id, organisation_account_id, agent_id, granted_nanousd,"
    " spent_nanousd, overrun_nanousd, sequence, state, ending, expires_at_us, settle_until_us,"
    " period_ends_at_us, provider, provider_kind, token_id, runtime_id, request_digest,"
    " requested_nanousd, opened_lsn"
)


class Terms(NamedTuple):
    """What a lease was opened for; of no concern to the rules."""

    provider: str
    provider_kind: str
    token_id: str
    runtime_id: str
    request_id: str | None
    request_digest: bytes
    requested_nanousd: int
    opened_lsn: int = 0


async def accounts(reader: Reader, account_ids: Iterable[str]) -> dict[str, Account]:
    """Those of these accounts that exist, by id."""
    wanted = list(dict.fromkeys(account_ids))
    rows = await reader.fetch_all(
        f"SELECT {ACCOUNT_COLUMNS} FROM account WHERE account_id IN ({_marks(wanted)})", *wanted
    )
    return {row["account_id"]: account_of(row) for row in rows}


async def path_of(reader: Reader, lease: Lease) -> Path:
    """The accounts that a lease draws on."""
    found = await accounts(reader, lease.account_ids)
    return tuple([found[account_id] for account_id in lease.account_ids])


def account_of(row: Row) -> Account:
    """An account from a row that holds its columns."""
    return Account(
        AccountId(row["account_id"]),
        ScopeId(row["scope_id"]),
        row["allocated_nanousd"],
        row["spent_nanousd"],
        row["leased_nanousd"],
        row["overrun_nanousd"],
        MODES[row["mode"]],
        row["ends_at_us"],
    )


async def insert_account(
    transaction: Transaction, account: Account, *, period: Period, starts_at_us: int
) -> None:
    await transaction.execute(
        "INSERT INTO account (account_id, scope_id, mode, period, starts_at_us, ends_at_us,"
        " allocated_nanousd, spent_nanousd, leased_nanousd, overrun_nanousd)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        account.account_id,
        account.scope_id,
        account.mode,
        period,
        starts_at_us,
        account.ends_at_us,
        account.allocated_nanousd,
        account.spent_nanousd,
        account.leased_nanousd,
        account.overrun_nanousd,
    )


async def save_accounts(transaction: Transaction, changed: Iterable[Account]) -> None:
    """Save what moves: the money, not what is allocated."""
    await transaction.execute_many(
        "UPDATE account SET spent_nanousd = ?, leased_nanousd = ?, overrun_nanousd = ?"
        " WHERE account_id = ?",
        [
            (
                account.spent_nanousd,
                account.leased_nanousd,
                account.overrun_nanousd,
                account.account_id,
            )
            for account in changed
        ],
    )


async def save_allocation(transaction: Transaction, account: Account) -> None:
    await transaction.execute(
        "UPDATE account SET allocated_nanousd = ?, mode = ? WHERE account_id = ?",
        account.allocated_nanousd,
        account.mode,
        account.account_id,
    )


async def lease(reader: Reader, lease_id: str, agent_id: str) -> tuple[Lease, Terms]:
    """A lease of this agent.

    Raises:
        NotFound: no such lease, or another agent's.
    """
    row = await reader.fetch_one(
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE lease_id = ? AND agent_id = ?",
        lease_id,
        agent_id,
    )
    if row is None:
        raise NotFound.of("lease", lease_id)
    return lease_of(row), _terms(row)


async def leases(reader: Reader, lease_ids: Iterable[str]) -> dict[str, tuple[Lease, Terms]]:
    """Those of these leases that exist, whoever's they are, by id."""
    wanted = list(dict.fromkeys(lease_ids))
    rows = await reader.fetch_all(
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE lease_id IN ({_marks(wanted)})", *wanted
    )
    return {row["lease_id"]: (lease_of(row), _terms(row)) for row in rows}


async def lease_by_request(
    reader: Reader, agent_id: str, request_id: str
) -> tuple[Lease, Terms] | None:
    """The lease an earlier handshake with this id opened."""
    row = await reader.fetch_one(
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE agent_id = ? AND request_id = ?",
        agent_id,
        request_id,
    )
    return (lease_of(row), _terms(row)) if row else None


async def open_leases(reader: Reader, agent_id: str) -> list[Lease]:
    rows = await reader.fetch_all(
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE agent_id = ? AND {IS_OPEN}", agent_id
    )
    return [lease_of(row) for row in rows]


async def open_lease_counts(reader: Reader, agent_ids: Sequence[str]) -> dict[str, int]:
    """How many open leases each of these agents has; those with none are left out."""
    rows = await reader.fetch_all(
        "SELECT agent_id, count(*) AS open_leases FROM lease"
        f" WHERE agent_id IN ({_marks(agent_ids)}) AND {IS_OPEN} GROUP BY agent_id",
        *agent_ids,
    )
    return {row["agent_id"]: row["open_leases"] for row in rows}


async def open_leases_on(reader: Reader, account_id: str) -> list[Lease]:
    """Open leases that draw on an account, whoever's they are."""
    rows = await reader.fetch_all(
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE {IS_OPEN} AND (account_id = ?"
        " OR project_account_id = ? OR organisation_account_id = ?)",
        account_id,
        account_id,
        account_id,
    )
    return [lease_of(row) for row in rows]


async def leased_by_agent(reader: Reader) -> dict[str, int]:
    """The money that open leases hold, by agent; those that hold none are left out."""
    rows = await reader.fetch_all(
        "SELECT agent_id, sum(granted_nanousd - spent_nanousd) AS leased_nanousd FROM lease"
        f" WHERE {IS_OPEN} GROUP BY agent_id"
    )
    return {row["agent_id"]: row["leased_nanousd"] for row in rows}


async def overdue_leases(reader: Reader, now_us: int, limit: int) -> list[Lease]:
    """Leases whose time, or whose settle grace, is over."""
    rows = await reader.fetch_all(
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE {IS_OPEN} AND ((state = ? AND expires_at_us <= ?)"
        " OR (state = ? AND settle_until_us <= ?)) LIMIT ?",
        LeaseState.ACTIVE,
        now_us,
        LeaseState.DRAINING,
        now_us,
        limit,
    )
    return [lease_of(row) for row in rows]


async def insert_lease(transaction: Transaction, opened: Lease, terms: Terms, now_us: int) -> None:
    await transaction.execute(
        "INSERT INTO lease (lease_id, account_id, project_account_id, organisation_account_id,"
        " agent_id, token_id, provider, provider_kind, runtime_id, request_id, request_digest,"
        " requested_nanousd, granted_nanousd, spent_nanousd, overrun_nanousd, sequence, state,"
        " ending, expires_at_us, settle_until_us, period_ends_at_us, opened_at_us, opened_lsn)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        opened.lease_id,
        opened.account_ids[0],
        opened.account_ids[1] if len(opened.account_ids) > 2 else None,
        opened.account_ids[-1],
        opened.agent_id,
        terms.token_id,
        terms.provider,
        terms.provider_kind,
        terms.runtime_id,
        terms.request_id,
        terms.request_digest,
        terms.requested_nanousd,
        opened.granted_nanousd,
        opened.spent_nanousd,
        opened.overrun_nanousd,
        opened.sequence,
        opened.state,
        opened.ending,
        opened.expires_at_us,
        opened.settle_until_us,
        opened.period_ends_at_us,
        now_us,
        terms.opened_lsn,
    )


async def save_leases(transaction: Transaction, changed: Iterable[Lease]) -> None:
    await transaction.execute_many(
        "UPDATE lease SET granted_nanousd = ?, spent_nanousd = ?, overrun_nanousd = ?,"
        " sequence = ?, state = ?, ending = ?, expires_at_us = ?, settle_until_us = ?"
        " WHERE lease_id = ?",
        [
            (
                lease.granted_nanousd,
                lease.spent_nanousd,
                lease.overrun_nanousd,
                lease.sequence,
                # The very text: SQLite's driver looks for an adapter of everything else.
                lease.state.value,
                lease.ending and lease.ending.value,
                lease.expires_at_us,
                lease.settle_until_us,
                lease.lease_id,
            )
            for lease in changed
        ],
    )


@dataclass(frozen=True, slots=True)
class Written:
    """A journal row of a lease, found again by the caller's id for it."""

    lsn: int
    body: dict[str, Any]


async def written_at(reader: Reader, lsn: int) -> Written:
    """What was written under this number, which must exist."""
    row = await reader.fetch_one("SELECT body FROM journal WHERE lsn = ?", lsn)
    if row is None:
        raise LookupError(f"the journal has no entry {lsn}")
    return Written(lsn, orjson.loads(row["body"]))


async def written(
    reader: Reader, lease_id: str, kinds: Sequence[str], request_ids: Sequence[str]
) -> dict[str, Written]:
    """What was written about a lease under these request ids."""
    if not request_ids:
        return {}
    rows = await reader.fetch_all(
        f"SELECT lsn, key, body FROM journal WHERE subject = ? AND kind IN ({_marks(kinds)})"
        f" AND key IN ({_marks(request_ids)})",
        lease_id,
        *kinds,
        *request_ids,
    )
    return {row["key"]: Written(row["lsn"], orjson.loads(row["body"])) for row in rows}


async def usages(
    reader: Reader, asked: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Written]:
    """The usages that are written down already, of these pairs of a lease and a request id."""
    if not asked:
        return {}
    # A join, because an `IN` over pairs would read the whole index.
    rows = await reader.fetch_all(
        f"WITH asked (subject, key) AS (VALUES {', '.join(['(?, ?)'] * len(asked))})"
        " SELECT journal.lsn, journal.subject, journal.key, journal.body FROM asked JOIN journal"
        " ON journal.subject = asked.subject AND journal.key = asked.key"
        " AND journal.kind = 'usage'",
        *[part for pair in asked for part in pair],
    )
    return {
        (row["subject"], row["key"]): Written(row["lsn"], orjson.loads(row["body"])) for row in rows
    }


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def lease_of(row: Row) -> Lease:
    """A lease from a row that holds its columns."""
    ending = row["ending"]
    project_id, organisation_id = row["project_account_id"], row["organisation_account_id"]
    account_ids = (row["account_id"],)
    if organisation_id is not None:
        above = (organisation_id,) if project_id is None else (project_id, organisation_id)
        account_ids += above
    return Lease(
        LeaseId(row["lease_id"]),
        account_ids,
        AgentId(row["agent_id"]),
        row["granted_nanousd"],
        row["spent_nanousd"],
        row["overrun_nanousd"],
        row["sequence"],
        STATES[row["state"]],
        STATES[ending] if ending else None,
        row["expires_at_us"],
        row["settle_until_us"],
        row["period_ends_at_us"],
    )


def _terms(row: Row) -> Terms:
    return Terms(
        row["provider"],
        row["provider_kind"],
        row["token_id"],
        row["runtime_id"],
        None,
        row["request_digest"],
        row["requested_nanousd"],
        row["opened_lsn"],
    )
