"""Makes one machine without root: what is asked of bwrap, and of what it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steward_server.completion import finish
from steward_server.environments.driver import Gone, Unusable
from steward_server.environments.environment import Spec
from steward_server.environments.removal import remove_tree
from steward_server.environments.sandbox import making, record
from steward_server.environments.sandbox.bubblewrap.delegated import Undivided
from steward_server.environments.sandbox.bubblewrap.probe import NAMESPACES, OWN_RIGHTS
from steward_server.environments.sandbox.channel import Channel, listen, readable
from steward_server.environments.sandbox.inside.packets import close_all
from steward_server.environments.sandbox.launching import open_log, program
from steward_server.environments.sandbox.limits import CPU_PERIOD_US, Limits
from steward_server.environments.sandbox.making import Attach, Body, Shape, refused
from steward_server.environments.sandbox.record import Record

NAME = "bubblewrap"
STARTED = "started"
"""What in a machine's folder tells of its pid 1 before its record does."""
_ANSWER_S = 30
_DEATH_S = 10.0
_SCAFFOLD = "/sys"
"""A folder that every host has and no machine shows: the new root is put together over it."""


@dataclass(slots=True)
class _Started:
    """A pid 1 that waits to be told what it becomes. The descriptor is the caller's to close."""

    channel: Channel
    pid: int
    pidfd: int


