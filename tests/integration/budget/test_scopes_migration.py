"""Books kept before there were scopes go on, and still follow from their journal."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from steward_server.budget.bookings import Batch, Fact, book
from steward_server.budget.desk import Desk
from steward_server.budget.store import Terms
from steward_server.budget.values import LeasePolicy
from steward_server.db import Transaction
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.events.store import NewEntry, append
from tests.books import read_books, wrong_in

POLICY = LeasePolicy(lease_ttl_ms=1_000, settle_grace_ms=1_000)
FIRST = "0001_create_ledger.sql"


async def begin(transaction: Transaction) -> None:
    """The tables, and a journal, of the first version: an agent that holds a lease."""
    script = (files("steward_server.budget") / "migrations" / FIRST).read_text()
    plain = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
    for statement in plain.split(";"):
        await transaction.execute(statement)
    await transaction.execute(
        "INSERT INTO schema_migration VALUES (?, ?, 1)",
        f"budget/{FIRST}",
        hashlib.sha256(script.encode()).hexdigest(),
    )
    lease = {"account": "agent_1", "granted": 100, "requested": 100, "expires_at_us": 900}
    usage = {"seq": 1, "cost": 35, "over": 5}
    drained = {"ending": "revoked", "settle_until_us": 900, "why": "overrun"}
    await append(
        transaction,
        1,
        NewEntry("account.opened", {"parent": None, "allocated": 1_000}, "agent_1", "agent_1"),
        NewEntry("account.opened", {"parent": None, "allocated": 500}, "agent_2", "agent_2"),
        NewEntry(
            "account.reallocated", {"allocated": 900, "previous": 1_000}, "agent_1", "agent_1"
        ),
        NewEntry("lease.opened", lease, "agent_1", "lease_1"),
        NewEntry("lease.opened", lease | {"granted": 30}, "agent_1", "lease_2"),
        NewEntry("usage", usage, "agent_1", "lease_2", "call"),
        NewEntry("lease.draining", drained, "agent_1", "lease_2"),
    )
    await transaction.execute("INSERT INTO account VALUES ('agent_1', NULL, 900, 30, 100, 5)")
    await transaction.execute("INSERT INTO account VALUES ('agent_2', NULL, 500, 0, 0, 0)")
    await transaction.execute(
        "INSERT INTO lease VALUES ('lease_1', 'agent_1', 'agent_1', 't', 'openai', 'openai', 'r',"
        " NULL, x'00', 100, 100, 0, 0, 0, 'active', NULL, 900, 0, 1, 4)"
    )
    await transaction.execute(
        "INSERT INTO lease VALUES ('lease_2', 'agent_1', 'agent_1', 't', 'openai', 'openai', 'r',"
        " 'again', x'00', 100, 30, 30, 5, 1, 'draining', 'revoked', 900, 900, 1, 5)"
    )


async def go_on(transaction: Transaction) -> None:
    """Everything that follows, under the new version."""
    desk = Desk(POLICY)
    who: dict[str, Any] = {"agent_id": "agent_1", "now_us": 800}
    fact = Fact("late", 0, "openai", "m", 1, 1, 0, 0, 40, "1", "measured", 0)
    batch = Batch("lease_1", "agent_1", 1, lambda _: [fact])
    await book(transaction, [batch], policy=POLICY, now_us=800)
    terms = Terms("openai", "openai", "token", "runtime", None, b"", 0)
    await desk.open_lease(
        transaction,
        lease_id="lease_3",
        requested_nanousd=200,
        minimum_nanousd=0,
        terms=terms,
        **who,
    )
    await desk.close_lease(transaction, lease_id="lease_1", believed_spent_nanousd=None, **who)
    await desk.sweep(transaction, 10_000)


async def test_books_from_before_there_were_scopes_go_on(tmp_path: Path) -> None:
    path = tmp_path / "steward.db"
    database = await Sqlite.open(path)
    await migrate(database, ["steward_server.events"])
    await database.run(begin)
    applied = await migrate(database, ["steward_server.events", "steward_server.budget"])
    assert applied == [
        "budget/0002_create_scopes.sql",
        "budget/0003_create_budget_change.sql",
        "budget/0004_find_leases_of_agents.sql",
        "budget/0005_end_raises_by_account.sql",
    ]
    migrated = read_books(path)
    assert wrong_in(migrated) == []
    assert migrated.lease("lease_1").account_ids == ("agent_1",)
    assert migrated.account("agent_1").scope_id == "agent:agent_1"
    assert await database.fetch_all("PRAGMA foreign_key_check") == []

    await database.run(go_on)
    books = read_books(path)
    await database.close()
    assert wrong_in(books) == []
    assert books.account("agent_1").spent_nanousd == 70
    assert books.lease("lease_3").account_ids == ("agent_1", "organisation")
    assert books.account("organisation").leased_nanousd == 200
