"""Credentials as rows. No rule lives here."""

from __future__ import annotations

from steward_server.credentials.credential import StoredCredential
from steward_server.db import Reader, Row, Transaction

_SELECT = (
    "SELECT credential_id, owner_id, name, username, gateway_url, description, sealed_password,"
    " created_at_us, updated_at_us FROM credential"
)


async def by_name(reader: Reader, owner_id: str, name: str) -> StoredCredential | None:
    row = await reader.fetch_one(f"{_SELECT} WHERE owner_id = ? AND name = ?", owner_id, name)
    return _credential(row) if row else None


async def page(
    reader: Reader, owner_id: str, *, before: tuple[int, str] | None, limit: int
) -> list[StoredCredential]:
    """Somebody's credentials, the newest first, after the last of the page before."""
    after = "AND (created_at_us, credential_id) < (?, ?)" if before is not None else ""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE owner_id = ? {after}"
        " ORDER BY created_at_us DESC, credential_id DESC LIMIT ?",
        owner_id,
        *(before or ()),
        limit,
    )
    return [_credential(row) for row in rows]


async def all_of(reader: Reader, owner_id: str) -> list[StoredCredential]:
    """Every credential somebody has, the oldest first."""
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE owner_id = ? ORDER BY created_at_us, credential_id", owner_id
    )
    return [_credential(row) for row in rows]


async def save(transaction: Transaction, credential: StoredCredential) -> None:
    """Insert it, or write over what has its id."""
    await transaction.execute(
        "INSERT INTO credential (credential_id, owner_id, name, username, gateway_url,"
        " description, sealed_password, created_at_us, updated_at_us)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (credential_id) DO UPDATE SET"
        " username = excluded.username, gateway_url = excluded.gateway_url,"
        " description = excluded.description, sealed_password = excluded.sealed_password,"
        " updated_at_us = excluded.updated_at_us",
        credential.credential_id,
        credential.owner_id,
        credential.name,
        credential.username,
        credential.gateway_url,
        credential.description,
        credential.sealed_password,
        credential.created_at_us,
        credential.updated_at_us,
    )


async def delete(transaction: Transaction, credential_id: str) -> None:
    await transaction.execute("DELETE FROM credential WHERE credential_id = ?", credential_id)


def _credential(row: Row) -> StoredCredential:
    return StoredCredential(
        row["credential_id"],
        row["owner_id"],
        row["name"],
        row["username"],
        row["gateway_url"],
        row["description"],
        row["sealed_password"],
        row["created_at_us"],
        row["updated_at_us"],
    )
