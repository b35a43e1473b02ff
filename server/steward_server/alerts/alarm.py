"""Queues alerts of loans that were refused for lack of money: those change nothing else."""

from __future__ import annotations

from collections.abc import Callable

from steward_server.alerts import store
from steward_server.alerts.alert import payload, refusal_alert
from steward_server.alerts.queue import Queue, Raised
from steward_server.db import Database, Transaction

PAUSE_US = 60_000_000
"""A runtime may ask again and again; only so often is it looked whether that is news."""

MAX_REMEMBERED = 10_000


class Alarm:
    """Is told of refusals; remembers the last minute's."""

    def __init__(self, database: Database, queue: Queue, *, clock: Callable[[], int]) -> None:
        self._database = database
        self._queue = queue
        self._clock = clock
        self._noted_us: dict[str, int] = {}

    async def refused(self, agent_id: str, *, reason: str, facts: dict[str, str]) -> None:
        """A loan was refused; may be told again and again."""
        alert, now_us = refusal_alert(agent_id, reason, facts), self._clock()
        if now_us - self._noted_us.get(alert.topic, -PAUSE_US) < PAUSE_US:
            return
        if len(self._noted_us) >= MAX_REMEMBERED:
            self._noted_us.clear()
        self._noted_us[alert.topic] = now_us
        if not await store.enabled(self._database):
            return
        event = {"event_id": None, "sequence": None, "agent_id": agent_id}
        raised = Raised(alert, payload(alert.event_type, now_us, event | alert.data))

        async def put(transaction: Transaction) -> int:
            now = await store.enabled(transaction)
            return await self._queue.put(transaction, now, [raised], now_us)

        if await self._database.run(put):
            self._queue.on_queued()
