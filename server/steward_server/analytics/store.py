"""Sums and events as rows. No rule lives here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from steward_server.analytics.figures import NOTHING, Grain, Key, Sums
from steward_server.db import Reader, Row, Transaction

PLACES = 2**20
"""Hours, or days, that a series has room for; in hours that is until the year 2089."""

NO_FIRST, NO_LAST = 2**63 - 1, 0
"""The span of entries where none was written."""

SUMS = ", ".join(Sums._fields)
_sums = itemgetter(*Sums._fields)


def added(table: str, fields: Collection[str] = Sums._fields) -> str:
    """The same columns of several rows of a table together; those that are not asked for empty."""
    return ", ".join(
        f"{_together(f'{table}.{name}') if name in fields else empty} AS {name}"
        for name, empty in NOTHING._asdict().items()
    )


def chosen(fields: Collection[str]) -> str:
    """Columns as they are; those that are not asked for empty."""
    return ", ".join(
        name if name in fields else f"{empty} AS {name}"
        for name, empty in NOTHING._asdict().items()
    )


def _together(column: str) -> str:
    if column.endswith("least_nanousd"):
        return f"MIN({column})"
    if column.endswith("most_nanousd"):
        return f"MAX({column})"
    return f"CAST(SUM({column}) AS BIGINT)"  # PostgreSQL's sums of integers are decimals


def sums_in(row: Row) -> Sums:
    """The sums from a row that holds their columns."""
    return Sums._make(_sums(row))


class Span(NamedTuple):
    """Numbers of the first and the last entry of the journal that may belong to something."""

    first_lsn: int = NO_FIRST
    last_lsn: int = NO_LAST

    def around(self, other: Span) -> Span:
        return Span(min(self.first_lsn, other.first_lsn), max(self.last_lsn, other.last_lsn))


NOWHERE = Span()


class Fresh(NamedTuple):
    """What is to be added for an hour."""

    hour: int
    key: Key
    sums: Sums
    span: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class ToldCall:
    """A call that an event tells of."""

    trace_id: str
    agent_id: str
    event_id: str
    digest: bytes
    """Of what the event said."""
    is_failed: bool
    at_us: int
    """When it counts."""
    ended_at_us: int
    """When it ended by the runtime's clock."""
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    claimed_cost_nanousd: int | None
    error_code: str
    error_message: str
    duration_ms: int

    @property
    def key(self) -> Key:
        return Key(self.agent_id, self.provider, self.model)

    @property
    def sums(self) -> Sums:
        """What it adds; tokens of failed calls do not count."""
        if self.is_failed:
            return Sums(failed_count=1)
        return Sums(
            unbilled_count=1,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            unbilled_tokens=self.input_tokens + self.output_tokens,
        )


def _adding(table: str, key: Sequence[str], *more: str) -> str:
    """An insert that adds to the row which is there already."""
    smaller, larger = {"least_nanousd", "first_lsn"}, {"most_nanousd", "last_lsn"}
    columns = (*Sums._fields, *more)
    changes = [
        f"{name} = CASE WHEN excluded.{name} {'<' if name in smaller else '>'} {table}.{name}"
        f" THEN excluded.{name} ELSE {table}.{name} END"
        if name in smaller | larger
        else f"{name} = {table}.{name} + excluded.{name}"
        for name in columns
    ]
    # A series that is there already keeps its key.
    unique = "series_id" if table == "usage_series" else ", ".join(key)
    return (
        f"INSERT INTO {table} ({', '.join((*key, *columns))})"
        f" VALUES ({marks((*key, *columns))})"
        f" ON CONFLICT ({unique}) DO UPDATE SET {', '.join(changes)}"
    )


def marks(values: Iterable[object]) -> str:
    """A `?` for each."""
    return ", ".join("?" for _ in values)


_ADD_FRESH = _adding(
    "usage_fresh", ("hour", "agent_id", "provider", "model"), "first_lsn", "last_lsn"
)
_ADD_SERIES = _adding("usage_series", ("series_id", "grain", "agent_id", "provider", "model"))
_ADD_DAY = _adding("usage_day", ("place",))
_ADD_WEEK = _adding("usage_week", ("place",))
_ADD_HOUR = _adding("usage_hour", ("place",), "first_lsn", "last_lsn")


