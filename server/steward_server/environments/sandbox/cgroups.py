"""Control groups of machines: their limits, what they use, how they stand still and end.

Every machine has one group, every command in it another below that. Who is in a group cannot leave
it, whatever it forks, detaches or renames, so a group is what a command is ended by. All of this is
done by the server: it needs nothing of the machine, which may be frozen, starved or full.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from steward_server.environments.sandbox import limits as arithmetic
from steward_server.environments.sandbox.limits import Limits

_NOT_EVERYWHERE = ("memory.memsw", "memory.kmem.tcp")
"""Files that kernels of version 1 may be built without."""
_PIECE_BYTES = 65_536
_KILL_ROUNDS = 200
_FREEZE_S = 2.0
_EMPTY_S = 5.0


class Cgroups(Protocol):
    """What both versions can do. `name` is a machine's, `command` one of its commands'."""

    clones: bool
    """Whether a process is born into its group, through a descriptor of the group's folder;
    otherwise it writes itself into files of it."""

    def make(self, name: str, limits: Limits) -> None: ...

    def limit(self, name: str, limits: Limits) -> None:
        """Give a machine other limits."""
        ...

    def give(self, name: str, owner: int) -> None:
        """Let a machine's pid 1 put commands into the groups that are made for them."""
        ...

    def joins(self, name: str) -> list[int]:
        """Open what the first process of a machine joins it by."""
        ...

    def make_command(self, name: str, command: str) -> int:
        """A group for a command; what it joins it by."""
        ...

    def commands(self, name: str) -> list[str]: ...

    def pids(self, name: str, command: str = "") -> list[int]:
        """The processes of a machine, commands and all, or of one command; by our numbers."""
        ...

    def freeze(self, name: str, command: str = "") -> None: ...

    def is_frozen(self, name: str, command: str = "") -> bool:
        """Whether everything in it stands still by now."""
        ...

    def thaw(self, name: str, command: str = "") -> None: ...

    def kill(self, name: str, command: str = "") -> None:
        """Send SIGKILL to everything in it, in one go where the kernel can."""
        ...

    def remove(self, name: str, command: str = "") -> None:
        """Remove a group that is empty.

        Raises:
            OSError: EBUSY, it is not empty yet.
        """
        ...

    def memory_bytes(self, name: str) -> int: ...

    def cpu_us(self, name: str) -> int:
        """CPU time used since it was made."""
        ...

    def process_count(self, name: str) -> int: ...

    def names(self) -> set[str]:
        """The machines that have a group."""
        ...

    def close(self) -> None:
        """Remove our own place if nothing is in it."""
        ...


class Version1:
    """Four hierarchies, one for each controller."""

    clones = False

    def __init__(self, mounts: dict[str, Path], prefix: str) -> None:
        self._folders = {name: mount / prefix for name, mount in mounts.items()}
        for folder in self._folders.values():
            folder.mkdir(exist_ok=True)

    def make(self, name: str, limits: Limits) -> None:
        for folder in self._folders.values():
            (folder / name).mkdir()
        self.limit(name, limits)

    def limit(self, name: str, limits: Limits) -> None:
        memory = self._folders["memory"] / name
        if not (memory / "memory.memsw.limit_in_bytes").exists():
            # A kernel that does not count swap: then nothing of this group may go there.
            write(memory / "memory.swappiness", "0")
        else:
            # Memory may never be more than memory and swap together: first out of each other's way.
            write(memory / "memory.memsw.limit_in_bytes", "-1")
        for controller, file, value in arithmetic.version_1(limits):
            path = self._folders[controller] / name / file
            if path.exists() or not file.startswith(_NOT_EVERYWHERE):
                write(path, value)

    def give(self, name: str, owner: int) -> None:
        pass  # who writes is judged by who has opened the file, and that was the server

    def joins(self, name: str) -> list[int]:
        # `tasks`, not `cgroup.procs`: a thread that moves itself takes no lock of all processes.
        flags = os.O_WRONLY | os.O_CLOEXEC
        return [os.open(folder / name / "tasks", flags) for folder in self._folders.values()]

    def make_command(self, name: str, command: str) -> int:
        folder = self._folders["freezer"] / name / command
        folder.mkdir()
        return os.open(folder / "tasks", os.O_WRONLY | os.O_CLOEXEC)

    def commands(self, name: str) -> list[str]:
        return _folders(self._folders["freezer"] / name)

    def pids(self, name: str, command: str = "") -> list[int]:
        # Commands are groups of the freezer alone; of a machine any other hierarchy tells all.
        folder = self._folders["freezer" if command else "pids"] / name / command
        return _pids(folder / "cgroup.procs")

    def freeze(self, name: str, command: str = "") -> None:
        write(self._folders["freezer"] / name / command / "freezer.state", "FROZEN")

    def is_frozen(self, name: str, command: str = "") -> bool:
        state = self._folders["freezer"] / name / command / "freezer.state"
        return read(state).strip() == "FROZEN"

    def thaw(self, name: str, command: str = "") -> None:
        write(self._folders["freezer"] / name / command / "freezer.state", "THAWED")

    def kill(self, name: str, command: str = "") -> None:
        # Standing still, none can fork away while they are counted.
        self.freeze(name, command)
        try:
            for pid in self.pids(name, command):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        finally:
            self.thaw(name, command)

    def remove(self, name: str, command: str = "") -> None:
        hierarchies = ("freezer",) if command else tuple(self._folders)
        for hierarchy in hierarchies:
            with suppress(FileNotFoundError):
                (self._folders[hierarchy] / name / command).rmdir()

    def memory_bytes(self, name: str) -> int:
        folder = self._folders["memory"] / name
        used = int(read(folder / "memory.usage_in_bytes"))
        return max(0, used - _statistic(folder / "memory.stat", "total_inactive_file"))

    def cpu_us(self, name: str) -> int:
        path = self._folders["cpuacct"] / name / "cpuacct.usage"
        return int(read(path)) // 1000

    def process_count(self, name: str) -> int:
        return int(read(self._folders["pids"] / name / "pids.current"))

    def names(self) -> set[str]:
        return {name for folder in self._folders.values() for name in _folders(folder)}

    def close(self) -> None:
        for folder in self._folders.values():
            with suppress(OSError):
                folder.rmdir()


