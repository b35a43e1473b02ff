"""The audit log's rows. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from steward.gateway.v1.options_pb2 import Role
from steward_server.audit.trail import GENESIS, AuditEntry, Change, Link
from steward_server.db import Reader, Row, Transaction
from steward_server.principals import Principal

COLUMNS = ", ".join(AuditEntry._fields)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries to list; None and empty texts leave it open."""

    action: str = ""
    resource_type: str = ""
    resource_id: str = ""
    actor_id: str = ""
    since_us: int | None = None
    until_us: int | None = None
    """The first moment that is too late."""


async def record(
    transaction: Transaction, now_us: int, caller: Principal | None, *changes: Change
) -> None:
    """Write down what a caller changes, in the transaction that changes it.

    Args:
        transaction: of the change itself: both are committed or neither.
        now_us: the time.
        caller: who it was, as `calls.caller` gives it; None for the server itself.
        changes: what was changed; nothing is written for none.
    """
    if not changes:
        return
    number, previous = await head(transaction)
    rows: list[tuple[object, ...]] = []
    for change in changes:
        number += 1
        entry = _entry(number, now_us, caller, change)
        previous = entry.hash(previous)
        rows.append((*entry, previous))
    marks = ", ".join("?" * (len(AuditEntry._fields) + 1))
    await transaction.execute_many(
        f"INSERT INTO audit_entry ({COLUMNS}, hash) VALUES ({marks})", rows
    )
    await transaction.execute(
        "INSERT INTO audit_head (only, number, hash) VALUES (1, ?, ?)"
        " ON CONFLICT (only) DO UPDATE SET number = excluded.number, hash = excluded.hash",
        number,
        previous,
    )


async def head(reader: Reader) -> tuple[int, bytes]:
    """Number and hash of the newest entry; zero and the genesis hash of an empty log."""
    row = await reader.fetch_one("SELECT number, hash FROM audit_head")
    return (row["number"], row["hash"]) if row else (0, GENESIS)


async def page(reader: Reader, wanted: Wanted, *, before: int | None, limit: int) -> list[Link]:
    """Entries with their hashes, the newest first."""
    conditions = {
        "action = ?": wanted.action or None,
        "resource_type = ?": wanted.resource_type or None,
        "resource_id = ?": wanted.resource_id or None,
        "actor_id = ?": wanted.actor_id or None,
        "at_us >= ?": wanted.since_us,
        "at_us < ?": wanted.until_us,
        "number < ?": before,
    }
    given = {condition: value for condition, value in conditions.items() if value is not None}
    where = f"WHERE {' AND '.join(given)}" if given else ""
    rows = await reader.fetch_all(
        f"SELECT {COLUMNS}, hash FROM audit_entry {where} ORDER BY number DESC LIMIT ?",
        *given.values(),
        limit,
    )
    return [_link(row) for row in rows]


async def following(reader: Reader, number: int, limit: int) -> list[Link]:
    """The entries after this one, the oldest first."""
    rows = await reader.fetch_all(
        f"SELECT {COLUMNS}, hash FROM audit_entry WHERE number > ? ORDER BY number LIMIT ?",
        number,
        limit,
    )
    return [_link(row) for row in rows]


async def hash_of(reader: Reader, number: int) -> bytes | None:
    """The hash an entry holds; None if there is no such entry."""
    row = await reader.fetch_one("SELECT hash FROM audit_entry WHERE number = ?", number)
    return row["hash"] if row else None


async def ends(reader: Reader) -> tuple[int, bytes, int, int]:
    """Number and hash of the head, the largest number and the count of entries, of one moment."""
    [row] = await reader.fetch_all(
        "SELECT max(number) AS newest, count(*) AS entry_count,"
        " (SELECT number FROM audit_head) AS number, (SELECT hash FROM audit_head) AS hash"
        " FROM audit_entry"
    )
    if row["number"] is None:
        return 0, GENESIS, row["newest"] or 0, row["entry_count"]
    return row["number"], row["hash"], row["newest"] or 0, row["entry_count"]


def _entry(number: int, now_us: int, caller: Principal | None, change: Change) -> AuditEntry:
    origin = caller.origin if caller else None
    return AuditEntry(
        number,
        now_us,
        change.action,
        change.resource_type,
        change.resource_id,
        caller.kind.value if caller else "server",
        caller.subject if caller else "",
        Role.Name(caller.role).removeprefix("ROLE_").lower() if caller and caller.role else "",
        caller.credential if caller else "",
        origin.address if origin else "",
        origin.user_agent if origin else "",
        origin.request_id if origin else "",
        origin.method if origin else "",
        _text(change.before),
        _text(change.after),
        change.reason,
    )


def _text(fields: dict[str, Any] | None) -> str | None:
    return None if fields is None else orjson.dumps(fields, option=orjson.OPT_SORT_KEYS).decode()


def _link(row: Row) -> Link:
    return AuditEntry(*(row[name] for name in AuditEntry._fields)), row["hash"]
