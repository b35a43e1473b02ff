"""Reads sums of a window, exact to the microsecond it begins at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import orjson

from steward_server.analytics.figures import NOTHING, Grain, Key, Sums, grain_for
from steward_server.analytics.periods import HOUR_US, Stretch, Stretches, Window, stretches_of
from steward_server.analytics.rollups import sums_of
from steward_server.analytics.store import PLACES, SUMS, added, marks, sums_in
from steward_server.db import Reader, Row

ENTRIES_AT_ONCE = 5_000
"""Entries of the journal that are read together, of the hour a window begins in."""


class Scope(NamedTuple):
    """Which calls are summed up; None and empty texts leave it open."""

    window: Window
    agent_ids: Sequence[str] | None = None
    provider: str = ""
    model: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether no call can be in it."""
        return self.agent_ids is not None and not self.agent_ids


class Apart(NamedTuple):
    """What the sums are told apart by."""

    agent: bool = False
    provider: bool = False
    model: bool = False

    def key(self, agent_id: str, provider: str, model: str) -> Key:
        return Key(
            agent_id if self.agent else "",
            provider if self.provider else "",
            model if self.model else "",
        )


class _Sql(NamedTuple):
    text: str
    parameters: tuple[object, ...]


async def sums(reader: Reader, scope: Scope, apart: Apart) -> dict[Key, Sums]:
    """The sums of what is in scope, by what is told apart."""
    if scope.is_empty:
        return {}
    grain = grain_for(
        agent=apart.agent or scope.agent_ids is not None,
        provider=apart.provider or bool(scope.provider),
        model=apart.model or bool(scope.model),
    )
    since_us, until_us = scope.window
    found: dict[Key, Sums] = {}
    if since_us is None:
        parts = [_of_all_time(scope, grain), _fresh(scope, apart, None, None)]
    else:
        stretches = stretches_of(since_us, until_us)
        end_hour = None if until_us is None else until_us // HOUR_US
        parts = _of_stretches(scope, apart, grain, stretches, end_hour)
        if stretches.edge_us[0] < stretches.edge_us[1]:
            found = await _of_edge(reader, scope, apart, grain, stretches.edge_us)
    # One statement sees one moment: rows are being moved from one table to the others.
    rows = await reader.fetch_all(
        " UNION ALL ".join(part.text for part in parts),
        *[parameter for part in parts for parameter in part.parameters],
    )
    for row in rows:
        if row["request_count"] is not None:  # what sums over no rows without telling apart give
            key = apart.key(row["agent_id"], row["provider"], row["model"])
            found[key] = found.get(key, NOTHING).plus(sums_in(row))
    return found


async def payers(reader: Reader, scope: Scope) -> set[tuple[str, str]]:
    """The agents, each with the name of a provider, that paid it for a call in scope.

    Their sums would say so, too, but take twenty times as long where there are many agents.
    """
    if scope.is_empty:
        return set()
    grain = grain_for(agent=True, provider=True, model=bool(scope.model))
    since_us, until_us = scope.window
    found: set[tuple[str, str]] = set()
    first_hour: int | None = None
    places: list[tuple[str, Stretch]] = []
    if since_us is not None:
        stretches = stretches_of(since_us, until_us)
        places = _places(stretches)
        first_hour = stretches.edge_us[1] // HOUR_US
        if stretches.edge_us[0] < stretches.edge_us[1]:
            apart = Apart(agent=True, provider=True)
            edge = await _of_edge(reader, scope, apart, grain, stretches.edge_us)
            found = {
                (key.agent_id, key.provider) for key, each in edge.items() if each.request_count
            }
    end_hour = None if until_us is None else until_us // HOUR_US
    series, fresh = _where(scope, grain), _where_fresh(scope, first_hour, end_hour)
    paid = " OR ".join(
        f"EXISTS (SELECT 1 FROM {table} WHERE place >= series_id * {PLACES} + ?"
        f" AND place < series_id * {PLACES} + ? AND {table}.request_count > 0)"
        for table, _ in places
    )
    rows = await reader.fetch_all(
        f"SELECT agent_id, provider FROM usage_series WHERE request_count > 0 AND {series.text}"
        + (f" AND ({paid})" if paid else "")
        + " UNION SELECT agent_id, provider FROM usage_fresh WHERE request_count > 0"
        + (f" AND {fresh.text}" if fresh.text else ""),
        *series.parameters,
        *[bound for _, stretch in places for bound in _bounds(stretch)],
        *fresh.parameters,
    )
    return found | {(row["agent_id"], row["provider"]) for row in rows}


