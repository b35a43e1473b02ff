"""How the limits of a machine are told to the kernel. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from steward_server.environments.driver import Unusable
from steward_server.environments.environment import Resources

MEBIBYTE = 1024 * 1024
LEAST_MEMORY_BYTES = 16 * MEBIBYTE
"""Below this not even a shell runs beside the machine's pid 1."""
LEAST_STORAGE_BYTES = MEBIBYTE
LEAST_CPU_MILLICORES = 10
"""The kernel's shortest turn is a millisecond in each period of 100."""

MOST_STORAGE_IN_MEMORY_BYTES = 64 * MEBIBYTE
"""Storage up to here is a tmpfs, quickly made and counted as memory; above it is a file on disk."""

CPU_PERIOD_US = 100_000
_BYTES_PER_INODE = 16 * 1024
_LEAST_INODES, _MOST_INODES = 4_096, 4_000_000
_SHARED_MEMORY_BYTES = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class Limits:
    """What a machine may use at most."""

    memory_bytes: int
    cpu_quota_us: int
    """In each period of `CPU_PERIOD_US`."""
    process_count: int
    storage_bytes: int
    inode_count: int
    shared_memory_bytes: int
    """Of /dev/shm, as a part of its memory."""

    @property
    def is_stored_in_memory(self) -> bool:
        return self.storage_bytes <= MOST_STORAGE_IN_MEMORY_BYTES

    @property
    def frame(self) -> Limits:
        """Those that cannot be changed once a machine is made; the others as if there were none."""
        return replace(self, memory_bytes=0, cpu_quota_us=0, process_count=0)


def limits(resources: Resources, *, process_count: int) -> Limits:
    """The limits that hold what was asked for.

    Raises:
        Unusable: reason LIMIT_TOO_SMALL.
    """
    for name, value, least in (
        ("memory", resources.memory_bytes, LEAST_MEMORY_BYTES),
        ("storage", resources.storage_bytes, LEAST_STORAGE_BYTES),
        ("cpu", resources.cpu_millicores, LEAST_CPU_MILLICORES),
    ):
        if value < least:
            unit = "millicores" if name == "cpu" else "bytes"
            raise Unusable(
                "LIMIT_TOO_SMALL",
                f"{value} {unit} of {name} are too little for a machine; ask for at least {least}",
            )
    inodes = resources.storage_bytes // _BYTES_PER_INODE
    return Limits(
        memory_bytes=resources.memory_bytes,
        cpu_quota_us=resources.cpu_millicores * CPU_PERIOD_US // 1000,
        process_count=process_count,
        storage_bytes=resources.storage_bytes,
        inode_count=min(max(inodes, _LEAST_INODES), _MOST_INODES),
        shared_memory_bytes=min(_SHARED_MEMORY_BYTES, resources.memory_bytes // 4),
    )


def version_1(limits: Limits) -> list[tuple[str, str, str]]:
    """What is written where with control groups of version 1: controller, file, value; in order.

    Memory first, then memory and swap together, which may not be less: so there is no swap. What
    connections hold is counted apart; a machine with a quarter of it cannot starve the host's.
    """
    memory = str(limits.memory_bytes)
    return [
        ("memory", "memory.limit_in_bytes", memory),
        ("memory", "memory.memsw.limit_in_bytes", memory),
        ("memory", "memory.kmem.tcp.limit_in_bytes", str(limits.memory_bytes // 4)),
        ("cpu", "cpu.cfs_period_us", str(CPU_PERIOD_US)),
        ("cpu", "cpu.cfs_quota_us", str(limits.cpu_quota_us)),
        ("pids", "pids.max", str(limits.process_count)),
    ]


def version_2(limits: Limits) -> list[tuple[str, str]]:
    """The same with version 2: file, value."""
    return [
        ("memory.max", str(limits.memory_bytes)),
        ("memory.swap.max", "0"),
        ("cpu.max", f"{limits.cpu_quota_us} {CPU_PERIOD_US}"),
        ("pids.max", str(limits.process_count)),
    ]
