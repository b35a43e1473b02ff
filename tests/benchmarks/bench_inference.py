"""Steps of policies over every door, beside servers that compute nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import grpc
import numpy as np

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from tests.benchmarks.harness import (
    LOAD_CORE,
    SERVER_CORE,
    Figure,
    Load,
    bench_server,
    closed_loop,
    median_of,
    processor_s,
    quantile,
    resident_bytes,
)
from tests.benchmarks.wire import Connection, Socket

TOKEN = "a-static-token-of-the-benchmarks"
ROUNDS = 3
ROWS = 256
WIDTHS = {"cartpole": 4, "cartpole-memory": 2}


@dataclass(frozen=True, slots=True)
class Server:
    """Where something that answers steps is."""

    pid: int
    http: str
    grpc: str


Step = Callable[[int, int], Awaitable[object]]


async def measure() -> list[Figure]:
    """Each door in turns: ours with both networks, and the echo."""
    async with AsyncExitStack() as stack:
        echo = stack.enter_context(_echo())
        bench = await stack.enter_async_context(
            bench_server(
                STEWARD_STATIC_TOKEN=TOKEN,
                STEWARD_RATES_INFERENCE_PER_MINUTE="0",
            )
        )
        server = bench.server
        ours = Server(server.pid, server.http_address, server.grpc_address)
        figures = []
        for door in DOORS:
            figures += await _door(door, ours, echo)
        figures.append(await _memory(ours))
    return figures


@dataclass(frozen=True, slots=True)
class Door:
    """A way to step.

    Attributes:
        callers: at a time.
        rows: steps in one message.
        must: of `cartpole` and of `cartpole-memory`: steps a second, and processor time for each.
    """

    name: str
    opened: Callable[[Server, Door, str], Awaitable[Step]]
    callers: int
    calls_each: int
    rows: int
    must: dict[str, tuple[float, float]]
    alone_must_ms: float | None = None


async def _door(door: Door, ours: Server, echo: Server) -> list[Figure]:
    targets = {name: (ours, await door.opened(ours, door, name)) for name in WIDTHS}
    targets["echo"] = (echo, await door.opened(echo, door, "cartpole"))
    figures: dict[str, list[Figure]] = {}
    for _ in range(ROUNDS):
        loads = {
            name: await closed_loop(server.pid, door.callers, door.calls_each, step)
            for name, (server, step) in targets.items()
        }
        base_us = _step_us(loads["echo"], door)
        for name, must in door.must.items():
            load = loads[name]
            per_second, step_us = load.per_second * door.rows, _step_us(load, door)
            note = f"the echo {loads['echo'].per_second * door.rows:,.0f}"
            figures.setdefault(f"{name} rate", []).append(
                Figure(f"{door.name}, {name}", per_second, "steps/s", must[0], note=note)
            )
            figures.setdefault(f"{name} cost", []).append(
                Figure(
                    f"{door.name}, {name}, processor",
                    step_us,
                    "µs/step",
                    must[1],
                    lower_is_better=True,
                    note=f"{step_us / base_us:.2g} x the echo's {base_us:.3g} µs",
                )
            )
        if door.alone_must_ms is not None:
            alone = await closed_loop(ours.pid, 1, 500, targets["cartpole"][1])
            figures.setdefault("alone", []).append(
                Figure(
                    f"{door.name.partition(',')[0]}, 1 caller, cartpole, p50",
                    quantile(alone.latencies_s, 0.5) * 1e3,
                    "ms",
                    door.alone_must_ms,
                    lower_is_better=True,
                )
            )
    return [median_of(each) for each in figures.values()]


def _step_us(load: Load, door: Door) -> float:
    return load.processor_s / load.count / door.rows * 1e6


HEADERS = {"Authorization": f"Bearer {TOKEN}"}


async def _rest(server: Server, door: Door, policy: str) -> Step:
    connections = [await Connection.open(server.http) for _ in range(door.callers)]
    observation = [0.01] * WIDTHS[policy]
    requests = []
    for at, connection in enumerate(connections):
        agent = f"{policy}-{at}"
        body = {"agent_id": agent, "policy": policy}
        status, text = await connection.send(connection.request("POST", "/reset", HEADERS, body))
        assert status == 200, text
        step = {"observation": observation, "agent_id": agent}
        requests.append(connection.request("POST", "/step", HEADERS, step))

    async def call(caller: int, number: int) -> None:
        del number
        status, text = await connections[caller].send(requests[caller])
        assert status == 200, text

    return call


async def _rest_batch(server: Server, door: Door, policy: str) -> Step:
    connection = await Connection.open(server.http)
    agents = [f"{policy}-batch-{at}" for at in range(door.rows)]
    for agent in agents:
        body = {"agent_id": agent, "policy": policy}
        status, text = await connection.send(connection.request("POST", "/reset", HEADERS, body))
        assert status == 200, text
    rows = [[0.01] * WIDTHS[policy]] * door.rows
    batch = {"observations": rows, "agent_ids": agents}
    request = connection.request("POST", "/step_batch", HEADERS, batch)

    async def call(caller: int, number: int) -> None:
        del caller, number
        status, text = await connection.send(request)
        assert status == 200, text

    return call


async def _socket(server: Server, door: Door, policy: str) -> Step:
    sockets = [await Socket.open(server.http, "/stream") for _ in range(door.callers)]
    step = {"observation": [0.01] * WIDTHS[policy], "token": TOKEN, "deterministic": False}
    for socket in sockets:
        await socket.send(Socket.message(step | {"policy": policy}))
    message = Socket.message(step)

    async def call(caller: int, number: int) -> None:
        del number
        answer = await sockets[caller].send(message)
        assert b'"action"' in answer, answer

    return call


async def _stream(server: Server, door: Door, policy: str) -> Step:
    streams = []
    for _ in range(door.callers):
        channel = grpc.aio.insecure_channel(
            server.grpc, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        stub = cast("Any", InferenceServiceStub(channel))
        stream = stub.Stream(metadata=(("authorization", f"Bearer {TOKEN}"),))
        agents = [pb.StreamAgent(policy=policy)] * door.rows
        await stream.write(pb.StreamRequest(open=pb.StreamOpen(agents=agents)))
        opened = await stream.read()
        assert opened.opened.policies, opened
        streams.append((channel, stream))
    observations = np.full((door.rows, WIDTHS[policy]), 0.01, "<f4")
    request = pb.StreamRequest(sequence=7)
    if door.rows > 1:
        request.packed.observations = observations.tobytes()
    else:
        request.step.observation.extend(observations[0].tolist())

    async def call(caller: int, number: int) -> None:
        del number
        stream = streams[caller][1]
        await stream.write(request)
        answer = await stream.read()
        assert answer.sequence == 7
        assert not answer.HasField("refusal"), answer

    return call


DOORS = (
    Door(
        "gRPC stream, 16 streams",
        _stream,
        16,
        400,
        1,
        {"cartpole": (7_500, 100), "cartpole-memory": (7_000, 135)},
        0.30,
    ),
    Door(
        "gRPC stream, 32 rows packed",
        _stream,
        1,
        1_500,
        32,
        {"cartpole": (60_000, 9), "cartpole-memory": (32_000, 20)},
    ),
    Door(
        "gRPC stream, 256 rows packed",
        _stream,
        1,
        600,
        ROWS,
        {"cartpole": (380_000, 2), "cartpole-memory": (60_000, 14)},
    ),
    Door(
        "REST /step, 32 clients",
        _rest,
        32,
        400,
        1,
        {"cartpole": (14_000, 70), "cartpole-memory": (12_000, 90)},
        0.25,
    ),
    Door(
        "REST /step_batch, 256 rows",
        _rest_batch,
        1,
        400,
        ROWS,
        {"cartpole": (190_000, 4), "cartpole-memory": (50_000, 17)},
    ),
    Door(
        "WS /stream, 16 connections",
        _socket,
        16,
        800,
        1,
        {"cartpole": (27_000, 40), "cartpole-memory": (16_000, 60)},
        0.15,
    ),
)


IDS, IDS_AT_ONCE = 100_000, 64


async def _memory(server: Server) -> Figure:
    """What is held after many agents came and went, beside what was held before."""
    before = resident_bytes(server.pid)
    channel = grpc.aio.insecure_channel(server.grpc)
    stub = cast("Any", InferenceServiceStub(channel))
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    used_s = processor_s(server.pid)

    async def come_and_go(first: int) -> None:
        stream = stub.Stream(metadata=metadata)
        agents = [pb.StreamAgent(agent_id=f"passing-{first + at}") for at in range(1_000)]
        await stream.write(pb.StreamRequest(open=pb.StreamOpen(agents=agents)))
        await stream.read()
        await stream.write(pb.StreamRequest(close=pb.StreamClose(agents=range(1_000))))
        await stream.read()
        await stream.done_writing()

    for first in range(0, IDS, 1_000):
        await come_and_go(first)
    await channel.close()
    used_s = processor_s(server.pid) - used_s
    after = resident_bytes(server.pid)
    return Figure(
        f"memory of the server after {IDS:,} agent ids",
        after / 2**20,
        "MiB",
        note=f"{before / 2**20:.0f} before; {used_s / IDS * 1e6:.3g} µs for each",
    )


@contextmanager
def _echo() -> Iterator[Server]:
    os.sched_setaffinity(0, {SERVER_CORE})  # inherited by the process
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.inference_echo"], stdout=subprocess.PIPE, text=True
    )
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        assert process.stdout is not None
        http, rpc = process.stdout.readline().split()
        yield Server(process.pid, f"127.0.0.1:{http}", f"127.0.0.1:{rpc}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(measure())
