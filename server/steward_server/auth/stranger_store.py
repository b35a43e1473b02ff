"""Names that nobody has, and the wrong passwords tried for them, as rows. No rule lives here."""

from __future__ import annotations

from steward_server.auth.accounts import Attempts
from steward_server.db import Reader, Transaction


async def attempts(reader: Reader, name_digest: bytes) -> Attempts:
    row = await reader.fetch_one(
        "SELECT failed_logins, locked_until_us FROM stranger WHERE name_digest = ?", name_digest
    )
    return Attempts(row["failed_logins"], row["locked_until_us"]) if row else Attempts()


async def save(transaction: Transaction, name_digest: bytes, tried: Attempts, now_us: int) -> None:
    await transaction.execute(
        "INSERT INTO stranger (name_digest, failed_logins, locked_until_us, seen_at_us)"
        " VALUES (?, ?, ?, ?) ON CONFLICT (name_digest) DO UPDATE SET"
        " failed_logins = excluded.failed_logins, locked_until_us = excluded.locked_until_us,"
        " seen_at_us = excluded.seen_at_us",
        name_digest,
        tried.failed,
        tried.locked_until_us,
        now_us,
    )


async def forget_all_but(transaction: Transaction, kept_count: int) -> int:
    """Forget the names unseen for longest; how many."""
    return await transaction.execute(
        "DELETE FROM stranger WHERE seen_at_us < (SELECT min(seen_at_us) FROM"
        " (SELECT seen_at_us FROM stranger ORDER BY seen_at_us DESC LIMIT ?) AS newest)",
        kept_count,
    )
