"""Remembered answers as rows. No rule lives here."""

from __future__ import annotations

from dataclasses import dataclass, field

from steward_server.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Key:
    """What makes two calls the same."""

    subject: str
    method: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """What is known of a call."""

    request_digest: bytes
    sealed_answer: bytes | None = field(repr=False)
    created_at_us: int


async def get(reader: Reader, key: Key) -> Remembered | None:
    row = await reader.fetch_one(
        "SELECT request_digest, sealed_answer, created_at_us FROM remembered_answer"
        " WHERE subject = ? AND method = ? AND request_id = ?",
        key.subject,
        key.method,
        key.request_id,
    )
    return Remembered(*tuple(row)) if row else None  # type: ignore[arg-type]


async def insert(transaction: Transaction, key: Key, remembered: Remembered) -> None:
    await transaction.execute(
        "INSERT INTO remembered_answer (subject, method, request_id, request_digest, sealed_answer,"
        " created_at_us) VALUES (?, ?, ?, ?, ?, ?)",
        key.subject,
        key.method,
        key.request_id,
        remembered.request_digest,
        remembered.sealed_answer,
        remembered.created_at_us,
    )


async def save_answer(transaction: Transaction, key: Key, sealed_answer: bytes) -> None:
    await transaction.execute(
        "UPDATE remembered_answer SET sealed_answer = ?"
        " WHERE subject = ? AND method = ? AND request_id = ?",
        sealed_answer,
        key.subject,
        key.method,
        key.request_id,
    )


async def delete(transaction: Transaction, key: Key) -> None:
    await transaction.execute(
        "DELETE FROM remembered_answer WHERE subject = ? AND method = ? AND request_id = ?",
        key.subject,
        key.method,
        key.request_id,
    )


async def delete_older(transaction: Transaction, before_us: int) -> int:
    """Forget what was begun before this time; how many."""
    return await transaction.execute(
        "DELETE FROM remembered_answer WHERE created_at_us < ?", before_us
    )
