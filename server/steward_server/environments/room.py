"""What is done with environments: created, listed, changed, shared, paused, ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from steward_server import clock as clock_text
from steward_server.audit import Change
from steward_server.belongings import Handover
from steward_server.completion import complete
from steward_server.db import Database, Reader, Transaction
from steward_server.environments import share_store, snapshot_store, store
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import Gone, Stats
from steward_server.environments.environment import Environment, NetworkPolicy, State, is_ending
from steward_server.environments.insisting import insist
from steward_server.environments.journal import Cause, Missed, audited, write_down
from steward_server.environments.keeper import Keeper
from steward_server.environments.needs import Agents
from steward_server.environments.quota import Use
from steward_server.environments.rights import level_of, must_have
from steward_server.environments.selectors import Requirement
from steward_server.environments.uses import Uses, agent_stopped
from steward_server.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from steward_server.permissions import Permission
from steward_server.principals import Kind, Principal
from steward_server.vault import VaultError

log = structlog.get_logger(__name__)

STATS_TIMEOUT_S = 1.0
"""An answer is not held up longer by how an environment is."""

HIDDEN = "***"
"""What stands for the value of a variable."""

MAX_LABELS = 64


@dataclass(frozen=True, slots=True)
class Changes:
    """What an update gives; None leaves it."""

    labels: Mapping[str, str] = field(default_factory=dict)
    remove_labels: Sequence[str] = ()
    timeout_s: int | None = None
    idle_timeout_s: int | None = None
    """0: it does not end for idleness."""
    network: NetworkPolicy | None = None
    """Its machine is told by whoever asks for this."""


@dataclass(frozen=True, slots=True)
class Found:
    """An environment, and what the caller may do with it."""

    environment: Environment
    level: Permission


@dataclass(frozen=True, slots=True)
class Seen:
    """An environment as it is shown in full."""

    environment: Environment
    level: Permission
    env: Mapping[str, str]
    """Its variables, with their values only for who may use them."""
    stats: Stats | None


class EnvironmentRoom:
    """Environments, as far as rows and rights go; machines are the keeper's."""

    def __init__(
        self,
        database: Database,
        keeper: Keeper,
        agents: Agents,
        config: EnvironmentsConfig,
        clock: Callable[[], int],
    ) -> None:
        self.keeper = keeper
        self._agents = agents
        self.uses = Uses(database, clock)
        self._database = database
        self._config = config
        self._clock = clock
        self._owners: dict[str, str] = {}
        self._stopping: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Know whose environments are, and bring machines and rows together."""
        self._owners = await store.owners(self._database)
        await self.keeper.start()

    async def aclose(self) -> None:
        """Let go of the machines; they live on."""
        for task in self._stopping:
            task.cancel()
        await self.keeper.aclose()
        await self.uses.last_use.write()

    def owner_of(self, environment_id: str) -> str | None:
        """Whose it is, or was until not long ago."""
        return self._owners.get(environment_id)

    def learn(self, environment: Environment) -> None:
        """Know whose one is that was just written down."""
        self._owners[environment.environment_id] = environment.owner_id

    def forget(self, environment_ids: Iterable[str]) -> None:
        """Know no more whose these were."""
        for environment_id in environment_ids:
            self._owners.pop(environment_id, None)

    # Finding.

    async def find(
        self,
        caller: Principal,
        environment_id: str,
        needed: Permission,
        reader: Reader | None = None,
    ) -> Found:
        """An environment that the caller may do something with.

        Raises:
            NotFound: there is none that they may read.
            PermissionDenied: they may read it, but not do this.
        """
        stored, level = await self._found(caller, environment_id, needed, reader or self._database)
        return Found(stored.environment, level)

    async def running(
        self, caller: Principal, environment_id: str, needed: Permission = Permission.WRITE
    ) -> Environment:
        """As `find`, of one that something can be done in.

        Raises:
            FailedPrecondition: it does not run, or is paused; or AGENT_STOPPED.
        """
        found = await self.find(caller, environment_id, needed)
        if needed > Permission.READ:
            await self.must_not_be_stopped(caller)
        found.environment.must_run()
        self.keeper.ability.must_be_usable()
        return found.environment

    async def must_not_be_stopped(self, caller: Principal) -> None:
        """Refuse an agent that is to stop; it may look on, and remove what it has.

        Raises:
            FailedPrecondition: AGENT_STOPPED.
        """
        if caller.kind is not Kind.AGENT:
            return
        if (await self._agents.record(self._database, caller.subject)).stop_wanted:
            raise agent_stopped(caller.subject)

    def on_agent_stopped(self, agent_id: str) -> None:
        """Let an agent end what it has open by itself, as it was told; then end it."""
        task = asyncio.create_task(self._end_of_agent(agent_id))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _end_of_agent(self, agent_id: str) -> None:
        await asyncio.sleep(self._config.agent_stop_grace_s)
        with suppress(NotFound):  # it was deleted meanwhile
            agent = await insist(
                lambda: self._agents.record(self._database, agent_id),
                "environments.agent_not_looked_up",
                passing=(NotFound,),
                agent_id=agent_id,
            )
            if not agent.stop_wanted:
                return
        self.uses.end_of_agent(agent_id)

    def guarded(
        self, items: Any, caller: Principal, environment_id: str, needed: Permission
    ) -> AsyncGenerator[Any, None]:
        """Pass a stream on until what the caller may do is changed, or their agent is to stop."""

        async def check() -> None:
            await self.find(caller, environment_id, needed)
            if needed > Permission.READ:
                await self.must_not_be_stopped(caller)

        only_looks = needed is Permission.READ
        return self.uses.guard(items, caller, environment_id, check, only_looks=only_looks)

    def owner_for(self, caller: Principal) -> str:
        """Whose what a caller creates is to be: their own, or the agent's owner's.

        Raises:
            NotFound: the agent was deleted.
        """
        if caller.kind is not Kind.AGENT:
            return caller.subject
        owner_id = self._agents.owner_of(caller.subject)
        if owner_id is None:
            raise NotFound.of("agent", caller.subject)
        return owner_id

    async def gone(self, caller: Principal, environment_id: str) -> Exception:
        """What to raise where the driver says that there is no such machine."""
        try:
            (await self.find(caller, environment_id, Permission.READ)).environment.must_live()
        except (NotFound, FailedPrecondition) as error:
            return error
        return is_ending(environment_id)

    async def get(self, caller: Principal, environment_id: str, *, wait_s: float = 0) -> Seen:
        """One environment, in full; if it is being made, it is waited for so long.

        Raises:
            NotFound: there is none that the caller may read.
        """
        stored, level = await self._found(caller, environment_id, Permission.READ)
        if wait_s and stored.environment.state is State.PENDING:
            await self.keeper.made(environment_id, wait_s)
            stored, level = await self._found(caller, environment_id, Permission.READ)
        return await self._seen(stored, level)

    async def page(
        self,
        caller: Principal,
        *,
        state: State | None,
        selector: Sequence[Requirement],
        limit: int,
        offset: int,
    ) -> tuple[list[Environment], int]:
        """Environments the caller may read, the newest first, and how many there are in all."""
        is_agent = caller.kind is Kind.AGENT
        wanted = store.Wanted(
            state,
            selector,
            None if caller.is_admin or is_agent else caller.subject,
            caller.permissions.keys() if caller.permissions else None,
            caller.subject if is_agent else None,
        )
        total = await store.count(self._database, wanted)
        found = await store.page(self._database, wanted, limit=limit, offset=offset)
        return found, total

    # Living.

    async def update(self, caller: Principal, environment_id: str, changes: Changes) -> Seen:
        """Change labels, and how long it is to live.

        Raises:
            NotFound, PermissionDenied: as `find`.
            FailedPrecondition: WRONG_STATE, it is over; or AGENT_STOPPED.
            InvalidArgument: its new end would be in the past, or it would have too many labels.
        """
        await self.must_not_be_stopped(caller)
        now_us = self._clock()

        async def work(transaction: Transaction) -> tuple[store.Stored, Permission]:
            stored, level = await self._found(caller, environment_id, Permission.ADMIN, transaction)
            before = stored.environment
            if before.state.is_over:
                raise before.wrong_state("cannot be changed")
            after = self._changed(before, changes, now_us)
            await store.save(transaction, after)
            await store.save_labels(transaction, environment_id, after.labels)
            old, new = audited(before), audited(after)
            differing = [name for name in new if new[name] != old[name]]
            if differing:
                await write_down(
                    transaction,
                    now_us,
                    "environment.updated",
                    after,
                    caller,
                    before={name: old[name] for name in differing},
                    after={name: new[name] for name in differing},
                )
            return replace(stored, environment=after), level

        return await self._seen(*await self._database.run(work))

    async def delete(self, caller: Principal, environment_id: str, *, force: bool) -> None:
        """End an environment; answered once nothing of it is left.

        Raises:
            NotFound, PermissionDenied: as `find`.
            Unavailable: its machine could not be removed yet; that is tried again until it is.
        """
        cause = Cause("it was deleted", "environment.deleted", caller)
        grace_s = 0.0 if force else self._config.stop_grace_s

        async def end() -> None:
            while True:  # at most twice, as what is over stays so
                found = await self.find(caller, environment_id, Permission.ADMIN)
                if found.environment.state.is_over:
                    await self._hide(caller, environment_id)
                    return
                with suppress(Missed):
                    await self.keeper.end(environment_id, cause, grace_s=grace_s, delete=True)
                    return

        await complete(end())

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Give the heir a deleted person's environments; what was shared with them is not."""
        del now_us
        changes = []
        owned = await store.owned_by(transaction, user_id)
        for environment in owned:
            await store.save(transaction, replace(environment, owner_id=heir_id))
            await share_store.delete_share(transaction, environment.environment_id, heir_id)
            changes.append(
                Change(
                    "environment.handed_over",
                    environment.environment_id,
                    {"owner_id": user_id},
                    {"owner_id": heir_id},
                    "the owner was deleted",
                )
            )
        await share_store.delete_shares_of(transaction, user_id)
        changes += [
            Change(
                "snapshot.handed_over",
                snapshot_id,
                {"owner_id": user_id},
                {"owner_id": heir_id},
                "the owner was deleted",
            )
            for snapshot_id in await snapshot_store.hand_over(transaction, user_id, heir_id)
        ]

        def after_commit() -> None:
            self._owners |= {each.environment_id: heir_id for each in owned}

        return Handover(changes, after_commit)

    async def total_use(self) -> Use:
        """What all environments that are not over hold."""
        return await store.use(self._database, None)

    async def count_by_state(self) -> dict[str, int]:
        """How many there are in each state."""
        return await store.count_by_state(self._database)

    async def running_ids(self) -> list[str]:
        """Those that run."""
        return await store.running_ids(self._database)

    async def stats(self, environment_id: str) -> Stats | None:
        """What a running one uses now; None if that cannot be told."""
        if self.keeper.ability.capabilities().unusable:
            return None
        try:
            async with asyncio.timeout(STATS_TIMEOUT_S):
                return await self.keeper.driver.stats(environment_id)
        except (Gone, TimeoutError):
            return None
        except Exception:
            log.exception("environments.stats_failed", environment_id=environment_id)
            return None

    # What several need.

    async def _found(
        self,
        caller: Principal,
        environment_id: str,
        needed: Permission,
        reader: Reader | None = None,
    ) -> tuple[store.Stored, Permission]:
        source = reader or self._database
        stored = await store.get(source, environment_id)
        environment = stored.environment
        owner_id = environment.owner_id
        shared = None
        if caller.is_person and not caller.is_admin and caller.subject != owner_id:
            shared = await share_store.shared_with(source, environment_id, caller.subject)
        level = level_of(caller, environment_id, owner_id, shared, agent_id=environment.agent_id)
        return stored, must_have(level, needed, environment_id)

    async def _seen(self, stored: store.Stored, level: Permission) -> Seen:
        environment = stored.environment
        is_running = environment.state is State.RUNNING
        return Seen(
            environment,
            level,
            self._env_for(stored, level),
            await self.stats(environment.environment_id) if is_running else None,
        )

    def _env_for(self, stored: store.Stored, level: Permission) -> Mapping[str, str]:
        try:
            env = self.keeper.spec_of(stored).env
        except VaultError:
            log.exception(
                "environments.env_unreadable", environment_id=stored.environment.environment_id
            )
            return {}
        return env if level >= Permission.WRITE else dict.fromkeys(env, HIDDEN)

    def _changed(self, before: Environment, changes: Changes, now_us: int) -> Environment:
        kept = {k: v for k, v in before.labels.items() if k not in changes.remove_labels}
        labels = kept | dict(changes.labels)
        if len(labels) > MAX_LABELS:
            raise InvalidArgument.of(
                {"labels": f"would be {len(labels)}; at most {MAX_LABELS} are allowed"}
            )
        expires_at_us = before.expires_at_us
        if changes.timeout_s is not None:
            expires_at_us = before.created_at_us + changes.timeout_s * 1_000_000
            left_s = (expires_at_us - now_us) / 1e6
            if left_s <= 0:
                raise InvalidArgument.of(
                    {
                        "timeout": f"is {changes.timeout_s} s from its creation, which was over at "
                        f"{clock_text.text(expires_at_us)}; delete it instead"
                    }
                )
            if left_s > self._config.max_timeout_s:
                raise InvalidArgument.of(
                    {
                        "timeout": f"would let it live for another {left_s:.0f} s; at most "
                        f"{self._config.max_timeout_s} s are allowed"
                    }
                )
        idle_s = before.idle_timeout_s
        if changes.idle_timeout_s is not None:
            idle_s = changes.idle_timeout_s or None
        spec = before.spec
        if changes.network is not None:
            spec = replace(spec, network=changes.network)
        return replace(
            before, spec=spec, labels=labels, expires_at_us=expires_at_us, idle_timeout_s=idle_s
        )

    async def _hide(self, caller: Principal, environment_id: str) -> None:
        """Let one that is over be gone."""
        now_us = self._clock()

        async def work(transaction: Transaction) -> None:
            found = await self.find(caller, environment_id, Permission.ADMIN, transaction)
            await store.hide(transaction, environment_id, now_us)
            await write_down(transaction, now_us, "environment.deleted", found.environment, caller)

        await self._database.run(work)
