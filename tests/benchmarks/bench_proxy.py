"""What the metering proxy adds to a call, beside the same call without it in the same minute.

The agent and its proxy share one core, as they share a machine; the provider and the server have
the other. A provider on the agent's core would keep it from the first byte while writing the rest.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import orjson

from tests.benchmarks import proxy_load
from tests.benchmarks.harness import (
    LOAD_CORE,
    SERVER_CORE,
    Figure,
    bench_server,
    processor_s,
    quantile,
)
from tests.live import create_agent

RUNTIME = """
import os, sys
from steward_client import Runtime
os.sched_setaffinity(0, {int(sys.argv[4])})
os.environ["PYTHONPATH"] = sys.argv[5]
with Runtime(budget=1000, server=sys.argv[1], token=sys.argv[2], provider="stand-in",
             state_dir=sys.argv[6]) as runtime:
    for kind in ("plain", "stream"):
        before = os.times()
        run_id = runtime.start_agent(sys.argv[3], [sys.argv[7], kind])
        runtime.wait(run_id)
        after = os.times()
        used_s = after.user + after.system - before.user - before.system
        print("used", kind, used_s, flush=True)
        assert runtime.get_metrics(run_id)["exit_code"] == 0, runtime.get_metrics(run_id)
"""


async def measure() -> list[Figure]:
    """Medians over all rounds; the provider is `steward_client.standin`."""
    root = Path(__file__).parents[2]
    os.sched_setaffinity(0, {SERVER_CORE})  # inherited by the provider
    standin = subprocess.Popen(
        [sys.executable, "-m", "steward_client.standin", "--port", "0", "--chunks", "64"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert standin.stdout is not None
    found = re.search(r"http://[\d.:]+", standin.stdout.readline())
    assert found
    provider_url = found[0]
    try:
        async with bench_server() as bench:
            body = {
                "name": "stand-in",
                "kind": "openai",
                "base_url": provider_url,
                "api_key": "sk-standin",
            }
            await bench.admin.call("POST", "/api/v1/providers", body)
            agent = await create_agent(bench.admin, budget_usd=1_000)
            server_used_s = processor_s(bench.server.pid)
            with tempfile.TemporaryDirectory() as state:
                output = await asyncio.to_thread(
                    subprocess.check_output,
                    [
                        *(sys.executable, "-c", RUNTIME),
                        *(bench.server.grpc_address, agent.ic_token),
                        *(str(root / "tests/benchmarks/proxy_load.py"), str(LOAD_CORE)),
                        *(str(root), state, provider_url),
                    ],
                    text=True,
                )
            server_used_s = processor_s(bench.server.pid) - server_used_s
    finally:
        standin.kill()
        standin.wait()
    lines = output.splitlines()
    plain, stream = (orjson.loads(line) for line in lines if line.startswith("{"))
    times = {
        name: {"plain": plain[name]["plain"]}
        | {kind: stream[name][kind] for kind in ("stream", "first")}
        for name in ("proxy", "provider")
    }
    used_s = {line.split()[1]: float(line.split()[2]) for line in lines if line.startswith("used")}
    return _figures(times, used_s, server_used_s)


def _figures(
    times: dict[str, dict[str, list[float]]], used_s: dict[str, float], server_used_s: float
) -> list[Figure]:
    def added_ms(kind: str, share: float) -> float:
        through, past = times["proxy"][kind], times["provider"][kind]
        return (quantile(through, share) - quantile(past, share)) * 1_000

    call_count = proxy_load.ROUNDS * (proxy_load.CALLS + proxy_load.STREAMS)
    past_ms = quantile(times["provider"]["plain"], 0.5) * 1_000
    ratio = quantile(times["proxy"]["plain"], 0.5) / quantile(times["provider"]["plain"], 0.5)
    beside = f"the call itself {past_ms:.3g} ms, ratio {ratio:.3g}"
    return [
        Figure(
            "proxy, added p50",
            added_ms("plain", 0.5),
            "ms",
            1.0,
            0.7,
            True,
            beside,
        ),
        Figure("proxy, added p99", added_ms("plain", 0.99), "ms", 4.0, 2.0, lower_is_better=True),
        Figure(
            "proxy, processor per call",
            used_s["plain"] / (proxy_load.ROUNDS * proxy_load.CALLS) * 1_000,
            "ms",
            0.7,
            0.45,
            lower_is_better=True,
            note=f"of the server {server_used_s / call_count * 1_000:.3g} ms",
        ),
        Figure(
            "64-chunk stream, added p50",
            added_ms("stream", 0.5),
            "ms",
            2.0,
            1.3,
            lower_is_better=True,
        ),
        Figure(
            "64-chunk stream, added to the first byte, p50",
            added_ms("first", 0.5),
            "ms",
            1.0,
            lower_is_better=True,
        ),
    ]
