"""Commands run in environments: to their end, or as a stream of everything that goes in and out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import structlog

from steward_server.audit import Change, record
from steward_server.completion import complete
from steward_server.db import Database
from steward_server.environments.ability import refusal
from steward_server.environments.config import EnvironmentsConfig
from steward_server.environments.counting import Counts
from steward_server.environments.driver import (
    Command,
    Driver,
    Exit,
    Feature,
    Gone,
    Running,
    Stream,
    Unusable,
)
from steward_server.environments.output import Bounded, Lines
from steward_server.environments.room import EnvironmentRoom
from steward_server.environments.signals import signal_name
from steward_server.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    StewardError,
)
from steward_server.principals import Principal

log = structlog.get_logger(__name__)

DRAIN_S = 0.5
"""How long the output of a command that was killed is waited for."""

MAX_PIECE_BYTES = 262_144
"""Of a stream of output: far below what a message may have, far above what a message costs."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended, and what it wrote."""

    exit: Exit
    stdout: str
    stderr: str
    duration_ms: int
    timed_out: bool
    truncated: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a command whose output was passed on."""

    exit: Exit
    duration_ms: int
    timed_out: bool


Feed = Callable[[Running], Awaitable[None]]
"""Gives a command what its caller sends, in order, until there is no more."""


class Commands:
    """Runs commands."""

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
        self._driver = room.keeper.driver
        self._under_way = Counts("TOO_MANY_COMMANDS")

    async def run(
        self,
        caller: Principal,
        environment_id: str,
        command: Command,
        *,
        timeout_s: float,
        stdin: bytes,
    ) -> Result:
        """Run a command to its end, or to its timeout.

        Raises:
            NotFound, PermissionDenied: the caller may not.
            FailedPrecondition: the environment does not run, or the command cannot be started.
            ResourceExhausted: TOO_MANY_COMMANDS of the caller, or TOO_MANY_PROCESSES there.
        """
        limit = self._config.max_output_bytes
        kept = {stream: Bounded(limit) for stream in Stream}
        begun_s = time.monotonic()
        timed_out = False
        async with self.started(caller, environment_id, command) as running:
            logged = _Logged(self._driver, environment_id, self._config.logged_output_bytes)
            feeding = asyncio.create_task(_feed(running, stdin))
            try:
                async with asyncio.timeout(timeout_s):
                    while (item := await running.read()) is not None:
                        kept[item[0]].add(item[1])
                        await logged.add(*item)
                    exit_ = await running.wait()
            except TimeoutError:
                timed_out = True
                await running.aclose()
                await _drain(running, kept)
                exit_ = await running.wait()
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            await logged.end()
        return Result(
            exit_,
            kept[Stream.STDOUT].text(),
            kept[Stream.STDERR].text(),
            round((time.monotonic() - begun_s) * 1000),
            timed_out,
            any(each.is_truncated for each in kept.values()),
        )

    async def stream(
        self,
        caller: Principal,
        environment_id: str,
        command: Command,
        *,
        timeout_s: float | None,
        feed: Feed,
    ) -> AsyncIterator[tuple[Stream, bytes] | Ended]:
        """Run a command and pass on what it writes, and at last how it ended.

        What `feed` raises ends the command and is raised here.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition, ResourceExhausted: as `run`.
        """
        begun_s, now_s = time.monotonic(), asyncio.get_running_loop().time
        ends_at_s = None if timeout_s is None else now_s() + timeout_s
        timed_out = False
        # What goes through a terminal is for eyes, not for a log.
        limit = self._config.logged_output_bytes if command.tty is None else 0
        async with self.started(caller, environment_id, command) as running:
            logged = _Logged(self._driver, environment_id, limit) if limit else None
            faults: list[Exception] = []
            feeding = asyncio.create_task(_fed(running, feed, faults))
            try:
                while True:
                    try:
                        async with asyncio.timeout_at(ends_at_s):
                            item = await running.read()
                    except TimeoutError:
                        if timed_out:
                            break
                        timed_out = True
                        await running.aclose()
                        ends_at_s = now_s() + DRAIN_S  # for what was written before
                        continue
                    if item is None:
                        break
                    if logged is not None:
                        await logged.add(*item)
                    stream, data = item
                    for at in range(0, len(data), MAX_PIECE_BYTES):
                        yield stream, data[at : at + MAX_PIECE_BYTES]
                if faults:
                    raise faults[0]
                exit_ = await running.wait()
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
            if logged is not None:
                await logged.end()
        yield Ended(exit_, round((time.monotonic() - begun_s) * 1000), timed_out)

    @asynccontextmanager
    async def started(
        self, caller: Principal, environment_id: str, command: Command
    ) -> AsyncIterator[Running]:
        """Start a command, write down who did, and end it with the block, with all its children.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition, ResourceExhausted: as `run`.
        """
        await self.may(caller, environment_id)  # who is refused has not used it
        most = self._config.max_commands_per_caller
        told = f"you have {most} commands under way"
        with (
            self._under_way.one_more(caller.subject, most, told),
            self._room.uses.of(environment_id),
        ):
            running = await self.start(caller, environment_id, command)

            async def write_down() -> None:
                executed = "environment.command_executed"
                try:
                    await self.write_down(caller, environment_id, command, executed)
                except BaseException:  # what nobody can read of later is not to go on
                    await running.aclose()
                    raise

            # Written while the command runs; whoever asked for it is answered after that.
            written = asyncio.ensure_future(complete(write_down()))
            written.add_done_callback(_seen)
            try:
                yield running
                await asyncio.shield(written)
            finally:
                await complete(running.aclose())

    async def may(self, caller: Principal, environment_id: str) -> None:
        """Refuse who may run nothing there, or where nothing can run.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: as `run`.
        """
        await self._room.running(caller, environment_id)

    async def start(self, caller: Principal, environment_id: str, command: Command) -> Running:
        """Start a command; whoever asks for it must close it.

        Raises:
            NotFound, PermissionDenied, FailedPrecondition: as `run`.
        """
        environment = await self._room.running(caller, environment_id)
        if environment.spec.security.run_as_non_root and command.user == 0:
            raise InvalidArgument.of({"user": "is 0, and the environment has `run_as_non_root`"})
        try:
            return await self._driver.exec(environment_id, command)
        except Gone:
            raise await self._room.gone(caller, environment_id) from None
        except Unusable as error:
            raise not_started(error, environment_id) from None

    async def signal(self, caller: Principal, environment_id: str, pid: int, number: int) -> None:
        """Send a signal to a process, by its number inside.

        Raises:
            NotFound: PROCESS_NOT_FOUND; or the environment, as `run`.
            PermissionDenied, FailedPrecondition: as `run`.
        """
        await self.may(caller, environment_id)
        self._room.keeper.ability.must_have(Feature.SIGNAL)
        await complete(self._signal(caller, environment_id, pid, number))

    async def _signal(self, caller: Principal, environment_id: str, pid: int, number: int) -> None:
        try:
            await self._driver.signal(environment_id, pid, number)
        except Gone:
            await self.may(caller, environment_id)
            raise NotFound(
                f"environment {environment_id!r} has no process {pid} that takes signals",
                reason="PROCESS_NOT_FOUND",
                facts={"environment_id": environment_id, "pid": str(pid)},
            ) from None
        except Unusable as error:
            raise refusal(error, environment_id) from None
        now_us = self._clock()
        after = {"pid": pid, "signal": signal_name(number)}
        change = Change("environment.process_signalled", environment_id, after=after)
        await self._database.run(lambda transaction: record(transaction, now_us, caller, change))

    async def write_down(
        self, caller: Principal, environment_id: str, command: Command, action: str
    ) -> None:
        """Record who ran a program. Its arguments may hold secrets: they are not written."""
        now_us = self._clock()
        after = {"program": command.argv[0] if command.argv else "", "user": command.user}
        change = Change(action, environment_id, after=after)
        await self._database.run(lambda transaction: record(transaction, now_us, caller, change))


def not_started(error: Unusable, environment_id: str) -> StewardError:
    """A refusal of a driver to run a command, as callers are told."""
    if error.reason == "TOO_MANY_PROCESSES":
        return ResourceExhausted(
            f"environment {environment_id!r} has as many processes as it may: {error}",
            reason=error.reason,
            facts={"environment_id": environment_id},
        )
    if error.reason == "BAD_USER":
        return InvalidArgument(str(error), reason=error.reason, fields={"user": str(error)})
    return refusal(error, environment_id)


class _Logged:
    """Writes what a command says into the log of its environment."""

    def __init__(self, driver: Driver, environment_id: str, limit_bytes: int) -> None:
        self._driver = driver
        self._environment_id = environment_id
        self._lines = Lines(limit_bytes)

    async def add(self, stream: Stream, data: bytes) -> None:
        lines = self._lines.add(stream, data)
        if lines:
            await self._write(stream.value, lines)
        if self._lines.is_full():
            await self.end()
            await self._write("system", ["this command writes more than is kept of it here"])

    async def end(self) -> None:
        for stream in Stream:
            await self._write(stream.value, self._lines.rest(stream))

    async def _write(self, stream: str, lines: list[str]) -> None:
        if not lines:
            return
        try:
            await self._driver.log(self._environment_id, stream, lines)
        except Gone:
            return
        except Exception:
            log.exception("environments.log_failed", environment_id=self._environment_id)


async def _feed(running: Running, stdin: bytes) -> None:
    if stdin:
        await running.write(stdin)
    await running.close_input()


async def _fed(running: Running, feed: Feed, faults: list[Exception]) -> None:
    """Feed a command; a fault in that is noted and ends it, and so the reading of its output."""
    try:
        await feed(running)
        await running.close_input()
    except Exception as fault:  # noqa: BLE001 - raised by who reads the output
        faults.append(fault)
        await running.aclose()


async def _drain(running: Running, kept: dict[Stream, Bounded]) -> None:
    """Take what was written before the end, if it is there."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while (item := await running.read()) is not None:
                kept[item[0]].add(item[1])


def _seen(written: asyncio.Future[None]) -> None:
    if not written.cancelled():
        written.exception()
