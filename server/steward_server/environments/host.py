"""What this host has: the part of the drivers whose machines are on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from steward_server.environments.driver import Capacity

MEMINFO = Path("/proc/meminfo")


async def capacity() -> Capacity:
    """This host, with all of its cores: what of them is promised, its server knows."""
    millicores = (os.cpu_count() or 1) * 1_000
    total_bytes, available_bytes = await asyncio.to_thread(memory)
    return Capacity(
        millicores=millicores,
        memory_bytes=total_bytes,
        free_millicores=millicores,
        free_memory_bytes=available_bytes,
    )


def memory(meminfo: Path = MEMINFO) -> tuple[int, int]:
    """The memory of this host in bytes, and what of it is available; 0 where nobody says."""
    try:
        text = meminfo.read_text(encoding="ascii")
    except OSError:
        return 0, 0
    told: Mapping[str, int] = {
        name: int(rest.split()[0]) * 1_024
        for name, _, rest in (line.partition(":") for line in text.splitlines())
        if rest.strip()
    }
    return told.get("MemTotal", 0), told.get("MemAvailable", 0)
