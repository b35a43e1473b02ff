"""What the environments room does by itself: ends what has outlived its time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from steward_server import clock as clock_text
from steward_server.db import Database
from steward_server.environments import store
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Away
from steward_server.environments.environment import Environment
from steward_server.environments.journal import Cause, Missed
from steward_server.environments.needs import Images
from steward_server.environments.room import EnvironmentRoom

log = structlog.get_logger(__name__)


async def clear(images: Images | None) -> None:
    """Remove what is left of images that nobody needs any more, once; and tell of broken ones."""
    if images is None:
        return
    try:
        await images.clear()
        await images.list()  # what cannot be read is in the server's log from then on
    except Away as error:
        log.warning("environments.images_not_cleared", reason=str(error))
    except Exception:
        log.exception("environments.images_not_cleared")


class Sweeper:
    """Looks whose time is over."""

    def __init__(
        self,
        database: Database,
        room: EnvironmentRoom,
        config: EnvironmentsConfig,
        clock: Callable[[], int],
    ) -> None:
        self._database = database
        self._room = room
        self._config = config
        self._clock = clock

    async def keep_sweeping(self) -> NoReturn:
        """Sweep every `sweep_interval_s` until cancelled."""
        while True:
            try:
                await self.sweep()
            except Exception:
                log.exception("environments.not_swept")
            await asyncio.sleep(self._config.sweep_interval_s)

    async def sweep(self) -> None:
        """End what has outlived its time, see to what was dropped, forget what is long over."""
        now_us = self._clock()
        for stale in await store.maybe_due(self._database, now_us):
            environment = self._room.uses.refreshed(stale)
            ends_at_us = environment.ends_at_us()
            if environment.paused and ends_at_us != environment.expires_at_us:
                ends_at_us = environment.expires_at_us  # what stands still is not idle
            if ends_at_us is not None and ends_at_us <= now_us:
                await self._expire(environment, now_us)
        await self._room.keeper.pick_up()
        old = await store.ended_before(self._database, now_us - round(self._config.kept_s * 1e6))
        if old:
            await self._database.run(lambda transaction: store.forget(transaction, old))
            self._room.forget(old)

    async def _expire(self, environment: Environment, now_us: int) -> None:
        expires_at_us = environment.expires_at_us
        if expires_at_us is not None and expires_at_us <= now_us:
            cause, reason = "timeout", f"its time was over at {clock_text.text(expires_at_us)}"
        else:
            cause, reason = "idle", f"nobody used it for {environment.idle_timeout_s} s"
        why = Cause(reason, "environment.expired", facts=(("cause", cause),))
        # Not waited for: one that is slow to end must not keep others alive.
        with suppress(Missed):
            await self._room.keeper.begin_end(
                environment.environment_id, why, grace_s=self._config.stop_grace_s
            )
