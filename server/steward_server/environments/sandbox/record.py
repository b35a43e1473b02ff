"""What is known of a machine beyond the life of this server: a small file in its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from steward_server.environments.sandbox.processes import open_pid

_FILE = "record.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One machine. It holds the environment's variables: root alone may read it."""

    environment_id: str
    cgroup: str
    """The name of its control groups."""
    pid: int
    """Of its supervisor, by the host's numbers."""
    started_ticks: int
    """When that began, in clock ticks since the host's start: a pid alone may be another's."""
    boot_id: str
    uid_base: int
    """The host's user id of what is user 0 inside."""
    image_root: str
    user: int
    group: int
    image: str
    working_dir: str = ""
    command: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    must_not_be_root: bool = False
    ingress_ports: tuple[int, ...] = ()
    created_at_us: int = 0
    backend: str = "native"
    """What has made it, and knows how to end it."""
    runtime_class: str = ""
    """Empty: the back end's own."""

    def write(self, folder: Path) -> None:
        """Keep it; whole or not at all."""
        new = folder / f"{_FILE}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(orjson.dumps(self))
        new.replace(folder / _FILE)

    def open(self) -> int | None:
        """A descriptor of its supervisor; None if that is not there any more."""
        return open_process(self.pid, self.started_ticks, self.boot_id)


def read(folder: Path) -> Record | None:
    """The record in a folder; None where there is none, or none that makes sense."""
    try:
        told: dict[str, Any] = orjson.loads((folder / _FILE).read_bytes())
        told["command"] = tuple(told["command"])
        told["ingress_ports"] = tuple(told["ingress_ports"])
        return Record(**told)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def open_process(pid: int, ticks: int, boot: str) -> int | None:
    """A descriptor of the process that a number meant at that time; None if it is no more."""
    if boot != boot_id():
        return None
    pidfd = open_pid(pid)
    if pidfd is None:
        return None
    if ticks == started_ticks(pid) > 0:  # else the number is another's now
        return pidfd
    os.close(pidfd)
    return None


@cache
def boot_id() -> str:
    """What tells this run of the host from others."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def started_ticks(pid: int) -> int:
    """When a process began, in clock ticks since the host's start; 0 if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    is_dead = fields[0] in (b"Z", b"X")
    return 0 if is_dead else int(fields[19])
