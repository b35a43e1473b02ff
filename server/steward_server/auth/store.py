"""Sessions, refresh tokens and signing keys as rows. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.auth.refresh import RefreshToken
from steward_server.db import Reader, Transaction

_SELECT_REFRESH = (
    "SELECT refresh_token_id, family_id, user_id, session_id, expires_at_us, spent_at_us,"
    " successor_id, revoked_at_us FROM refresh_token"
)


@dataclass(frozen=True, slots=True)
class Session:
    """One access token that was handed out."""

    session_id: str
    family_id: str
    user_id: str
    created_at_us: int
    expires_at_us: int
    ended_at_us: int | None = None


async def insert_session(transaction: Transaction, session: Session) -> None:
    await transaction.execute(
        "INSERT INTO session (session_id, family_id, user_id, created_at_us, expires_at_us)"
        " VALUES (?, ?, ?, ?, ?)",
        session.session_id,
        session.family_id,
        session.user_id,
        session.created_at_us,
        session.expires_at_us,
    )


async def session(reader: Reader, session_id: str) -> Session | None:
    row = await reader.fetch_one(
        "SELECT session_id, family_id, user_id, created_at_us, expires_at_us, ended_at_us"
        " FROM session WHERE session_id = ?",
        session_id,
    )
    return Session(*tuple(row)) if row else None  # type: ignore[arg-type]


async def sessions_of_family(reader: Reader, family_id: str) -> list[str]:
    """Ids of the sessions that one sign-in led to."""
    rows = await reader.fetch_all("SELECT session_id FROM session WHERE family_id = ?", family_id)
    return [row["session_id"] for row in rows]


async def end_family(
    transaction: Transaction, family_id: str, *, why: str, now_us: int
) -> list[str]:
    """End what one sign-in led to; the ids of the sessions that this ended."""
    rows = await transaction.fetch_all(
        "SELECT session_id FROM session WHERE family_id = ? AND ended_at_us IS NULL"
        " ORDER BY created_at_us",
        family_id,
    )
    await transaction.execute(
        "UPDATE session SET ended_at_us = ?, ended_why = ?"
        " WHERE family_id = ? AND ended_at_us IS NULL",
        now_us,
        why,
        family_id,
    )
    await transaction.execute(
        "UPDATE refresh_token SET revoked_at_us = ? WHERE family_id = ? AND revoked_at_us IS NULL",
        now_us,
        family_id,
    )
    return [row["session_id"] for row in rows]


async def end_all(
    transaction: Transaction, user_id: str, *, but_family: str = "", why: str, now_us: int
) -> list[str]:
    """End what every sign-in of a person led to, but one; ids of the sessions this ended."""
    rows = await transaction.fetch_all(
        "SELECT session_id FROM session WHERE user_id = ? AND family_id <> ?"
        " AND ended_at_us IS NULL ORDER BY created_at_us",
        user_id,
        but_family,
    )
    await transaction.execute(
        "UPDATE session SET ended_at_us = ?, ended_why = ?"
        " WHERE user_id = ? AND family_id <> ? AND ended_at_us IS NULL",
        now_us,
        why,
        user_id,
        but_family,
    )
    await transaction.execute(
        "UPDATE refresh_token SET revoked_at_us = ?"
        " WHERE user_id = ? AND family_id <> ? AND revoked_at_us IS NULL",
        now_us,
        user_id,
        but_family,
    )
    return [row["session_id"] for row in rows]


async def insert_refresh_token(
    transaction: Transaction, token: RefreshToken, token_digest: bytes
) -> None:
    await transaction.execute(
        "INSERT INTO refresh_token (refresh_token_id, digest, family_id, user_id, session_id,"
        " expires_at_us) VALUES (?, ?, ?, ?, ?, ?)",
        token.refresh_token_id,
        token_digest,
        token.family_id,
        token.user_id,
        token.session_id,
        token.expires_at_us,
    )


async def refresh_token(reader: Reader, token_digest: bytes) -> RefreshToken | None:
    row = await reader.fetch_one(f"{_SELECT_REFRESH} WHERE digest = ?", token_digest)
    return RefreshToken(*tuple(row)) if row else None  # type: ignore[arg-type]


async def spend(
    transaction: Transaction, refresh_token_id: str, *, successor_id: str, now_us: int
) -> None:
    await transaction.execute(
        "UPDATE refresh_token SET spent_at_us = ?, successor_id = ? WHERE refresh_token_id = ?",
        now_us,
        successor_id,
        refresh_token_id,
    )


async def delete_expired(transaction: Transaction, before_us: int) -> int:
    """Forget sessions and refresh tokens that expired before this time; how many."""
    return await transaction.execute(
        "DELETE FROM session WHERE expires_at_us < ?", before_us
    ) + await transaction.execute("DELETE FROM refresh_token WHERE expires_at_us < ?", before_us)


async def signing_keys(reader: Reader) -> list[tuple[str, bytes]]:
    """Ids and sealed keys, the oldest first."""
    rows = await reader.fetch_all(
        "SELECT key_id, sealed FROM signing_key ORDER BY created_at_us, key_id"
    )
    return [(row["key_id"], row["sealed"]) for row in rows]


async def insert_signing_key(
    transaction: Transaction, key_id: str, sealed: bytes, now_us: int
) -> None:
    await transaction.execute(
        "INSERT INTO signing_key (key_id, sealed, created_at_us) VALUES (?, ?, ?)",
        key_id,
        sealed,
        now_us,
    )
