"""IC tokens as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Mapping

from steward_server.db import Reader, Row, Transaction
from steward_server.errors import NotFound
from steward_server.tokens.token import Token, TokenStatus

_SELECT = (
    "SELECT token_id, agent_id, name, public_part, digest, scopes, created_at_us, expires_at_us,"
    " last_used_at_us, rotated_at_us, revoked_at_us FROM ic_token"
)


async def get(reader: Reader, token_id: str) -> Token:
    """The token.

    Raises:
        NotFound: there is none with this id.
    """
    row = await reader.fetch_one(f"{_SELECT} WHERE token_id = ?", token_id)
    if row is None:
        raise NotFound.of("token", token_id)
    return _token(row)


async def by_public_part(reader: Reader, public_part: str) -> Token | None:
    row = await reader.fetch_one(f"{_SELECT} WHERE public_part = ?", public_part)
    return _token(row) if row else None


async def current_of(reader: Reader, agent_id: str) -> Token | None:
    """The agent's one token that is neither revoked nor replaced; it may be expired."""
    row = await reader.fetch_one(
        f"{_SELECT} WHERE agent_id = ? AND revoked_at_us IS NULL AND replaced_at_us IS NULL",
        agent_id,
    )
    return _token(row) if row else None


async def listed(
    reader: Reader,
    *,
    agent_id: str | None,
    status: TokenStatus | None,
    now_us: int,
    limit: int,
    offset: int,
) -> tuple[list[Token], int]:
    """Tokens, the newest first, and how many match in all."""
    conditions, parameters = ["1 = 1"], list[object]()
    if agent_id is not None:
        conditions.append("agent_id = ?")
        parameters.append(agent_id)
    match status:
        case TokenStatus.ACTIVE:
            conditions.append(
                "revoked_at_us IS NULL AND (expires_at_us IS NULL OR expires_at_us > ?)"
            )
            parameters.append(now_us)
        case TokenStatus.EXPIRED:
            conditions.append("revoked_at_us IS NULL AND expires_at_us <= ?")
            parameters.append(now_us)
        case TokenStatus.REVOKED:
            conditions.append("revoked_at_us IS NOT NULL")
    where = f"WHERE {' AND '.join(conditions)}"
    rows = await reader.fetch_all(
        f"{_SELECT} {where} ORDER BY created_at_us DESC, token_id DESC LIMIT ? OFFSET ?",
        *parameters,
        limit,
        offset,
    )
    [total] = await reader.fetch_all(
        f"SELECT count(*) AS token_count FROM ic_token {where}", *parameters
    )
    return [_token(row) for row in rows], int(total["token_count"])


async def insert(transaction: Transaction, token: Token) -> None:
    await transaction.execute(
        "INSERT INTO ic_token (token_id, agent_id, name, public_part, digest, scopes,"
        " created_at_us, expires_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        token.token_id,
        token.agent_id,
        token.name,
        token.public_part,
        token.digest,
        " ".join(token.scopes),
        token.created_at_us,
        token.expires_at_us,
    )


async def save_text(transaction: Transaction, token: Token) -> None:
    """Write a rotation down."""
    await transaction.execute(
        "UPDATE ic_token SET public_part = ?, digest = ?, rotated_at_us = ? WHERE token_id = ?",
        token.public_part,
        token.digest,
        token.rotated_at_us,
        token.token_id,
    )


async def revoke(transaction: Transaction, token_id: str, now_us: int) -> None:
    await transaction.execute(
        "UPDATE ic_token SET revoked_at_us = ? WHERE token_id = ?", now_us, token_id
    )


async def replace(transaction: Transaction, token_id: str, now_us: int) -> None:
    """Let an expired token make room for another."""
    await transaction.execute(
        "UPDATE ic_token SET replaced_at_us = ? WHERE token_id = ?", now_us, token_id
    )


async def save_last_use(transaction: Transaction, used_at_us: Mapping[str, int]) -> None:
    await transaction.execute_many(
        "UPDATE ic_token SET last_used_at_us = ? WHERE token_id = ?",
        [(at_us, token_id) for token_id, at_us in used_at_us.items()],
    )


def _token(row: Row) -> Token:
    return Token(
        row["token_id"],
        row["agent_id"],
        row["name"],
        row["public_part"],
        row["digest"],
        tuple(row["scopes"].split()),
        row["created_at_us"],
        row["expires_at_us"],
        row["last_used_at_us"],
        row["rotated_at_us"],
        row["revoked_at_us"],
    )
