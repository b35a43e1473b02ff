"""A container's processes, seen from this host and not through its engine.

An engine can start a command in a container and cannot end what that started. The control group
can: the main command and every other one get a group of their own below the container's, and what
they fork stays in it, whatever session or parent it takes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from steward_server.environments.driver import Gone, Process, Unusable
from steward_server.environments.sandbox import cgroups, processes
from steward_server.environments.sandbox.cgroups import Cgroups, Version1, Version2
from steward_server.environments.sandbox.probe import mounts
from steward_server.environments.sandbox.processes import open_pid

MAIN = "steward-main"
_COMMAND = "steward-x"
_CONTROLLERS = ("memory", "cpu", "pids", "freezer", "cpuacct")
_SWEEPS = 500
_HOLDS = {"CapEff": 0, "CapPrm": 0, "CapBnd": 0, "NoNewPrivs": 1, "Seccomp": 2}
"""What has to stand in the status of a container's first process."""


@dataclass(frozen=True, slots=True)
class Reach:
    """The way to the processes of one container that runs."""

    pid: int
    pidfd: int
    user: int
    group: int
    uid_base: int
    """What is added to a user id inside to get that of this host."""
    _groups: Cgroups
    _name: str
    _folder: Path
    """Of its control group, where processes are moved in."""

    @classmethod
    def find(cls, pid: int, container_id: str) -> Reach:
        """Find a container by its first process, as its engine tells it.

        Raises:
            Gone: it has ended.
            Unusable: reason NO_REACH, it cannot be seen from here; or NO_ISOLATION.
        """
        try:
            pidfd = open_pid(pid)
        except PermissionError:
            raise _no_reach(container_id, "its processes may not be touched") from None
        if pidfd is None:
            raise Gone(f"container {container_id[:12]} has ended")
        try:
            status = _status(pid)
            if status["State"].startswith(("Z", "X")):
                raise FileNotFoundError
            rows = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            if not any(container_id in row for row in rows):
                raise _no_reach(container_id, f"process {pid} of this host is not its first")
            _check(status)
            base, group_base = _base(pid, "uid_map"), _base(pid, "gid_map")
            groups, name, folder = _groups(rows, container_id)
            user, group = (int(status[key].split()[0]) for key in ("Uid", "Gid"))
            return cls(pid, pidfd, user - base, group - group_base, base, groups, name, folder)
        except FileNotFoundError:
            os.close(pidfd)
            raise Gone(f"container {container_id[:12]} has ended") from None
        except BaseException:
            os.close(pidfd)
            raise

    def close(self) -> None:
        os.close(self.pidfd)

    # Commands

    @staticmethod
    def group_of(number: int) -> str:
        return MAIN if number == 0 else f"{_COMMAND}{number:x}"

    @property
    def main_is_free(self) -> bool:
        """Whether the main command has no group of its own yet."""
        return not (self._folder / MAIN).exists()

    @property
    def main_has_begun(self) -> bool:
        """Whether a process is more than the engine's pid 1 or its fork."""
        with suppress(OSError):
            init = Path(f"/proc/{self.pid}/exe").readlink()
            for pid in self._groups.pids(self._name):
                with suppress(OSError):
                    if pid != self.pid and Path(f"/proc/{pid}/exe").readlink() != init:
                        return True
        return False

    def take(self, number: int) -> str:
        """Give a command that was just started a group of its own; its name.

        Whoever is not in a group yet is of that command: there is no other way into a container,
        and one command is started at a time.
        """
        name = self.group_of(number)
        group = self._folder / name
        group.mkdir(exist_ok=True)
        for _ in range(_SWEEPS):
            pids = cgroups.read(self._folder / "cgroup.procs").split()
            if not pids:
                break
            for pid in pids:
                with suppress(ProcessLookupError):
                    cgroups.write(group / "cgroup.procs", pid)
        return name

    def commands(self) -> list[str]:
        """The groups of commands, without the main one's."""
        return [name for name in self._groups.commands(self._name) if name.startswith(_COMMAND)]

    async def end(self, command: str) -> bool:
        """Kill all that a command has started; whether it has ended by now."""
        return await cgroups.end(self._groups, self._name, command)

    def signal_command(self, command: str, number: int) -> None:
        processes.send_all(self._groups, self._name, command, number)

    def clear(self) -> None:
        """Remove the groups of a container that has ended; its own is the engine's."""
        with suppress(OSError):
            for name in self._groups.commands(self._name):
                self._groups.remove(self._name, name)

    def kill(self) -> None:
        """Kill its first process, and with it all others."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    # What goes on in it

    @property
    def is_paused(self) -> bool:
        with suppress(OSError):
            return self._groups.is_frozen(self._name)
        return False

    def processes(self) -> Sequence[Process]:
        """Its processes by their numbers inside, without the engine's pid 1."""
        return processes.processes(self._groups, self._name, self.uid_base)

    def signal(self, inner_pid: int, number: int) -> bool:
        """Send a signal to one of its processes; false if it has no such process."""
        return processes.send(self._groups, self._name, inner_pid, number)

    def usage(self) -> tuple[int, int, int]:
        """CPU time since its start in microseconds, bytes of memory, count of processes."""
        count = self._groups.process_count(self._name)
        return self._groups.cpu_us(self._name), self._groups.memory_bytes(self._name), count - 1

    # What it takes to go in

    def network_namespace(self) -> int:
        return os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    @property
    def has_own_users(self) -> bool:
        """Whether it is in a user namespace of its own."""
        theirs, ours = (Path(f"/proc/{each}/ns/user").stat().st_ino for each in (self.pid, "self"))
        return theirs != ours