async def add_fresh(transaction: Transaction, rows: Iterable[Fresh]) -> None:
    await transaction.execute_many(
        _ADD_FRESH, [(hour, *key, *sums, *span) for hour, key, sums, span in rows]
    )


async def oldest_fresh(reader: Reader, before_hour: int, limit: int) -> list[Fresh]:
    """Rows of hours before this one."""
    rows = await reader.fetch_all(
        f"SELECT hour, agent_id, provider, model, {SUMS}, first_lsn, last_lsn FROM usage_fresh"
        " WHERE hour < ? ORDER BY hour, agent_id, provider, model LIMIT ?",
        before_hour,
        limit,
    )
    return [_fresh(row) for row in rows]


def _fresh(row: Row) -> Fresh:
    key = Key(row["agent_id"], row["provider"], row["model"])
    return Fresh(row["hour"], key, sums_in(row), Span(row["first_lsn"], row["last_lsn"]))


async def delete_fresh(transaction: Transaction, rows: Iterable[Fresh]) -> None:
    await transaction.execute_many(
        "DELETE FROM usage_fresh WHERE hour = ? AND agent_id = ? AND provider = ? AND model = ?",
        [(row.hour, *row.key) for row in rows],
    )


async def series_ids(reader: Reader, keys: Mapping[Key, Grain]) -> tuple[dict[Key, int], int]:
    """The ids of those series that exist, and the highest id there is."""
    newest = await reader.fetch_one(
        "SELECT series_id FROM usage_series ORDER BY series_id DESC LIMIT 1"
    )
    found: dict[Key, int] = {}
    for key in keys:
        row = await reader.fetch_one(
            "SELECT series_id FROM usage_series WHERE agent_id = ? AND provider = ? AND model = ?",
            *key,
        )
        if row is not None:
            found[key] = row["series_id"]
    return found, newest["series_id"] if newest else 0


async def add_to_series(
    transaction: Transaction, rows: Iterable[tuple[int, Grain, Key, Sums]]
) -> None:
    await transaction.execute_many(
        _ADD_SERIES,
        [(series_id, grain.value, *key, *sums) for series_id, grain, key, sums in rows],
    )


async def add_to_days(transaction: Transaction, rows: Iterable[tuple[int, int, Sums]]) -> None:
    await transaction.execute_many(
        _ADD_DAY, [(series_id * PLACES + day, *sums) for series_id, day, sums in rows]
    )


async def add_to_weeks(transaction: Transaction, rows: Iterable[tuple[int, int, Sums]]) -> None:
    await transaction.execute_many(
        _ADD_WEEK, [(series_id * PLACES + week, *sums) for series_id, week, sums in rows]
    )


async def add_to_hours(
    transaction: Transaction, rows: Iterable[tuple[int, int, Sums, Span]]
) -> None:
    await transaction.execute_many(
        _ADD_HOUR,
        [(series_id * PLACES + hour, *sums, *span) for series_id, hour, sums, span in rows],
    )


async def some_series(reader: Reader, after: int, limit: int) -> list[int]:
    """Ids of series, in their order."""
    rows = await reader.fetch_all(
        "SELECT series_id FROM usage_series WHERE series_id > ? ORDER BY series_id LIMIT ?",
        after,
        limit,
    )
    return [row["series_id"] for row in rows]


async def delete_hours(transaction: Transaction, series: Iterable[int], before_hour: int) -> None:
    await transaction.execute_many(
        "DELETE FROM usage_hour WHERE place >= ? AND place < ?",
        [(series_id * PLACES, series_id * PLACES + before_hour) for series_id in series],
    )


# Events.

_EVENT_COLUMNS = (
    "trace_id, agent_id, event_id, digest, status, at_us, ended_at_us, provider, model,"
    " input_tokens, output_tokens, claimed_cost_nanousd, error_code, error_message, duration_ms"
)
SELECT_EVENT = f"SELECT {_EVENT_COLUMNS} FROM llm_event"


