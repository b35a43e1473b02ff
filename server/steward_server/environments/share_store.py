"""Who may use environments that are not theirs, as rows. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.db import Reader, Transaction
from steward_server.permissions import Permission


@dataclass(frozen=True, slots=True)
class Share:
    """What somebody may do with an environment that is not theirs."""

    environment_id: str
    user_id: str
    permission: Permission
    created_at_us: int


async def shared_with(reader: Reader, environment_id: str, user_id: str) -> Permission | None:
    """What it is shared with somebody for."""
    row = await reader.fetch_one(
        "SELECT permission FROM environment_share WHERE environment_id = ? AND user_id = ?",
        environment_id,
        user_id,
    )
    return Permission[row["permission"].upper()] if row else None


async def shares(reader: Reader, environment_id: str) -> list[Share]:
    """Who may use it beside its owner, the oldest first."""
    rows = await reader.fetch_all(
        "SELECT environment_id, user_id, permission, created_at_us FROM environment_share"
        " WHERE environment_id = ? ORDER BY created_at_us, user_id",
        environment_id,
    )
    return [
        Share(
            row["environment_id"],
            row["user_id"],
            Permission[row["permission"].upper()],
            row["created_at_us"],
        )
        for row in rows
    ]


async def save_share(transaction: Transaction, share: Share) -> None:
    await transaction.execute(
        "INSERT INTO environment_share (environment_id, user_id, permission, created_at_us)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (environment_id, user_id)"
        " DO UPDATE SET permission = excluded.permission",
        share.environment_id,
        share.user_id,
        share.permission.word,
        share.created_at_us,
    )


async def delete_share(transaction: Transaction, environment_id: str, user_id: str) -> bool:
    """Take it away; whether there was one."""
    return bool(
        await transaction.execute(
            "DELETE FROM environment_share WHERE environment_id = ? AND user_id = ?",
            environment_id,
            user_id,
        )
    )


async def delete_shares_of(transaction: Transaction, user_id: str) -> list[str]:
    """Take everything away that is shared with somebody; the ids of the environments."""
    rows = await transaction.fetch_all(
        "SELECT environment_id FROM environment_share WHERE user_id = ?", user_id
    )
    await transaction.execute("DELETE FROM environment_share WHERE user_id = ?", user_id)
    return [row["environment_id"] for row in rows]
