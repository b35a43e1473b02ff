"""Reads what the steps of a window add up to."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from steward_server.analytics.edges import Call, Edges
from steward_server.analytics.figures import NOTHING, Key, Sums, grain_for
from steward_server.analytics.periods import DAY_US, HOUR_US, MINUTE_US
from steward_server.analytics.queries import (
    Apart,
    Scope,
    Sql,
    added_calls,
    sums_of_edge,
    told_of,
    where_fresh,
    where_in,
)
from steward_server.analytics.steps import Step
from steward_server.analytics.store import PLACES, added, marks, sums_in
from steward_server.db import Reader

OTHERS = ""
"""The group of those that are not named. No agent, provider or model has an empty name."""

FIELDS = (
    "request_count",
    "unbilled_count",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cost_nanousd",
)

Points = dict[tuple[int, str], Sums]
"""By the number of the step, and the group."""


async def points(
    reader: Reader,
    scope: Scope,
    step: Step,
    apart: Apart,
    named: Collection[str],
    now_us: int,
    edges: Edges,
) -> Points:
    """What each step with a call adds up to, by those that are named and the others together.

    `apart` tells apart by one thing at most: that is what the names are of.
    """
    found: Points = {}
    for part in scope.parts():
        if step is Step.MINUTE:
            await _add_minutes(found, reader, part, apart, named, now_us, edges)
        else:
            await _add_steps(found, reader, part, step, apart, named, edges)
    return found


def _add(found: Points, number: int, group: str, more: Sums) -> None:
    found[number, group] = found.get((number, group), NOTHING).plus(more)


def _add_keys(found: Points, number: int, more: Mapping[Key, Sums], named: Collection[str]) -> None:
    for key, each in more.items():
        name = "".join(key)  # all but one of them are empty
        _add(found, number, name if name in named else OTHERS, each)


async def _add_minutes(
    found: Points,
    reader: Reader,
    scope: Scope,
    apart: Apart,
    named: Collection[str],
    now_us: int,
    edges: Edges,
) -> None:
    since_us = scope.window.since_us or 0
    present = now_us // HOUR_US
    for hour in range(since_us // HOUR_US, present + 1):
        span_us = max(since_us, hour * HOUR_US), (hour + 1) * HOUR_US
        # The present hour still grows: it is not worth remembering.
        reading = Edges(max_calls=0) if hour == present else edges
        async for calls in reading.calls(reader, span_us, scope.agent_ids):
            minutes: dict[int, list[Call]] = {}
            for call in calls:
                minutes.setdefault(call.at_us // MINUTE_US, []).append(call)
            for minute, some in minutes.items():
                _add_keys(found, minute, added_calls(some, scope, apart, span_us), named)
    for minute, key, told in await told_of(
        reader, scope, apart, (since_us, (present + 1) * HOUR_US), MINUTE_US
    ):
        _add_keys(found, minute, {key: told}, named)


async def _add_steps(
    found: Points,
    reader: Reader,
    scope: Scope,
    step: Step,
    apart: Apart,
    named: Collection[str],
    edges: Edges,
) -> None:
    since_us, until_us = scope.window.since_us or 0, scope.window.until_us
    first_hour, first_day = -(-since_us // HOUR_US), -(-since_us // DAY_US)
    end_hour = None if until_us is None else until_us // HOUR_US
    if since_us < first_hour * HOUR_US:
        edge_us = since_us, first_hour * HOUR_US
        edge = await sums_of_edge(reader, scope, apart, edge_us, edges)
        _add_keys(found, step.number(since_us), edge, named)
    group, names = _grouped(apart, named)
    fresh = where_fresh(scope, first_hour, end_hour)
    parts = [
        Sql(
            f"SELECT hour, {group} AS name, {added('usage_fresh', FIELDS)} FROM usage_fresh"
            f" WHERE {fresh.text} GROUP BY 1, 2",
            (*names, *fresh.parameters),
        )
    ]
    if step is Step.HOUR:
        tables = [("usage_hour", 1, first_hour, end_hour)]
    else:
        end_day = None if until_us is None else until_us // DAY_US
        tables = [
            ("usage_hour", 1, first_hour, first_day * 24),
            ("usage_day", 24, first_day, end_day),
        ]
    where = where_in(
        scope,
        grain_for(
            agent=apart.agent or scope.agent_ids is not None,
            provider=apart.provider or bool(scope.provider),
            model=apart.model or bool(scope.model),
        ),
    )
    parts += [
        Sql(
            f"SELECT (place - series_id * {PLACES}) * {hours} AS hour, {group} AS name,"
            f" {added(table, FIELDS)} FROM usage_series JOIN {table}"
            f" ON {table}.place >= series_id * {PLACES} + ?"
            f" AND {table}.place < series_id * {PLACES} + ?"
            f" WHERE {where.text} GROUP BY 1, 2",
            (*names, first, PLACES if end is None else end, *where.parameters),
        )
        for table, hours, first, end in tables
    ]
    # One statement sees one moment: rows are being moved from one table to the others.
    rows = await reader.fetch_all(
        f"SELECT hour, name, {added('part', FIELDS)} FROM"
        f" ({' UNION ALL '.join(part.text for part in parts)}) AS part GROUP BY hour, name",
        *[parameter for part in parts for parameter in part.parameters],
    )
    for row in rows:
        _add(found, step.number(row["hour"] * HOUR_US), row["name"], sums_in(row))


def _grouped(apart: Apart, named: Collection[str]) -> tuple[str, tuple[str, ...]]:
    """What to select as the group, and its parameters."""
    columns = {"agent": "agent_id", "provider": "provider", "model": "model"}
    told = [columns[name] for name, is_told in apart._asdict().items() if is_told]
    if not told or not named:
        return f"'{OTHERS}'", ()
    [column] = told
    return f"CASE WHEN {column} IN ({marks(named)}) THEN {column} ELSE '{OTHERS}' END", (*named,)
