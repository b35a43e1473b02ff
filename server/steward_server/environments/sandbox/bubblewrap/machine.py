"""One machine without root, seen from the server: its warden knows all, and is asked."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from steward_server.environments.driver import Command, Gone, Process, Stats, Unusable
from steward_server.environments.sandbox import making, processes
from steward_server.environments.sandbox.bubblewrap.delegated import Undivided
from steward_server.environments.sandbox.channel import Channel
from steward_server.environments.sandbox.machine import Machine
from steward_server.environments.sandbox.record import Record

_PAUSED = "paused"
"""A file in the folder of a machine that stands still."""
_PAUSE_S, _LOOK_S = 2.0, 0.005
_ANSWER_S = 15.0
"""What a warden is asked: some seconds of hunting, and a host that is busy with what is hunted."""
_TICKS_PER_S, _PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


class BubblewrapMachine(Machine):
    """A machine whose commands are told apart by their keepers: see warden.py."""

    def __init__(self, folder: Path, record: Record, groups: Undivided | None, pidfd: int) -> None:
        super().__init__(folder, record, pidfd)
        self._groups = groups

    @property
    def is_paused(self) -> bool:
        return (self.folder / _PAUSED).exists()

    async def _ask(self, operation: str, **more: object) -> dict[str, Any]:
        """Ask the warden, which never stands still itself."""
        channel = await Channel.connect(self.folder / making.SOCKET)
        with closing(channel):
            try:
                async with asyncio.timeout(_ANSWER_S):
                    told, _ = await channel.ask({"op": operation, **more})
            except TimeoutError:
                raise Unusable(
                    "NO_ANSWER",
                    f"environment {self.name!r} did not do that within {_ANSWER_S:g} s",
                ) from None
        if "error" in told:
            raise Unusable(
                "TOO_MANY_PROCESSES",
                f"environment {self.name!r} cannot do that now: {told['error']}",
            )
        return told

    def _join(self, group: str) -> int:  # noqa: ARG002 - the warden is told the name
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # there is nothing to join

    def _invocation(self, command: Command) -> dict[str, Any]:
        told = super()._invocation(command)
        if command.user not in (None, self.record.user):
            raise Unusable(
                "BAD_USER",
                f"commands of environment {self.name!r} run as user {self.record.user} alone: a "
                "server without root has one user for each; leave the user out, or set "
                "run_as_user when the environment is created",
            )
        return told

    async def _signal_command(self, group: str, number: int) -> None:
        with suppress(Gone):
            await self._ask("signal", name=group, number=number)

    async def _end(self, group: str) -> bool:
        with suppress(Gone):
            await self._ask("end", name=group)
        return True

    async def _commands(self) -> Sequence[str]:
        told: list[str] = (await self._ask("commands"))["commands"]
        return told

    async def stats(self) -> Stats:
        told = await self._ask("look")
        used_s = told["cpu_ticks"] / _TICKS_PER_S
        memory_bytes = sum(each["memory_pages"] for each in told["processes"]) * _PAGE_BYTES
        if self._groups is not None:
            used_s = self._groups.cpu_us(self.record.cgroup) / 1e6
            memory_bytes = self._groups.memory_bytes(self.record.cgroup)
        return Stats(
            cpu_millicores=self._meter.millicores(time.monotonic(), used_s),
            memory_bytes=memory_bytes,
            storage_bytes=told["storage_bytes"],
            process_count=len(told["processes"]),
        )

    async def processes(self) -> Sequence[Process]:
        booted_at_us = processes.booted_at_us()
        found = [
            Process(
                pid=each["pid"],
                parent_pid=each["parent"],
                user=self.record.user,
                command=each["command"],
                started_at_us=booted_at_us + each["started_ticks"] * 1_000_000 // _TICKS_PER_S,
                memory_bytes=each["memory_pages"] * _PAGE_BYTES,
            )
            for each in (await self._ask("look"))["processes"]
        ]
        return sorted(found, key=lambda each: each.pid)

    async def signal(self, pid: int, number: int) -> None:
        if pid <= 1:
            raise Gone(f"environment {self.name!r} has no process {pid} that takes signals")
        if not (await self._ask("signal", pid=pid, number=number))["found"]:
            raise Gone(f"environment {self.name!r} has no process {pid}")

    async def pause(self) -> None:
        (self.folder / _PAUSED).touch()
        until = time.monotonic() + _PAUSE_S
        while not (await self._ask("pause"))["ok"]:
            if time.monotonic() > until:
                await self._let_go_on()
                raise Unusable(
                    "CANNOT_PAUSE",
                    f"environment {self.name!r} does not stand still; try again in a moment",
                )
            await asyncio.sleep(_LOOK_S)

    async def _let_go_on(self) -> None:
        if self.is_paused:
            await self._ask("resume")
            (self.folder / _PAUSED).unlink(missing_ok=True)