def _of_all_time(scope: Scope, grain: Grain) -> _Sql:
    where = _where(scope, grain)
    return _Sql(
        f"SELECT agent_id, provider, model, {SUMS} FROM usage_series WHERE {where.text}",
        where.parameters,
    )


def _of_stretches(
    scope: Scope, apart: Apart, grain: Grain, stretches: Stretches, end_hour: int | None
) -> list[_Sql]:
    return [
        _fresh(scope, apart, stretches.edge_us[1] // HOUR_US, end_hour),
        *[_placed(table, scope, grain, stretch) for table, stretch in _places(stretches)],
    ]


def _places(stretches: Stretches) -> list[tuple[str, Stretch]]:
    """The tables that hold the whole hours, days and weeks, and which of them."""
    tables = {
        "usage_week": stretches.weeks,
        "usage_day": stretches.days,
        "usage_hour": stretches.hours,
    }
    return [(table, stretch) for table, found in tables.items() for stretch in found]


def _bounds(stretch: Stretch) -> tuple[int, int]:
    return stretch.first, PLACES if stretch.end is None else stretch.end


def _placed(table: str, scope: Scope, grain: Grain, stretch: Stretch) -> _Sql:
    where = _where(scope, grain)
    return _Sql(
        f"SELECT agent_id, provider, model, {added(table)} FROM usage_series JOIN {table}"
        f" ON {table}.place >= series_id * {PLACES} + ? AND {table}.place < series_id * {PLACES}"
        f" + ? WHERE {where.text} GROUP BY series_id, agent_id, provider, model",
        (*_bounds(stretch), *where.parameters),
    )


def _fresh(scope: Scope, apart: Apart, first_hour: int | None, end_hour: int | None) -> _Sql:
    where = _where_fresh(scope, first_hour, end_hour)
    columns, grouped = _apart_columns(apart)
    return _Sql(
        f"SELECT {columns}, {added('usage_fresh')} FROM usage_fresh"
        + (f" WHERE {where.text}" if where.text else "")
        + (f" GROUP BY {', '.join(grouped)}" if grouped else ""),
        where.parameters,
    )


def _where_fresh(scope: Scope, first_hour: int | None, end_hour: int | None) -> _Sql:
    where = _where(scope, None)
    conditions, parameters = [where.text] if where.text else [], list(where.parameters)
    if first_hour is not None:
        conditions.append("hour >= ?")
        parameters.append(first_hour)
    if end_hour is not None:
        conditions.append("hour < ?")
        parameters.append(end_hour)
    return _Sql(" AND ".join(conditions), tuple(parameters))


def _apart_columns(apart: Apart) -> tuple[str, list[str]]:
    """What to select, an empty text for what is not told apart, and what to group by."""
    grouped = [name for name, told in apart._asdict().items() if told]
    columns = {"agent": "agent_id", "provider": "provider", "model": "model"}
    selected = [
        column if name in grouped else f"'' AS {column}" for name, column in columns.items()
    ]
    return ", ".join(selected), [columns[name] for name in grouped]


def _where(scope: Scope, grain: Grain | None) -> _Sql:
    conditions: list[str] = []
    parameters: list[object] = []
    if grain is not None:
        conditions.append("grain = ?")
        parameters.append(grain.value)
    if scope.agent_ids is not None:
        conditions.append(f"agent_id IN ({marks(scope.agent_ids)})")
        parameters.extend(scope.agent_ids)
    for name in ("provider", "model"):
        if wanted := getattr(scope, name):
            conditions.append(f"{name} = ?")
            parameters.append(wanted)
    return _Sql(" AND ".join(conditions), tuple(parameters))


# The part of an hour that a window may begin with is read from what was written at the time.


async def _of_edge(
    reader: Reader, scope: Scope, apart: Apart, grain: Grain, edge_us: tuple[int, int]
) -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    for key, part in [
        *await _booked_in(reader, scope, apart, grain, edge_us),
        *await _told_in(reader, scope, apart, edge_us),
    ]:
        found[key] = found.get(key, NOTHING).plus(part)
    return found


async def _booked_in(
    reader: Reader, scope: Scope, apart: Apart, grain: Grain, edge_us: tuple[int, int]
) -> list[tuple[Key, Sums]]:
    hour = edge_us[0] // HOUR_US
    series, fresh = _where(scope, grain), _where(scope, None)
    span = await reader.fetch_one(
        "SELECT MIN(first_lsn) AS first_lsn, MAX(last_lsn) AS last_lsn FROM ("
        "SELECT first_lsn, last_lsn FROM usage_series JOIN usage_hour"
        f" ON place = series_id * {PLACES} + ? WHERE {series.text}"
        " UNION ALL SELECT first_lsn, last_lsn FROM usage_fresh WHERE hour = ?"
        f"{' AND ' + fresh.text if fresh.text else ''}) AS spans",
        hour,
        *series.parameters,
        hour,
        *fresh.parameters,
    )
    if span is None or span["first_lsn"] is None:
        return []
    whose = f" AND agent_id IN ({marks(scope.agent_ids)})" if scope.agent_ids is not None else ""
    next_lsn, found = span["first_lsn"], []
    while True:
        rows = await reader.fetch_all(
            "SELECT lsn, agent_id, body FROM journal WHERE lsn >= ? AND lsn <= ?"
            f" AND kind = 'usage' AND at_us >= ? AND at_us < ?{whose} ORDER BY lsn LIMIT ?",
            next_lsn,
            span["last_lsn"],
            *edge_us,
            *(scope.agent_ids or ()),
            ENTRIES_AT_ONCE,
        )
        found += _grouped(rows, scope, apart)
        if len(rows) < ENTRIES_AT_ONCE:
            return found
        next_lsn = rows[-1]["lsn"] + 1


def _grouped(rows: Sequence[Row], scope: Scope, apart: Apart) -> list[tuple[Key, Sums]]:
    bodies: dict[Key, list[dict[str, object]]] = {}
    for row in rows:
        body = orjson.loads(row["body"])
        provider, model = body["provider"], body["model"]
        if scope.provider in ("", provider) and scope.model in ("", model):
            bodies.setdefault(apart.key(row["agent_id"], provider, model), []).append(body)
    return [(key, sums_of(each)) for key, each in bodies.items()]


async def _told_in(
    reader: Reader, scope: Scope, apart: Apart, edge_us: tuple[int, int]
) -> list[tuple[Key, Sums]]:
    where = _where(scope, None)
    columns, grouped = _apart_columns(apart)
    rows = await reader.fetch_all(
        f"SELECT {columns}, status,"
        " count(*) AS call_count, CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,"
        " CAST(SUM(output_tokens) AS BIGINT) AS output_tokens FROM llm_event"
        f" WHERE at_us >= ? AND at_us < ?{' AND ' + where.text if where.text else ''}"
        f" GROUP BY {', '.join(['status', *grouped])}",
        *edge_us,
        *where.parameters,
    )
    return [(Key(row["agent_id"], row["provider"], row["model"]), _told(row)) for row in rows]


def _told(row: Row) -> Sums:
    if row["status"] == "failed":
        return Sums(failed_count=row["call_count"])
    return Sums(
        unbilled_count=row["call_count"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        unbilled_tokens=row["input_tokens"] + row["output_tokens"],
    )
