"""Single LLM calls, as the journal has them booked and as events tell of them.

There is no table of traces: a row for each usage would cost its booking a tenth, and the journal
has it all. Where the entries of an agent, a provider or a model lie in it, the sums by hour know.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from steward_server.analytics import store
from steward_server.analytics.figures import grain_for
from steward_server.analytics.needs import Agents, Projects
from steward_server.analytics.periods import HOUR_US
from steward_server.analytics.room import visible, whose
from steward_server.analytics.store import PLACES, ToldCall, marks
from steward_server.db import Database, Row
from steward_server.errors import NotFound
from steward_server.principals import Principal

ENTRIES_AT_ONCE = 200
"""Entries that are read together at first where others are among them; then twice as many, ..."""

MOST_AT_ONCE = 3_200

FIRST_SPANS, MOST_SPANS = 4, 64
"""Stretches of the journal that are read together at first and at most; it doubles in between."""

MOST_NAMES = 10_000
"""Of agents, each named for each stretch; SQLite takes 32,766 parameters."""

FIRST_STRIDE_HOURS = 24
"""How far back is looked at first; then twice as far, and so on."""

ID_PREFIX = "trace_"


@dataclass(frozen=True, slots=True)
class Trace:
    """One call."""

    trace_id: str
    agent_id: str
    lease_id: str
    """Empty if it is not booked."""
    request_id: str
    provider: str
    model: str
    is_failed: bool
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_nanousd: int
    overrun_nanousd: int
    claimed_cost_nanousd: int | None
    certainty: str
    error_code: str
    error_message: str
    duration_ms: int
    ended_at_us: int
    recorded_at_us: int
    lsn: int
    """Of the entry it is booked by; 0 if it is not."""

    @property
    def total_tokens(self) -> int:
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls are asked for; empty texts and None leave it open."""

    agent_id: str = ""
    provider: str = ""
    model: str = ""
    is_failed: bool | None = None
    since_us: int | None = None
    until_us: int | None = None
    project_id: str = ""


class Position(NamedTuple):
    """What was shown last: of what is booked, and of what events tell."""

    lsn: int | None = None
    told: tuple[int, str] | None = None


FROM_THE_NEWEST = Position()


class _Search(NamedTuple):
    """Which calls are looked for, and where."""

    agent_ids: Sequence[str] | None
    provider: str
    model: str
    since_us: int
    until_us: int
    is_failed: bool | None
    position: Position
    limit: int


