"""Threads for what takes long: reading and checking, away from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from steward_server.errors import Unavailable

T = TypeVar("T")

MAX_WAITING = 64


class Threads:
    """A few threads, and a queue that ends. `close` it."""

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(count + MAX_WAITING)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns.

        Raises:
            Unavailable: too many are waiting.
        """
        if not self._places.acquire(blocking=False):
            raise Unavailable(
                "too many playbooks are being read or checked; try again shortly",
                reason="LIBRARY_BUSY",
                retry_after_s=1,
            )
        future = self._executor.submit(work)
        # A place is free when the thread is, not when the caller stops waiting.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let the threads go; what waits is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)
