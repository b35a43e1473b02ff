"""The books of a server, read from its database file by themselves, and proven."""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from steward_server.budget import audit, store
from steward_server.budget.audit import Balances, JournalContradiction
from steward_server.budget.raises import Raise
from steward_server.budget.values import Account, AccountId, Lease, LeaseId, agent_of
from steward_server.budget_change import BudgetChange
from steward_server.db import Row
from steward_server.events.journal import JournalEntry, JournalRow, verify_chain
from tests.property.budget.simulation import without_signs_of_life

DATABASE = "steward.db"
QUERIES = (
    "SELECT * FROM account",
    "SELECT * FROM lease",
    "SELECT lsn, at_us, kind, agent_id, subject, key, body, hash FROM journal ORDER BY lsn",
    "SELECT * FROM scope",
    "SELECT * FROM budget_change ORDER BY lsn",
    "SELECT * FROM budget_raise",
)
"""What books are made of, in the order `books_of` takes it."""


@dataclass(frozen=True)
class Books:
    """Accounts, leases and journal as of one moment; equal if nothing happened in between."""

    accounts: dict[AccountId, Account]
    leases: dict[LeaseId, Lease]
    journal: tuple[JournalRow, ...]
    scopes: tuple[dict[str, Any], ...] = ()
    changes: tuple[BudgetChange, ...] = ()
    raises: tuple[Raise, ...] = ()

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
        return books_of(map(dict, connection.execute(query)) for query in QUERIES)
    finally:
        connection.close()


def books_of(tables: Iterable[Iterable[Row]]) -> Books:
    """Books from what `QUERIES` gave."""
    accounts, leases, journal, scopes, changes, raises = tables
    return Books(
        {account.account_id: account for account in map(store.account_of, accounts)},
        {lease.lease_id: lease for lease in map(store.lease_of, leases)},
        tuple(JournalRow(**row) for row in journal),
        tuple(dict(row) for row in scopes),
        tuple(BudgetChange(**row) for row in changes),
        tuple(Raise(**row) for row in raises),
    )


def wrong_in(books: Books) -> list[str]:
    """What is wrong with the books, as sentences; empty if nothing is.

    The chain of the journal holds, its replay gives the accounts and leases bit by bit, they keep
    the ledger's laws, and every lease that ended did so once. The history of each agent's budget is
    the journal's, without a gap from its first budget to the present one, and raises owe no more
    than budgets have.
    """
    wrong = audit.check(books.accounts.values(), books.leases.values(), complete=True)
    if broken := verify_chain(books.journal):
        wrong.append(f"row {broken.lsn} {broken.what}")
    ended = Counter(entry.subject for entry in books.of_kind("lease.ended"))
    wrong += [f"lease {lease!r} ended {times} times" for lease, times in ended.items() if times > 1]
    wrong += _wrong_in_history(books) + _wrong_in_raises(books)
    try:
        replayed = audit.replay(books.entries)
    except JournalContradiction as contradiction:
        return [*wrong, str(contradiction)]
    kept = Balances(replayed.lsn, books.accounts, books.leases)
    replayed = without_signs_of_life(replayed, kept)
    wrong += _differences("account", replayed.accounts, kept.accounts)
    return wrong + _differences("lease", replayed.leases, kept.leases)


def _wrong_in_history(books: Books) -> list[str]:
    wrong = []
    entries = {entry.lsn: entry for entry in books.entries}
    rows: defaultdict[str, list[BudgetChange]] = defaultdict(list)
    for row in books.changes:
        rows[row.agent_id].append(row)
        entry = entries.get(row.lsn)
        told = entry and (entry.agent_id, entry.at_us, entry.body.get("cause"))
        if entry is None or told != (row.agent_id, row.at_us, row.cause):
            wrong.append(f"{row} is not what the journal says: {entry}")
        elif (entry.body["previous"], entry.body["allocated"]) != (
            row.old_nanousd,
            row.new_nanousd,
        ):
            wrong.append(f"{row} tells other amounts than {entry}")
    began: dict[str, int] = {}
    """What each agent had when its history began."""
    for entry in books.entries:
        if entry.kind == "account.opened":
            began.setdefault(entry.agent_id, entry.body["allocated"])
        if entry.kind == "account.reallocated" and "cause" not in entry.body:
            began[entry.agent_id] = entry.body["allocated"]  # before there were histories
    for agent_id, account in _present(books):
        at = began.get(agent_id)
        for row in rows[agent_id]:
            if row.old_nanousd != at:
                wrong.append(f"{row} follows {at}")
            at = row.new_nanousd
        if account.allocated_nanousd != at:
            wrong.append(f"the history of {agent_id!r} ends with {at}; it has {account}")
    return wrong


def _present(books: Books) -> list[tuple[str, Account]]:
    """Each agent and the account it has."""
    return [
        (agent_of(scope["scope_id"]), books.accounts[scope["account_id"]])
        for scope in books.scopes
        if agent_of(scope["scope_id"])
    ]


def _wrong_in_raises(books: Books) -> list[str]:
    wrong = []
    for scope in books.scopes:
        if scope["account_id"] is None or scope["budget_nanousd"] is None:
            continue
        account, agent_id = books.accounts[scope["account_id"]], agent_of(scope["scope_id"])
        surplus = (account.allocated_nanousd or 0) - scope["budget_nanousd"]
        held = [each for each in books.raises if each.agent_id == agent_id]
        due = sum(each.owed_nanousd for each in held if each.ended_in == account.account_id)
        repeats = scope["period"] != "none"
        if surplus and not (agent_id and repeats):
            wrong.append(f"{scope} wants something else than {account} allows")
        if repeats and not due <= surplus:
            wrong.append(f"{account} is to give back {due} of the {surplus} it has beyond {scope}")
        coming = sum(each.owed_nanousd for each in held if not (repeats and each.ended_in))
        if coming > scope["budget_nanousd"]:
            wrong.append(f"raises of {agent_id!r} owe {coming} of {scope}")
    return wrong


def _differences(kind: str, told: Mapping[Any, object], found: Mapping[Any, object]) -> list[str]:
    return [
        f"{kind} {name!r} is {found.get(name)}; the journal says {told.get(name)}"
        for name in sorted(told.keys() | found.keys())
        if told.get(name) != found.get(name)
    ]
