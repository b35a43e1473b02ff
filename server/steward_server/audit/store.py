"""The audit log's rows. No rule lives here."""

from __future__ import annotations

from typing import Any

import orjson

from steward.gateway.v1.options_pb2 import Role
from steward_server.audit.trail import GENESIS, AuditEntry, Change
from steward_server.db import Reader, Transaction
from steward_server.principals import Principal

COLUMNS = ", ".join(AuditEntry._fields)


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


async def head(reader: Reader) -> tuple[int, bytes]:
    """Number and hash of the newest entry; zero and the genesis hash of an empty log."""
    row = await reader.fetch_one(
        "SELECT number, hash FROM audit_entry ORDER BY number DESC LIMIT 1"
    )
    return (row["number"], row["hash"]) if row else (0, GENESIS)


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
