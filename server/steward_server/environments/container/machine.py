"""One container of ours, seen from the server."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aiodocker.containers import DockerContainer
from aiodocker.exceptions import DockerError

from steward_server.environments.asked import must_not_be_root
from steward_server.environments.container import request, running
from steward_server.environments.container.engine import Engine
from steward_server.environments.container.entering import Door
from steward_server.environments.container.reach import Reach
from steward_server.environments.container.recording import Recorder
from steward_server.environments.container.request import Kept
from steward_server.environments.driver import Command, Exit, Gone, Running, Stats, Unusable
from steward_server.environments.metering import Meter
from steward_server.environments.sandbox.channel import Channel

_LAST_LINES_S = 2.0
"""How long it may take to read what an engine has of a container that has ended."""
_FIRST_RETRY_S, _LONGEST_RETRY_S = 0.2, 5.0
_KILLED = Exit(137, 9)
_BEGIN_S, _LOOK_S = 2.0, 0.01
_NOT_BEGUN = (1, 126, 127)
_MOST_WORDS = 4
_INIT_FAILED = re.compile(r"ERROR \(catatonit:\d+\): failed to exec|\[FATAL tini .*exec ")
"""What the engine's pid 1 says, catatonit for Podman and tini for Docker, which cannot run it."""
_STORAGE_FOR_S = 1.0
_DISK_LOOK_S = 5.0
"""How long it is believed what an engine says of a disk, and how often it is asked; it counts every
file for it."""


@dataclass(frozen=True, slots=True)
class Record:
    """Who works in a machine."""

    user: int
    group: int