def _no_reach(container_id: str, why: str) -> Unusable:
    return Unusable(
        "NO_REACH",
        f"container {container_id[:12]} runs and cannot be seen from here ({why}); run the server "
        "as root on the engine's host, in a container with --privileged, --pid=host and "
        "--cgroupns=host",
    )


def _check(status: dict[str, str]) -> None:
    """Look whether the engine has done what it was asked for.

    Raises:
        Unusable: reason NO_ISOLATION.
    """
    found = {key: int(status.get(key, "-1"), 16) for key in _HOLDS}
    wrong = [
        f"{key} is {found[key]:#x}, not {value:#x}"
        for key, value in _HOLDS.items()
        if found[key] != value
    ]
    if wrong:
        raise Unusable(
            "NO_ISOLATION", f"the engine has not isolated a container: {', '.join(wrong)}"
        )


def _status(pid: int) -> dict[str, str]:
    rows = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (row.partition(":") for row in rows)}


def _base(pid: int, name: str) -> int:
    """Where the ids of a container begin on this host."""
    rows = (row.split() for row in Path(f"/proc/{pid}/{name}").read_text().splitlines())
    return next((int(outside) for inside, outside, _ in rows if inside == "0"), 0)


def _groups(rows: list[str], container_id: str) -> tuple[Cgroups, str, Path]:
    """The control group of a container, from the rows of /proc/<pid>/cgroup."""
    paths: dict[str, str] = {}
    for row in rows:
        _, controllers, path = row.split(":", 2)
        for name in controllers.split(","):
            paths[name] = path
    mounted, unified = mounts()
    if all(container_id in paths.get(name, "") for name in _CONTROLLERS):
        parent, name = _split(paths["freezer"], container_id)
        used = {each: mounted[each] for each in _CONTROLLERS if each in mounted}
        folders = [mount / parent / name for mount in used.values()]
        if len(used) == len(_CONTROLLERS) and all(folder.is_dir() for folder in folders):
            return Version1(used, parent), name, used["freezer"] / parent / name
    elif unified is not None and container_id in paths.get("", ""):
        parent, name = _split(paths[""], container_id)
        if (unified / parent / name).is_dir():
            return Version2(unified / parent), name, unified / parent / name
    raise _no_reach(container_id, "its control group is not among those that are mounted here")


def _split(path: str, container_id: str) -> tuple[str, str]:
    """A group's parent and name; what is below the container's own is left out."""
    parts = path.strip("/").split("/")
    place = next(place for place, part in enumerate(parts) if container_id in part)
    return "/".join(parts[:place]), parts[place]
