"""Hashes passwords with argon2id on a few threads, away from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from steward_server.errors import Unavailable

T = TypeVar("T")

MEMORY_KIB = 19 * 1024
"""OWASP's floor for argon2id: 19 MiB, 2 passes, 1 lane."""
PASSES = 2
LANES = 1


@cache
def _hasher() -> tuple[PasswordHasher, str]:
    """What hashes, and the hash of a password that is nobody's."""
    hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
    return hasher, hasher.hash("the password of nobody")


class Passwords:
    """Knows hashes. `close` it at the end."""

    def __init__(self, *, workers: int, queue: int) -> None:
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="password")
        self._places = threading.BoundedSemaphore(workers + queue)
        self._hasher, self._nobody = _hasher()

    async def hash(self, password: str) -> str:
        """The hash to store.

        Raises:
            Unavailable: too many are waiting.
        """
        return await self._on_a_thread(lambda: self._hasher.hash(password))

    async def matches(self, stored_hash: str | None, password: str) -> bool:
        """Whether this is the password; None, for an unknown user, takes the same time to say no.

        Raises:
            Unavailable: too many are waiting.
        """

        def verify() -> bool:
            try:
                self._hasher.verify(stored_hash or self._nobody, password)
            except (VerificationError, InvalidHashError):
                return False
            return stored_hash is not None

        return await self._on_a_thread(verify)

    def close(self) -> None:
        """Let the threads go; what waits is dropped."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _on_a_thread(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise Unavailable("too many sign-ins at once; try again shortly", retry_after_s=1)
        future = self._executor.submit(work)
        # A place is free when the thread is, not when the caller stops waiting.
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)
