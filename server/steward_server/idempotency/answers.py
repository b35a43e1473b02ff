"""Answers by request id: the first call does the work, its repeats are told what came of it.

What is remembered outlives the process. Before the work a note is written that it was begun, so
that a repeat after a crash is told that the outcome is unknown instead of doing the work twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from steward_server.calls import Refused
from steward_server.db import Database, Transaction
from steward_server.errors import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    StewardError,
    Unavailable,
)
from steward_server.idempotency import store
from steward_server.idempotency.store import Key, Remembered
from steward_server.vault import Vault, VaultError

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[bytes]]


class Answers:
    """Remembers answers, serialised, for `kept_us`."""

    def __init__(
        self, database: Database, vault: Vault, *, kept_us: int, clock: Callable[[], int]
    ) -> None:
        self._database = database
        self._vault = vault
        self._kept_us = kept_us
        self._clock = clock
        self._running: dict[Key, tuple[bytes, asyncio.Task[bytes]]] = {}

    async def once(self, key: Key, request_digest: bytes, work: Work) -> bytes:
        """The answer of `work`, or the one it gave before for the same key and digest.

        Repeats wait for a first call that still runs. It runs to its end even if its caller goes.

        Raises:
            AlreadyExists: REQUEST_ID_REUSED, the same key came with another digest.
            FailedPrecondition: OUTCOME_UNKNOWN, the server stopped during the first call.
        """
        running = self._running.get(key)
        if running is None:
            task = asyncio.ensure_future(self._first(key, request_digest, work))
            running = self._running[key] = (request_digest, task)
            task.add_done_callback(lambda ended: self._ended(key, ended))
        begun_digest, task = running
        if begun_digest != request_digest:
            raise _reused(key)
        return await asyncio.shield(task)

    async def sweep(self) -> int:
        """Forget what is older than it has to be kept; how many."""
        before_us = self._clock() - self._kept_us
        return await self._database.run(
            lambda transaction: store.delete_older(transaction, before_us)
        )

    async def keep_sweeping(self, interval_s: float) -> NoReturn:
        """Sweep every `interval_s` until cancelled."""
        while True:
            try:
                await self.sweep()
            except Unavailable:
                log.warning("answers.not_swept")
            await asyncio.sleep(interval_s)

    async def _first(self, key: Key, request_digest: bytes, work: Work) -> bytes:
        known = await self._begin(key, request_digest)
        if known is not None:
            return self._told_again(key, request_digest, known)
        try:
            answer = await work()
        except Exception as error:
            if _changed_nothing(error):
                await self._database.run(lambda transaction: store.delete(transaction, key))
            raise
        sealed = self._vault.seal(answer, _context(key))
        try:
            await self._database.run(
                lambda transaction: store.save_answer(transaction, key, sealed)
            )
        except Unavailable:
            # The work is done and durable: its answer is owed to the caller all the same.
            log.exception("answers.not_remembered", method=key.method)
        return answer

    def _ended(self, key: Key, task: asyncio.Task[bytes]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # asking marks it as seen: every waiter may be gone

    async def _begin(self, key: Key, request_digest: bytes) -> Remembered | None:
        now_us = self._clock()

        async def work(transaction: Transaction) -> Remembered | None:
            known = await store.get(transaction, key)
            if known is not None and now_us - known.created_at_us < self._kept_us:
                return known
            if known is not None:
                await store.delete(transaction, key)
            await store.insert(transaction, key, Remembered(request_digest, None, now_us))
            return None

        return await self._database.run(work)

    def _told_again(self, key: Key, request_digest: bytes, known: Remembered) -> bytes:
        if known.request_digest != request_digest:
            raise _reused(key)
        if known.sealed_answer is None:
            raise FailedPrecondition(
                f"the call with request_id {key.request_id!r} was cut off by a stop of the server; "
                "look whether it took effect, and repeat it with another request_id if not",
                reason="OUTCOME_UNKNOWN",
                facts={"request_id": key.request_id},
            )
        try:
            return self._vault.open_sealed(known.sealed_answer, _context(key))
        except VaultError as error:
            raise FailedPrecondition(
                f"the call with request_id {key.request_id!r} was done, but its answer cannot be "
                "decrypted any more",
                reason="ANSWER_LOST",
                facts={"request_id": key.request_id},
            ) from error


def _changed_nothing(error: Exception) -> bool:
    """Whether a call that ended with this had no effect: it was refused, not broken."""
    return isinstance(error, Refused | StewardError) and not isinstance(error, Internal)


def _reused(key: Key) -> AlreadyExists:
    return AlreadyExists(
        f"request_id {key.request_id!r} was used for another request; choose a new one",
        reason="REQUEST_ID_REUSED",
        facts={"request_id": key.request_id},
    )


def _context(key: Key) -> str:
    return f"remembered_answer/{key.subject}/{key.method}/{key.request_id}"
