"""The processes of a machine, from the host's /proc: the machine is not asked."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from steward_server.environments.driver import Process
from steward_server.environments.sandbox.cgroups import Cgroups
from steward_server.environments.sandbox.inside.build import UID_COUNT
from steward_server.environments.sandbox.inside.packets import close_all

_NOBODY = 65_534
_MOST_COMMAND_BYTES = 4096
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_NO_PROCESS = (errno.ESRCH, errno.ENOENT, errno.EINVAL)
"""How kernels say that a number is nobody's or, the last two, a mere thread's by now."""


def open_pid(pid: int) -> int | None:
    """A descriptor of a process; None if there is none of that number."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in _NO_PROCESS:
            raise
        return None


def processes(groups: Cgroups, name: str, uid_base: int) -> Sequence[Process]:
    """The processes of a machine's groups by their numbers inside, without its pid 1."""
    found = (process(pid, uid_base) for pid in groups.pids(name))
    return sorted(
        (each for each in found if each is not None and each.pid != 1), key=lambda each: each.pid
    )


def send(groups: Cgroups, name: str, inner_pid: int, number: int) -> bool:
    """Send a signal to one of them, but its pid 1; false if there is no such process."""
    if inner_pid <= 1:
        return False
    found = [pid for pid in groups.pids(name) if _number_inside(pid) == inner_pid]
    return _send(groups, name, "", found, number)


def send_all(groups: Cgroups, name: str, command: str, number: int) -> None:
    """Send a signal to every process of a command."""
    _send(groups, name, command, groups.pids(name, command), number)


def _send(groups: Cgroups, name: str, command: str, pids: Sequence[int], number: int) -> bool:
    """Send a signal to those that are in a group still: else a number is another's by now."""
    opened = {pid: pidfd for pid in pids if (pidfd := open_pid(pid)) is not None}
    try:
        there = opened.keys() & set(groups.pids(name, command))
        for pid in there:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(opened[pid], number)
        return bool(there)
    finally:
        close_all(list(opened.values()))


def process(host_pid: int, uid_base: int) -> Process | None:
    """One process by the numbers it has inside; None if it has ended."""
    try:
        status = _status(host_pid)
        stat = Path(f"/proc/{host_pid}/stat").read_bytes().rpartition(b")")[2].split()
        with Path(f"/proc/{host_pid}/cmdline").open("rb") as file:
            words = file.read(_MOST_COMMAND_BYTES)
    except (FileNotFoundError, ProcessLookupError):
        return None
    user = int(status["Uid"].split()[0]) - uid_base
    return Process(
        pid=_inside(status),
        parent_pid=_parent(int(status["PPid"])),
        user=user if 0 <= user < UID_COUNT else _NOBODY,
        command=words.rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
        or f"[{status['Name']}]",
        started_at_us=booted_at_us() + int(stat[19]) * 1_000_000 // _TICKS_PER_S,
        memory_bytes=int(stat[21]) * _PAGE_BYTES,
    )


def _status(host_pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{host_pid}/status").read_text(errors="replace").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _inside(status: dict[str, str]) -> int:
    return int(status["NSpid"].split()[-1])


def _number_inside(host_pid: int) -> int:
    """Its number inside; 0 if it has ended."""
    try:
        return _inside(_status(host_pid))
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _parent(host_pid: int) -> int:
    """The parent's number inside; 0 for one that is not."""
    try:
        status = _status(host_pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return _inside(status) if len(status["NSpid"].split()) > 1 else 0


def booted_at_us() -> int:
    with Path("/proc/stat").open() as file:
        return next(int(line.split()[1]) for line in file if line.startswith("btime")) * 1_000_000
