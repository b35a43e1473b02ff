"""The books of a server, read from its database file by themselves, and proven."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from steward_server.budget import audit, store
from steward_server.budget.audit import Balances, JournalContradiction
from steward_server.budget.values import Account, AccountId, Lease, LeaseId
from steward_server.events.journal import JournalEntry, JournalRow, verify_chain
from tests.property.budget.simulation import without_signs_of_life

DATABASE = "steward.db"


@dataclass(frozen=True)
class Books:
    """Accounts, leases and journal as of one moment; equal if nothing happened in between."""

    accounts: dict[AccountId, Account]
    leases: dict[LeaseId, Lease]
    journal: tuple[JournalRow, ...]

    @cached_property
    def entries(self) -> list[JournalEntry]:
        return [row.entry() for row in self.journal]

    def of_kind(self, kind: str) -> list[JournalEntry]:
        return [entry for entry in self.entries if entry.kind == kind]

    def account(self, account_id: str) -> Account:
        return self.accounts[AccountId(account_id)]

    def lease(self, lease_id: str) -> Lease:
        return self.leases[LeaseId(lease_id)]


def read_books(path: Path) -> Books:
    """Read a database, or the one in a server's folder, in one transaction of its own."""
    file = path / DATABASE if path.is_dir() else path
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        accounts = map(store.account_of, connection.execute("SELECT * FROM account"))
        leases = map(store.lease_of, connection.execute("SELECT * FROM lease"))
        rows = connection.execute(
            "SELECT lsn, at_us, kind, agent_id, subject, key, body, hash FROM journal ORDER BY lsn"
        )
        return Books(
            {account.account_id: account for account in accounts},
            {lease.lease_id: lease for lease in leases},
            tuple(JournalRow(*row) for row in rows),
        )
    finally:
        connection.close()


def wrong_in(books: Books) -> list[str]:
    """What is wrong with the books, as sentences; empty if nothing is.

    The chain of the journal holds, its replay gives the accounts and leases bit by bit, they keep
    the ledger's laws, and every lease that ended did so once.
    """
    wrong = audit.check(books.accounts.values(), books.leases.values(), complete=True)
    if broken := verify_chain(books.journal):
        wrong.append(f"row {broken.lsn} {broken.what}")
    ended = Counter(entry.subject for entry in books.of_kind("lease.ended"))
    wrong += [f"lease {lease!r} ended {times} times" for lease, times in ended.items() if times > 1]
    try:
        replayed = audit.replay(books.entries)
    except JournalContradiction as contradiction:
        return [*wrong, str(contradiction)]
    kept = Balances(replayed.lsn, books.accounts, books.leases)
    replayed = without_signs_of_life(replayed, kept)
    wrong += _differences("account", replayed.accounts, kept.accounts)
    return wrong + _differences("lease", replayed.leases, kept.leases)


def _differences(kind: str, told: Mapping[Any, object], found: Mapping[Any, object]) -> list[str]:
    return [
        f"{kind} {name!r} is {found.get(name)}; the journal says {told.get(name)}"
        for name in sorted(told.keys() | found.keys())
        if told.get(name) != found.get(name)
    ]
