"""One machine with gVisor, seen from the server.

Its limits are control groups of the host, its commands are known to its supervisor alone.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from typing import Any

from steward_server.environments.driver import Gone, Process, Stats, Unusable
from steward_server.environments.sandbox.native_machine import NativeMachine

_END_S, _ANSWER_S = 10.0, 30.0
_OLD = (
    "runtime_class gvisor: this runsc is of before 2023, and refuses what `ls` and `stat` of "
    "coreutils 9 ask of it; install a later one, or use images whose programs are older"
)
_PLACE = "tmp/root"
"""Where its root is for its supervisor."""


class GvisorMachine(NativeMachine):
    """A machine whose commands run on a kernel in user space: see inside/sentry.py."""

    async def _ask(self, operation: str, **more: object) -> dict[str, Any]:
        channel = await self.connect()
        with closing(channel):
            try:
                async with asyncio.timeout(_ANSWER_S):
                    told, _ = await channel.ask({"op": operation, **more})
            except TimeoutError:
                told = {"error": f"there was no answer within {_ANSWER_S:g} s"}
        if "error" in told:
            raise Unusable(
                "NO_ANSWER",
                f"the kernel of environment {self.name!r} does not answer: {told['error']}",
            )
        return told

    async def check(self) -> str:
        try:
            told = await self._ask("try")
        except Unusable as error:
            raise Unusable("NO_ISOLATION", f"gVisor does not work here: {error}") from None
        return "" if told["stats_files"] else _OLD

    def _join(self, group: str) -> int:  # noqa: ARG002 - its supervisor is told the name
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    async def _signal_command(self, group: str, number: int) -> None:
        with suppress(Gone):
            await self._ask("signal", name=group, number=number)

    async def _end(self, group: str) -> bool:
        if self.is_paused:
            return False  # it is ended when the machine goes on
        try:
            async with asyncio.timeout(_END_S):
                return bool((await self._ask("end", name=group))["ended"])
        except Gone:
            return True
        except (TimeoutError, Unusable):  # paused meanwhile, or too busy
            return False

    async def _commands(self) -> Sequence[str]:
        if self.is_paused:
            return ()
        try:
            told: list[str] = (await self._ask("commands"))["commands"]
        except Unusable:  # paused meanwhile
            return ()
        return told

    async def stats(self) -> Stats:
        try:
            space = os.statvfs(f"/proc/{self.record.pid}/root/{_PLACE}")
            storage = (space.f_blocks - space.f_bfree) * space.f_frsize
        except OSError:
            storage = None
        count = 0
        if not self.is_paused:
            with suppress(Unusable):
                count = len(await self.processes())
        with self._alive():
            return Stats(
                cpu_millicores=self._meter.millicores(
                    time.monotonic(), self._groups.cpu_us(self._cgroup) / 1e6
                ),
                memory_bytes=self._groups.memory_bytes(self._cgroup),
                storage_bytes=storage,
                process_count=count,
            )

    async def processes(self) -> Sequence[Process]:
        found = [
            Process(
                pid=each["pid"],
                parent_pid=each["parent"] or 1,
                user=each["user"],
                command=each["command"],
                started_at_us=each["born_ns"] // 1_000,
                memory_bytes=each["memory_kib"] * 1024,
            )
            for each in (await self._ask("look"))["processes"]
        ]
        return sorted(found, key=lambda each: each.pid)

    async def signal(self, pid: int, number: int) -> None:
        if pid <= 1:
            raise Gone(f"environment {self.name!r} has no process {pid} that takes signals")
        if not (await self._ask("signal", pid=pid, number=number))["found"]:
            raise Gone(f"environment {self.name!r} has no process {pid}")
