"""What every benchmark needs: figures with goals, a server of its own, processor time."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import grpc

from tests.forking import serve_anew
from tests.live import Agent, Api, ServerProcess, create_agent, create_provider

ROUNDS = 5
SERVER_CORE, LOAD_CORE = 0, 1
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value and what it should reach."""

    name: str
    value: float
    unit: str
    must: float | None = None
    aim: float | None = None
    lower_is_better: bool = False
    note: str = ""

    @property
    def verdict(self) -> str:
        """Which goal it reaches."""
        if self.must is None:
            return ""
        sign = -1 if self.lower_is_better else 1
        if self.aim is not None and self.value * sign >= self.aim * sign:
            return "aim"
        return "yes" if self.value * sign >= self.must * sign else "NO"


def median_of(figures: Sequence[Figure]) -> Figure:
    """The middle one of several measurements of the same thing, with the range in its note."""
    ordered = sorted(figures, key=lambda figure: figure.value)
    return _with_range(ordered[len(ordered) // 2], ordered)


def best_of(figures: Sequence[Figure]) -> Figure:
    """The best of several measurements, with the range in its note: for goals that were set so."""
    ordered = sorted(figures, key=lambda figure: figure.value)
    return _with_range(ordered[0 if ordered[0].lower_is_better else -1], ordered)


def _with_range(figure: Figure, ordered: Sequence[Figure]) -> Figure:
    spread = f"{ordered[0].value:,.4g} to {ordered[-1].value:,.4g}"
    return replace(figure, note=f"{figure.note}; {spread}" if figure.note else spread)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def processor_s(pid: int) -> float:
    """Processor time a process has used, in seconds, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Memory a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Bench:
    """A server process on its own core, and ways to load it from the other."""

    server: ServerProcess
    admin: Api
    api: Api

    async def agent(self, *, budget_usd: int = 1_000_000) -> Agent:
        return await create_agent(self.admin, budget_usd=budget_usd)

    def channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(
            self.server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)]
        )


@contextmanager
def awake(core: int) -> Iterator[None]:
    """Keep a core from falling asleep, by a process that gives way to any other.

    To wake a virtual core that sleeps costs the waker up to 15 µs. Who waits for a server sleeps
    the more the slower it is, and the server would pay for that besides.
    """
    spin = f"import os; os.sched_setaffinity(0, {{{core}}}); os.nice(19)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", spin])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def bench_server(**environ: str) -> AsyncIterator[Bench]:
    """Start a server on `SERVER_CORE`; this process keeps to `LOAD_CORE`."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        server = ServerProcess(Path(folder), serve_anew, **environ)
        os.sched_setaffinity(0, {SERVER_CORE})  # inherited by the process
        await server.start()
        os.sched_setaffinity(0, {LOAD_CORE})
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as session:
            api = Api(f"http://{server.http_address}", session)
            admin = await api.sign_in()
            await create_provider(admin)
            try:
                yield Bench(server, admin, api)
            finally:
                server.stop()


@dataclass(frozen=True, slots=True)
class Load:
    """What a load did."""

    count: int
    wall_s: float
    processor_s: float
    latencies_s: Sequence[float]

    @property
    def per_second(self) -> float:
        return self.count / self.wall_s

    @property
    def per_processor_second(self) -> float:
        return self.count / max(self.processor_s, 1 / TICKS_PER_S)


async def closed_loop(
    pid: int,
    callers: int,
    calls_each: int,
    call: Callable[[int, int], Awaitable[object]],
    *,
    pause_s: float = 0,
) -> Load:
    """`callers` tasks call one after the other; `call` is given its caller and its number.

    With a pause a caller begins a call each `pause_s`, all callers spread over that time.
    """
    latencies_s: list[float] = []

    async def one(caller: int) -> None:
        due_s = time.perf_counter() + caller * pause_s / callers
        for number in range(calls_each):
            if pause_s:
                await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
                due_s += pause_s
            begun_s = time.perf_counter()
            await call(caller, number)
            latencies_s.append(time.perf_counter() - begun_s)

    used_s, begun_s = processor_s(pid), time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for caller in range(callers):
            tasks.create_task(one(caller))
    wall_s = time.perf_counter() - begun_s
    return Load(callers * calls_each, wall_s, processor_s(pid) - used_s, latencies_s)
