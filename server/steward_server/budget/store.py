"""Accounts and leases as rows. No rule lives here: rows in, rows out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from steward_server.budget.values import (
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeaseState,
    Path,
)
from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound

IS_OPEN = "state IN ('active', 'draining')"
"""Word for word what the index of open leases says: with parameters it would not be used."""

STATES = {state.value: state for state in LeaseState}

LEASE_COLUMNS = (
    "lease_id, account_id, agent_id, granted_nanousd, spent_nanousd, overrun_nanousd, sequence,"
    " state, ending, expires_at_us, settle_until_us, provider, provider_kind, token_id, runtime_id,"
    " request_digest, requested_nanousd, opened_lsn"
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
    """These accounts and all their parents, by id."""
    found: dict[str, Account] = {}
    wanted = list(dict.fromkeys(account_ids))
    while wanted:
        rows = await reader.fetch_all(
            "SELECT account_id, parent_id, allocated_nanousd, spent_nanousd, leased_nanousd,"
            f" overrun_nanousd FROM account WHERE account_id IN ({_marks(wanted)})",
            *wanted,
        )
        level = [account_of(row) for row in rows]
        found.update((account.account_id, account) for account in level)
        parents = {account.parent_id for account in level if account.parent_id is not None}
        wanted = sorted(parents - found.keys())
    return found


async def path(reader: Reader, account_id: str) -> Path:
    """The account and its parents, leaf first.

    Raises:
        NotFound: no such account.
    """
    accounts: list[Account] = []
    wanted: str | None = account_id
    while wanted is not None:
        row = await reader.fetch_one(
            "SELECT account_id, parent_id, allocated_nanousd, spent_nanousd, leased_nanousd,"
            " overrun_nanousd FROM account WHERE account_id = ?",
            wanted,
        )
        if row is None:
            raise NotFound.of("budget", wanted)
        accounts.append(account_of(row))
        wanted = row["parent_id"]
    return tuple(accounts)


def account_of(row: Row) -> Account:
    """An account from a row that holds its columns."""
    parent_id = row["parent_id"]
    return Account(
        AccountId(row["account_id"]),
        AccountId(parent_id) if parent_id else None,
        row["allocated_nanousd"],
        row["spent_nanousd"],
        row["leased_nanousd"],
        row["overrun_nanousd"],
    )


async def insert_account(transaction: Transaction, account: Account) -> None:
    await transaction.execute(
        "INSERT INTO account (account_id, parent_id, allocated_nanousd, spent_nanousd,"
        " leased_nanousd, overrun_nanousd) VALUES (?, ?, ?, ?, ?, ?)",
        account.account_id,
        account.parent_id,
        account.allocated_nanousd,
        account.spent_nanousd,
        account.leased_nanousd,
        account.overrun_nanousd,
    )


async def save_accounts(transaction: Transaction, changed: Iterable[Account]) -> None:
    await transaction.execute_many(
        "UPDATE account SET allocated_nanousd = ?, spent_nanousd = ?, leased_nanousd = ?,"
        " overrun_nanousd = ? WHERE account_id = ?",
        [
            (
                account.allocated_nanousd,
                account.spent_nanousd,
                account.leased_nanousd,
                account.overrun_nanousd,
                account.account_id,
            )
            for account in changed
        ],
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
        f"SELECT {LEASE_COLUMNS} FROM lease WHERE account_id = ? AND {IS_OPEN}", agent_id
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
        "INSERT INTO lease (lease_id, account_id, agent_id, token_id, provider, provider_kind,"
        " runtime_id, request_id, request_digest, requested_nanousd, granted_nanousd,"
        " spent_nanousd, overrun_nanousd, sequence, state, ending, expires_at_us, settle_until_us,"
        " opened_at_us, opened_lsn)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        opened.lease_id,
        opened.account_id,
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
    return Lease(
        LeaseId(row["lease_id"]),
        AccountId(row["account_id"]),
        AgentId(row["agent_id"]),
        row["granted_nanousd"],
        row["spent_nanousd"],
        row["overrun_nanousd"],
        row["sequence"],
        STATES[row["state"]],
        STATES[ending] if ending else None,
        row["expires_at_us"],
        row["settle_until_us"],
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
