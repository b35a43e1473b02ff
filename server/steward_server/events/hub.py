"""Follows the journal and hands what is new to those who asked, in order, in this process.

Nothing is handed out before it is committed, because only committed rows can be read.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import structlog

from steward_server.db import Database, Row

log = structlog.get_logger(__name__)

READ_AT_ONCE = 1_000
READ_INTERVAL_S = 0.002


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the journal, as it was written."""

    lsn: int
    at_us: int
    kind: str
    agent_id: str
    subject: str
    key: str | None
    body: dict[str, Any]

    @property
    def about(self) -> str:
        """Id of the agent, or else of the thing, that it is about: whose owner may see it."""
        return self.agent_id or self.subject

    @property
    def audience(self) -> str:
        """Whom it is about: an agent's id, or the scope of a budget that agents share."""
        return self.agent_id or str(self.body.get("scope", ""))


@dataclass(frozen=True, slots=True)
class Missed:
    """Entries a slow reader did not get; both ends included."""

    from_lsn: int
    to_lsn: int


class Subscription:
    """What one reader asked for and has not taken; bounded: the oldest give way to a `Missed`."""

    def __init__(
        self,
        kinds: frozenset[str],
        wants: Callable[[str], bool],
        capacity: int,
        lsn: int,
        arrived: asyncio.Event | None = None,
    ) -> None:
        self.kinds = kinds
        self.start_lsn = lsn
        """Everything after this arrives here."""

        self._wants = wants
        self._capacity = capacity
        self._waiting: deque[Entry] = deque()
        self._missed: Missed | None = None
        self._arrived = arrived or asyncio.Event()

    def offer(self, entry: Entry) -> None:
        if entry.lsn <= self.start_lsn or entry.kind not in self.kinds:
            return
        if not self._wants(entry.about):
            return
        if len(self._waiting) >= self._capacity:
            lost = self._waiting.popleft()
            first = self._missed.from_lsn if self._missed else lost.lsn
            self._missed = Missed(first, lost.lsn)
        self._waiting.append(entry)
        self._arrived.set()

    def take(self) -> Entry | Missed | None:
        """The next entry, or what was missed before it; None if nothing waits."""
        if not self._waiting:
            return None
        if self._missed is not None:
            missed, self._missed = self._missed, None
            return missed
        return self._waiting.popleft()

    async def next(self) -> Entry | Missed:
        """As `take`, waiting for it."""
        while (taken := self.take()) is None:
            self._arrived.clear()
            await self._arrived.wait()
        return taken


class Hub:
    """Tails the journal while `run` runs."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._subscriptions: dict[Subscription, frozenset[str]] = {}
        """What is listened to, and by which audiences it is found; none: it is offered all."""

        self._offered_all: set[Subscription] = set()
        self._by_audience: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._committed = asyncio.Event()
        self.lsn = 0
        """The newest entry handed out."""

        self._handing_out_to = 0

        database.on_commit(self._note_commit)

    def _note_commit(self) -> None:
        # With nobody listening there is nothing to read.
        if self._subscriptions:
            self._committed.set()

    async def run(self) -> None:
        """Hand out entries until cancelled."""
        while True:
            await self._committed.wait()
            self._committed.clear()
            try:
                await self._hand_out()
                # Under load one reading serves many commits.
                await asyncio.sleep(READ_INTERVAL_S)
            except Exception:
                log.exception("events.tail_failed", lsn=self.lsn)
                self._committed.set()
                await asyncio.sleep(0.1)

    async def subscribe(
        self,
        kinds: frozenset[str],
        wants: Callable[[str], bool],
        *,
        capacity: int = 1_000,
        arrived: asyncio.Event | None = None,
        audiences: frozenset[str] = frozenset(),
    ) -> Subscription:
        """Ask for entries of these kinds from now on, if `wants` says yes to what they are about.

        `arrived` is set whenever one comes. With `audiences`, only what is about one of them is
        offered: thousands of readers may listen so, each to its own.
        """
        if not self._subscriptions:
            newest = await self._newest()
            # Somebody else may listen by now, and must not lose what was not handed out yet.
            if not self._subscriptions:
                self.lsn = max(self.lsn, newest)
        # Rows now being handed out were read without these kinds: they count as the past.
        start_lsn = max(self.lsn, self._handing_out_to)
        subscription = Subscription(kinds, wants, capacity, start_lsn, arrived)
        self.listen_to(subscription, audiences)
        self._committed.set()  # what was committed since `newest` was read went unnoticed
        return subscription

    def listen_to(self, subscription: Subscription, audiences: frozenset[str]) -> None:
        """Offer a subscription what is about these, in place of what it was offered."""
        self.unsubscribe(subscription)
        self._subscriptions[subscription] = audiences
        if not audiences:
            self._offered_all.add(subscription)
        for audience in audiences:
            self._by_audience[audience].add(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        self._offered_all.discard(subscription)
        for audience in self._subscriptions.pop(subscription, ()):
            self._by_audience[audience].discard(subscription)
            if not self._by_audience[audience]:
                del self._by_audience[audience]

    async def read(
        self, kinds: frozenset[str], after_lsn: int, up_to_lsn: int, agent_id: str = ""
    ) -> list[Entry]:
        """The next entries of the past, at most `READ_AT_ONCE`."""
        of_agent = " AND agent_id = ?" if agent_id else ""
        rows = await self._database.fetch_all(
            "SELECT lsn, at_us, kind, agent_id, subject, key, body FROM journal"
            f" WHERE lsn > ? AND lsn <= ? AND kind IN ({_marks(kinds)}){of_agent}"
            " ORDER BY lsn LIMIT ?",
            after_lsn,
            up_to_lsn,
            *sorted(kinds),
            *([agent_id] if agent_id else []),
            READ_AT_ONCE,
        )
        return [_entry(row) for row in rows]

    async def _hand_out(self) -> None:
        newest = self._handing_out_to = await self._newest()
        kinds = frozenset[str]().union(*{each.kinds for each in self._subscriptions})
        while kinds and self.lsn < newest:
            entries = await self.read(kinds, self.lsn, newest)
            for entry in entries:
                self.lsn = entry.lsn
                for subscription in self._offered_all:
                    subscription.offer(entry)
                for subscription in self._by_audience.get(entry.audience, ()):
                    subscription.offer(entry)
            if len(entries) < READ_AT_ONCE:
                break
        self.lsn = max(self.lsn, newest)

    async def _newest(self) -> int:
        row = await self._database.fetch_one("SELECT max(lsn) AS lsn FROM journal")
        return (row["lsn"] if row else None) or 0


def _marks(values: frozenset[str]) -> str:
    return ", ".join("?" * len(values))


def _entry(row: Row) -> Entry:
    return Entry(
        row["lsn"],
        row["at_us"],
        row["kind"],
        row["agent_id"],
        row["subject"],
        row["key"],
        orjson.loads(row["body"]),
    )
