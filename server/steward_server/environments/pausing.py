"""Environments that stand still for a while, and go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from steward_server.completion import complete
from steward_server.db import Database, Transaction
from steward_server.environments import store
from steward_server.environments.ability import refusal
from steward_server.environments.driver import Feature, Gone, Unusable
from steward_server.environments.journal import write_down
from steward_server.environments.room import EnvironmentRoom, Seen
from steward_server.errors import Unavailable
from steward_server.permissions import Permission
from steward_server.principals import Principal


class Pausing:
    """Pauses and resumes."""

    def __init__(self, database: Database, room: EnvironmentRoom, clock: Callable[[], int]) -> None:
        self._database = database
        self._room = room
        self._clock = clock

    async def pause(self, caller: Principal, environment_id: str) -> Seen:
        """Let its processes stand still; nothing if they do.

        Raises:
            NotFound, PermissionDenied: as `find`.
            FailedPrecondition: it does not run; NOT_SUPPORTED; AGENT_STOPPED; or CANNOT_PAUSE,
                something in it does not stand still now.
        """
        return await self._set_paused(caller, environment_id, paused=True)

    async def resume(self, caller: Principal, environment_id: str) -> Seen:
        """Let its processes go on; nothing if they do. Raises as `pause`."""
        return await self._set_paused(caller, environment_id, paused=False)

    async def _set_paused(self, caller: Principal, environment_id: str, *, paused: bool) -> Seen:
        found = await self._room.find(caller, environment_id, Permission.WRITE)
        await self._room.must_not_be_stopped(caller)
        self._room.keeper.ability.must_be_usable()
        self._room.keeper.ability.must_have(Feature.PAUSE)
        found.environment.must_live()  # not to wait until it is made

        async def work() -> None:
            async with self._room.keeper.locks.of(environment_id):
                found = await self._room.find(caller, environment_id, Permission.WRITE)
                found.environment.must_live()
                try:
                    if paused:
                        await self._pause(caller, environment_id)
                    else:
                        await self._resume(caller, environment_id)
                except Gone:
                    raise await self._room.gone(caller, environment_id) from None
                except Unusable as error:
                    raise refusal(error, environment_id) from None

        await complete(work())
        return await self._room.get(caller, environment_id)

    # The row goes first into a pause and last out of it: a start pauses again what stands so. Once
    # begun, either goes on with no look at the caller's right: the two would differ without it.

    async def _pause(self, caller: Principal, environment_id: str) -> None:
        is_changed = await self._write_paused(caller, environment_id, paused=True)
        try:
            await self._room.keeper.driver.pause(environment_id)
        except BaseException:
            if is_changed:
                await self._write_paused(caller, environment_id, paused=False)
            raise

    async def _resume(self, caller: Principal, environment_id: str) -> None:
        await self._room.keeper.driver.resume(environment_id)
        try:
            await self._write_paused(caller, environment_id, paused=False)
        except Unavailable:
            await self._room.keeper.driver.pause(environment_id)
            raise

    async def _write_paused(self, caller: Principal, environment_id: str, *, paused: bool) -> bool:
        """Write down that it stands still, or does not any more; whether that was a change."""
        now_us = self._clock()

        async def work(transaction: Transaction) -> bool:
            before = (await store.get(transaction, environment_id)).environment
            before.must_live()
            if before.paused is paused:
                return False
            # Time that it stood still was not idle.
            after = replace(before, paused=paused, last_used_at_us=now_us)
            await store.save(transaction, after)
            kind = "environment.paused" if paused else "environment.resumed"
            was, is_now = {"paused": before.paused}, {"paused": paused}
            await write_down(transaction, now_us, kind, after, caller, before=was, after=is_now)
            return True

        return await self._database.run(work)
