"""What is done again and again: runs that were over too long ago are deleted."""

from __future__ import annotations

import asyncio

import structlog

from steward_server.executions.room import ExecutionRoom

log = structlog.get_logger(__name__)

TIDY_INTERVAL_S = 600.0


async def keep_tidying(room: ExecutionRoom) -> None:
    """Tidy until cancelled."""
    while True:
        try:
            while count := await room.tidy():
                log.info("executions.tidied", count=count)
        except Exception:
            log.exception("executions.tidying_failed")
        await asyncio.sleep(TIDY_INTERVAL_S)
