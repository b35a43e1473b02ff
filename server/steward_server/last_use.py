"""When things were used last: noted in memory at each use, written down once in a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import NoReturn

import structlog

from steward_server.db import Database, Transaction
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

Save = Callable[[Transaction, Mapping[str, int]], Awaitable[None]]


class LastUse:
    """Times of last use by id, newer than the store's until they are written."""

    def __init__(self, database: Database, save: Save) -> None:
        self._database = database
        self._save = save
        self._noted_us: dict[str, int] = {}
        self._written_us: dict[str, int] = {}
        """What is being written, or was last: whoever compares may have read the row before."""

    def note(self, name: str, now_us: int) -> None:
        """The thing was used just now; may be called from any thread."""
        self._noted_us[name] = now_us

    def newest_us(self, name: str, stored_us: int | None) -> int | None:
        """The later of what is stored and what is not written yet."""
        known_us = (stored_us, self._noted_us.get(name), self._written_us.get(name))
        return max((each for each in known_us if each is not None), default=None)

    async def write(self) -> None:
        """Write down what was noted; kept for the next time if that fails."""
        noted_us, self._noted_us = self._noted_us, {}
        self._written_us = noted_us
        if not noted_us:
            return
        try:
            await self._database.run(lambda transaction: self._save(transaction, noted_us))
        except BaseException:
            self._noted_us = noted_us | self._noted_us
            raise

    async def keep_writing(self, interval_s: float) -> NoReturn:
        """Write every `interval_s` until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.write()
            except Unavailable:
                log.warning("last_use.not_written", count=len(self._noted_us))
