"""One machine of the back end `native`, seen from the server."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from steward_server.environments.driver import Gone, Process, Stats, Unusable
from steward_server.environments.sandbox import cgroups, processes
from steward_server.environments.sandbox.cgroups import Cgroups
from steward_server.environments.sandbox.machine import Machine
from steward_server.environments.sandbox.record import Record


class NativeMachine(Machine):
    """A machine whose commands are held together by control groups."""

    def __init__(self, folder: Path, record: Record, groups: Cgroups, pidfd: int) -> None:
        super().__init__(folder, record, pidfd)
        self._cgroup = record.cgroup
        self._groups = groups

    @property
    def is_paused(self) -> bool:
        with suppress(OSError):
            return self._groups.is_frozen(self._cgroup)
        return False

    @contextmanager
    def _alive(self) -> Iterator[None]:
        """Tell what finds its groups gone that the machine is."""
        try:
            yield
        except FileNotFoundError:
            raise Gone(f"there is no machine {self.name!r}") from None

    def _join(self, group: str) -> int:
        with self._alive():
            return self._groups.make_command(self._cgroup, group)

    async def _signal_command(self, group: str, number: int) -> None:
        processes.send_all(self._groups, self._cgroup, group, number)

    async def _end(self, group: str) -> bool:
        return await cgroups.end(self._groups, self._cgroup, group)

    async def _commands(self) -> Sequence[str]:
        return self._groups.commands(self._cgroup)

    async def stats(self) -> Stats:
        try:
            space = os.statvfs(f"/proc/{self.record.pid}/root")
            storage = (space.f_blocks - space.f_bfree) * space.f_frsize
        except OSError:
            storage = None
        with self._alive():
            return Stats(
                cpu_millicores=self._meter.millicores(
                    time.monotonic(), self._groups.cpu_us(self._cgroup) / 1e6
                ),
                memory_bytes=self._groups.memory_bytes(self._cgroup),
                storage_bytes=storage,
                process_count=max(0, self._groups.process_count(self._cgroup) - 1),
            )

    async def processes(self) -> Sequence[Process]:
        return processes.processes(self._groups, self._cgroup, self.record.uid_base)

    async def signal(self, pid: int, number: int) -> None:
        if not processes.send(self._groups, self._cgroup, pid, number):
            raise Gone(f"environment {self.name!r} has no process {pid} that takes signals")

    async def pause(self) -> None:
        with self._alive():
            try:
                await cgroups.stand_still(self._groups, self._cgroup)
            except TimeoutError:
                raise Unusable(
                    "CANNOT_PAUSE",
                    f"environment {self.name!r} does not stand still; try again in a moment",
                ) from None

    async def _let_go_on(self) -> None:
        with self._alive():
            self._groups.thaw(self._cgroup)

    async def kill(self) -> None:
        with suppress(OSError):
            self._groups.thaw(self._cgroup)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        with suppress(OSError):
            self._groups.thaw(self._cgroup)
        await self.ended()