async def digests(reader: Reader, agent_id: str, event_ids: Sequence[str]) -> dict[str, bytes]:
    """What the agent's events of these ids said, of those that are known."""
    rows = await reader.fetch_all(
        "SELECT event_id, digest FROM llm_event"
        f" WHERE agent_id = ? AND event_id IN ({marks(event_ids)})",
        agent_id,
        *event_ids,
    )
    return {row["event_id"]: row["digest"] for row in rows}


async def insert_told(transaction: Transaction, agent_id: str, calls: Iterable[ToldCall]) -> None:
    """Write down what one agent tells."""
    await transaction.execute_many(
        f"INSERT INTO llm_event ({_EVENT_COLUMNS})"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                call.trace_id,
                call.agent_id,
                call.event_id,
                call.digest,
                "failed" if call.is_failed else "completed",
                call.at_us,
                call.ended_at_us,
                call.provider,
                call.model,
                call.input_tokens,
                call.output_tokens,
                call.claimed_cost_nanousd,
                call.error_code,
                call.error_message,
                call.duration_ms,
            )
            for call in calls
        ],
    )
    await transaction.execute(
        "INSERT INTO telling_agent (agent_id) VALUES (?) ON CONFLICT DO NOTHING", agent_id
    )


async def telling(reader: Reader, agent_ids: Sequence[str]) -> set[str]:
    """Those of these agents that ever told of a call."""
    rows = await reader.fetch_all(
        f"SELECT agent_id FROM telling_agent WHERE agent_id IN ({marks(agent_ids)})", *agent_ids
    )
    return {row["agent_id"] for row in rows}


async def take_told(transaction: Transaction, calls: Sequence[tuple[str, str]]) -> list[ToldCall]:
    """Take out the events of these agents and ids, if there are any."""
    asked = ", ".join(["(?, ?)"] * len(calls))
    rows = await transaction.fetch_all(
        f"WITH asked (agent, event) AS (VALUES {asked}) {SELECT_EVENT} JOIN asked"
        " ON llm_event.agent_id = asked.agent AND llm_event.event_id = asked.event",
        *[part for pair in calls for part in pair],
    )
    taken = [told_call(row) for row in rows]
    await transaction.execute_many(
        "DELETE FROM llm_event WHERE agent_id = ? AND event_id = ?",
        [(call.agent_id, call.event_id) for call in taken],
    )
    return taken


def told_call(row: Row) -> ToldCall:
    """An event from a row that holds its columns."""
    return ToldCall(
        row["trace_id"],
        row["agent_id"],
        row["event_id"],
        row["digest"],
        row["status"] == "failed",
        row["at_us"],
        row["ended_at_us"],
        row["provider"],
        row["model"],
        row["input_tokens"],
        row["output_tokens"],
        row["claimed_cost_nanousd"],
        row["error_code"],
        row["error_message"],
        row["duration_ms"],
    )


async def forget_messages(transaction: Transaction, before_us: int, limit: int) -> int:
    """Empty error messages of calls before this moment; how many."""
    rows = await transaction.fetch_all(
        "SELECT agent_id, event_id FROM llm_event WHERE error_message <> '' AND at_us < ? LIMIT ?",
        before_us,
        limit,
    )
    await transaction.execute_many(
        "UPDATE llm_event SET error_message = '' WHERE agent_id = ? AND event_id = ?",
        [(row["agent_id"], row["event_id"]) for row in rows],
    )
    return len(rows)


# Catching up.


async def catching_up(reader: Reader) -> tuple[int, int] | None:
    """The next entry to be summed up and the last; None before it has begun."""
    row = await reader.fetch_one("SELECT next_lsn, until_lsn FROM usage_catching_up")
    return (row["next_lsn"], row["until_lsn"]) if row else None


async def save_catching_up(transaction: Transaction, next_lsn: int, until_lsn: int) -> None:
    await transaction.execute(
        "INSERT INTO usage_catching_up (only_row, next_lsn, until_lsn) VALUES (1, ?, ?)"
        " ON CONFLICT (only_row) DO UPDATE SET next_lsn = excluded.next_lsn",
        next_lsn,
        until_lsn,
    )
