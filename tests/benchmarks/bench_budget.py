"""Durable reports over sessions, handshakes, reports over REST, stops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import count, islice
from typing import Any

import grpc
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward_client.flow import MAX_BATCHES_IN_FLIGHT
from tests.benchmarks.harness import (
    ROUNDS,
    Bench,
    Figure,
    bench_server,
    closed_loop,
    median_of,
    processor_s,
    quantile,
)
from tests.benchmarks.wire import Connection
from tests.live import Agent

SESSION = "/steward.budget.v1.BudgetService/Session"
IN_FLIGHT = 256
"""Reports sent and not acknowledged; of batches as many as a runtime sends, if that is more."""

HANDSHAKE_CALLERS = 32
PACED_PER_S = 800
REST_CALLERS = 64


async def measure() -> list[Figure]:
    """Every figure of the budget core."""
    figures: list[Figure] = []
    async with bench_server() as bench:
        figures += await _rounds(bench, 1, 8_000)
        figures += await _rounds(bench, 64, 600)
        figures += await _handshakes(bench)
        figures += await _rest(bench)
        figures += await _stops(bench)
    return figures


async def _rounds(bench: Bench, per_message: int, messages: int) -> list[Figure]:
    wall, processor = [], []
    for _ in range(ROUNDS):
        per_second, per_processor_second = await _reports(bench, per_message, messages)
        goals = {1: (6_000, 12_000), 64: (30_000, 60_000)}[per_message]
        name = f"durable reports, {per_message} per message"
        wall.append(Figure(name, per_second, "/s", *goals))
        processor.append(
            Figure(f"{name}, per second of the server's processor", per_processor_second, "/s")
        )
    return [median_of(wall), median_of(processor)]


async def _reports(bench: Bench, per_message: int, messages: int) -> tuple[float, float]:
    agent = await bench.agent()
    window = asyncio.Semaphore(max(MAX_BATCHES_IN_FLIGHT, IN_FLIGHT // per_message))
    async with bench.channel() as channel:
        lease = asyncio.get_running_loop().create_future()

        async def requests() -> AsyncIterator[bytes]:
            handshake = pb.HandshakeRequest(requested_budget_nanousd=10**12)
            yield pb.SessionRequest(handshake=handshake).SerializeToString()
            for message in await lease:
                await window.acquire()
                yield message

        open_session: Any = channel.stream_stream(
            SESSION, response_deserializer=pb.SessionResponse.FromString
        )
        stream = open_session(requests(), metadata=agent.metadata)
        granted = await stream.read()
        # Written before the clock starts: else the load would be slower than what it measures.
        texts = _messages(granted.handshake.lease_id, per_message, messages)
        used_s, begun_s = processor_s(bench.server.pid), time.perf_counter()
        lease.set_result(texts)
        total = messages * per_message
        durable = 0
        acknowledged = 0
        while durable < total:
            response = await stream.read()
            assert response.WhichOneof("message") == "report_ack", response
            assert not response.report_ack.refused, response
            durable = response.report_ack.sequence
            while acknowledged * per_message < durable:
                acknowledged += 1
                window.release()
        wall_s = time.perf_counter() - begun_s
        return total / wall_s, total / (processor_s(bench.server.pid) - used_s)


def _messages(lease_id: str, per_message: int, messages: int) -> list[bytes]:
    """Batches of numbered reports, as they travel."""
    numbers = count(1)
    return [
        pb.SessionRequest(
            message_id=message + 1,
            report_batch=pb.ReportBatch(
                lease_id=lease_id,
                usages=[
                    pb.Usage(
                        request_id=f"call-{number}",
                        sequence=number,
                        model="gpt-4o",
                        input_tokens=900,
                        output_tokens=120,
                        cost_nanousd=1_000,
                    )
                    for number in islice(numbers, per_message)
                ],
            ),
        ).SerializeToString()
        for message in range(messages)
    ]


async def _handshakes(bench: Bench) -> list[Figure]:
    agents = [await bench.agent() for _ in range(HANDSHAKE_CALLERS)]
    public_key = X25519PrivateKey.generate().public_key()
    raw_key = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    rates, processor, tails = [], [], []
    async with bench.channel() as channel:
        stub = BudgetServiceStub(channel)

        async def call(caller: int, number: int) -> None:
            del number
            request = pb.HandshakeRequest(requested_budget_nanousd=1_000, public_key=raw_key)
            await stub.Handshake(request, metadata=agents[caller].metadata)

        await closed_loop(bench.server.pid, HANDSHAKE_CALLERS, 5, call)
        for _ in range(ROUNDS):
            load = await closed_loop(bench.server.pid, HANDSHAKE_CALLERS, 40, call)
            rates.append(Figure("handshakes, 32 callers", load.per_second, "/s", 800, 1_500))
            processor.append(
                Figure(
                    "handshakes, per second of the server's processor",
                    load.per_processor_second,
                    "/s",
                )
            )
            # Callers that never wait only measure their own queue: the tail is taken at a pace.
            pause_s = HANDSHAKE_CALLERS / PACED_PER_S
            load = await closed_loop(bench.server.pid, HANDSHAKE_CALLERS, 20, call, pause_s=pause_s)
            tail_ms = quantile(load.latencies_s, 0.99) * 1_000
            name = f"handshakes, 32 callers at {PACED_PER_S}/s, p99"
            tails.append(Figure(name, tail_ms, "ms", 15, 8, lower_is_better=True))
    return [median_of(rates), median_of(processor), median_of(tails)]


async def _rest(bench: Bench) -> list[Figure]:
    agents = [await bench.agent() for _ in range(REST_CALLERS)]
    leases = []
    for agent in agents:
        runtime = bench.api.acting_as(x_ic_key=agent.ic_token)
        body = {"requested_budget_usd": 100}
        granted = await runtime.call("POST", "/api/budget/handshake", body)
        leases.append(granted.body["lease_id"])
    connections = [await Connection.open(bench.server.http_address) for _ in agents]
    unique = iter(range(10**9))

    async def call(caller: int, number: int) -> None:
        del number
        body = {
            "lease_id": leases[caller],
            "request_id": f"call-{next(unique)}",
            "model": "gpt-4o",
            "input_tokens": 900,
            "output_tokens": 120,
            "cost_usd": 0.000001,
        }
        connection = connections[caller]
        headers = {"X-IC-Key": agents[caller].ic_token}
        status, answer = await connection.send(
            connection.request("POST", "/api/budget/report", headers, body)
        )
        assert status == 200, answer

    middles, rates, processor = [], [], []
    for _ in range(ROUNDS):
        alone = await closed_loop(bench.server.pid, 1, 400, call)
        middle_ms = quantile(alone.latencies_s, 0.5) * 1_000
        middles.append(
            Figure("REST report, 1 caller, p50", middle_ms, "ms", 1.0, 0.6, lower_is_better=True)
        )
        load = await closed_loop(bench.server.pid, REST_CALLERS, 250, call)
        rates.append(Figure("REST reports, 64 callers", load.per_second, "/s", 5_000, 9_000))
        processor.append(
            Figure(
                "REST reports, per second of the server's processor",
                load.per_processor_second,
                "/s",
            )
        )
    for connection in connections:
        connection.close()
    return [median_of(middles), median_of(rates), median_of(processor)]


async def _stops(bench: Bench) -> list[Figure]:
    """From the administrator's call until the runtime's stream says so."""
    delays_ms = []
    async with bench.channel() as channel:
        for _ in range(100):
            agent = await bench.agent()
            delays_ms.append(await _stop_once(bench, channel, agent))
    tail_ms = quantile(delays_ms, 0.99)
    return [Figure("stop reaches a session, p99", tail_ms, "ms", 100, 20, lower_is_better=True)]


async def _stop_once(bench: Bench, channel: grpc.aio.Channel, agent: Agent) -> float:
    stream: Any = BudgetServiceStub(channel).Session(metadata=agent.metadata)
    await stream.write(pb.SessionRequest(handshake=pb.HandshakeRequest()))
    await stream.read()
    begun_s = time.perf_counter()
    stopping = asyncio.create_task(bench.admin.call("POST", f"/api/agents/{agent.agent_id}/stop"))
    while (await stream.read()).control.desired_state != pb.DESIRED_STATE_STOPPED:
        pass
    delay_ms = (time.perf_counter() - begun_s) * 1_000
    await stopping
    stream.cancel()
    return delay_ms
