"""Snapshots as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from steward_server.db import Reader, Row, Transaction

_SELECT = (
    "SELECT snapshot_id, name, owner_id, agent_id, environment_id, base_image, size_bytes,"
    " created_at_us FROM environment_snapshot"
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of an environment, kept."""

    snapshot_id: str
    name: str
    owner_id: str
    agent_id: str
    """Of the agent that made it; empty: somebody else did."""
    environment_id: str
    base_image: str
    size_bytes: int | None
    """None: it is being made, or removed."""
    created_at_us: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which snapshots to list."""

    owner_id: str | None = None
    agent_id: str | None = None
    environment_ids: Collection[str] | None = None


async def insert(transaction: Transaction, snapshot: Snapshot) -> None:
    await transaction.execute(
        "INSERT INTO environment_snapshot (snapshot_id, name, owner_id, agent_id, environment_id,"
        " base_image, size_bytes, created_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        snapshot.snapshot_id,
        snapshot.name,
        snapshot.owner_id,
        snapshot.agent_id,
        snapshot.environment_id,
        snapshot.base_image,
        snapshot.size_bytes,
        snapshot.created_at_us,
    )


async def save_size(transaction: Transaction, snapshot_id: str, size_bytes: int | None) -> None:
    """Let it be seen; None: no more."""
    await transaction.execute(
        "UPDATE environment_snapshot SET size_bytes = ? WHERE snapshot_id = ?",
        size_bytes,
        snapshot_id,
    )


async def delete(transaction: Transaction, snapshot_id: str) -> None:
    await transaction.execute("DELETE FROM environment_snapshot WHERE snapshot_id = ?", snapshot_id)


async def find(reader: Reader, snapshot_id: str) -> Snapshot | None:
    """One that is made; None if there is none."""
    row = await reader.fetch_one(
        f"{_SELECT} WHERE snapshot_id = ? AND size_bytes IS NOT NULL", snapshot_id
    )
    return None if row is None else _snapshot(row)


async def unfinished(reader: Reader) -> list[Snapshot]:
    """Those that are being made or removed, or were when a server ended."""
    rows = await reader.fetch_all(f"{_SELECT} WHERE size_bytes IS NULL")
    return [_snapshot(row) for row in rows]


async def page(reader: Reader, wanted: Wanted, *, limit: int, offset: int) -> list[Snapshot]:
    """Those that are made, the newest first."""
    where, parameters = _conditions(wanted)
    rows = await reader.fetch_all(
        f"{_SELECT} WHERE {where} ORDER BY created_at_us DESC, snapshot_id DESC LIMIT ? OFFSET ?",
        *parameters,
        limit,
        offset,
    )
    return [_snapshot(row) for row in rows]


async def count(reader: Reader, wanted: Wanted) -> int:
    """How many there are of them."""
    where, parameters = _conditions(wanted)
    [row] = await reader.fetch_all(
        f"SELECT count(*) AS snapshot_count FROM environment_snapshot WHERE {where}", *parameters
    )
    return int(row["snapshot_count"])


async def use(reader: Reader, owner_id: str) -> tuple[int, int]:
    """How many somebody has, those that are being made included, and their bytes together."""
    [row] = await reader.fetch_all(
        "SELECT count(*) AS snapshot_count, COALESCE(sum(size_bytes), 0) AS size_bytes"
        " FROM environment_snapshot WHERE owner_id = ?",
        owner_id,
    )
    return int(row["snapshot_count"]), int(row["size_bytes"])


async def environments_on(reader: Reader, image: str) -> list[str]:
    """The environments that are not over and made of an image."""
    rows = await reader.fetch_all(
        "SELECT environment_id FROM environment WHERE image = ?"
        " AND state IN ('pending', 'running', 'terminating') ORDER BY created_at_us LIMIT 11",
        image,
    )
    return [row["environment_id"] for row in rows]


async def hand_over(transaction: Transaction, owner_id: str, heir_id: str) -> list[str]:
    """Let somebody's be another's; which they are."""
    rows = await transaction.fetch_all(
        "SELECT snapshot_id FROM environment_snapshot WHERE owner_id = ?", owner_id
    )
    await transaction.execute(
        "UPDATE environment_snapshot SET owner_id = ? WHERE owner_id = ?", heir_id, owner_id
    )
    return [row["snapshot_id"] for row in rows]


def _conditions(wanted: Wanted) -> tuple[str, list[object]]:
    conditions, parameters = ["size_bytes IS NOT NULL"], list[object]()
    for column, value in (("owner_id", wanted.owner_id), ("agent_id", wanted.agent_id)):
        if value is not None:
            conditions.append(f"{column} = ?")
            parameters.append(value)
    if wanted.environment_ids is not None:
        marks = ", ".join("?" * len(wanted.environment_ids))
        conditions.append(f"environment_id IN ({marks})")
        parameters += sorted(wanted.environment_ids)
    return " AND ".join(conditions), parameters


def _snapshot(row: Row) -> Snapshot:
    return Snapshot(
        row["snapshot_id"],
        row["name"],
        row["owner_id"],
        row["agent_id"],
        row["environment_id"],
        row["base_image"],
        row["size_bytes"],
        row["created_at_us"],
    )
