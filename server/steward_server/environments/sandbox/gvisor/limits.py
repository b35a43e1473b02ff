"""What a kernel in user space needs beside what runs on it. Pure."""

from __future__ import annotations

from dataclasses import replace

from steward_server.environments.driver import Unusable
from steward_server.environments.sandbox.limits import MEBIBYTE, Limits

LEAST_MEMORY_BYTES = 64 * MEBIBYTE
"""Its kernel, who serves its files, and what is called for each command, before anything runs."""
_OWN_THREADS = 192
"""Of those, on a host with many cores, and of a few commands that start at the same time."""
_THREADS_PER_PROCESS = 2


def with_a_kernel(limits: Limits) -> Limits:
    """The limits of a machine whose kernel is among what they hold.

    Raises:
        Unusable: reason LIMIT_TOO_SMALL.
    """
    if limits.memory_bytes < LEAST_MEMORY_BYTES:
        raise Unusable(
            "LIMIT_TOO_SMALL",
            f"{limits.memory_bytes} bytes of memory are too little for a machine with gVisor, "
            f"whose kernel is in them; ask for at least {LEAST_MEMORY_BYTES}",
        )
    count = limits.process_count * _THREADS_PER_PROCESS + _OWN_THREADS
    return replace(limits, process_count=count)
