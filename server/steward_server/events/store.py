"""The journal's rows: append within a transaction, read in order. No rule lives here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from steward_server.db import Reader, Transaction
from steward_server.events.journal import GENESIS, entry_hash


class NewEntry(NamedTuple):
    """Something that happened, not yet numbered."""

    kind: str
    """As ``lease.opened``: what it happened to, and what."""

    body: dict[str, Any]
    """JSON; money in nano-dollars. Never a secret."""

    agent_id: str = ""
    subject: str = ""
    """Id of the thing it happened to."""

    key: str | None = None
    """The caller's id for it: unique for the subject and kind."""


async def append(transaction: Transaction, at_us: int, *entries: NewEntry) -> int:
    """Write entries down and return the number (LSN) of the last.

    Raises:
        sqlite3.IntegrityError: an entry with the same subject, kind and key stands already.
    """
    lsn, previous = await head(transaction)
    rows: list[Sequence[object]] = []
    for entry in entries:
        lsn += 1
        body = orjson.dumps(entry.body)
        previous = entry_hash(
            previous, lsn, at_us, entry.kind, entry.agent_id, entry.subject, entry.key, body
        )
        rows.append(
            (lsn, at_us, entry.kind, entry.agent_id, entry.subject, entry.key, body, previous)
        )
    await transaction.execute_many("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    return lsn


async def head(reader: Reader) -> tuple[int, bytes]:
    """Number and hash of the newest entry; zero and the genesis hash of an empty journal."""
    row = await reader.fetch_one("SELECT lsn, hash FROM journal ORDER BY lsn DESC LIMIT 1")
    return (row["lsn"], row["hash"]) if row else (0, GENESIS)
