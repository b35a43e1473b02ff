"""Reads sums of a window, exact to the microsecond it begins at."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from steward_server.analytics.edges import Call, Edges
from steward_server.analytics.figures import Grain, Key, Sums, grain_for
from steward_server.analytics.periods import HOUR_US, Stretch, Stretches, Window, stretches_of
from steward_server.analytics.store import PLACES, added, chosen, marks, sums_in
from steward_server.db import Reader, Row

AGENTS_AT_ONCE = 1_000
"""Named in one statement, once for each of its parts; SQLite takes 32,766 parameters."""


class Scope(NamedTuple):
    """Which calls are summed up; None and empty texts leave it open."""

    window: Window
    agent_ids: Sequence[str] | None = None
    provider: str = ""
    model: str = ""

    def parts(self) -> list[Scope]:
        """The same in scopes of few enough agents for one statement; none if nobody is in it."""
        if self.agent_ids is None:
            return [self]
        return [
            self._replace(agent_ids=self.agent_ids[first : first + AGENTS_AT_ONCE])
            for first in range(0, len(self.agent_ids), AGENTS_AT_ONCE)
        ]


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


class Sql(NamedTuple):
    text: str
    parameters: tuple[object, ...]


async def sums(
    reader: Reader,
    scope: Scope,
    apart: Apart,
    fields: Collection[str] = Sums._fields,
    edges: Edges | None = None,
) -> dict[Key, Sums]:
    """The sums of what is in scope, by what is told apart.

    With `fields`, which name `request_count`, the others may be left empty: that is faster.
    """
    found: dict[Key, Sums] = {}
    for part in scope.parts():
        _add(found, await _sums(reader, part, apart, fields, edges or Edges()))
    return found


def _add(found: dict[Key, Sums], more: Mapping[Key, Sums]) -> None:
    for key, each in more.items():
        found[key] = found[key].plus(each) if key in found else each


async def _sums(
    reader: Reader, scope: Scope, apart: Apart, fields: Collection[str], edges: Edges
) -> dict[Key, Sums]:
    grain = grain_for(
        agent=apart.agent or scope.agent_ids is not None,
        provider=apart.provider or bool(scope.provider),
        model=apart.model or bool(scope.model),
    )
    since_us, until_us = scope.window
    found: dict[Key, Sums] = {}
    if since_us is None:
        parts = [_of_all_time(scope, grain, fields), _fresh(scope, apart, fields, None, None)]
    else:
        stretches = stretches_of(since_us, until_us)
        end_hour = None if until_us is None else until_us // HOUR_US
        parts = _of_stretches(scope, apart, grain, fields, stretches, end_hour)
        if stretches.edge_us[0] < stretches.edge_us[1]:
            found = await sums_of_edge(reader, scope, apart, stretches.edge_us, edges)
    columns, grouped = _apart_columns(apart)
    # One statement sees one moment: rows are being moved from one table to the others.
    rows = await reader.fetch_all(
        f"SELECT {columns}, {added('part', fields)} FROM"
        f" ({' UNION ALL '.join(part.text for part in parts)}) AS part"
        + (f" GROUP BY {', '.join(grouped)}" if grouped else ""),
        *[parameter for part in parts for parameter in part.parameters],
    )
    # Sums over no rows, without telling apart, are a row of nothing.
    summed = [row for row in rows if row["request_count"] is not None]
    keys = [Key(row["agent_id"], row["provider"], row["model"]) for row in summed]
    _add(found, dict(zip(keys, map(sums_in, summed), strict=True)))
    return found


async def payers(reader: Reader, scope: Scope, edges: Edges | None = None) -> set[tuple[str, str]]:
    """The agents, each with the name of a provider, that paid it for a call in scope.

    Their sums would say so, too, but take twenty times as long where there are many agents.
    """
    found: set[tuple[str, str]] = set()
    for part in scope.parts():
        found |= await _payers(reader, part, edges or Edges())
    return found


async def _payers(reader: Reader, scope: Scope, edges: Edges) -> set[tuple[str, str]]:
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
            edge = await sums_of_edge(reader, scope, apart, stretches.edge_us, edges)
            found = {
                (key.agent_id, key.provider) for key, each in edge.items() if each.request_count
            }
    end_hour = None if until_us is None else until_us // HOUR_US
    series, fresh = where_in(scope, grain), where_fresh(scope, first_hour, end_hour)
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


def _of_all_time(scope: Scope, grain: Grain, fields: Collection[str]) -> Sql:
    where = where_in(scope, grain)
    return Sql(
        f"SELECT agent_id, provider, model, {chosen(fields)} FROM usage_series WHERE {where.text}",
        where.parameters,
    )


def _of_stretches(
    scope: Scope,
    apart: Apart,
    grain: Grain,
    fields: Collection[str],
    stretches: Stretches,
    end_hour: int | None,
) -> list[Sql]:
    return [
        _fresh(scope, apart, fields, stretches.edge_us[1] // HOUR_US, end_hour),
        *[_placed(table, scope, grain, fields, stretch) for table, stretch in _places(stretches)],
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


def _placed(
    table: str, scope: Scope, grain: Grain, fields: Collection[str], stretch: Stretch
) -> Sql:
    where = where_in(scope, grain)
    return Sql(
        f"SELECT agent_id, provider, model, {added(table, fields)} FROM usage_series JOIN {table}"
        f" ON {table}.place >= series_id * {PLACES} + ? AND {table}.place < series_id * {PLACES}"
        f" + ? WHERE {where.text} GROUP BY series_id, agent_id, provider, model",
        (*_bounds(stretch), *where.parameters),
    )


def _fresh(
    scope: Scope,
    apart: Apart,
    fields: Collection[str],
    first_hour: int | None,
    end_hour: int | None,
) -> Sql:
    where = where_fresh(scope, first_hour, end_hour)
    columns, grouped = _apart_columns(apart)
    return Sql(
        f"SELECT {columns}, {added('usage_fresh', fields)} FROM usage_fresh"
        + (f" WHERE {where.text}" if where.text else "")
        + (f" GROUP BY {', '.join(grouped)}" if grouped else ""),
        where.parameters,
    )


def where_fresh(scope: Scope, first_hour: int | None, end_hour: int | None) -> Sql:
    where = where_in(scope, None)
    conditions, parameters = [where.text] if where.text else [], list(where.parameters)
    if first_hour is not None:
        conditions.append("hour >= ?")
        parameters.append(first_hour)
    if end_hour is not None:
        conditions.append("hour < ?")
        parameters.append(end_hour)
    return Sql(" AND ".join(conditions), tuple(parameters))


def _apart_columns(apart: Apart) -> tuple[str, list[str]]:
    """What to select, an empty text for what is not told apart, and what to group by."""
    grouped = [name for name, told in apart._asdict().items() if told]
    columns = {"agent": "agent_id", "provider": "provider", "model": "model"}
    selected = [
        column if name in grouped else f"'' AS {column}" for name, column in columns.items()
    ]
    return ", ".join(selected), [columns[name] for name in grouped]


def where_in(scope: Scope, grain: Grain | None) -> Sql:
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
    return Sql(" AND ".join(conditions), tuple(parameters))


# The part of an hour that a window may begin with is read from what was written at the time.


async def sums_of_edge(
    reader: Reader, scope: Scope, apart: Apart, edge_us: tuple[int, int], edges: Edges
) -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    async for calls in edges.calls(reader, edge_us, scope.agent_ids):
        _add(found, added_calls(calls, scope, apart, edge_us))
    for _, key, part in await told_of(reader, scope, apart, edge_us, HOUR_US):
        _add(found, {key: part})
    return found


def added_calls(
    calls: Sequence[Call], scope: Scope, apart: Apart, edge_us: tuple[int, int]
) -> dict[Key, Sums]:
    """What those of the calls add up to that are in scope and between two moments."""
    since_us, until_us = edge_us
    agent_ids = None if scope.agent_ids is None else frozenset(scope.agent_ids)
    provider, model = scope.provider, scope.model
    grouped: dict[tuple[str, str, str], list[Call]] = {}
    for call in calls:
        if (
            since_us <= call[0] < until_us
            and (agent_ids is None or call[1] in agent_ids)
            and (not provider or call[2] == provider)
            and (not model or call[3] == model)
        ):
            key = (
                call[1] if apart.agent else "",
                call[2] if apart.provider else "",
                call[3] if apart.model else "",
            )
            grouped.setdefault(key, []).append(call)
    return {Key(*key): _together(each) for key, each in grouped.items()}


def _together(calls: Sequence[Call]) -> Sums:
    _, _, _, _, inputs, outputs, cached, costs = zip(*calls, strict=True)
    return Sums(
        request_count=len(calls),
        input_tokens=sum(inputs),
        output_tokens=sum(outputs),
        cached_tokens=sum(cached),
        cost_nanousd=sum(costs),
        least_nanousd=min(costs),
        most_nanousd=max(costs),
    )


async def told_of(
    reader: Reader, scope: Scope, apart: Apart, span_us: tuple[int, int], step_us: int
) -> list[tuple[int, Key, Sums]]:
    """What was only told of between two moments, by the numbers of steps since 1970."""
    where = where_in(scope, None)
    columns, grouped = _apart_columns(apart)
    rows = await reader.fetch_all(
        f"SELECT at_us / {step_us} AS step, {columns}, status,"
        " count(*) AS call_count, CAST(SUM(input_tokens) AS BIGINT) AS input_tokens,"
        " CAST(SUM(output_tokens) AS BIGINT) AS output_tokens FROM llm_event"
        f" WHERE at_us >= ? AND at_us < ?{' AND ' + where.text if where.text else ''}"
        f" GROUP BY {', '.join(['1', 'status', *grouped])}",
        *span_us,
        *where.parameters,
    )
    return [
        (row["step"], Key(row["agent_id"], row["provider"], row["model"]), _told(row))
        for row in rows
    ]


def _told(row: Row) -> Sums:
    if row["status"] == "failed":
        return Sums(failed_count=row["call_count"])
    return Sums(
        unbilled_count=row["call_count"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        unbilled_tokens=row["input_tokens"] + row["output_tokens"],
    )
