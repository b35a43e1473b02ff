"""Snapshots: the files of environments, kept to make others of, or to put one back to.

Each is an image of the driver's catalogue under a name that only its row gives to anybody. The row
comes first and goes last, without a size: what a server that was killed has left half done is
found by it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from steward_server.audit import Change, record
from steward_server.completion import complete
from steward_server.db import Database, Reader, Transaction
from steward_server.environments import snapshot_store, store
from steward_server.environments.ability import refusal
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Away, Feature, Gone, Unusable
from steward_server.environments.environment import State
from steward_server.environments.images.image import SNAPSHOTS, canonical
from steward_server.environments.journal import write_down
from steward_server.environments.needs import Images
from steward_server.environments.quantities import bytes_text
from steward_server.environments.rights import level_of, must_have
from steward_server.environments.room import EnvironmentRoom, Seen
from steward_server.environments.snapshot_store import Snapshot, Wanted
from steward_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)
from steward_server.permissions import Permission
from steward_server.principals import Kind, Principal

log = structlog.get_logger(__name__)

AT_ONCE = 2
"""Each reads and writes whole file systems."""


def image_of(snapshot_id: str) -> str:
    """The name of its image."""
    return f"{SNAPSHOTS}{snapshot_id}"


class Snapshots:
    """Makes, gives and removes them."""

    def __init__(
        self,
        database: Database,
        room: EnvironmentRoom,
        images: Images | None,
        config: EnvironmentsConfig,
        clock: Callable[[], int],
    ) -> None:
        """Take settings, which are read once.

        Raises:
            BadSetting: an amount in them cannot be read.
        """
        self._most_bytes = config.snapshot_bytes()
        self._most = config.max_snapshots_per_user
        self._database = database
        self._room = room
        self._images = images
        self._clock = clock
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[str] = set()

    async def clear(self) -> None:
        """Remove what a server before this one has left half done."""
        for snapshot in await snapshot_store.unfinished(self._database):
            found = await snapshot_store.find(self._database, snapshot.snapshot_id)
            if found is not None or snapshot.snapshot_id in self._under_way:
                continue  # it was finished meanwhile, or will be
            try:
                await self._remove(snapshot)
                await self._let_go_on(snapshot.environment_id)
            except Exception:
                log.exception("environments.snapshot_left", snapshot_id=snapshot.snapshot_id)

    async def create(self, caller: Principal, environment_id: str, name: str) -> Snapshot:
        """Keep the files of an environment, which stands still meanwhile.

        Raises:
            NotFound, PermissionDenied: the caller may not write to it.
            FailedPrecondition: it does not run, or is paused; NOT_SUPPORTED; AGENT_STOPPED; or the
                driver says why it cannot, as where the image would be too large.
            ResourceExhausted: QUOTA_EXCEEDED.
        """
        found = await self._room.find(caller, environment_id, Permission.WRITE)
        environment = found.environment
        environment.must_run()
        await self._room.must_not_be_stopped(caller)
        self._must_be_possible()
        await self.clear()
        snapshot = Snapshot(
            f"snap-{secrets.token_hex(16)}",
            name,
            self._room.owner_for(caller),
            caller.subject if caller.kind is Kind.AGENT else "",
            environment_id,
            environment.spec.image,
            None,
            self._clock(),
        )
        self._under_way.add(snapshot.snapshot_id)
        try:
            return await self._make(caller, snapshot)
        finally:
            self._under_way.discard(snapshot.snapshot_id)

    async def _make(self, caller: Principal, snapshot: Snapshot) -> Snapshot:
        async def begin(transaction: Transaction) -> None:
            count, used_bytes = await snapshot_store.use(transaction, snapshot.owner_id)
            if count >= self._most:
                raise self._too_much("count", str(self._most), str(count), str(count + 1))
            self._must_fit(used_bytes, used_bytes)
            await snapshot_store.insert(transaction, snapshot)

        async def end(transaction: Transaction) -> None:
            _, used_bytes = await snapshot_store.use(transaction, snapshot.owner_id)
            self._must_fit(used_bytes, used_bytes + size_bytes)
            await snapshot_store.save_size(transaction, snapshot.snapshot_id, size_bytes)
            after = {
                "snapshot_id": snapshot.snapshot_id,
                "name": snapshot.name,
                "size_bytes": size_bytes,
            }
            change = Change("environment.snapshot_made", snapshot.environment_id, after=after)
            await record(transaction, self._clock(), caller, change)

        try:
            await complete(self._database.run(begin))
            size_bytes = await self._take(caller, snapshot)
            await complete(self._database.run(end))
        except BaseException:
            await complete(self._discard(snapshot))
            raise
        return replace(snapshot, size_bytes=size_bytes)

    async def _take(self, caller: Principal, snapshot: Snapshot) -> int:
        name = snapshot.environment_id
        keeper = self._room.keeper

        async def take() -> int:
            found = await self._room.find(caller, name, Permission.WRITE)
            found.environment.must_run()
            try:
                return await keeper.driver.snapshot(name, image_of(snapshot.snapshot_id))
            except Gone:
                raise await self._room.gone(caller, name) from None
            except Unusable as error:
                raise refusal(error, name) from None

        with self._room.uses.of(name):
            async with self._at_once:
                return await keeper.giving_way(name, take)

    async def page(
        self, caller: Principal, *, environment_id: str, limit: int, offset: int
    ) -> tuple[list[Snapshot], int]:
        """Snapshots of the caller's, the newest first, and how many there are in all."""
        is_agent = caller.kind is Kind.AGENT
        among = set(caller.permissions) if caller.permissions else None
        if environment_id:
            among = {environment_id} if among is None else among & {environment_id}
        wanted = Wanted(
            None if caller.is_admin or is_agent else caller.subject,
            caller.subject if is_agent else None,
            among,
        )
        total = await snapshot_store.count(self._database, wanted)
        found = await snapshot_store.page(self._database, wanted, limit=limit, offset=offset)
        return found, total

    async def find(
        self,
        caller: Principal,
        snapshot_id: str,
        needed: Permission,
        reader: Reader | None = None,
    ) -> Snapshot:
        """One that the caller may do something with.

        Raises:
            NotFound: there is none that they may read.
            PermissionDenied: they may read it, but not do this.
        """
        snapshot = await snapshot_store.find(reader or self._database, snapshot_id)
        level = None
        if snapshot is not None:
            source, owner = snapshot.environment_id, snapshot.owner_id
            level = level_of(caller, source, owner, None, agent_id=snapshot.agent_id)
        if snapshot is None or level is None:
            raise NotFound.of("snapshot", snapshot_id)
        must_have(level, needed, snapshot.environment_id)
        return snapshot

    async def must_be_allowed(self, caller: Principal, image: str, reader: Reader) -> None:
        """Refuse to make an environment of a snapshot that the caller may not use.

        Raises:
            InvalidArgument: UNKNOWN_IMAGE, there is none that they may use.
        """
        if self._images is None:
            return
        name = canonical(image)
        if not name.startswith(SNAPSHOTS):
            return
        try:
            snapshot_id = name.removeprefix(SNAPSHOTS)
            await self.find(caller, snapshot_id, Permission.READ, reader)
        except NotFound:
            text = f"there is no snapshot {image!r} of yours; GET /api/v1/snapshots lists them"
            raise InvalidArgument(text, reason="UNKNOWN_IMAGE", fields={"image": text}) from None

    async def delete(self, caller: Principal, snapshot_id: str) -> None:
        """Remove one.

        Raises:
            NotFound, PermissionDenied: as `find`.
            FailedPrecondition: SNAPSHOT_IN_USE, an environment stands on it.
            Unavailable: whoever keeps the images does not answer.
        """
        await complete(self._delete(caller, snapshot_id))

    async def _delete(self, caller: Principal, snapshot_id: str) -> None:
        async def begin(transaction: Transaction) -> Snapshot:
            found = await self.find(caller, snapshot_id, Permission.ADMIN, transaction)
            users = await snapshot_store.environments_on(transaction, image_of(snapshot_id))
            if users:
                raise _in_use(snapshot_id, f"{', '.join(users[:10])} stand on it")
            await snapshot_store.save_size(transaction, snapshot_id, None)
            before = {"name": found.name, "environment_id": found.environment_id}
            change = Change("snapshot.deleted", snapshot_id, before=before)
            await record(transaction, self._clock(), caller, change)
            return found

        self._kept()
        self._under_way.add(snapshot_id)
        try:
            snapshot = await self._database.run(begin)
            try:
                await self._remove(snapshot)
            except Unusable as error:
                size = snapshot.size_bytes
                await self._database.run(
                    lambda transaction: snapshot_store.save_size(transaction, snapshot_id, size)
                )
                if isinstance(error, Away):
                    raise refusal(error, snapshot.environment_id) from None
                raise _in_use(snapshot_id, str(error)) from None
        finally:
            self._under_way.discard(snapshot_id)

    async def restore(self, caller: Principal, environment_id: str, snapshot_id: str) -> Seen:
        """Put an environment back: its machine is made anew of the snapshot.

        Raises:
            NotFound, PermissionDenied: the caller has no admin on it, or may not use the snapshot.
            FailedPrecondition: it does not run; NOT_SUPPORTED; or AGENT_STOPPED.
        """
        await self._room.find(caller, environment_id, Permission.ADMIN)
        await self._room.must_not_be_stopped(caller)
        self._must_be_possible()
        keeper = self._room.keeper

        async def work(transaction: Transaction) -> None:
            now_us = self._clock()
            found = await self._room.find(caller, environment_id, Permission.ADMIN, transaction)
            snapshot = await self.find(caller, snapshot_id, Permission.READ, transaction)
            before = found.environment
            before.must_live()
            spec = replace(before.spec, image=image_of(snapshot.snapshot_id))
            after = replace(
                before.to(State.PENDING, now_us),
                spec=spec,
                last_used_at_us=now_us,
                log_start=now_us,  # no machine has written so many lines
            )
            await store.save(transaction, after)
            await write_down(
                transaction,
                now_us,
                "environment.restored",
                after,
                caller,
                before={"image": before.spec.image},
                after={"image": spec.image},
            )

        async def put_back() -> Seen:
            await keeper.made(environment_id)
            async with keeper.locks.of(environment_id):
                await self._database.run(work)
                try:
                    return await self._room.get(caller, environment_id)
                finally:
                    keeper.make_anew(environment_id)

        return await complete(put_back())

    # What several need.

    def _must_be_possible(self) -> None:
        self._room.keeper.ability.must_be_usable()
        self._room.keeper.ability.must_have(Feature.SNAPSHOT)
        self._kept()

    def _kept(self) -> Images:
        if self._images is None:
            raise FailedPrecondition(
                "the driver of this server keeps no images of its own", reason="NOT_SUPPORTED"
            )
        return self._images

    async def _remove(self, snapshot: Snapshot) -> None:
        """Remove image and row, in this order."""
        try:
            await self._kept().remove(image_of(snapshot.snapshot_id))
        except Unusable as error:
            if error.reason != "UNKNOWN_IMAGE":
                raise
        await self._database.run(
            lambda transaction: snapshot_store.delete(transaction, snapshot.snapshot_id)
        )

    async def _discard(self, snapshot: Snapshot) -> None:
        """Remove what came of one that was not finished; the next `clear` does, if this cannot."""
        try:
            await self._remove(snapshot)
        except Exception:
            log.exception("environments.snapshot_left", snapshot_id=snapshot.snapshot_id)

    async def _let_go_on(self, environment_id: str) -> None:
        """Resume what stands still for a server that was killed before it had its snapshot."""
        keeper = self._room.keeper
        async with keeper.locks.of(environment_id):
            stored = await store.find(self._database, environment_id)
            if stored is None or stored.environment.state is not State.RUNNING:
                return
            if not stored.environment.paused:
                with suppress(Gone):
                    await keeper.driver.resume(environment_id)

    def _must_fit(self, used_bytes: int, wanted_bytes: int) -> None:
        most = self._most_bytes
        if most is not None and (wanted_bytes > most or used_bytes >= most):
            told = (bytes_text(each) for each in (most, used_bytes, wanted_bytes))
            raise self._too_much("storage", *told)

    def _too_much(self, name: str, limit: str, used: str, wanted: str) -> ResourceExhausted:
        return ResourceExhausted(
            f"your snapshots would be more than the quota allows ({name}: {limit} at most, {used} "
            f"in use, {wanted} with this one); delete one first",
            reason="QUOTA_EXCEEDED",
            facts={f"{name}_limit": limit, f"{name}_used": used, f"{name}_wanted": wanted},
        )


def _in_use(snapshot_id: str, why: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"snapshot {snapshot_id!r} is in use: {why}; delete these environments first",
        reason="SNAPSHOT_IN_USE",
        facts={"snapshot_id": snapshot_id},
    )
