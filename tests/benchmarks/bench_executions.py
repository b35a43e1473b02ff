"""Runs of playbooks: what the engine adds to steps, how soon controls work, and watching a run."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.benchmarks.harness import (
    Bench,
    Figure,
    bench_server,
    best_of,
    median_of,
    processor_s,
    resident_bytes,
)

ROUNDS = 3
STEPS, RUNS = 500, 20
CONTROLS = 20
BROWSERS = 5
WATCHERS, WATCHED_S = 50, 20
OVER = ("completed", "failed", "cancelled")

_HEAD = 'name: Bench\nversion: "1"\nsteps:\n'
NOTHING = _HEAD + "".join(
    f"  - {{id: s{number}, name: Nothing, type: utility.sleep, parameters: {{seconds: 0}}}}\n"
    for number in range(STEPS)
)
NAP = _HEAD + "  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 60}}\n"
BROWSER = (
    'name: Browser\nversion: "1"\nparameters:\n  - {name: url, type: string}\nsteps:\n'
    "  - id: open\n    name: Open\n    type: browser.navigate\n"
    '    parameters: {url: "{{ parameter.url }}"}\n'
    '  - {id: wait, name: Wait, type: browser.wait, parameters: {selector: "#never", '
    "timeout: 90000}}\n"
)
PAGE = """<!doctype html><title>Moves</title><canvas id=c width=1200 height=900></canvas><script>
let n = 0; const c = document.getElementById('c').getContext('2d');
setInterval(() => { n++; c.fillStyle = `hsl(${n * 7} 80% 50%)`; c.fillRect(0, 0, 1200, 900);
c.fillStyle = 'black'; c.font = '99px sans-serif'; c.fillText(n, 99, 199); }, 40)</script>"""


@dataclass(frozen=True, slots=True)
class Site:
    """A server with the playbooks of this benchmark."""

    bench: Bench

    async def start(self, path: str, **parameters: Any) -> str:
        body = {"playbook_path": path, "parameters": parameters}
        answer = await self.bench.admin.call("POST", "/api/executions", body)
        assert answer.status == 200, answer
        return str(answer.body["execution_id"])

    async def ask(self, execution_id: str, what: str) -> None:
        path = f"/api/executions/{execution_id}/{what}"
        answer = await self.bench.admin.call("POST", path)
        assert answer.status == 200, answer

    @asynccontextmanager
    async def watching(self, query: str = "") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """What happens to runs, as a dashboard sees it."""
        admin = self.bench.admin
        token = admin.headers["authorization"].removeprefix("Bearer ")
        url = f"{admin.base_url}/ws/executions?token={token}{query}"
        async with admin.session.ws_connect(url, max_msg_size=0) as socket:
            yield socket


async def measure() -> list[Figure]:
    """Every figure."""
    figures = []
    async with _site() as site:
        figures += await _steps(site)
        figures += [await _pauses(site), await _cancels(site)]
    async with _page() as url:
        async with _site() as site:
            figures += await _browsers(site, url)
        async with _site() as site:
            figures += [await _watchers(site, url)]
    return figures


@asynccontextmanager
async def _site() -> AsyncIterator[Site]:
    async with bench_server() as bench:
        folder = bench.server.data_dir / "playbooks"
        folder.mkdir(exist_ok=True)
        for name, text in (("nothing", NOTHING), ("nap", NAP), ("browser", BROWSER)):
            (folder / f"{name}.yaml").write_text(text)
        yield Site(bench)


@asynccontextmanager
async def _page() -> AsyncIterator[str]:
    """A page that moves all the time."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=PAGE, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def _until(socket: aiohttp.ClientWebSocketResponse, is_it: Callable[[str, Any], bool]) -> Any:
    """The first message that is it."""
    async with asyncio.timeout(120):
        while True:
            message = json.loads(await socket.receive_str())
            if is_it(message["type"], message["data"]):
                return message["data"]


async def _rounds(measured: Callable[[], Awaitable[list[Figure]]]) -> list[Figure]:
    found = [await measured() for _ in range(ROUNDS)]
    return [best_of(same) for same in zip(*found, strict=True)]


async def _steps(site: Site) -> list[Figure]:
    """One run alone, and twenty at a time, to the last commit; nobody watches."""

    async def measured() -> list[Figure]:
        bare_ms = await asyncio.to_thread(_bare_commit_ms, site.bench.server.data_dir)
        alone_s, alone_used_s = await _made(site, 1)
        many_s, many_used_s = await _made(site, RUNS)
        note = f"a bare commit of the same rows {bare_ms:.2g} ms"
        count = STEPS * RUNS
        return [
            Figure("a step that does nothing, one run", alone_s / STEPS * 1_000, "ms", 2,
                   lower_is_better=True, note=note),
            Figure("the same, processor", alone_used_s / STEPS * 1_000, "ms",
                   lower_is_better=True),
            Figure("steps, one run", STEPS / alone_s, "steps/s", 100),
            Figure(f"steps, {RUNS} runs", count / many_s, "steps/s", 500),
            Figure("the same, processor", many_used_s / count * 1_000, "ms",
                   lower_is_better=True),
        ]  # fmt: skip

    return await _rounds(measured)


