"""What one reader is sent next: events of the past and as they come, refusals, heartbeats.

One task takes from an outlet; others fill it. Two thousand dashboards hear of an event through two
thousand of these, so that one costs no task and no timer of its own per event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from google.rpc import status_pb2

from steward_server.events.hub import READ_AT_ONCE, Entry, Hub, Missed, Subscription


@dataclass(frozen=True, slots=True)
class Selection:
    """What one reader asked for, and may see."""

    kinds: frozenset[str]
    wants: Callable[[str], bool]
    """Whether events about the agent, or another thing, with this id are among it."""
    agent_id: str
    """The only agent that can be among it; empty if there are several."""
    since: int | None


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing came for a while; everything up to this number was passed."""

    lsn: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """A message of the reader was refused."""

    status: status_pb2.Status


Item = Entry | Missed | Quiet | Refusal


class Outlet:
    """Gives items in order. Close it."""

    def __init__(self, hub: Hub, *, capacity: int, heartbeat_s: float) -> None:
        self._hub = hub
        self._capacity = capacity
        self._heartbeat_s = heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._bell = asyncio.Event()
        self._feed: _Feed | None = None
        self._refusals: asyncio.Queue[Refusal] = asyncio.Queue(1)
        self._error: Exception | None = None
        self._finished = False
        self._is_quiet = False
        self._given_s = self._loop.time()
        self._alarm = self._loop.call_later(heartbeat_s, self._note_quiet)

    async def select(self, selection: Selection) -> None:
        """Give what is selected from now on, in place of what was before."""
        subscription = await self._hub.subscribe(
            selection.kinds, selection.wants, capacity=self._capacity, arrived=self._bell
        )
        self._unsubscribe()
        self._feed = _Feed(self._hub, selection, subscription)
        self._bell.set()

    async def refuse(self, status: status_pb2.Status) -> None:
        """Give a refusal; waits while the one before was not taken."""
        await self._refusals.put(Refusal(status))
        self._bell.set()

    def fail(self, error: Exception) -> None:
        """Let `next` raise."""
        self._error = error
        self._bell.set()

    def finish(self) -> None:
        """End, unless something is selected: then go on giving that."""
        self._finished = True
        self._bell.set()

    def close(self) -> None:
        self._alarm.cancel()
        self._unsubscribe()

    async def next(self) -> Item | None:
        """The next item; None at the end."""
        while True:
            if self._error is not None:
                raise self._error
            if not self._refusals.empty():
                return self._refusals.get_nowait()
            feed = self._feed
            if feed is not None:
                item = feed.take()
                if item is not None:
                    self._given_s = self._loop.time()
                    self._is_quiet = False
                    return item
                if feed.has_past:
                    await feed.load()
                    continue
                if self._is_quiet:
                    self._is_quiet = False
                    return Quiet(max(self._hub.lsn, feed.subscription.start_lsn))
            elif self._finished:
                return None
            self._bell.clear()
            await self._bell.wait()

    def _note_quiet(self) -> None:
        now_s = self._loop.time()
        left_s = self._given_s + self._heartbeat_s - now_s
        if left_s <= 0:
            self._is_quiet = True
            self._given_s = now_s
            self._bell.set()
            left_s = self._heartbeat_s
        self._alarm = self._loop.call_later(left_s, self._note_quiet)

    def _unsubscribe(self) -> None:
        if self._feed is not None:
            self._hub.unsubscribe(self._feed.subscription)


class _Feed:
    """One selection: its past in pages, then what arrives."""

    def __init__(self, hub: Hub, selection: Selection, subscription: Subscription) -> None:
        self.subscription = subscription
        self._hub = hub
        self._selection = selection
        self._page: deque[Entry] = deque()
        start_lsn = subscription.start_lsn
        self._after_lsn = start_lsn if selection.since is None else selection.since

    @property
    def has_past(self) -> bool:
        """Whether `load` is to be called before `take` gives more."""
        return self._after_lsn < self.subscription.start_lsn

    def take(self) -> Entry | Missed | None:
        """What is there to be given."""
        if self._page:
            return self._page.popleft()
        return None if self.has_past else self.subscription.take()

    async def load(self) -> None:
        """Read the next page of the past."""
        selection, start_lsn = self._selection, self.subscription.start_lsn
        entries = await self._hub.read(
            selection.kinds, self._after_lsn, start_lsn, selection.agent_id
        )
        self._page.extend(entry for entry in entries if selection.wants(entry.about))
        self._after_lsn = entries[-1].lsn if len(entries) == READ_AT_ONCE else start_lsn
