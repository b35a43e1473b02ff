"""The calls of those hours in whose midst a window begins, read from the journal.

What is written there never changes, and the last 7 days begin in the same hour for an hour: so the
calls of a few hours are remembered.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from sys import intern
from typing import NamedTuple

import orjson

from steward_server.analytics.figures import Grain
from steward_server.analytics.periods import HOUR_US
from steward_server.analytics.store import PLACES, marks
from steward_server.db import Reader, Row

ENTRIES_AT_ONCE = 5_000
"""Entries of the journal that are read together."""

MAX_HOURS = 4
MAX_CALLS = 50_000
"""Of an hour that is remembered: some 13 megabytes. What is busier is read each time."""


class Call(NamedTuple):
    """A call that was booked."""

    at_us: int
    agent_id: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost_nanousd: int


class Edges:
    """Reads the calls of hours, and remembers those it was asked for last."""

    def __init__(self, max_calls: int = MAX_CALLS) -> None:
        self._max_calls = max_calls
        self._hours: OrderedDict[tuple[int, int, int], list[list[Call]]] = OrderedDict()

    async def calls(
        self, reader: Reader, edge_us: tuple[int, int], agent_ids: Sequence[str] | None
    ) -> AsyncIterator[Sequence[Call]]:
        """All that were booked between two moments of an hour, by these agents if any are given.

        A few thousand at a time; there may be others of that hour among them.
        """
        hour = edge_us[0] // HOUR_US
        [span] = await reader.fetch_all(
            "SELECT MIN(first_lsn) AS first_lsn, MAX(last_lsn) AS last_lsn,"
            " SUM(request_count) AS call_count FROM ("
            "SELECT first_lsn, last_lsn, usage_hour.request_count FROM usage_series"
            f" JOIN usage_hour ON place = series_id * {PLACES} + ? WHERE grain = ?"
            " UNION ALL SELECT first_lsn, last_lsn, request_count FROM usage_fresh"
            " WHERE hour = ?) AS spans WHERE last_lsn > 0",
            hour,
            Grain.MODEL.value,
            hour,
        )
        if span["first_lsn"] is None:
            return
        first_lsn, last_lsn = span["first_lsn"], span["last_lsn"]
        if span["call_count"] > self._max_calls:
            async for some in _read(reader, first_lsn, last_lsn, edge_us, agent_ids):
                yield some
            return
        key = hour, first_lsn, last_lsn
        if key not in self._hours:
            whole_us = hour * HOUR_US, (hour + 1) * HOUR_US
            read = _read(reader, first_lsn, last_lsn, whole_us, None)
            self._hours[key] = [some async for some in read]
            while len(self._hours) > MAX_HOURS:
                self._hours.popitem(last=False)
        self._hours.move_to_end(key)
        for some in self._hours[key]:
            yield some
            await asyncio.sleep(0)  # others come first, too, where there are many


async def _read(
    reader: Reader,
    first_lsn: int,
    last_lsn: int,
    span_us: tuple[int, int],
    agent_ids: Sequence[str] | None,
) -> AsyncIterator[list[Call]]:
    whose = f" AND agent_id IN ({marks(agent_ids)})" if agent_ids is not None else ""
    while True:
        rows = await reader.fetch_all(
            "SELECT lsn, at_us, agent_id, body FROM journal WHERE lsn >= ? AND lsn <= ?"
            f" AND kind = 'usage' AND at_us >= ? AND at_us < ?{whose} ORDER BY lsn LIMIT ?",
            first_lsn,
            last_lsn,
            *span_us,
            *(agent_ids or ()),
            ENTRIES_AT_ONCE,
        )
        yield [_call(row) for row in rows]
        if len(rows) < ENTRIES_AT_ONCE:
            return
        first_lsn = rows[-1]["lsn"] + 1


def _call(row: Row) -> Call:
    body = orjson.loads(row["body"])
    return Call(
        row["at_us"],
        # Few names are in many calls: each is kept once.
        intern(row["agent_id"]),
        intern(body["provider"]),
        intern(body["model"]),
        body["input"],
        body["output"],
        body["cache_read"] + body["cache_write"],
        body["cost"],
    )
