"""The embedded engine on a real file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from steward_server.db import Transaction
from steward_server.db.migrate import SchemaError, migrate
from steward_server.db.sqlite import DatabaseInUse, Sqlite


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    database = await Sqlite.open(tmp_path / "steward.db")
    await database.run(
        lambda tx: tx.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT UNIQUE)")
    )
    yield database
    await database.close()


async def write(transaction: Transaction, text: str) -> int:
    return await transaction.execute("INSERT INTO note (text) VALUES (?)", text)


async def test_what_is_answered_is_there_for_readers(database: Sqlite) -> None:
    await database.run(lambda tx: write(tx, "first"))

    row = await database.fetch_one("SELECT text FROM note")

    assert row is not None
    assert row["text"] == "first"


async def test_failing_work_undoes_itself_and_nothing_of_its_group(database: Sqlite) -> None:
    async def write_then_fail(transaction: Transaction) -> None:
        await write(transaction, "half")
        raise ValueError("no")

    results = await asyncio.gather(
        database.run(lambda tx: write(tx, "before")),
        database.run(write_then_fail),
        database.run(lambda tx: write(tx, "after")),
        return_exceptions=True,
    )

    assert isinstance(results[1], ValueError)
    rows = await database.fetch_all("SELECT text FROM note ORDER BY id")
    assert [row["text"] for row in rows] == ["before", "after"]


async def test_a_broken_constraint_is_raised_to_whoever_broke_it(database: Sqlite) -> None:
    await database.run(lambda tx: write(tx, "once"))

    with pytest.raises(sqlite3.IntegrityError):
        await database.run(lambda tx: write(tx, "once"))


async def test_a_transaction_reads_its_own_writes(database: Sqlite) -> None:
    async def work(transaction: Transaction) -> int:
        await transaction.execute_many(
            "INSERT INTO note (text) VALUES (?)", [(str(number),) for number in range(3)]
        )
        return len(await transaction.fetch_all("SELECT * FROM note"))

    assert await database.run(work) == 3


async def test_work_that_awaits_something_else_is_refused(database: Sqlite) -> None:
    async def sleepy(transaction: Transaction) -> None:
        await write(transaction, "lost")
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="awaited something other"):
        await database.run(sleepy)

    assert await database.fetch_all("SELECT * FROM note") == []


async def test_everything_that_waits_shares_a_commit(database: Sqlite) -> None:
    commits = 0

    def count() -> None:
        nonlocal commits
        commits += 1

    database.on_commit(count)
    await asyncio.gather(*(database.run(partial(write, text=str(number))) for number in range(500)))

    assert commits < 250


async def test_a_second_server_on_the_same_file_is_refused(
    database: Sqlite, tmp_path: Path
) -> None:
    with pytest.raises(DatabaseInUse, match=r"another server has steward\.db open"):
        await Sqlite.open(tmp_path / "steward.db")


async def test_a_closed_file_can_be_opened_again(tmp_path: Path) -> None:
    first = await Sqlite.open(tmp_path / "steward.db")
    await first.close()

    second = await Sqlite.open(tmp_path / "steward.db")
    await second.close()


async def test_commits_are_synced_and_journaled_ahead(tmp_path: Path, database: Sqlite) -> None:
    row = await database.run(lambda tx: tx.fetch_one("PRAGMA synchronous"))
    mode = await database.run(lambda tx: tx.fetch_one("PRAGMA journal_mode"))

    assert row is not None
    assert mode is not None
    assert (row["synchronous"], mode["journal_mode"]) == (2, "wal")


async def test_a_full_disk_undoes_the_whole_group_and_the_next_one_works(
    database: Sqlite,
) -> None:
    pages = await database.run(lambda tx: tx.fetch_one("PRAGMA page_count"))
    assert pages is not None
    await database.run(
        lambda tx: tx.fetch_one(f"PRAGMA max_page_count = {pages['page_count'] + 2}")
    )

    results = await asyncio.gather(
        *(database.run(partial(write, text=str(number) * 100_000)) for number in range(3)),
        return_exceptions=True,
    )

    assert all(isinstance(result, Exception) for result in results)
    await database.run(lambda tx: tx.fetch_one("PRAGMA max_page_count = 1000000"))
    await database.run(lambda tx: write(tx, "room again"))
    assert len(await database.fetch_all("SELECT * FROM note")) == 1


async def test_migrations_are_applied_once(database: Sqlite) -> None:
    rooms = ["steward_server.events", "steward_server.tokens"]

    first = await migrate(database, rooms)
    second = await migrate(database, rooms)

    assert first == ["events/0001_create_journal.sql", "tokens/0001_create_tokens.sql"]
    assert second == []


async def test_a_newer_schema_refuses_to_start(database: Sqlite) -> None:
    await migrate(database, ["steward_server.events"])
    await database.run(
        lambda tx: tx.execute("INSERT INTO schema_migration VALUES ('events/9999_x.sql', '', 0)")
    )

    with pytest.raises(SchemaError, match=r"written by a newer version .*events/9999_x\.sql"):
        await migrate(database, ["steward_server.events"])


async def test_the_journal_cannot_be_rewritten(database: Sqlite) -> None:
    await migrate(database, ["steward_server.events"])
    await database.run(
        lambda tx: tx.execute(
            "INSERT INTO journal VALUES (1, 1, 'k', '', '', NULL, x'7b7d', x'00')"
        )
    )

    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await database.run(lambda tx: tx.execute("UPDATE journal SET kind = 'other'"))
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        await database.run(lambda tx: tx.execute("DELETE FROM journal"))