class Maker:
    """Makes machines below a folder."""

    def __init__(
        self, folder: Path, program: str, groups: Undivided | None, *, log_bytes: int
    ) -> None:
        self._log = folder / "bwrap.log"
        self._program = program
        self._groups = groups
        self._log_bytes = log_bytes
        self._bwraps: dict[str, int] = {}  # pids, by the machine's name

    async def make(self, folder: Path, shape: Shape, attach: Attach | None = None) -> Body:
        """Make a machine in a folder that is empty; what is left if that fails is to be cleared.

        Raises:
            Unusable: this host cannot.
        """
        del attach  # nobody is offered a network by this back end
        _must_fit(shape.limits)
        try:
            return await self._make(folder, shape)
        except Gone:
            raise refused("the machine ended while it was made", self._log) from None
        except TimeoutError:
            raise refused("there was no answer", self._program) from None
        except OSError as error:
            raise refused(error.strerror, error.filename) from error

    async def give(self, body: Body, name: str, spec: Spec, shape: Shape) -> tuple[Path, Record]:
        """Make a machine an environment's: its folder, and what is kept of it."""
        del name  # it has that already
        return body.folder, making.keep(body, body.folder, spec, shape, backend=NAME)

    async def bury(self, name: str) -> None:
        """Bury the bwrap of a machine that has ended; it ends with it."""
        pid = self._bwraps.pop(name, 0)
        if pid:
            await asyncio.to_thread(os.waitpid, pid, 0)

    def bury_all(self) -> None:
        """Bury those of machines that have ended by themselves."""
        for name, pid in list(self._bwraps.items()):
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._bwraps[name]

    async def _make(self, folder: Path, shape: Shape) -> Body:
        logs = folder / making.LOGS
        logs.mkdir(mode=0o700)
        logs_fd = os.open(logs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if self._groups is not None:
                self._groups.make(folder.name, shape.limits)
            with listen(folder / making.SOCKET) as listener:
                async with asyncio.timeout(_ANSWER_S):
                    started = await self._start(folder, shape)
                    with closing(started.channel):
                        try:
                            plan = self._plan(folder.name, shape)
                            told, _ = await started.channel.ask(plan, [listener.fileno(), logs_fd])
                            if "error" in told:
                                raise _explained(told["error"], told.get("what"))
                        except BaseException:
                            os.close(started.pidfd)
                            raise
        finally:
            os.close(logs_fd)
        base = max(0, os.geteuid() - shape.user)
        return Body(shape, folder, folder.name, base, started.pid, started.pidfd)

    async def _start(self, folder: Path, shape: Shape) -> _Started:
        """Start bwrap, and wait until what it starts says that it is there."""
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        here.setblocking(False)
        channel = Channel(here)
        log = open_log(self._log)
        code = program("steward_server.environments.sandbox.bubblewrap.pid1", 1)
        command = [
            self._program, *NAMESPACES, *OWN_RIGHTS,
            "--uid", str(shape.user), "--gid", str(shape.group),
            "--hostname", folder.name[: making.HOSTNAME],
            "--dev-bind", "/", "/", "--", sys.executable, "-I", "-S", "-",
        ]  # fmt: skip
        bwraps = self._bwraps

        def spawn() -> None:
            bwraps[folder.name] = _spawn(command, (code, there.fileno(), log))

        try:
            try:
                # Given up, it is waited for: then it is known whom to bury, and what it is given
                # can be closed.
                await finish(asyncio.to_thread(spawn))
            finally:
                there.close()
                close_all([log, code])
            _, (pidfd,) = await channel.receive()
        except BaseException:
            channel.close()
            if bwrap := bwraps.get(folder.name):
                with suppress(ProcessLookupError):
                    os.killpg(bwrap, signal.SIGKILL)
            raise
        pid = _pid_of(pidfd)
        try:
            (folder / STARTED).write_text(f"{pid} {record.started_ticks(pid)} {record.boot_id()}")
            if self._groups is not None:
                self._groups.join(folder.name, pid)
        except BaseException:
            channel.close()
            os.close(pidfd)
            raise
        return _Started(channel, pid, pidfd)

    def _plan(self, name: str, shape: Shape) -> dict[str, Any]:
        limits = shape.limits
        return {
            "scaffold": _SCAFFOLD,
            "uid_base": 0,
            "is_alone": True,
            "user": shape.user,
            "group": shape.group,
            "read_only": shape.read_only,
            "storage": {"bytes": limits.storage_bytes, "inodes": limits.inode_count},
            "shared_memory_bytes": limits.shared_memory_bytes,
            "image": str(shape.image.root),
            "binds": [[str(source), target] for source, target in shape.image.binds],
            "files": making.files_of(name),
            "cgroup_clone": False,
            "rlimits": rlimits(limits, has_groups=self._groups is not None),
            "cores": max(1, -(-limits.cpu_quota_us // CPU_PERIOD_US)),
            "log_segment_bytes": self._log_bytes // 16,
            "log_segment_count": 16,
        }


def _spawn(command: list[str], standard: tuple[int, int, int]) -> int:
    """Start a program that has nothing of ours: no environment, and no descriptor but three."""
    stdin, stdout, stderr = standard
    process = subprocess.Popen(  # noqa: S603 - nothing of it comes from outside
        command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={},
        cwd="/",
        start_new_session=True,
    )
    process.returncode = 0  # it outlives this server, and is buried by its pid
    return process.pid


def rlimits(limits: Limits, *, has_groups: bool) -> dict[str, int]:
    """What each command is held to.

    Processes are counted by user and user namespace, so that limit is the whole machine's. Memory
    is each process' own; what it writes is counted, not what it sets aside, which many programs do
    by the gigabyte.
    """
    found = {"RLIMIT_NPROC": limits.process_count}
    if not has_groups:
        found["RLIMIT_DATA"] = limits.memory_bytes
    return found


async def clear(folder: Path, groups: Undivided | None, name: str) -> None:
    """Remove what a machine has on the host: processes, group, files.

    Raises:
        OSError: some of it resists.
    """
    await _kill(folder)
    if groups is not None:
        await making.clear(folder, groups, name)
    await asyncio.to_thread(remove_tree, folder, ignore_errors=True)


async def _kill(folder: Path) -> None:
    try:
        pid_text, ticks, boot = (folder / STARTED).read_text().split()
    except (FileNotFoundError, ValueError):
        return
    pidfd = record.open_process(int(pid_text), int(ticks), boot)
    if pidfd is None:
        return
    try:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        async with asyncio.timeout(_DEATH_S):  # that is an OSError
            await readable(pidfd)
    finally:
        os.close(pidfd)


def _must_fit(limits: Limits) -> None:
    """Refuse more storage than memory can hold: without root there is no disk to be had.

    Raises:
        Unusable: reason LIMIT_TOO_LARGE.
    """
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    if limits.storage_bytes > most:
        raise Unusable(
            "LIMIT_TOO_LARGE",
            f"{limits.storage_bytes} bytes of storage are asked for; a server without root keeps "
            f"what an environment writes in memory, and gives at most half of that, {most}",
        )


def _explained(text: str | None, what: object) -> Unusable:
    refusal = refused(text, what)
    if what != "mount proc":
        return refusal
    return Unusable(
        refusal.reason,
        f"{refusal}: parts of this container's /proc are hidden, and then none may be made; give "
        "it --security-opt systempaths=unconfined",
    )


def _pid_of(pidfd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise Gone("it has ended")