class Version2:
    """One hierarchy; a process is born into its group."""

    clones = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, limits: Limits) -> None:
        (self.folder / name).mkdir()
        self.limit(name, limits)

    def limit(self, name: str, limits: Limits) -> None:
        for file, value in arithmetic.version_2(limits):
            path = self.folder / name / file
            if file == "memory.swap.max" and not path.exists():
                continue  # a kernel without swap
            write(path, value)

    def give(self, name: str, owner: int) -> None:
        os.chown(self.folder / name / "cgroup.procs", owner, owner)

    def joins(self, name: str) -> list[int]:
        return [os.open(self.folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]

    def make_command(self, name: str, command: str) -> int:
        folder = self.folder / name / command
        folder.mkdir()
        owner = (self.folder / name / "cgroup.procs").stat().st_uid
        os.chown(folder / "cgroup.procs", owner, owner)
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def commands(self, name: str) -> list[str]:
        return _folders(self.folder / name)

    def pids(self, name: str, command: str = "") -> list[int]:
        if command:
            return _pids(self.folder / name / command / "cgroup.procs")
        below = (_pids(self.folder / name / each / "cgroup.procs") for each in self.commands(name))
        return _pids(self.folder / name / "cgroup.procs") + [pid for pids in below for pid in pids]

    def freeze(self, name: str, command: str = "") -> None:
        write(self.folder / name / command / "cgroup.freeze", "1")

    def is_frozen(self, name: str, command: str = "") -> bool:
        return _statistic(self.folder / name / command / "cgroup.events", "frozen") == 1

    def thaw(self, name: str, command: str = "") -> None:
        write(self.folder / name / command / "cgroup.freeze", "0")

    def kill(self, name: str, command: str = "") -> None:
        write(self.folder / name / command / "cgroup.kill", "1")

    def remove(self, name: str, command: str = "") -> None:
        with suppress(FileNotFoundError):
            (self.folder / name / command).rmdir()

    def memory_bytes(self, name: str) -> int:
        folder = self.folder / name
        used = int(read(folder / "memory.current"))
        return max(0, used - _statistic(folder / "memory.stat", "inactive_file"))

    def cpu_us(self, name: str) -> int:
        return _statistic(self.folder / name / "cpu.stat", "usage_usec")

    def process_count(self, name: str) -> int:
        return int(read(self.folder / name / "pids.current"))

    def names(self) -> set[str]:
        return set(_folders(self.folder))

    def close(self) -> None:
        with suppress(OSError):
            self.folder.rmdir()


async def end(groups: Cgroups, name: str, command: str) -> bool:
    """Kill everything in a command's group and remove it; whether it has ended by now.

    What stands still ends when its machine goes on, or is deleted. A bomb forks between two looks
    at it, so it is looked until nothing is left.
    """
    for attempt in range(_KILL_ROUNDS):
        try:
            if groups.pids(name, command):
                groups.kill(name, command)
                if groups.is_frozen(name):
                    return False
            groups.remove(name, command)
        except FileNotFoundError:
            return True
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            await asyncio.sleep(min(0.001 * (attempt + 1), 0.05))
            continue
        return True
    return False


async def stand_still(groups: Cgroups, name: str) -> None:
    """Freeze a machine, and wait until it is.

    Raises:
        TimeoutError: something in it does not stand still.
    """
    groups.freeze(name)
    until = time.monotonic() + _FREEZE_S
    while not groups.is_frozen(name):
        if time.monotonic() > until:
            groups.thaw(name)
            raise TimeoutError
        await asyncio.sleep(0.0005)
        groups.freeze(name)  # version 1 may have missed one that forked meanwhile


async def dissolve(groups: Cgroups, name: str) -> None:
    """Remove all groups of a machine whose processes are dead or die."""
    until = time.monotonic() + _EMPTY_S
    while True:
        try:
            for command in groups.commands(name):
                groups.remove(name, command)
            groups.remove(name)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
            await asyncio.sleep(0.001)
            continue
        return


# Each of these files is asked or told often, and `Path` takes several times as long as the kernel.
# Both raise FileNotFoundError also where the group goes while its file is open.


def read(file: Path) -> str:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, _PIECE_BYTES):
            parts.append(part)
        return b"".join(parts).decode()
    except OSError as error:
        raise _explained(error) from None
    finally:
        os.close(fd)


def write(file: Path, text: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    except OSError as error:
        raise _explained(error) from None
    finally:
        os.close(fd)


def _explained(error: OSError) -> OSError:
    is_gone = error.errno == errno.ENODEV
    return FileNotFoundError(errno.ENOENT, "the control group is gone") if is_gone else error


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _pids(file: Path) -> list[int]:
    try:
        return [int(line) for line in read(file).split()]
    except FileNotFoundError:
        return []


def _statistic(file: Path, key: str) -> int:
    return next(_values(file, key), 0)


def _values(file: Path, key: str) -> Iterator[int]:
    for line in read(file).splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            yield int(value)
