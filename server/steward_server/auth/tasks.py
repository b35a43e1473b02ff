"""Forgets sessions and refresh tokens long expired, and strangers long unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

import structlog

from steward_server.auth import store, stranger_store
from steward_server.db import Database, Transaction
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

KEPT_US = 86_400 * 1_000_000
"""A day after their end they are still told from unknown ones, for better messages."""
MAX_STRANGERS = 10_000
"""Names that nobody has, with what was tried for them: about 100 bytes each."""


async def sweep(database: Database, now_us: int) -> int:
    """Delete what expired more than a day ago, and strangers beyond `MAX_STRANGERS`; how many."""

    async def work(transaction: Transaction) -> int:
        expired = await store.delete_expired(transaction, now_us - KEPT_US)
        return expired + await stranger_store.forget_all_but(transaction, MAX_STRANGERS)

    return await database.run(work)


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
