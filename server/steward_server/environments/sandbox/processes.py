"""The processes of a machine, from the host's /proc: the machine is not asked."""

from __future__ import annotations

import os
from pathlib import Path

from steward_server.environments.driver import Process
from steward_server.environments.sandbox.inside.build import UID_COUNT

_NOBODY = 65_534
_MOST_COMMAND_BYTES = 4096
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


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
