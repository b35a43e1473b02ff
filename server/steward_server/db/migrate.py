"""Numbered SQL, a folder per room, applied once each and in order."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

from steward_server.db import Database, Transaction, now_us


class SchemaError(Exception):
    """The file's schema does not fit this code."""


async def migrate(database: Database, rooms: list[str]) -> list[str]:
    """Bring the schema up to date and return the names of the migrations applied.

    `rooms` are package names in the order they may build upon each other.

    Raises:
        SchemaError: the file was written by a newer version, or an applied migration was edited.
    """
    known = {name: text for room in rooms for name, text in _migrations(room)}

    async def apply(transaction: Transaction) -> list[str]:
        await transaction.execute(
            "CREATE TABLE IF NOT EXISTS schema_migration ("
            "name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, applied_at_us INTEGER NOT NULL)"
        )
        rows = await transaction.fetch_all("SELECT name, sha256 FROM schema_migration")
        applied = {row["name"]: row["sha256"] for row in rows}
        if newer := sorted(applied.keys() - known.keys()):
            raise SchemaError(
                f"the database was written by a newer version (it has {newer[-1]}); "
                "install that version or restore a backup"
            )
        fresh = []
        for name, text in known.items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            if name in applied:
                if applied[name] != digest:
                    raise SchemaError(f"migration {name} was changed after it had been applied")
                continue
            for statement in _statements(text):
                await transaction.execute(statement)
            await transaction.execute(
                "INSERT INTO schema_migration VALUES (?, ?, ?)", name, digest, now_us()
            )
            fresh.append(name)
        return fresh

    return await database.run(apply)


@cache
def _migrations(room: str) -> tuple[tuple[str, str], ...]:
    folder = files(room) / "migrations"
    return tuple(
        (f"{room.rpartition('.')[2]}/{file.name}", file.read_text(encoding="utf-8"))
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if file.name.endswith(".sql")
    )


def _statements(text: str) -> Iterator[str]:
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise SchemaError(f"a statement does not end: {statement.strip()[:80]!r}")
