"""A REST call with a trivial handler, beside the same JSON over aiohttp alone."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.benchmarks.harness import (
    LOAD_CORE,
    ROUNDS,
    SERVER_CORE,
    Figure,
    awake,
    closed_loop,
    median_of,
    quantile,
)
from tests.benchmarks.wire import Connection

CALLERS = 64
TOKEN = "ic_0123456789abcdef_" + "a" * 43
BODY = {
    "lease_id": "lease_6c5a3d1e-6f0e-4a8e-9e30-5f2f0d6f8a11",
    "request_id": "call-17",
    "model": "gpt-4o",
    "input_tokens": 900,
    "output_tokens": 120,
    "cost_usd": 0.000001,
}


async def measure() -> list[Figure]:
    """All under the same load in turns."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with ExitStack() as stack:
        stack.enter_context(awake(LOAD_CORE))
        names = ("steward", "echo", "floor")
        targets = {n: await _Target.open(*stack.enter_context(_process(n))) for n in names}
        rates, floors, alone = [], [], []
        for _ in range(ROUNDS):
            ours, echo, floor = [await targets[name].load() for name in names]
            note = f"{ours[1]:,.0f}/s, the echo {echo[1]:,.0f}/s"
            rates.append(
                Figure(
                    "REST call, 64 callers, of an aiohttp JSON echo",
                    ours[1] / echo[1] * 100,
                    "%",
                    70,
                    note=note,
                )
            )
            floors.append(
                Figure(
                    "REST call, 64 callers, of aiohttp without application, router and json",
                    ours[1] / floor[1] * 100,
                    "%",
                    note=f"{floor[1]:,.0f}/s",
                )
            )
            note = f"the echo {echo[0]:.3g} ms"
            alone.append(Figure("REST call, 1 caller, p50", ours[0], "ms", note=note))
    return [median_of(rates), median_of(floors), median_of(alone)]


class _Target:
    def __init__(self, pid: int, connections: list[Connection]) -> None:
        self._pid = pid
        self._connections = connections
        self._request = connections[0].request(
            "POST", "/api/budget/report", {"X-IC-Key": TOKEN}, BODY
        )

    @classmethod
    async def open(cls, pid: int, port: int) -> _Target:
        return cls(pid, [await Connection.open(f"127.0.0.1:{port}") for _ in range(CALLERS)])

    async def load(self) -> tuple[float, float]:
        """The p50 of one caller in ms, and how many a second 64 get answered."""
        alone = await closed_loop(self._pid, 1, 500, self._call)
        load = await closed_loop(self._pid, CALLERS, 300, self._call)
        return quantile(alone.latencies_s, 0.5) * 1_000, load.per_second

    async def _call(self, caller: int, number: int) -> None:
        del number
        status, answer = await self._connections[caller].send(self._request)
        assert status == 200, answer


@contextmanager
def _process(kind: str) -> Iterator[tuple[int, int]]:
    os.sched_setaffinity(0, {SERVER_CORE})  # inherited by the process
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.gateway_server", kind],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        assert server.stdout is not None
        yield server.pid, int(server.stdout.readline())
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    asyncio.run(measure())
