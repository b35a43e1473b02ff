"""What happens to runs, as it happens, to whoever watches: events in order, frames the newest only.

Events are read after their commit, once for all watchers, who each keep nothing but the number
they have come to: a slow one loses no event and costs no memory. Those that are far behind read
the past from the database.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from steward_server.db import Database
from steward_server.executions import store
from steward_server.executions.execution import About, Event

log = structlog.get_logger(__name__)

READ_AT_ONCE = 200
MOST_KEPT = 4_096
MOST_KEPT_SIZE = 32 << 20
"""Characters of the facts of events that are kept; the outputs of one step may be a million."""
READ_INTERVAL_S = 0.002

Told = tuple[About, Event]


@dataclass(frozen=True, slots=True)
class Frame:
    """What the browser of a run showed.

    Attributes:
        serial: grows over all runs.
    """

    serial: int
    about: About
    at_ms: int
    png: bytes


class Feed:
    """Tails the events while `run` runs, as long as somebody watches."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._newest: deque[Told] = deque()
        self._size = 0
        """Of what is in `_newest`."""
        self._begin = 0
        """Everything after this number is in `_newest`."""
        self._end = 0
        self._watchers = 0
        self._committed = asyncio.Event()
        self._bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._frames: dict[str, Frame] = {}
        self._serial = 0
        self.deletions = 0
        """How many runs were deleted."""
        database.on_commit(self._note_commit)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tail for a watcher."""
        self._watchers += 1
        self._committed.set()
        try:
            yield
        finally:
            self._watchers -= 1

    @property
    def bell(self) -> asyncio.Future[None]:
        """Done when something new has come; there is another one then."""
        return self._bell

    @property
    def is_watched(self) -> bool:
        return self._watchers > 0

    async def newest(self) -> int:
        """The number of the newest event there is."""
        return await store.newest(self._database)

    async def after(self, number: int) -> list[Told]:
        """The next events after a number, of all runs; empty if there are none yet."""
        if self._begin <= number < self._end:
            at = bisect_right(self._newest, number, key=lambda told: told[1].number)
            last = min(at + READ_AT_ONCE, len(self._newest))
            return [self._newest[index] for index in range(at, last)]
        if number >= self._end > 0:
            return []
        return await store.events_after(self._database, number, READ_AT_ONCE)

    def show(self, about: About, at_ms: int, png: bytes) -> None:
        """Have a frame seen by those who watch its run."""
        self._serial += 1
        # The newest stand last.
        self._frames.pop(about.execution_id, None)
        self._frames[about.execution_id] = Frame(self._serial, about, at_ms, png)
        self._ring()

    def forget(self, execution_id: str) -> None:
        """The run has no browser any more."""
        self._frames.pop(execution_id, None)

    def delete(self, execution_id: str) -> None:
        """There is no such run any more: whoever is far behind waits for its end in vain."""
        self.forget(execution_id)
        self.deletions += 1
        self._ring()

    def frames_after(self, serial: int) -> list[Frame]:
        """The newest frame of each run, where it is newer, the oldest first."""
        found = []
        for frame in reversed(self._frames.values()):
            if frame.serial <= serial:
                break
            found.append(frame)
        return found[::-1]

    async def run(self) -> None:
        """Read what was committed until cancelled."""
        while True:
            await self._committed.wait()
            self._committed.clear()
            try:
                await self._read()
                # Under load one reading serves many commits.
                await asyncio.sleep(READ_INTERVAL_S)
            except Exception:
                log.exception("executions.tail_failed", number=self._end)
                self._committed.set()
                await asyncio.sleep(0.1)

    def _note_commit(self) -> None:
        if self._watchers:
            self._committed.set()

    async def _read(self) -> None:
        newest = await store.newest(self._database)
        if newest <= self._end:
            return  # others were committed
        if newest - self._end > MOST_KEPT or not self._end:
            # Nobody watched for long: who wants the past reads it from the database.
            self._newest.clear()
            self._size = 0
            self._begin = self._end = max(0, newest - 1)
        while self._end < newest:
            found = await store.events_after(self._database, self._end, READ_AT_ONCE)
            if not found:
                self._end = newest  # its run was deleted
                break
            self._keep(found)
            self._end = found[-1][1].number
        self._ring()

    def _keep(self, found: Sequence[Told]) -> None:
        self._newest.extend(found)
        self._size += sum(event.size for _, event in found)
        while len(self._newest) > MOST_KEPT or self._size > MOST_KEPT_SIZE:
            _, event = self._newest.popleft()
            self._size -= event.size
            self._begin = event.number

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.get_running_loop().create_future()
        bell.set_result(None)
