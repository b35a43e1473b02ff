"""Whether callers, however they misbehave, can make a provider bill more than was lent.

The stand-in provider keeps its own bill. The agent's budget ends before the calls do.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import aiohttp
import orjson

from tests.benchmarks.harness import Figure, quantile
from tests.forking import serve_anew
from tests.live import Api, ServerProcess, create_agent, create_provider

CALLERS = 64
CALLS = int(os.environ.get("STEWARD_BENCH_CALLS", "100000"))
BUDGET_PER_CALL_USD = 0.0000135
"""About nine tenths of what a call costs on average."""

RUNTIME = """
import sys
from steward_client import Runtime
with Runtime(budget=1000, server=sys.argv[1], token=sys.argv[2], state_dir=sys.argv[3]) as runtime:
    run_id = runtime.start_agent(sys.argv[4], sys.argv[6:], env={"PYTHONPATH": sys.argv[5]})
    assert runtime.wait(run_id) == 0
    print("refused", runtime.get_metrics(run_id)["refused"], flush=True)
"""


async def measure() -> list[Figure]:
    """One run of `STEWARD_BENCH_CALLS` calls, 100,000 unless said otherwise."""
    root = Path(__file__).parents[2]
    standin = subprocess.Popen(
        [sys.executable, "-m", "steward_client.standin", "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert standin.stdout is not None
    found = re.search(r"http://[\d.:]+", standin.stdout.readline())
    assert found
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        server = await ServerProcess(Path(folder) / "server", serve_anew).start()
        try:
            async with aiohttp.ClientSession() as session:
                admin = await Api(f"http://{server.http_address}", session).sign_in()
                await create_provider(admin, base_url=found[0], key="sk-standin")
                agent = await create_agent(admin, budget_usd=round(CALLS * BUDGET_PER_CALL_USD, 9))
                begun_s = time.perf_counter()
                output = await asyncio.to_thread(
                    subprocess.check_output,
                    [
                        *(sys.executable, "-c", RUNTIME, server.grpc_address, agent.ic_token),
                        *(f"{folder}/state", str(root / "tests/benchmarks/overspend_load.py")),
                        *(str(root), str(CALLERS), str(CALLS)),
                    ],
                    text=True,
                )
                took_s = time.perf_counter() - begun_s
                status = await admin.call("GET", f"/api/agents/{agent.agent_id}/status")
                health = await admin.call("GET", "/health")
                async with session.get(f"{found[0]}/_bill") as response:
                    billed = (await response.json())["billed_nanousd"]
        finally:
            server.stop()
            standin.kill()
            standin.wait()
    budget = status.body["budget"]
    limit, spent = (round(budget[name] * 1e9) for name in ("limit_usd", "spent_usd"))
    told = next(orjson.loads(line) for line in output.splitlines() if line.startswith("{"))
    shown = ", ".join(f"{count:,} {name}" for name, count in sorted(told["outcomes"].items()))
    assert told["refused"], "the money did not run out, so nothing is shown"
    begun, refused_s = zip(*sorted(told["refused"]), strict=True)
    p50_ms, p99_ms, max_ms = (quantile(refused_s, share) * 1e3 for share in (0.5, 0.99, 1))
    assert health.body["ledger"]["balanced"], health.body
    return [
        Figure("calls, 64 callers", CALLS, "", note=f"{shown}; {CALLS / took_s:,.0f}/s"),
        # Much earlier, and the run would show how calls are refused, not how they spend.
        Figure("begun before the first refusal", 100 * begun[0] / CALLS, "%", 80),
        Figure("a refusal, p50", p50_ms, "ms", note=f"p99 {p99_ms:,.0f} ms, max {max_ms:,.0f} ms"),
        Figure("billed beyond the budget", max(0, billed - limit), "nUSD", 0, lower_is_better=True),
        Figure("billed and not booked", max(0, billed - spent), "nUSD", 0, lower_is_better=True),
        Figure(
            "booked beyond the grants", budget["overrun_usd"] * 1e9, "nUSD", 0, lower_is_better=True
        ),
        Figure(
            "booked and not billed",
            max(0, spent - billed),
            "nUSD",
            note="unknown outcomes, charged whole",
        ),
        Figure("bill", billed, "nUSD", note=f"budget {limit:,} nUSD, booked {spent:,} nUSD"),
    ]
