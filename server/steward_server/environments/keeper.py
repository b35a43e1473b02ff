"""Makes, watches and ends machines, so that each row and its machine agree whatever happens.

One piece of work at a time for each environment, under its lock; what must happen is tried until
it does. After a start, machines and rows that were left behind are brought together again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import orjson
import structlog

from steward_server.db import Database
from steward_server.environments import store
from steward_server.environments.ability import Ability
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.driver import (
    Away,
    Driver,
    Exit,
    Feature,
    Gone,
    LogRecord,
    Owned,
    Unusable,
)
from steward_server.environments.ends import Ending, last_log_of, outcome
from steward_server.environments.environment import NetworkPolicy, Spec, State, is_ending
from steward_server.environments.insisting import insist
from steward_server.environments.journal import Cause, Missed, Transitions
from steward_server.environments.locks import Locks
from steward_server.errors import Unavailable
from steward_server.vault import Vault, VaultError

log = structlog.get_logger(__name__)
T = TypeVar("T")

OPEN_AGAIN_S = 5.0
"""How often it is tried whether a driver that was away can be used."""
DELETE_TIMEOUT_S = 60.0
"""A driver that takes longer, beyond the grace, is asked again."""

_LIVING = (State.PENDING, State.RUNNING)


class Keeper:
    """Keeps machines as their rows say. Start it before anything else, and close it."""

    def __init__(
        self,
        database: Database,
        driver: Driver,
        vault: Vault,
        config: EnvironmentsConfig,
        clock: Callable[[], int],
    ) -> None:
        self.driver = driver
        self.ability = Ability(driver)
        self.locks = Locks()
        self._database = database
        self._vault = vault
        self._config = config
        self._transitions = Transitions(database, clock)
        self._starts = asyncio.Semaphore(config.starts_at_once)
        self._making: dict[str, asyncio.Task[None]] = {}
        self._watching: dict[str, asyncio.Task[None]] = {}
        self._ending: dict[str, Ending] = {}
        self._giving_way: dict[str, asyncio.Task[Any]] = {}
        self._others: set[asyncio.Task[None]] = set()

    # The beginning and the end of the server.

    async def start(self) -> None:
        """Open the driver, and bring machines and rows together; later, if it has to wait."""
        owned, may_come = await self._open()
        await self._reconcile(owned)
        if may_come:
            self._spawn(self._open_later())

    async def _open(self) -> tuple[Sequence[Owned], bool]:
        """The driver's machines; and whether it cannot be used now, but later perhaps."""
        try:
            await self.driver.open()
            told = self.driver.capabilities()
            why, may_come = told.unusable, told.may_come
            owned = () if why else await self.driver.list_owned()
        except (Away, Unavailable) as error:  # it has just gone
            why, may_come, owned = str(error), True, ()
        except Exception:
            log.exception("environments.driver_failed")
            why, may_come = "its driver failed to start; the server's log says why", False
            owned = ()
        if why and why != self.ability.fault:
            log.warning("environments.unusable", reason=why)
        self.ability.fault = why
        return owned, bool(why) and may_come

    async def _open_later(self) -> None:
        """Open the driver as soon as what it lacks has come."""
        may_come = True
        while may_come:
            await asyncio.sleep(OPEN_AGAIN_S)
            owned, may_come = await self._open()
        if not self.ability.fault:
            await insist(lambda: self._reconcile(owned), "environments.not_reconciled")

    async def aclose(self) -> None:
        """Let go of everything; the machines live on."""
        tasks = {
            *self._making.values(),
            *self._watching.values(),
            *(each.task for each in self._ending.values()),
            *self._others,
        }
        for task in tasks:
            task.cancel()
        for ending in self._ending.values():
            ending.fail()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.driver.aclose()

    async def _reconcile(self, owned: Sequence[Owned]) -> None:
        machines = {each.environment_id: each for each in owned}
        unusable = self.ability.capabilities().unusable
        adopted = 0
        adopted_networks: dict[str, NetworkPolicy] = {}
        for stored in await store.living(self._database):
            environment = stored.environment
            name = environment.environment_id
            machine = machines.pop(name, None)
            if unusable:
                # What runs may live on, and is found again by a start that can reach it.
                if environment.state is State.PENDING:
                    await self._fail(name, f"no environment can be made: {unusable}")
                continue
            if environment.state is State.PENDING:
                self.make(name, leftover=machine is not None)
            elif environment.state is State.TERMINATING:
                self._end_in_background(name, grace_s=0, cause=Cause(environment.reason))
            elif machine is None:
                await self._fail(name, "its machine was lost while the server was away")
            elif not machine.is_alive:
                self._spawn(self._main_ended(name, machine.exit))
            else:
                adopted += 1
                adopted_networks[name] = environment.spec.network
                self._watch(name)
                if environment.paused:
                    self._spawn(self._pause_again(name))
        for name in machines:  # nobody knows them, or they are over
            self._spawn(self._remove(name))
        if Feature.NETWORK_CHANGE in self.ability.capabilities().features:
            self._spawn(self._match_networks(adopted_networks))
        if adopted or machines:
            log.info("environments.reconciled", adopted=adopted, removed=len(machines))

    async def pick_up(self) -> None:
        """Go on with what is to be made or ended and was dropped on the way."""
        if self.ability.capabilities().unusable:
            return
        for name, state in await store.unsettled(self._database):
            if state is State.PENDING:
                self.make(name, leftover=True)
            elif name not in self._ending:
                log.warning("environments.end_picked_up", environment_id=name)
                self._end_in_background(name, grace_s=self._config.stop_grace_s, cause=Cause())

    async def _match_networks(self, policies: Mapping[str, NetworkPolicy]) -> None:
        """Let machines reach what their rows say: a change may have been cut short."""
        for name, policy in policies.items():
            async with self.locks.of(name):
                stored = await store.find(self._database, name)
                if stored is None or stored.environment.spec.network != policy:
                    continue  # it was changed meanwhile
                try:
                    await self.driver.change_network(name, policy)
                except Gone:
                    continue
                except Exception:
                    log.exception("environments.network_differs", environment_id=name)

    async def _pause_again(self, name: str) -> None:
        """The server may have gone between the row and the machine."""

        async def pause() -> None:
            async with self.locks.of(name):
                stored = await store.find(self._database, name)
                if stored is not None and stored.environment.paused:
                    await self.driver.pause(name)

        with suppress(Gone):
            await insist(pause, "environments.pause_failed", passing=(Gone,), environment_id=name)

    # Making.

    def make(self, name: str, *, leftover: bool = False) -> None:
        """Make the machine of a pending environment, unless that is under way.

        `leftover` says that something of an earlier attempt may be there, which is removed first.
        """
        if name in self._making:
            return
        task = self._spawn(self._make(name, leftover=leftover))
        self._making[name] = task
        task.add_done_callback(lambda _: self._making.pop(name, None))

    def make_anew(self, name: str) -> None:
        """Make the machine of one that ran and is pending again, in place of what there is.

        Under its lock, so that the end of the machine it has is nobody's end.
        """
        if (watching := self._watching.pop(name, None)) is not None:
            watching.cancel()
        self.make(name, leftover=True)

    async def made(self, name: str, timeout_s: float | None = None) -> None:
        """Wait until it is no longer being made, but not longer than that."""
        if (task := self._making.get(name)) is not None:
            await asyncio.wait({task}, timeout=timeout_s)

    async def _make(self, name: str, *, leftover: bool) -> None:
        async with self.locks.of(name):
            stored = await store.find(self._database, name)
            if stored is None or stored.environment.state is not State.PENDING:
                return
            failure = await self._try_to_make(name, stored, leftover=leftover)
            if failure:
                await self._discard(name)
                await self._fail(name, failure)
                return
            try:
                await self._move(name, State.RUNNING, Cause(), State.PENDING)
            except Missed:  # it is to end; whoever ends it waits for this
                return
            self._watch(name)

    async def _try_to_make(self, name: str, stored: store.Stored, *, leftover: bool) -> str:
        """Why it could not be made; empty if it runs."""
        limit_s = self._config.start_timeout_s
        try:
            spec = self.spec_of(stored)
            async with self._starts, asyncio.timeout(limit_s):
                if leftover:
                    with suppress(Gone):
                        await self.driver.delete(name, grace_s=0)
                await self.driver.create(name, spec)
                await self.driver.start(name)
        except (Unusable, Unavailable) as error:
            return str(error)
        except TimeoutError:
            return f"it could not be made within {limit_s:g} s"
        except VaultError:
            log.exception("environments.env_unreadable", environment_id=name)
            return "its variables cannot be decrypted: the master key they were sealed with is gone"
        except Exception:
            log.exception("environments.make_failed", environment_id=name)
            return "the driver failed to make it; the server's log says why"
        return ""

    def spec_of(self, stored: store.Stored) -> Spec:
        """What was asked for, with its variables.

        Raises:
            VaultError: they cannot be decrypted.
        """
        environment, sealed = stored.environment, stored.sealed_env
        spec = replace(environment.spec, labels=environment.labels)
        if sealed is None:
            return spec
        text = self._vault.open_sealed(sealed, env_context(environment.environment_id))
        return replace(spec, env=orjson.loads(text))

    async def _fail(self, name: str, reason: str) -> None:
        with suppress(Missed):
            await self._move(name, State.FAILED, Cause(reason), *_LIVING)

    async def _discard(self, name: str) -> None:
        """Remove what is left of an attempt; in the background if that does not go at once."""
        try:
            await self._delete(name, grace_s=0)
        except Exception:
            log.exception("environments.discard_failed", environment_id=name)
            self._spawn(self._remove(name))

    async def giving_way(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do something that takes long, under the lock; the end of the environment cancels it.

        Raises:
            FailedPrecondition: ENVIRONMENT_NOT_RUNNING, it has come to its end meanwhile.
        """
        async with self.locks.of(name):
            task: asyncio.Task[T] = asyncio.create_task(work())
            self._giving_way[name] = task
            try:
                await asyncio.wait({task})
            finally:
                del self._giving_way[name]
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task})
        if task.cancelled():
            raise is_ending(name)
        return task.result()

    # Watching.

    def _watch(self, name: str) -> None:
        task = self._spawn(self._wait_for_main(name))
        self._watching[name] = task

        def ended(_: asyncio.Task[None]) -> None:
            if self._watching.get(name) is task:
                del self._watching[name]

        task.add_done_callback(ended)

    async def _wait_for_main(self, name: str) -> None:
        exit_: Exit | None = None
        with suppress(Gone):
            exit_ = await insist(
                lambda: self.driver.wait(name),
                "environments.wait_failed",
                passing=(Gone,),
                environment_id=name,
            )
        await self._main_ended(name, exit_)

    async def _main_ended(self, name: str, exit_: Exit | None) -> None:
        """Close the life of one whose main command ended, or whose machine was lost."""
        async with self.locks.of(name):
            state, reason = outcome(exit_)
            last_log = await last_log_of(self.driver, name)
            try:
                await self._move(
                    name, state, Cause(reason), State.RUNNING, exit_=exit_, last_log=last_log
                )
            except Missed:  # somebody ended it, and removes its machine unless it is over
                stored = await store.find(self._database, name)
                if stored is not None and not stored.environment.state.is_over:
                    return
        # After the commit: a machine without a living row is removed by the next start as well.
        self._spawn(self._remove(name))

    # Ending.

    async def end(
        self,
        name: str,
        cause: Cause,
        *,
        grace_s: float,
        delete: bool = False,
    ) -> None:
        """End a living environment, and wait until nothing of it is left.

        One that is ending already is only waited for; with no grace it is hurried.

        Raises:
            Missed: it is over, or gone.
            Unavailable: its machine could not be removed yet; that is tried again until it is.
        """
        ending = await self.begin_end(name, cause, grace_s=grace_s, delete=delete)
        await asyncio.shield(ending)

    async def begin_end(
        self, name: str, cause: Cause, *, grace_s: float, delete: bool = False
    ) -> asyncio.Future[None]:
        """As `end`, without the wait; gives how the first attempt will have gone."""
        ending = self._ending.get(name)
        if ending is None or delete:
            await self._ask(name, cause, delete=delete)
            ending = self._ending.get(name)
        if ending is None:
            ending = self._end_in_background(name, grace_s=grace_s, cause=cause)
        elif grace_s < ending.grace_s:
            await self._hurry(name, ending, grace_s, cause)
        return ending.first

    async def _ask(self, name: str, cause: Cause, *, delete: bool) -> None:
        """Write down that it is to end.

        Raises:
            Missed: it is over, or gone.
        """
        try:
            await self._transitions.move(
                name, State.TERMINATING, cause, come_from=_LIVING, delete=delete
            )
        except Missed:
            if delete:
                await self._transitions.want_deletion(name, cause)
                return
            stored = await store.find(self._database, name)
            if stored is None or stored.environment.state is not State.TERMINATING:
                raise

    async def _hurry(self, name: str, ending: Ending, grace_s: float, cause: Cause) -> None:
        """Begin its end anew, with less patience."""
        ending.grace_s = grace_s
        ending.task.cancel()
        await asyncio.wait({ending.task})
        self._run(name, ending, cause)

    def _end_in_background(self, name: str, *, grace_s: float, cause: Cause) -> Ending:
        ending = Ending(grace_s)
        self._run(name, ending, cause)
        return ending

    def _run(self, name: str, ending: Ending, cause: Cause) -> None:
        task = ending.task = self._spawn(self._end(name, ending, cause))
        self._ending[name] = ending

        def ended(_: asyncio.Task[None]) -> None:
            if ending.task is task and self._ending.get(name) is ending:
                del self._ending[name]

        task.add_done_callback(ended)

    async def _end(self, name: str, ending: Ending, cause: Cause) -> None:
        if (making := self._making.get(name)) is not None:
            making.cancel()
            await asyncio.wait({making})
        if (in_the_way := self._giving_way.get(name)) is not None:
            in_the_way.cancel()

        async def end() -> None:
            async with self.locks.of(name):
                await self._end_once(name, ending.grace_s, cause)

        await insist(end, "environments.end_failed", failed=ending.fail, environment_id=name)
        ending.succeed()

    async def _end_once(self, name: str, grace_s: float, cause: Cause) -> None:
        stored = await store.find(self._database, name)
        if stored is None or stored.environment.state is not State.TERMINATING:
            return
        last_log = [] if stored.delete_wanted else await last_log_of(self.driver, name)
        await self._delete(name, grace_s=grace_s)
        if (watching := self._watching.pop(name, None)) is not None:
            watching.cancel()
        with suppress(Missed):
            await self._move(
                name,
                State.TERMINATED,
                Cause(cause.reason, caller=cause.caller),
                State.TERMINATING,
                last_log=last_log,
            )

    async def _delete(self, name: str, *, grace_s: float) -> None:
        with suppress(Gone):
            async with asyncio.timeout(grace_s + DELETE_TIMEOUT_S):
                await self.driver.delete(name, grace_s=grace_s)

    async def _remove(self, name: str) -> None:
        """Delete a machine that no living row stands for, however often that takes."""

        async def remove() -> None:
            async with self.locks.of(name):
                await self._delete(name, grace_s=0)

        await insist(remove, "environments.remove_failed", environment_id=name)

    # What all of it needs.

    async def _move(
        self,
        name: str,
        state: State,
        cause: Cause,
        *come_from: State,
        exit_: Exit | None = None,
        last_log: Sequence[LogRecord] = (),
    ) -> None:
        """Write a transition down, as often as that takes.

        Raises:
            Missed: it is not in one of the states it should come from.
        """
        await insist(
            lambda: self._transitions.move(
                name, state, cause, come_from=come_from, exit_=exit_, last_log=last_log
            ),
            "environments.not_written",
            passing=(Missed,),
            environment_id=name,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._others.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("environments.task_failed", exc_info=error)


def env_context(environment_id: str) -> str:
    """Where sealed variables belong."""
    return f"environment/{environment_id}/env"
