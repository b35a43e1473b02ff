"""One event to 2,000 dashboards: how long until each of them has it."""

from __future__ import annotations

import asyncio
import base64
import os
import time
from typing import Self

from tests.benchmarks.harness import (
    ROUNDS,
    Figure,
    bench_server,
    median_of,
    processor_s,
    quantile,
    resident_bytes,
)

READERS = 2_000
EVENTS = 10
INTERVAL_S = 0.3
"""From one event's last delivery to the next event: each is over before another begins."""


async def measure() -> list[Figure]:
    """Report usages one by one; each is an event for every socket."""
    rounds: list[list[Figure]] = []
    async with bench_server() as bench:
        pid = bench.server.pid
        agent = await bench.agent()
        runtime = bench.api.acting_as(x_ic_key=agent.ic_token)
        granted = await runtime.call("POST", "/api/budget/handshake", {})
        token = bench.admin.headers["authorization"].removeprefix("Bearer ")
        before_bytes = resident_bytes(pid)
        readers = [await _Reader.open(bench.server.http_address, token) for _ in range(READERS)]
        per_reader_kb = (resident_bytes(pid) - before_bytes) / READERS / 1_000
        number = 0
        for _ in range(ROUNDS):
            late_s: list[float] = []
            used_s = processor_s(pid)
            for _ in range(EVENTS):
                number += 1
                usage = {
                    "lease_id": granted.body["lease_id"],
                    "request_id": f"call-{number}",
                    "model": "gpt-4o",
                    "input_tokens": 900,
                    "output_tokens": 120,
                    "cost_usd": 0.000001,
                }
                heard = [reader.next() for reader in readers]
                begun_s = time.perf_counter()
                report = asyncio.create_task(runtime.call("POST", "/api/budget/report", usage))
                late_s += [at_s - begun_s for at_s in await asyncio.gather(*heard)]
                assert (await report).status == 200
                await asyncio.sleep(INTERVAL_S)
            used_us = (processor_s(pid) - used_s) / EVENTS / READERS * 1e6
            rounds.append(_figures(late_s, used_us))
        for reader in readers:
            reader.close()
    columns = [median_of(column) for column in zip(*rounds, strict=True)]
    return [*columns, Figure("memory per open socket", per_reader_kb, "kB")]


def _figures(late_s: list[float], used_us: float) -> list[Figure]:
    p99_ms = quantile(late_s, 0.99) * 1e3
    name = f"one event to {READERS:,} sockets"
    return [
        Figure(
            f"{name}, p99",
            p99_ms,
            "ms",
            150,
            lower_is_better=True,
            note=f"p50 {quantile(late_s, 0.5) * 1e3:.3g} ms",
        ),
        Figure(f"{name}, processor per delivery", used_us, "µs"),
    ]


class _Reader(asyncio.Protocol):
    """A WebSocket that notes when something comes, and looks no closer."""

    def __init__(self) -> None:
        self._upgraded: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next: asyncio.Future[float] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def open(cls, address: str, token: str) -> Self:
        host, _, port = address.rpartition(":")
        loop = asyncio.get_running_loop()
        transport, reader = await loop.create_connection(cls, host, int(port))
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /ws?type=CostUpdate HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
            f"Authorization: Bearer {token}\r\n\r\n"
        )
        transport.write(head.encode())
        reader._transport = transport
        await reader._upgraded
        return reader

    def next(self) -> asyncio.Future[float]:
        """The time at which the next event comes."""
        self._next = asyncio.get_running_loop().create_future()
        return self._next

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if not self._upgraded.done():
            assert data.startswith(b"HTTP/1.1 101 "), data
            self._upgraded.set_result(None)
        elif b"CostUpdate" in data and self._next is not None and not self._next.done():
            self._next.set_result(time.perf_counter())


if __name__ == "__main__":
    asyncio.run(measure())
