"""Forgets sessions and refresh tokens long expired."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

import structlog

from steward_server.auth import store
from steward_server.db import Database
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

KEPT_US = 86_400 * 1_000_000
"""A day after their end they are still told from unknown ones, for better messages."""


async def sweep(database: Database, now_us: int) -> int:
    """Delete what expired more than a day ago; how many."""
    return await database.run(
        lambda transaction: store.delete_expired(transaction, now_us - KEPT_US)
    )


async def keep_sweeping(
    database: Database, interval_s: float, clock: Callable[[], int]
) -> NoReturn:
    """Sweep every `interval_s` until cancelled."""
    while True:
        try:
            await sweep(database, clock())
        except Unavailable:
            log.warning("auth.not_swept")
        await asyncio.sleep(interval_s)
