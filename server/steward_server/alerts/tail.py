"""Follows the journal and queues deliveries: each alert once for each webhook that wants it.

The cursor moves in the transaction that queues, so that a crash neither loses nor doubles one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn, Protocol

import structlog

from steward_server.alerts import store
from steward_server.alerts.alert import KINDS, alert_of, payload
from steward_server.alerts.queue import Queue, Raised
from steward_server.db import Database, Transaction
from steward_server.events.hub import READ_AT_ONCE, Entry
from steward_server.events.store import head

log = structlog.get_logger(__name__)

GATHER_S = 0.02
"""Under load one reading serves many commits."""

LAG = 10_000
"""Entries that may be looked through again after a restart, where none of them was an alert."""


class Journal(Protocol):
    """The part of the events room that gives the past."""

    async def read(
        self, kinds: frozenset[str], after_lsn: int, up_to_lsn: int, agent_id: str = ""
    ) -> list[Entry]:
        """The next entries of these kinds, at most `READ_AT_ONCE`."""
        ...


class Tail:
    """Queues deliveries while `run` runs."""

    def __init__(
        self,
        database: Database,
        journal: Journal,
        queue: Queue,
        *,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._journal = journal
        self._queue = queue
        self._clock = clock
        self._committed = asyncio.Event()
        self._committed.set()
        self._has_webhooks = True
        self._looked_to = 0
        """Further than the cursor, which is not written for what is no alert."""
        database.on_commit(self._note_commit)

    def _note_commit(self) -> None:
        # With no webhook there is nothing to read.
        if self._has_webhooks:
            self._committed.set()

    def look(self) -> None:
        """Webhooks were changed."""
        self._has_webhooks = True
        self._committed.set()

    async def run(self) -> NoReturn:
        """Queue until cancelled."""
        while True:
            await self._committed.wait()
            self._committed.clear()
            try:
                while await self.pass_once():
                    pass
                await asyncio.sleep(GATHER_S)
            except Exception:
                log.exception("alerts.tail_failed")
                self._committed.set()
                await asyncio.sleep(0.2)

    async def pass_once(self) -> bool:
        """Queue what the next entries give; False once there are no more."""
        webhooks = await store.enabled(self._database)
        self._has_webhooks = bool(webhooks)
        if not webhooks:
            return False
        stored_lsn = await store.cursor(self._database)
        after_lsn = max(stored_lsn, self._looked_to)
        newest_lsn, _ = await head(self._database)
        if newest_lsn <= after_lsn:
            return False
        entries = await self._journal.read(KINDS, after_lsn, newest_lsn)
        is_full = len(entries) == READ_AT_ONCE
        to_lsn = entries[-1].lsn if is_full else newest_lsn
        if entries or to_lsn - stored_lsn > LAG:

            async def put(transaction: Transaction) -> int:
                if not await store.move_cursor(transaction, stored_lsn, to_lsn):
                    return 0
                now = await store.enabled(transaction)
                raised = [_raised(entry) for entry in entries]
                return await self._queue.put(transaction, now, raised, self._clock())

            if await self._database.run(put):
                self._queue.on_queued()
        self._looked_to = to_lsn
        return is_full


def _raised(entry: Entry) -> Raised:
    alert = alert_of(entry.kind, entry.agent_id, entry.subject, entry.body)
    event = {"event_id": f"evt_{entry.lsn}", "sequence": entry.lsn, "agent_id": entry.agent_id}
    return Raised(alert, payload(alert.event_type, entry.at_us, event | alert.data), entry.lsn)
