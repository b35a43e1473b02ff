"""What the server itself runs in pods: small scripts, to their end."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence

from steward_server.environments.driver import Process, Unusable, in_calendar
from steward_server.environments.kubernetes import channels, scripts
from steward_server.environments.kubernetes.channels import Channel
from steward_server.environments.kubernetes.cluster import Cluster, Refused
from steward_server.errors import Unavailable

TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
END_LIMIT_S = 10.0
"""How long a command's processes are looked for that go on making others."""
_HELPER = "steward-helper-"
_TICK_US = 10_000
"""What /proc counts in on every architecture that Linux containers run on."""
_PAGE_BYTES = 4096
_MOST, _MOST_PID, _MOST_DIGITS = 1 << 50, 1 << 31, 19
"""Of numbers that are believed."""


async def run(cluster: Cluster, path: str, script: str, *words: str) -> bytes:
    """What a script has to say.

    Raises:
        Unusable: reason CANNOT_START or NO_SHELL; it could not be run.
        Refused, Unavailable: as `Cluster.socket`.
    """
    name = _HELPER + secrets.token_hex(4)
    argv = [scripts.SHELL, "-c", script, name, *words]
    answer = bytearray()
    async with asyncio.timeout(TIMEOUT_S):
        told, stack = await channels.exec_in(
            cluster, path, argv, has_input=False, is_terminal=False
        )
        async with stack:
            while (message := await told.receive()) is not None:
                channel, data = message
                if channel == Channel.STATUS:
                    status = channels.status(data)
                    if status.code is None:
                        reason = "NO_SHELL" if scripts.SHELL in status.text else "CANNOT_START"
                        raise Unusable(reason, f"nothing can be run in the pod: {status.text}")
                    return bytes(answer)
                if channel == Channel.OUTPUT:
                    answer += data
                    if len(answer) > MAX_ANSWER_BYTES:
                        raise Unusable("CANNOT_START", "the pod's answer has no end")
    raise Unusable("CANNOT_START", "the connection to the pod is gone")


async def end(
    cluster: Cluster,
    path: str,
    mark: str,
    number: int,
    *,
    whole: bool,
    is_over: Callable[[], Awaitable[bool]],
) -> bool:
    """Send a signal to all processes of a command; a deadly one until there are none left.

    Whoever runs the command gets it too if `whole`; all is well as well where the machine is over.

    Raises:
        Unusable: reason STILL_RUNS; there were still some at last.
        Refused, Unavailable: it could not be sent until the end.
    """
    half = len(mark) // 2
    words = (mark[half:], mark[:half], str(number), "all" if whole else "")
    found = False
    deadline = asyncio.get_running_loop().time() + END_LIMIT_S
    pause_s = 0.0
    while True:
        fault: Exception = Unusable("STILL_RUNS", "a command's processes could not all be ended")
        try:
            count = int(await run(cluster, path, scripts.END, *words) or 0)
        except (Refused, Unavailable, Unusable, TimeoutError, ValueError) as error:
            # Such as that there is no process left to be had, for the moment.
            if await is_over():
                return found
            count, fault, pause_s = 1, error, max(pause_s, 0.1)
        else:
            found = found or count > 0
            if not count or number != signal.SIGKILL:
                return found
        if asyncio.get_running_loop().time() > deadline:
            raise fault
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s + 0.02, 0.5)


def processes(told: bytes) -> Sequence[Process]:
    """The processes of PROCESSES' answer, but for those that the server runs."""
    lines = told.decode(errors="replace").split("\n")
    boot_s = _number(lines[0])
    found = []
    for at in range(1, len(lines) - 2, 3):
        stat, user, command = lines[at : at + 3]
        head, _, rest = stat.rpartition(")")
        pid, _, name = head.partition(" (")
        fields = rest.split()
        if not _number(pid, _MOST_PID) or len(fields) < 22:
            continue
        if _HELPER in command or scripts.OWN_NAME in command:
            continue
        found.append(
            Process(
                pid=int(pid),
                parent_pid=_number(fields[1], _MOST_PID),
                user=_number(user, 1 << 32, -1),
                command=command.strip() or f"[{name}]",
                started_at_us=in_calendar(boot_s * 1_000_000 + _number(fields[19]) * _TICK_US),
                memory_bytes=_number(fields[21]) * _PAGE_BYTES,
            )
        )
    return found


def _number(text: str, limit: int = _MOST, otherwise: int = 0) -> int:
    """A number that a pod tells. Its shell is its image's, and may say anything."""
    is_one = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return number if is_one and (number := int(text)) < limit else otherwise


def use(told: bytes) -> tuple[int, Mapping[str, int]]:
    """How many processes USE found, and what it says was used: `memory`, `cpu_us` or `cpu_ns`."""
    count = 0
    used: dict[str, int] = {}
    for line in told.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        if name == "p":
            count += 1
        elif value.isdecimal():
            used.setdefault(name, _number(value, 1 << 63))
    # Not the shell that counts.
    return max(0, count - 1), used
