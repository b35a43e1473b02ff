"""Keeps the sums of what is booked, in the transactions that book.

What a commit books is added to a few rows of the present hour. A little later those rows are
moved on into sums by day and of all time, for agents, providers and models apart and together:
a booking would have to touch a dozen rows for that, in as many places of the disk.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

import orjson
import structlog

from steward_server.analytics import store
from steward_server.analytics.figures import NOTHING, Grain, Key, Sums, series_of
from steward_server.analytics.periods import DAY_US, HOUR_US, LONGEST_ROLLING_DAYS
from steward_server.analytics.store import NOWHERE, Fresh, Span
from steward_server.db import Database, Transaction
from steward_server.errors import Unavailable
from steward_server.events.store import NewEntry, head

log = structlog.get_logger(__name__)

AT_ONCE = 50
"""Rows moved in one transaction: nothing else runs meanwhile."""

ENTRIES_AT_ONCE = 10_000
"""Entries of the journal that are caught up with in one transaction, before anything is served."""

Grouped = dict[tuple[str, str, str], list[dict[str, Any]]]

_cost = itemgetter("cost")
_input, _output = itemgetter("input"), itemgetter("output")
_read, _written = itemgetter("cache_read"), itemgetter("cache_write")


def sums_of(bodies: Sequence[dict[str, Any]]) -> Sums:
    """What usages add up to, from the bodies of their entries."""
    costs = list(map(_cost, bodies))
    return Sums(
        request_count=len(bodies),
        input_tokens=sum(map(_input, bodies)),
        output_tokens=sum(map(_output, bodies)),
        cached_tokens=sum(map(_read, bodies)) + sum(map(_written, bodies)),
        cost_nanousd=sum(costs),
        least_nanousd=min(costs),
        most_nanousd=max(costs),
    )


class Rollups:
    """Adds to the sums; the ledger's teller is handed it."""

    async def usages_booked(
        self, transaction: Transaction, now_us: int, entries: Sequence[NewEntry], last_lsn: int
    ) -> None:
        """Count the usages among entries that were written at a time, up to a number."""
        grouped: Grouped = defaultdict(list)
        for entry in entries:
            if entry.kind == "usage":
                body = entry.body
                grouped[entry.agent_id, body["provider"], body["model"]].append(body)
        if not grouped:
            return
        hour = now_us // HOUR_US
        span = Span(last_lsn - len(entries) + 1, last_lsn)
        rows = [Fresh(hour, Key(*key), sums_of(bodies), span) for key, bodies in grouped.items()]
        agent_ids = list({key[0] for key in grouped})
        if telling := await store.telling(transaction, agent_ids):
            booked = [
                (entry.agent_id, entry.key)
                for entry in entries
                if entry.kind == "usage" and entry.key and entry.agent_id in telling
            ]
            # A call that an event had told of is no longer one that is not booked.
            taken = await store.take_told(transaction, booked)
            rows += [Fresh(call.at_us // HOUR_US, call.key, _less(call.sums)) for call in taken]
        await store.add_fresh(transaction, rows)


def _less(sums: Sums) -> Sums:
    """What takes these sums away again, of calls that cost nothing."""
    return Sums(
        unbilled_count=-sums.unbilled_count,
        failed_count=-sums.failed_count,
        input_tokens=-sums.input_tokens,
        output_tokens=-sums.output_tokens,
        unbilled_tokens=-sums.unbilled_tokens,
    )


async def roll_up(transaction: Transaction, rows: Iterable[Fresh], since_hour: int) -> None:
    """Add rows to the sums of all time, by week and day, and by hour from this one on."""
    hours: dict[tuple[Key, int], tuple[Sums, Span]] = {}
    days_apart: dict[tuple[Key, int], Sums] = {}
    for hour, told_apart, sums, span in rows:
        day = told_apart, hour // 24
        days_apart[day] = days_apart.get(day, NOTHING).plus(sums)
        if hour >= since_hour:
            for _, key in series_of(told_apart):
                before, around = hours.get((key, hour), (NOTHING, NOWHERE))
                hours[key, hour] = before.plus(sums), around.around(span)
    grains: dict[Key, Grain] = {}
    all_time: dict[Key, Sums] = {}
    weeks: dict[tuple[Key, int], Sums] = {}
    days: dict[tuple[Key, int], Sums] = {}
    for (told_apart, day_number), sums in days_apart.items():
        for grain, key in series_of(told_apart):
            grains[key] = grain
            all_time[key] = all_time.get(key, NOTHING).plus(sums)
            days[key, day_number] = days.get((key, day_number), NOTHING).plus(sums)
            week = key, day_number // 7
            weeks[week] = weeks.get(week, NOTHING).plus(sums)
    ids, newest = await store.series_ids(transaction, grains)
    for key in grains:
        if key not in ids:
            newest += 1
            ids[key] = newest
    await store.add_to_series(
        transaction, [(ids[key], grains[key], key, sums) for key, sums in all_time.items()]
    )
    await store.add_to_weeks(
        transaction, sorted((ids[key], week, sums) for (key, week), sums in weeks.items())
    )
    await store.add_to_days(
        transaction, sorted((ids[key], day, sums) for (key, day), sums in days.items())
    )
    await store.add_to_hours(
        transaction, sorted((ids[key], hour, *each) for (key, hour), each in hours.items())
    )


def oldest_hour(now_us: int, trace_retention_us: int) -> int:
    """The first that is kept: for windows that begin within one, and to find traces."""
    kept_us = max(trace_retention_us, LONGEST_ROLLING_DAYS * DAY_US) + DAY_US
    return (now_us - kept_us) // HOUR_US


class Tidier:
    """Moves sums to where they are read fast, and forgets what nobody may see any more."""

    def __init__(
        self, database: Database, clock: Callable[[], int], trace_retention_us: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._trace_retention_us = trace_retention_us
        self._forgotten_until = 0
        """The hour before which there is none left."""

    async def keep_tidying(self, interval_s: float) -> None:
        """Tidy every `interval_s` until cancelled."""
        while True:
            try:
                await self.tidy()
            except Unavailable:
                log.warning("analytics.not_tidied")
            except Exception:
                log.exception("analytics.tidying_failed")
            await asyncio.sleep(interval_s)

    async def tidy(self) -> None:
        """Move the rows of hours that are over, and forget, until all is done."""
        hour, since_hour = self._clock() // HOUR_US, self._oldest_hour()
        await self._until_done(lambda transaction: move(transaction, hour, since_hour))
        before_us = self._clock() - self._trace_retention_us
        await self._until_done(
            lambda transaction: store.forget_messages(transaction, before_us, AT_ONCE)
        )
        if since_hour > self._forgotten_until:
            await self._forget_hours(since_hour)
            self._forgotten_until = since_hour

    def _oldest_hour(self) -> int:
        return oldest_hour(self._clock(), self._trace_retention_us)

    async def _until_done(self, work: Callable[[Transaction], Awaitable[int]]) -> None:
        """Do a part of something, again and again, until there is less than a part left."""
        while await self._database.run(work) == AT_ONCE:
            pass

    async def _forget_hours(self, before_hour: int) -> None:
        after = 0
        while series := await store.some_series(self._database, after, AT_ONCE):
            await self._database.run(_forgetting(tuple(series), before_hour))
            after = series[-1]


def _forgetting(
    series: Sequence[int], before_hour: int
) -> Callable[[Transaction], Awaitable[None]]:
    return lambda transaction: store.delete_hours(transaction, series, before_hour)


async def move(transaction: Transaction, before_hour: int, since_hour: int) -> int:
    """Move some rows of hours before this one; how many."""
    rows = await store.oldest_fresh(transaction, before_hour, AT_ONCE)
    if rows:
        await roll_up(transaction, rows, since_hour)
        await store.delete_fresh(transaction, rows)
    return len(rows)


async def catch_up(database: Database, since_hour: int) -> int:
    """Sum up what was booked before there were sums; how many entries were looked at.

    By hour from `since_hour` on. To be called before anything is booked. What it has done stays
    done if it is cut off.
    """
    state = await store.catching_up(database)
    if state is None:
        until_lsn, _ = await head(database)
        state = (1, until_lsn)
        await database.run(lambda transaction: store.save_catching_up(transaction, 1, until_lsn))
    first_lsn, until_lsn = next_lsn, _ = state
    while next_lsn <= until_lsn:
        begin = next_lsn
        next_lsn = min(begin + ENTRIES_AT_ONCE, until_lsn + 1)
        rows = await _fresh_of(database, begin, next_lsn)

        async def work(
            transaction: Transaction, rows: list[Fresh] = rows, following: int = next_lsn
        ) -> None:
            await roll_up(transaction, rows, since_hour)
            await store.save_catching_up(transaction, following, until_lsn)

        await database.run(work)
    return max(0, until_lsn + 1 - first_lsn)


async def _fresh_of(database: Database, first_lsn: int, end_lsn: int) -> list[Fresh]:
    entries = await database.fetch_all(
        "SELECT lsn, at_us, agent_id, body FROM journal"
        " WHERE lsn >= ? AND lsn < ? AND kind = 'usage' ORDER BY lsn",
        first_lsn,
        end_lsn,
    )
    grouped: dict[tuple[int, Key], tuple[list[dict[str, Any]], list[int]]] = {}
    for entry in entries:
        body = orjson.loads(entry["body"])
        key = Key(entry["agent_id"], body["provider"], body["model"])
        bodies, numbers = grouped.setdefault((entry["at_us"] // HOUR_US, key), ([], []))
        bodies.append(body)
        numbers.append(entry["lsn"])
    return [
        Fresh(hour, key, sums_of(bodies), Span(numbers[0], numbers[-1]))
        for (hour, key), (bodies, numbers) in grouped.items()
    ]
