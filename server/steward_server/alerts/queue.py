"""Queues alerts for webhooks: each once in a while, and no more than may wait."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog
from prometheus_client import Counter

from steward_server.alerts import store
from steward_server.alerts.alert import MAX_TOLD, Alert, wants
from steward_server.alerts.webhook import PENDING, Delivery, Webhook
from steward_server.db import Transaction
from steward_server.ids import new_id

log = structlog.get_logger(__name__)


class Raised(NamedTuple):
    """An alert with what is sent of it."""

    alert: Alert
    body: bytes
    lsn: int = 0
    """Of the entry it comes from; 0 for one that comes from none."""


@dataclass(frozen=True, slots=True)
class Queue:
    """Where alerts wait for the courier: rows, as many as `max_pending` for each webhook."""

    outcomes: Counter
    repeat_window_us: int
    max_pending: int
    on_queued: Callable[[], None]
    """To be called once a transaction that queued something is committed."""

    async def put(
        self,
        transaction: Transaction,
        webhooks: Sequence[Webhook],
        raised: Sequence[Raised],
        now_us: int,
    ) -> int:
        """Queue for each webhook what it wants and was not sent lately; how many deliveries."""
        count = 0
        for webhook in webhooks:
            wanted = [
                each
                for each in raised
                if wants(webhook.events, each.alert.event_type)
                and (not each.lsn or each.lsn > webhook.since_lsn)
            ]
            if wanted:
                new = await self._news(transaction, webhook, wanted, now_us)
                await store.insert_deliveries(transaction, new)
                count += len(new)
        return count

    async def _news(
        self, transaction: Transaction, webhook: Webhook, wanted: Sequence[Raised], now_us: int
    ) -> list[Delivery]:
        webhook_id, since_us = webhook.webhook_id, now_us - self.repeat_window_us
        topics = {each.alert.topic for each in wanted}
        sent = await store.sent_since(transaction, webhook_id, since_us, topics)
        tellers = {each.alert.teller for each in wanted if each.alert.teller}
        told = {
            teller: await store.count_told(transaction, webhook_id, since_us, teller)
            for teller in tellers
        }
        left = self.max_pending - await store.waiting(transaction, webhook_id)
        new: list[Delivery] = []
        dropped = 0
        for alert, body, lsn in wanted:
            is_too_much = alert.teller and self.repeat_window_us and told[alert.teller] >= MAX_TOLD
            if alert.topic in sent or is_too_much:
                self.outcomes.labels("suppressed").inc()
                continue
            if len(new) >= left:
                self.outcomes.labels("dropped").inc()
                dropped += 1
                continue
            if self.repeat_window_us:
                sent.add(alert.topic)
            if alert.teller:
                told[alert.teller] += 1
            new.append(queued(webhook, alert.event_type, alert.topic, body, now_us, lsn=lsn))
        if dropped:
            log.warning(
                "alerts.dropped", webhook_id=webhook_id, count=dropped, waiting=self.max_pending
            )
        return new


def queued(
    webhook: Webhook, event_type: str, topic: str, body: bytes, now_us: int, *, lsn: int
) -> Delivery:
    """A delivery that has not been tried."""
    return Delivery(
        delivery_id=new_id("msg"),
        webhook_id=webhook.webhook_id,
        lsn=lsn,
        event_type=event_type,
        topic=topic,
        body=body,
        status=PENDING,
        attempts=0,
        created_at_us=now_us,
        next_attempt_at_us=now_us,
        delivered_at_us=None,
        last_status_code=0,
        last_error="",
    )