@dataclass(frozen=True, slots=True)
class TraceRoom:
    """The calls of agents a caller may see."""

    database: Database
    agents: Agents
    projects: Projects
    retention_us: int
    clock: Callable[[], int]

    async def get(self, caller: Principal, trace_id: str) -> Trace:
        """One call.

        Raises:
            NotFound: there is none that the caller may see, or it is too long ago.
        """
        trace = await self._find(trace_id)
        if trace is None or trace.recorded_at_us < self.clock() - self.retention_us:
            raise NotFound.of("trace", trace_id)
        if not caller.is_admin:
            try:
                await visible(self.agents, self.database, caller, trace.agent_id)
            except NotFound:
                raise NotFound.of("trace", trace_id) from None
        return trace

    async def page(
        self, caller: Principal, wanted: Wanted, position: Position, limit: int
    ) -> tuple[list[Trace], Position | None]:
        """Some calls, newest first, and where the next page begins, if there is one.

        Raises:
            NotFound: there is no such agent or project that the caller may see.
        """
        agent_ids = await whose(
            self.agents,
            self.projects,
            self.database,
            caller,
            wanted.agent_id,
            wanted.project_id,
        )
        if agent_ids == []:
            return [], None
        now_us = self.clock()
        search = _Search(
            agent_ids,
            wanted.provider,
            wanted.model,
            max(wanted.since_us or 0, now_us - self.retention_us),
            # An event that came ahead of a clock that was set back is of now all the same.
            wanted.until_us if wanted.until_us is not None else now_us + HOUR_US,
            wanted.is_failed,
            position,
            limit + 1,
        )
        booked: list[Trace] = []
        if wanted.is_failed is not True:
            async for trace in self._booked(search):
                booked.append(trace)
                if len(booked) > limit:
                    break
        told = await self._told(search)
        shown, following = _merge(booked, told, position, limit)
        return shown, following if len(booked) + len(told) > len(shown) else None

    async def _find(self, trace_id: str) -> Trace | None:
        number = trace_id.removeprefix(ID_PREFIX)
        if number.isdecimal() and number.isascii() and len(number) < 19:
            row = await self.database.fetch_one(
                "SELECT lsn, at_us, agent_id, subject, key, body FROM journal"
                " WHERE lsn = ? AND kind = 'usage'",
                int(number),
            )
            return _booked_trace(row) if row and trace_id == f"{ID_PREFIX}{row['lsn']}" else None
        row = await self.database.fetch_one(f"{store.SELECT_EVENT} WHERE trace_id = ?", trace_id)
        return _told_trace(store.told_call(row)) if row else None

    async def _booked(self, search: _Search) -> AsyncIterator[Trace]:
        """What is booked, newest first."""
        before_lsn, until_us = search.position.lsn, search.until_us
        if before_lsn is not None:
            row = await self.database.fetch_one(
                "SELECT at_us FROM journal WHERE lsn = ?", before_lsn
            )
            until_us = min(until_us, row["at_us"] + 1) if row else until_us
        first_hour, end_hour = search.since_us // HOUR_US, -(-until_us // HOUR_US)
        stride = FIRST_STRIDE_HOURS
        marked = _marks_of(search)
        at_once = max(search.limit, ENTRIES_AT_ONCE) if marked else search.limit
        most_spans = min(MOST_SPANS, max(1, MOST_NAMES // max(1, len(search.agent_ids or ()))))
        span_count = min(FIRST_SPANS, most_spans)
        while end_hour > first_hour:
            begin_hour = max(first_hour, end_hour - stride)
            spans = await self._spans(search, begin_hour, end_hour)
            while spans:
                group, spans = spans[:span_count], spans[span_count:]
                is_done = False
                while not is_done:
                    rows = await self._entries(search, group, before_lsn, at_once)
                    for row in rows:
                        if all(mark in row["body"] for mark in marked):
                            yield _booked_trace(row)
                    is_done = len(rows) < at_once
                    before_lsn = group[-1][0] if is_done else rows[-1]["lsn"]
                    if marked:
                        at_once = min(2 * at_once, MOST_AT_ONCE)
                span_count = min(2 * span_count, most_spans)
            end_hour, stride = begin_hour, stride * 2

    async def _spans(
        self, search: _Search, begin_hour: int, end_hour: int
    ) -> list[tuple[int, int]]:
        """Where in the journal entries of these hours lie, the last first; no two overlap."""
        whose, parameters = _conditions(search)
        grain = grain_for(
            agent=search.agent_ids is not None,
            provider=bool(search.provider),
            model=bool(search.model),
        )
        rows = await self.database.fetch_all(
            "SELECT hour, MIN(first_lsn) AS first_lsn, MAX(last_lsn) AS last_lsn FROM ("
            f"SELECT place - series_id * {PLACES} AS hour, first_lsn, last_lsn"
            f" FROM usage_series JOIN usage_hour ON place >= series_id * {PLACES} + ?"
            f" AND place < series_id * {PLACES} + ? WHERE grain = ?{whose}"
            " UNION ALL SELECT hour, first_lsn, last_lsn FROM usage_fresh"
            f" WHERE hour >= ? AND hour < ?{whose}) AS spans"
            " WHERE last_lsn > 0 GROUP BY hour ORDER BY last_lsn DESC",
            begin_hour,
            end_hour,
            grain.value,
            *parameters,
            begin_hour,
            end_hour,
            *parameters,
        )
        spans: list[tuple[int, int]] = []
        for row in rows:
            first_lsn, last_lsn = row["first_lsn"], row["last_lsn"]
            if spans and last_lsn >= spans[-1][0]:  # the clock was set back between them
                first_lsn, last_lsn = min(first_lsn, spans[-1][0]), spans[-1][1]
                spans.pop()
            spans.append((first_lsn, last_lsn))
        return spans

    async def _entries(
        self,
        search: _Search,
        spans: Sequence[tuple[int, int]],
        before_lsn: int | None,
        limit: int,
    ) -> list[Row]:
        """The newest entries in these spans, and before a number."""
        ids = search.agent_ids
        whose = f" AND agent_id IN ({marks(ids)})" if ids is not None else ""
        most_lsn = spans[0][1] if before_lsn is None else before_lsn - 1
        within = [each for each in spans if each[0] <= most_lsn]
        if not within:
            return []
        # One part for each span: each is read in its order, and no further than is needed.
        part = (
            "SELECT lsn, at_us, agent_id, subject, key, body FROM journal WHERE lsn >= ?"
            f" AND lsn <= ? AND kind = 'usage' AND at_us >= ? AND at_us < ?{whose}"
        )
        return await self.database.fetch_all(
            f"{' UNION ALL '.join([part] * len(within))} ORDER BY lsn DESC LIMIT ?",
            *[
                parameter
                for first_lsn, last_lsn in within
                for parameter in (
                    *(first_lsn, min(last_lsn, most_lsn)),
                    *(search.since_us, search.until_us),
                    *(ids or ()),
                )
            ],
            limit,
        )

    async def _told(self, search: _Search) -> list[Trace]:
        whose, parameters = _conditions(search)
        if search.is_failed is not None:
            whose += " AND status = ?"
            parameters.append("failed" if search.is_failed else "completed")
        if search.position.told is not None:
            whose += " AND (at_us, trace_id) < (?, ?)"
            parameters.extend(search.position.told)
        rows = await self.database.fetch_all(
            f"{store.SELECT_EVENT} WHERE at_us >= ? AND at_us < ?{whose}"
            " ORDER BY at_us DESC, trace_id DESC LIMIT ?",
            search.since_us,
            search.until_us,
            *parameters,
            search.limit,
        )
        return [_told_trace(store.told_call(row)) for row in rows]


def _marks_of(search: _Search) -> list[bytes]:
    """What the bodies of entries hold that are looked for, as `append` writes them."""
    wanted = {"provider": search.provider, "model": search.model}
    return [orjson.dumps(name) + b":" + orjson.dumps(text) for name, text in wanted.items() if text]


def _conditions(search: _Search) -> tuple[str, list[object]]:
    text, parameters = "", list[object]()
    if search.agent_ids is not None:
        text += f" AND agent_id IN ({marks(search.agent_ids)})"
        parameters.extend(search.agent_ids)
    if search.provider:
        text += " AND provider = ?"
        parameters.append(search.provider)
    if search.model:
        text += " AND model = ?"
        parameters.append(search.model)
    return text, parameters


def _merge(
    booked: Sequence[Trace], told: Sequence[Trace], position: Position, limit: int
) -> tuple[list[Trace], Position]:
    """The newest of both, each in its own order, and what was taken last of each."""
    shown: list[Trace] = []
    lsn, last_told = position
    at_booked = at_told = 0
    while len(shown) < limit and (at_booked < len(booked) or at_told < len(told)):
        is_told = at_booked == len(booked) or (
            at_told < len(told) and told[at_told].recorded_at_us > booked[at_booked].recorded_at_us
        )
        if is_told:
            trace = told[at_told]
            at_told += 1
            last_told = (trace.recorded_at_us, trace.trace_id)
        else:
            trace = booked[at_booked]
            at_booked += 1
            lsn = trace.lsn
        shown.append(trace)
    return shown, Position(lsn, last_told)


def _booked_trace(row: Row) -> Trace:
    body = orjson.loads(row["body"])
    return Trace(
        trace_id=f"{ID_PREFIX}{row['lsn']}",
        agent_id=row["agent_id"],
        lease_id=row["subject"],
        request_id=row["key"] or "",
        provider=body["provider"],
        model=body["model"],
        is_failed=False,
        input_tokens=body["input"],
        output_tokens=body["output"],
        cache_read_tokens=body["cache_read"],
        cache_write_tokens=body["cache_write"],
        cost_nanousd=body["cost"],
        overrun_nanousd=body["over"],
        claimed_cost_nanousd=None,
        certainty=body["certainty"],
        error_code="",
        error_message="",
        duration_ms=body.get("ms", 0),
        ended_at_us=body["at_us"],
        recorded_at_us=row["at_us"],
        lsn=row["lsn"],
    )


def _told_trace(call: ToldCall) -> Trace:
    return Trace(
        trace_id=call.trace_id,
        agent_id=call.agent_id,
        lease_id="",
        request_id=call.event_id,
        provider=call.provider,
        model=call.model,
        is_failed=call.is_failed,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        cache_read_tokens=0,
        cache_write_tokens=0,
        cost_nanousd=0,
        overrun_nanousd=0,
        claimed_cost_nanousd=call.claimed_cost_nanousd,
        certainty="",
        error_code=call.error_code,
        error_message=call.error_message,
        duration_ms=call.duration_ms,
        ended_at_us=call.ended_at_us,
        recorded_at_us=call.at_us,
        lsn=0,
    )
