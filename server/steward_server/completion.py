"""Work that goes on to its end although whoever asked for it has gone.

A commit may be under way when a call is cancelled; what must follow it (a token dropped from a
cache, a stream ended) may then not be left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from steward_server.db import T
from steward_server.errors import StewardError

log = structlog.get_logger(__name__)

_under_way: set[asyncio.Task[Any]] = set()


async def complete(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in a task of its own and wait for it; cancelling the wait does not cancel it."""
    task = asyncio.ensure_future(work)
    _under_way.add(task)
    task.add_done_callback(_ended)
    return await asyncio.shield(task)


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """As `complete`, and a wait that is cancelled lasts until the work is done all the same."""
    return await complete_from(work, lambda: True)


async def complete_from(work: Coroutine[Any, Any, T], is_bound: Callable[[], bool]) -> T:
    """As `complete`, for work that is still cancelled with its wait until `is_bound` holds."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not is_bound():
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _ended(task: asyncio.Task[Any]) -> None:
    _under_way.discard(task)
    # Asking for the exception marks it as seen: the waiter may be gone.
    if task.cancelled() or (error := task.exception()) is None:
        return
    if not isinstance(error, StewardError):
        log.debug("completion.failed", error=type(error).__name__)