class Machine:
    """What can be done with it while it lives."""

    def __init__(
        self,
        engine: Engine,
        door: Door,
        container: DockerContainer,
        kept: Kept,
        folder: Path,
        *,
        log_bytes: int,
    ) -> None:
        self.name = kept.environment_id
        self.kept = kept
        self.container = container
        self.folder = folder
        self._engine = engine
        self._door = door
        self._recorder = Recorder(folder, engine, container.id, log_bytes=log_bytes)
        self._reach: Reach | None = None
        self._working_dir = request.WORKSPACE
        self._starting = asyncio.Lock()
        self._count = time.time_ns() // 1_000_000
        self._open_commands: set[str] = set()
        self._meter = Meter(time.monotonic())
        self._storage: tuple[float, int | None] = (float("-inf"), None)
        self._ended: asyncio.Task[Exit] | None = None
        self._is_to_stand = False
        self.is_started = False
        self.is_deleted = False
        """Whether nobody needs to be told how it ends."""

    @property
    def is_alive(self) -> bool:
        return self._reach is not None and self._ended is not None and not self._ended.done()

    @property
    def reach(self) -> Reach:
        """The way to its processes.

        Raises:
            Gone: it does not run.
        """
        if self._reach is None or not self.is_alive:
            raise Gone(f"environment {self.name!r} does not run")
        return self._reach

    @property
    def record(self) -> Record:
        return Record(self.reach.user, self.reach.group)

    # Its life

    async def start(self) -> None:
        """Run the main command.

        Raises:
            Unusable: reason NOT_EXECUTABLE, ALREADY_STARTED, NO_REACH or NO_ISOLATION.
        """
        if self.is_started:
            raise Unusable("ALREADY_STARTED", f"{self.name!r} was started before")
        self.is_started = True
        try:
            async with self._engine.asked():
                await self.container.start()
        except DockerError as error:
            raise Unusable(
                "NOT_EXECUTABLE", f"the main command cannot be run: {error.message[:500]}"
            ) from None
        try:
            await self.adopt()
            await self._begun()
        except Unusable:
            with suppress(DockerError, Unusable):
                await self.container.kill()
            raise

    async def _begun(self) -> None:
        """Wait until the engine's pid 1 has started the main command.

        Raises:
            Unusable: reason NOT_EXECUTABLE; it could not.
        """
        until = time.monotonic() + _BEGIN_S
        while self.is_alive and not self.reach.main_has_begun:
            if time.monotonic() > until:
                break
            await asyncio.sleep(_LOOK_S)
        if self.is_alive or self._ended is None:
            return
        ended = await self.wait()
        if ended.code in _NOT_BEGUN:
            async with self._engine.asked():
                lines = await self.container.log(stdout=True, stderr=True)
            text = "".join(lines[:_MOST_WORDS])  # catatonit says it in pieces
            if _INIT_FAILED.match(text):
                raise Unusable("NOT_EXECUTABLE", f"the main command cannot be run: {text}")

    async def adopt(self) -> None:
        """Take it up as the engine tells it now: it runs, has ended, or was never started.

        Raises:
            Unusable: reason NO_REACH or NO_ISOLATION.
        """
        async with self._engine.asked():
            told = await self.container.show()
        state = told["State"]
        self.is_started = state["Status"] not in ("created", "configured")
        self._working_dir = told["Config"].get("WorkingDir") or request.WORKSPACE
        if not self.is_started:
            return
        if self._engine.is_podman and told.get("LogPath"):
            self._recorder.engine_file = Path(told["LogPath"])
        with suppress(Gone):  # it has ended meanwhile
            if state["Running"] or state.get("Paused"):
                reach = await self._find(state["Pid"])
                self._meter = Meter(time.monotonic(), self._usage(reach)[0])
                self._reach = reach
                # What a server before this one had just started is of nobody now.
                self._reach.take(0 if self._reach.main_is_free else self._count)
        self._ended = asyncio.create_task(self._watch(), name=f"container {self.name}")
        if self._reach is not None:
            await self.end_left_commands()

    async def _find(self, pid: int) -> Reach:
        until = time.monotonic() + _BEGIN_S
        while True:
            try:
                return Reach.find(pid, self.container.id)
            except Unusable:
                # A runtime takes its own rights away last, just before it becomes what it runs;
                # and one that is about to end has left its control group already.
                if time.monotonic() > until:
                    raise
            await asyncio.sleep(_LOOK_S)

    async def _watch(self) -> Exit:
        """Record what it writes until it has ended, and how that was."""
        beside = [asyncio.create_task(self._record()), asyncio.create_task(self._watch_disk())]
        try:
            ended = await self._wait()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
        # Who follows a log learns late of its end.
        with suppress(Unusable, DockerError, OSError):
            async with asyncio.timeout(_LAST_LINES_S):
                await self._recorder.catch_up(follow=False)
        self._recorder.end(ended, tell=not self.is_deleted)
        if self._reach is not None:
            self._reach.clear()
        return ended

    async def _wait(self) -> Exit:
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                async with self._engine.asked():
                    told = await self.container.wait(condition="not-running")
                return running.exit_of(told["StatusCode"])
            except DockerError as error:
                if error.status == 404:
                    return _KILLED
            except Unusable:  # its engine is away; it may be no worse for that
                pass
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, _LONGEST_RETRY_S)

    async def _record(self) -> None:
        retry_s = _FIRST_RETRY_S
        while True:
            with suppress(Unusable, DockerError, OSError):
                await self._recorder.catch_up(follow=True)
                async with self._engine.asked():
                    state = (await self.container.show())["State"]
                if not state["Running"] and not state.get("Paused"):
                    return
            await asyncio.sleep(retry_s)
            retry_s = min(retry_s * 2, _LONGEST_RETRY_S)

    async def _watch_disk(self) -> None:
        """End it soon after it has written more than it may, where its engine cannot hold it."""
        while not self._engine.holds_disk and self._reach is not None:
            await asyncio.sleep(_DISK_LOOK_S)
            with suppress(Unusable, DockerError):
                used = await self.storage_bytes()
                if used is not None and used > self.kept.storage_bytes:
                    self._recorder.add(
                        "system",
                        [f"ended: its disk has {used} bytes of {self.kept.storage_bytes}"],
                    )
                    self._reach.kill()
                    return

    async def wait(self) -> Exit:
        if self._ended is None:
            raise Gone(f"environment {self.name!r} was never started")
        return await asyncio.shield(self._ended)

    # Commands

    async def exec(self, command: Command) -> Running:
        """Run a command beside the main one."""
        reach = self._awake()
        user = reach.user if command.user is None else command.user
        must_not_be_root(user, wanted=self.kept.must_not_be_root)
        body = request.command(command, working_dir=self._working_dir)
        async with self._starting:
            self._count += 1
            number = self._count
            group = reach.group_of(number)
            self._open_commands.add(group)
            try:
                async with self._engine.asked():
                    return await running.start(
                        self._engine,
                        self.container.id,
                        reach,
                        command,
                        body,
                        number,
                        on_close=lambda: self._open_commands.discard(group),
                    )
            except BaseException:
                self._open_commands.discard(group)
                raise

    async def end_left_commands(self) -> None:
        """End commands that nobody holds any more: their server or their caller is gone."""
        for group in self.reach.commands():
            if group not in self._open_commands:
                await self.reach.end(group)

    async def pause(self) -> None:
        """Let everything in it stand still, and wait until it does."""
        reach = self.reach
        if not self.is_paused:
            self._is_to_stand = True
            async with self._engine.asked():
                await self.container.pause()
        until = time.monotonic() + _BEGIN_S
        while not reach.is_paused and time.monotonic() < until:  # noqa: ASYNC110 - of the kernel
            await asyncio.sleep(_LOOK_S)

    async def resume(self) -> None:
        """Let it go on, and end what was to end meanwhile."""
        if self.is_paused:
            async with self._engine.asked():
                await self.container.unpause()
        self._is_to_stand = False
        await self.end_left_commands()

    @property
    def is_paused(self) -> bool:
        return self._is_to_stand or (self._reach is not None and self._reach.is_paused)

    def _awake(self) -> Reach:
        if self.is_paused:
            raise Unusable("PAUSED", f"environment {self.name!r} is paused; resume it first")
        return self.reach

    async def connect(self) -> Channel:
        """A connection to a process that goes in; see `sandbox.inside.file_work`.

        Raises:
            Gone: it has ended.
            Unusable: reason PAUSED.
        """
        return await self._door.go_in(self._awake())

    # What goes on in it

    async def stats(self) -> Stats:
        """What it uses now; its CPU over the time since it was last asked."""
        used_s, memory_bytes, count = self._usage(self.reach)
        return Stats(
            cpu_millicores=self._meter.millicores(time.monotonic(), used_s),
            memory_bytes=memory_bytes,
            storage_bytes=await self.storage_bytes(),
            process_count=max(0, count),
        )

    def _usage(self, reach: Reach) -> tuple[float, int, int]:
        """Processor time in seconds, memory in bytes, and how many processes."""
        try:
            cpu_us, memory_bytes, count = reach.usage()
        except OSError:
            raise Gone(f"environment {self.name!r} has ended") from None
        return cpu_us / 1e6, memory_bytes, count

    async def storage_bytes(self) -> int | None:
        """What it has written to its root, as the engine counts it."""
        if time.monotonic() - self._storage[0] > _STORAGE_FOR_S:
            async with self._engine.asked():
                told = await self.container.show(size=True)
            self._storage = time.monotonic(), told.get("SizeRw")
        return self._storage[1]

    def log(self, stream: str, lines: Sequence[str]) -> None:
        self._recorder.add(stream, lines)

    async def aclose(self) -> None:
        """Let go of it; it lives on."""
        if self._ended is not None and not self._ended.done():
            self._ended.cancel()
            await asyncio.gather(self._ended, return_exceptions=True)
        self._recorder.close()
        if self._reach is not None:
            self._reach.close()
            self._reach = None
