"""From nothing to the first handshake, and the memory a server holds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import aiohttp
import grpc

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.benchmarks.harness import ROUNDS, Figure, median_of, resident_bytes
from tests.forking import serve_anew
from tests.live import Api, ServerProcess, create_agent, create_provider


async def measure() -> list[Figure]:
    """Starts of a server that has its data already."""
    starts, memory = [], []
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        server = await ServerProcess(Path(folder), serve_anew).start()
        async with aiohttp.ClientSession() as session:
            admin = await Api(f"http://{server.http_address}", session).sign_in()
            await create_provider(admin)
            agent = await create_agent(admin, budget_usd=1_000)
        server.stop()
        for _ in range(ROUNDS):
            begun_s = time.perf_counter()
            await server.start()
            async with grpc.aio.insecure_channel(server.grpc_address) as channel:
                stub = BudgetServiceStub(channel)
                request = pb.HandshakeRequest(requested_budget_nanousd=1_000)
                await stub.Handshake(request, metadata=agent.metadata)
            start_s = time.perf_counter() - begun_s
            starts.append(
                Figure("start to first handshake", start_s, "s", 2.0, 1.0, lower_is_better=True)
            )
            memory_mb = resident_bytes(server.pid) / 1e6
            memory.append(Figure("resident memory", memory_mb, "MB", 120, 90, lower_is_better=True))
            server.stop()
    return [median_of(starts), median_of(memory)]
