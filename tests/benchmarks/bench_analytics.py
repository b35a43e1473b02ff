"""Every question about a million calls, over REST.

The calls are written into the journal as if they had been booked over 90 days; a start of the
server then sums them up, as it does for a database that is older than the sums.
"""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from steward_server.events.journal import GENESIS, entry_hash
from tests.benchmarks.harness import LOAD_CORE, SERVER_CORE, Figure, processor_s, quantile
from tests.forking import serve_anew
from tests.live import Api, ServerProcess, create_provider

CALLS = int(os.environ.get("STEWARD_BENCH_CALLS", "1000000"))
AGENTS, DAYS = 200, 90
MODELS = {
    "openai": ("gpt-5", "gpt-5-mini", "gpt-4o", "o3"),
    "anthropic": ("claude-opus", "claude-sonnet", "claude-haiku", "claude-3"),
    "own": ("llama", "qwen", "mistral", "gemma"),
}
ROUNDS = 8
MUST_MS = 20.0
AT_ONCE = 5_000

OF_A_PERIOD = (
    "spending/total",
    "spending/by-agent",
    "spending/by-provider",
    "spending/avg-per-request",
    "usage/requests",
    "usage/tokens/by-agent",
    "usage/models",
)
PERIODS = (
    "today",
    "yesterday",
    "last-7-days",
    "last-30-days",
    "this-month",
    "last-month",
    "all-time",
)


async def measure() -> list[Figure]:
    """A figure for each path: the slowest of its ways to be asked."""
    os.sched_setaffinity(0, {LOAD_CORE})
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        server = ServerProcess(Path(folder), serve_anew)
        os.sched_setaffinity(0, {SERVER_CORE})  # inherited by the process
        await server.start()
        async with aiohttp.ClientSession() as session:
            admin = await Api(f"http://{server.http_address}", session).sign_in()
            await create_provider(admin)
            agent_ids = [await _agent(admin, number) for number in range(AGENTS)]
        server.stop()
        await asyncio.to_thread(_fill, Path(folder) / "steward.db", agent_ids)
        begun_s = time.perf_counter()
        os.sched_setaffinity(0, {SERVER_CORE})
        await server.start()
        os.sched_setaffinity(0, {LOAD_CORE})
        caught_up_s = time.perf_counter() - begun_s
        figures = [Figure(f"start that sums up {CALLS:,} calls", caught_up_s, "s")]
        async with aiohttp.ClientSession() as session:
            admin = await Api(f"http://{server.http_address}", session).sign_in()
            figures += await _questions(admin, agent_ids, server.pid)
        server.stop()
    return figures


async def _agent(admin: Api, number: int) -> str:
    body = {"name": f"agent {number}", "budget_usd": 1_000_000}
    return str((await admin.call("POST", "/api/v1/agents", body)).body["id"])


def _fill(path: Path, agent_ids: list[str]) -> None:
    """Write the calls, and forget that they are not summed up yet."""
    draw = random.Random(1)
    connection = sqlite3.connect(path, isolation_level=None)
    newest = connection.execute(
        "SELECT lsn, hash FROM journal ORDER BY lsn DESC LIMIT 1"
    ).fetchone()
    lsn, previous = newest or (0, GENESIS)
    now_us = time.time_ns() // 1_000
    began_us, step_us = now_us - DAYS * 86_400_000_000, DAYS * 86_400_000_000 // CALLS
    choices = [(provider, model) for provider, models in MODELS.items() for model in models]
    for first in range(0, CALLS, AT_ONCE):
        rows = []
        for number in range(first, min(first + AT_ONCE, CALLS)):
            lsn += 1
            at_us = began_us + number * step_us
            agent_id = agent_ids[draw.randrange(AGENTS)]
            body = orjson.dumps(_usage(draw, number, at_us, *choices[draw.randrange(12)]))
            said = (at_us, "usage", agent_id, f"lease_of_{agent_id}", f"call-{number}", body)
            previous = entry_hash(previous, lsn, *said)
            rows.append((lsn, *said, previous))
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    connection.execute("DELETE FROM usage_catching_up")
    connection.close()


def _usage(
    draw: random.Random, number: int, at_us: int, provider: str, model: str
) -> dict[str, Any]:
    cost = draw.randrange(100_000, 50_000_000)
    return {
        "seq": number + 1,
        "cost": cost,
        "over": 0,
        "provider": provider,
        "model": model,
        "input": draw.randrange(50, 20_000),
        "output": draw.randrange(10, 4_000),
        "cache_read": draw.randrange(2) * 1_000,
        "cache_write": 0,
        "price": "2026-11-01",
        "priced_here": False,
        "certainty": "measured",
        "at_us": at_us,
        "spent": number,
        "available": 10**15,
        "lease_spent": number,
        "lease_left": 10**15,
        "lease_state": "active",
    }


async def _questions(admin: Api, agent_ids: list[str], pid: int) -> list[Figure]:
    ways = {
        f"/api/v1/analytics/{path}": [
            f"period={period}{more}"
            for period in PERIODS
            for more in ("", f"&agent_id={agent_ids[7]}", "&provider=anthropic", "&model=gpt-5")
        ]
        for path in OF_A_PERIOD
    }
    ways["/api/v1/analytics/budget/status"] = ["", "threshold=50", f"agent_id={agent_ids[7]}"]
    ways["/api/usage"] = ["", f"agent_id={agent_ids[7]}"]
    ways["/api/v1/traces"] = [
        "",
        f"agent_id={agent_ids[7]}",
        "model=gpt-5",
        f"agent_id={agent_ids[7]}&provider=own&model=llama",
        "status=failed",
    ]
    figures = []
    for path, queries in ways.items():
        all_ms: list[float] = []
        slowest = ("", 0.0)
        used_s = processor_s(pid)
        for query in queries:
            call = f"{path}?{query}" if query else path
            took_ms = await _took_ms(admin, call)
            all_ms += took_ms
            slowest = max(slowest, (query, quantile(took_ms, 0.5)), key=lambda each: each[1])
        used_ms = (processor_s(pid) - used_s) * 1_000 / len(all_ms)
        note = (
            f"p50 {quantile(all_ms, 0.5):.1f} ms; the server's processor {used_ms:.1f} ms a call; "
            f"slowest p50 {slowest[1]:.1f} ms, {slowest[0]}"
        )
        tail_ms = quantile(all_ms, 0.95)
        figures.append(
            Figure(f"GET {path}, p95", tail_ms, "ms", MUST_MS, lower_is_better=True, note=note)
        )
    return figures


async def _took_ms(admin: Api, call: str) -> list[float]:
    took_ms = []
    for _ in range(ROUNDS):
        begun_s = time.perf_counter()
        answer = await admin.call("GET", call)
        took_ms.append((time.perf_counter() - begun_s) * 1_000)
        assert answer.status == 200, answer
    return took_ms