async def _made(site: Site, count: int) -> tuple[float, float]:
    """Wall and processor time of so many runs, from the first start to the last end."""
    pid, admin = site.bench.server.pid, site.bench.admin
    used_s = processor_s(pid)
    names = [await site.start("nothing.yaml") for _ in range(count)]
    async with asyncio.timeout(300):
        while True:
            await asyncio.sleep(0.1)
            runs = (await admin.call("GET", f"/api/executions?limit={count}")).body
            if all(each["status"] in OVER for each in runs):
                break
    used_s = processor_s(pid) - used_s
    assert all(each["status"] == "completed" for each in runs)
    begun = min(datetime.fromisoformat(each["started_at"]) for each in runs)
    ended = max(datetime.fromisoformat(each["completed_at"]) for each in runs)
    for name in names:
        await admin.call("DELETE", f"/api/executions/{name}")
    return (ended - begun).total_seconds(), used_s


def _bare_commit_ms(folder: Path) -> float:
    """What a durable commit of two short rows takes here, by itself."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, text TEXT)")
    begun_s = time.perf_counter()
    for number in range(200):
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO row (text) VALUES (?)", [(f"{number}" * 30,)] * 2)
        connection.execute("COMMIT")
    taken_s = time.perf_counter() - begun_s
    connection.close()
    return taken_s / 200 * 1_000


async def _pauses(site: Site) -> Figure:
    """From the call to the message that a sleeping step is paused, over REST and WebSocket."""
    figures = []
    async with site.watching() as socket:
        for _ in range(CONTROLS):
            name = await site.start("nap.yaml")
            await _until(socket, lambda _, data: data["event"] == "step_started")
            begun_s = time.perf_counter()
            await site.ask(name, "pause")
            await _until(socket, lambda _, data: data["event"] == "paused")
            taken_ms = (time.perf_counter() - begun_s) * 1_000
            figures.append(
                Figure("pause of a step that sleeps", taken_ms, "ms", 50, lower_is_better=True)
            )
            await site.ask(name, "cancel")
            await _until(socket, lambda _, data: data["event"] == "ended")
    return median_of(figures)


async def _cancels(site: Site) -> Figure:
    figures = []
    async with site.watching() as socket:
        for _ in range(CONTROLS):
            name = await site.start("nap.yaml")
            await _until(socket, lambda _, data: data["event"] == "step_started")
            begun_s = time.perf_counter()
            await site.ask(name, "cancel")
            await _until(socket, lambda _, data: data["event"] == "ended")
            taken_ms = (time.perf_counter() - begun_s) * 1_000
            figures.append(Figure("cancel", taken_ms, "ms", 1_000, lower_is_better=True))
    return median_of(figures)


async def _browsers(site: Site, url: str) -> list[Figure]:
    """From the call to the first frame and, in the middle of things, from cancel to the end."""
    first: list[float] = []
    again: list[float] = []
    cancels: list[Figure] = []
    async with site.watching() as socket:
        for number in range(BROWSERS):
            begun_s = time.perf_counter()
            name = await site.start("browser.yaml", url=url)
            await _until(socket, lambda kind, _: kind == "screenshot_frame")
            frame_ms = (time.perf_counter() - begun_s) * 1_000
            begun_s = time.perf_counter()
            await site.ask(name, "cancel")
            await _until(socket, lambda _, data: data.get("event") == "ended")
            cancel_ms = (time.perf_counter() - begun_s) * 1_000
            (again if number else first).append(frame_ms)
            cancels.append(
                Figure("cancel with a browser open", cancel_ms, "ms", 1_000, lower_is_better=True)
            )
    note = "started with the first run"
    frames = [
        Figure("first frame, a browser that runs", each, "ms", 3_000, lower_is_better=True)
        for each in again
    ]
    return [
        Figure("first frame, no browser yet", first[0], "ms", 3_000, lower_is_better=True,
               note=note),
        median_of(frames),
        median_of(cancels),
    ]  # fmt: skip


async def _watchers(site: Site, url: str) -> Figure:
    """What the server grows by while many watch one run with frames."""
    pid = site.bench.server.pid
    async with AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(site.watching()) for _ in range(WATCHERS)]
        counts = [0] * WATCHERS

        async def read(index: int) -> None:
            async for message in sockets[index]:
                counts[index] += '"screenshot_frame"' in message.data[:40]

        readers = [asyncio.create_task(read(index)) for index in range(WATCHERS)]
        name = await site.start("browser.yaml", url=url)
        await asyncio.sleep(WATCHED_S / 4)
        before, used_s = resident_bytes(pid), processor_s(pid)
        await asyncio.sleep(WATCHED_S)
        grown = resident_bytes(pid) - before
        used_s = processor_s(pid) - used_s
        await site.ask(name, "cancel")
        for each in readers:
            each.cancel()
    rate = min(counts) / (WATCHED_S * 1.25)
    note = (
        f"{before / 2**20:.0f} MiB before; {rate:.2g} frames/s to each, "
        f"{used_s / WATCHED_S:.0%} of a core"
    )
    return Figure(
        f"memory that {WATCHERS} watchers of frames add in {WATCHED_S} s", grown / 2**20, "MiB",
        8, lower_is_better=True, note=note,
    )  # fmt: skip
