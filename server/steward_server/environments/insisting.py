"""Attempts that are made until one succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

log = structlog.get_logger(__name__)

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 30.0


async def insist(
    attempt: Callable[[], Awaitable[T]],
    event: str,
    *,
    passing: tuple[type[Exception], ...] = (),
    failed: Callable[[], None] = lambda: None,
    **facts: str,
) -> T:
    """What an attempt gives, as soon as one succeeds; the waits between them grow.

    Args:
        attempt: is called anew each time.
        event: what the log calls a failure.
        passing: what is no failure but an outcome, and raised.
        failed: is called after each failure.
        facts: stand beside the event.
    """
    wait_s = FIRST_WAIT_S
    while True:
        try:
            return await attempt()
        except passing:
            raise
        except Exception:
            log.exception(event, **facts)
        failed()
        await asyncio.sleep(wait_s)
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
