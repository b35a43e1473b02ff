"""What must not be left half done, whoever goes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def to_end(work: Coroutine[Any, Any, T]) -> T:
    """Await something to its end; whoever is cancelled meanwhile, is so only then.

    A caller who hangs up while a commit is on its way would else leave the row written, and
    nobody who knows.
    """
    task, cancelled = asyncio.create_task(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # nobody is left to tell of it
        raise cancelled
    return task.result()
