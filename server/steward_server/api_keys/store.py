"""API keys as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from steward_server.api_keys.key import Key, KeyKind, KeyRole
from steward_server.db import Reader, Row, Transaction
from steward_server.permissions import Permission, Permissions

_SELECT = (
    "SELECT key_id, user_id, kind, public_part, digest, description, role, permissions,"
    " created_at_us, expires_at_us, last_used_at_us, revoked_at_us FROM api_key"
)


async def by_id(reader: Reader, key_id: str) -> Key | None:
    row = await reader.fetch_one(f"{_SELECT} WHERE key_id = ?", key_id)
    return _key(row) if row else None


async def by_public_part(reader: Reader, public_part: str) -> Key | None:
    row = await reader.fetch_one(f"{_SELECT} WHERE public_part = ?", public_part)
    return _key(row) if row else None


async def page(
    reader: Reader, *, user_id: str | None, before: tuple[int, str] | None, limit: int
) -> list[Key]:
    """Keys that are not revoked, the newest first: of one user or of all."""
    conditions, parameters = ["revoked_at_us IS NULL"], list[object]()
    if user_id is not None:
        conditions.append("user_id = ?")
        parameters.append(user_id)
    if before is not None:
        conditions.append("(created_at_us, key_id) < (?, ?)")
        parameters.extend(before)
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE {' AND '.join(conditions)}"
        " ORDER BY created_at_us DESC, key_id DESC LIMIT ?",
        *parameters,
        limit,
    )
    return [_key(row) for row in rows]


async def unrevoked_of(reader: Reader, user_id: str) -> list[Key]:
    """A user's keys that are not revoked, expired ones too."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE user_id = ? AND revoked_at_us IS NULL ORDER BY created_at_us, key_id",
        user_id,
    )
    return [_key(row) for row in rows]


async def count_live(reader: Reader, user_id: str, now_us: int) -> int:
    """How many keys of a user are neither revoked nor expired."""
    [row] = await reader.fetch_all(
        "SELECT count(*) AS key_count FROM api_key WHERE user_id = ? AND revoked_at_us IS NULL"
        " AND (expires_at_us IS NULL OR expires_at_us > ?)",
        user_id,
        now_us,
    )
    return int(row["key_count"])


async def insert(transaction: Transaction, key: Key) -> None:
    await transaction.execute(
        "INSERT INTO api_key (key_id, user_id, kind, public_part, digest, description, role,"
        " permissions, created_at_us, expires_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        key.key_id,
        key.user_id,
        key.kind.value,
        key.public_part,
        key.digest,
        key.description,
        key.role.value,
        orjson.dumps(words(key.permissions)).decode(),
        key.created_at_us,
        key.expires_at_us,
    )


async def revoke(transaction: Transaction, key_id: str, now_us: int) -> None:
    await transaction.execute(
        "UPDATE api_key SET revoked_at_us = ? WHERE key_id = ?", now_us, key_id
    )


async def save_last_use(transaction: Transaction, used_at_us: Mapping[str, int]) -> None:
    await transaction.execute_many(
        "UPDATE api_key SET last_used_at_us = ? WHERE key_id = ?",
        [(at_us, key_id) for key_id, at_us in used_at_us.items()],
    )


def words(permissions: Permissions) -> dict[str, str]:
    """Permissions as they are written down."""
    return {environment_id: each.word for environment_id, each in permissions.items()}


def _key(row: Row) -> Key:
    written: dict[str, str] = orjson.loads(row["permissions"])
    return Key(
        row["key_id"],
        row["user_id"],
        KeyKind(row["kind"]),
        row["public_part"],
        row["digest"],
        row["description"],
        KeyRole(row["role"]),
        {environment_id: Permission[word.upper()] for environment_id, word in written.items()},
        row["created_at_us"],
        row["expires_at_us"],
        row["last_used_at_us"],
        row["revoked_at_us"],
    )
