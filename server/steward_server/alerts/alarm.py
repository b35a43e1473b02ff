"""Queues alerts of loans that were refused for lack of money: those change nothing else."""

from __future__ import annotations

from collections.abc import Callable

from steward_server.alerts import store
from steward_server.alerts.alert import payload, refusal_alert, wants
from steward_server.alerts.tail import queued
from steward_server.db import Database, Transaction

PAUSE_US = 60_000_000
"""A runtime may ask again and again; only so often is it looked whether that is news."""

MAX_REMEMBERED = 10_000


class Alarm:
    """Is told of refusals; remembers the last minute's."""

    def __init__(
        self,
        database: Database,
        *,
        repeat_window_us: int,
        clock: Callable[[], int],
        on_queued: Callable[[], None],
    ) -> None:
        self._database = database
        self._repeat_window_us = repeat_window_us
        self._clock = clock
        self._on_queued = on_queued
        self._noted_us: dict[tuple[str, str], int] = {}

    async def refused(self, agent_id: str, *, reason: str, facts: dict[str, str]) -> None:
        """A loan was refused; may be told again and again."""
        now_us, key = self._clock(), (agent_id, reason)
        if now_us - self._noted_us.get(key, -PAUSE_US) < PAUSE_US:
            return
        if len(self._noted_us) >= MAX_REMEMBERED:
            self._noted_us.clear()
        self._noted_us[key] = now_us
        if not await store.enabled(self._database):
            return
        alert = refusal_alert(agent_id, reason, facts)
        event = {"event_id": None, "sequence": None, "agent_id": agent_id}
        body = payload(alert.event_type, now_us, event | alert.data)

        async def queue(transaction: Transaction) -> int:
            new = [
                queued(webhook, alert.event_type, alert.topic, body, now_us, lsn=0)
                for webhook in await store.enabled(transaction)
                if wants(webhook.events, alert.event_type)
                and alert.topic
                not in await store.sent_since(
                    transaction, webhook.webhook_id, now_us - self._repeat_window_us
                )
            ]
            await store.insert_deliveries(transaction, new)
            return len(new)

        if await self._database.run(queue):
            self._on_queued()
