"""Alerts: what should not go unnoticed, sent to webhooks. Start reading at alert.py and tail.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter

from steward.alerts.v1.alerts_pb2_grpc import add_AlertServiceServicer_to_server
from steward_server.alerts.alarm import Alarm
from steward_server.alerts.config import AlertsConfig
from steward_server.alerts.courier import Courier
from steward_server.alerts.queue import Queue
from steward_server.alerts.room import AlertRoom
from steward_server.alerts.service import AlertService
from steward_server.alerts.tail import Journal, Tail
from steward_server.db import Database
from steward_server.vault import Vault


def open_room(
    database: Database,
    *,
    vault: Vault,
    journal: Journal,
    registry: CollectorRegistry,
    config: AlertsConfig,
    clock: Callable[[], int],
) -> AlertRoom:
    """The room; run its `tail` and its `courier` beside it."""
    outcomes = Counter(
        "webhook_deliveries",
        "Webhook deliveries by outcome: delivered, retried, dead, suppressed, dropped.",
        ["outcome"],
        registry=registry,
    )
    courier = Courier(database, vault, outcomes, config=config, clock=clock)
    queue = Queue(outcomes, round(config.repeat_window_s * 1e6), config.max_pending, courier.wake)
    tail = Tail(database, journal, queue, clock=clock)
    alarm = Alarm(database, queue, clock=clock)
    return AlertRoom(
        database, vault, tail, courier, alarm, config.allow_private, config.max_webhooks, clock
    )


def register(methods: Any, *, alerts: AlertRoom) -> None:
    """Serve AlertService."""
    add_AlertServiceServicer_to_server(AlertService(alerts), methods)
