"""Steps of policies over every door, beside servers that compute nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
import numpy as np
from numpy.typing import NDArray

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from steward_server.inference.importing import import_file
from steward_server.inference.model import Model, load
from tests.benchmarks.harness import (
    LOAD_CORE,
    SERVER_CORE,
    Figure,
    Load,
    bench_server,
    best_of,
    closed_loop,
    median_of,
    processor_s,
    quantile,
    resident_bytes,
)
from tests.benchmarks.wire import Connection, Socket
from tests.forking import serve_anew
from tests.live import ServerProcess

TOKEN = "a-static-token-of-the-benchmarks"
OURS = {"STEWARD_STATIC_TOKEN": TOKEN, "STEWARD_RATES_INFERENCE_PER_MINUTE": "0"}
ROUNDS = 5
ROWS = 256
NETWORK = "recurrent"
"""The peer's, which we serve too: a GRU of 2 x 256, and a memory of 128 rows by 64."""
WIDTHS = {"cartpole": 4, "cartpole-memory": 2, NETWORK: 4}
PEER_PYTHON = "/usr/bin/python3"
PEER_PACKAGES = (
    "python3-torch python3-fastapi python3-uvicorn python3-uvloop python3-httptools "
    "python3-websockets libopenblas0-pthread"
)
PEER = Path(__file__).parent / "inference_peer.py"


@dataclass(frozen=True, slots=True)
class Server:
    """Where something that answers steps is."""

    pid: int
    http: str
    grpc: str


Step = Callable[[int, int], Awaitable[object]]


async def measure() -> list[Figure]:
    """The start; each door in turns, ours with both networks, and the echo; and the peer."""
    figures = await _starts()
    async with AsyncExitStack() as stack:
        policies = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="steward-bench-")))
        has_peer = _import_network(policies)
        bench = await stack.enter_async_context(
            bench_server(STEWARD_INFERENCE_FOLDER=str(policies), **OURS)
        )
        server = bench.server
        ours = Server(server.pid, server.http_address, server.grpc_address)
        with _beside(sys.executable, "-m", "tests.benchmarks.inference_echo") as echo:
            for door in DOORS:
                figures += await _door(door, ours, echo)
        figures.append(await _memory(ours))
        if has_peer:
            with _beside(PEER_PYTHON, str(PEER)) as peer:
                for door in (each for each in DOORS if each.opened is not _stream):
                    figures += await _beside_the_peer(door, ours, peer)
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
    targets = {name: (ours, await door.opened(ours, door, name)) for name in door.must}
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
            base = await closed_loop(echo.pid, 1, 500, targets["echo"][1])
            figures.setdefault("alone", []).append(
                Figure(
                    f"{door.name.partition(',')[0]}, 1 caller, cartpole, p50",
                    quantile(alone.latencies_s, 0.5) * 1e3,
                    "ms",
                    door.alone_must_ms,
                    lower_is_better=True,
                    note=f"the echo {quantile(base.latencies_s, 0.5) * 1e3:.2f}",
                )
            )
    return [best_of(each) for each in figures.values()]  # as the goals were set


PEER_ROUNDS = 7


async def _beside_the_peer(door: Door, ours: Server, peer: Server) -> list[Figure]:
    """The network of the peer, by us and by it: short rounds, as their ratio is what counts."""
    step, peers_step = [await door.opened(server, door, NETWORK) for server in (ours, peer)]
    name = f"{door.name}, the peer's network"
    musts = (8.0, 9.0) if door.rows == 1 else (None, None)
    rounds = []
    for _ in range(PEER_ROUNDS):
        load = await closed_loop(ours.pid, door.callers, door.calls_each // 4, step)
        theirs = await closed_loop(peer.pid, door.callers, door.calls_each // 16, peers_step)
        rate, peers_rate = load.per_second * door.rows, theirs.per_second * door.rows
        cost_us, peers_us = _step_us(load, door), _step_us(theirs, door)
        rounds.append(
            (
                Figure(name, rate, "steps/s", note=f"the peer {peers_rate:,.0f}"),
                Figure(f"{name}, processor", cost_us, "µs/step", note=f"the peer {peers_us:,.0f}"),
                Figure(f"{name}, steps by the peer's", rate / peers_rate, "x", musts[0]),
                Figure(f"{name}, the peer's processor by ours", peers_us / cost_us, "x", musts[1]),
            )
        )
    return [median_of(each) for each in zip(*rounds, strict=True)]


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


START_ROUNDS, STEADY_STEPS = 5, 500


async def _starts() -> list[Figure]:
    """What policies add to a start, and the first step of all beside those that follow."""
    rounds = []
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        await _start(Path(folder), "demand")  # makes the data
        for _ in range(START_ROUNDS):
            without_s, _ = await _start(Path(folder), "demand")
            with_s, (first_s, *next_s) = await _start(Path(folder), "start")
            steady_s = quantile(next_s, 0.5)
            rounds.append(
                (
                    Figure(
                        "start, what the built-in policies add",
                        with_s - without_s,
                        "s",
                        1,
                        lower_is_better=True,
                        note=f"ready after {with_s:.2f} s, without them {without_s:.2f} s",
                    ),
                    Figure(
                        "REST /step, the first of a server by those that follow",
                        first_s / steady_s,
                        "x",
                        2,
                        lower_is_better=True,
                        note=f"{first_s * 1e3:.2f} ms, p50 {steady_s * 1e3:.2f} ms",
                    ),
                )
            )
    return [median_of(each) for each in zip(*rounds, strict=True)]


async def _start(data: Path, load_when: str) -> tuple[float, list[float]]:
    """How long a server takes to be ready, and over each of its steps, in seconds."""
    server = ServerProcess(data, serve_anew, STEWARD_INFERENCE_LOAD=load_when, **OURS)
    begun_s = time.perf_counter()
    with _on_core(SERVER_CORE):
        await server.start()
    ready_s = time.perf_counter() - begun_s
    try:
        connection = await Connection.open(server.http_address)
        body = {"observation": [0.01] * 4, "agent_id": "default"}
        step = connection.request("POST", "/step", HEADERS, body)
        took_s = []
        for _ in range(1 + STEADY_STEPS):
            begun_s = time.perf_counter()
            status, text = await connection.send(step)
            took_s.append(time.perf_counter() - begun_s)
            assert status == 200, text
        connection.close()
    finally:
        server.stop()
    return ready_s, took_s


def _import_network(policies: Path) -> bool:
    """Take over the peer's network, if there is a Python that can make it; else say what to do."""
    with tempfile.TemporaryDirectory(prefix="steward-bench-") as folder:
        try:
            command = [PEER_PYTHON, str(PEER), "--export", folder]
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = str(getattr(error, "stderr", error)).strip().rpartition("\n")[2]
            sys.stderr.write(f"no peer ({why}): apt-get install {PEER_PACKAGES}\n")
            return False
        imported = import_file(
            policies,
            Path(folder) / "network.onnx",
            NETWORK,
            description="The peer's network, with random weights.",
            names={},
            shapes={},
            memory="memory",
            pressure="The share of the memory's rows that are used.",
        )
        with np.load(Path(folder) / "checks.npz") as checks:
            _check(load(imported.folder, max_batch=1), checks)
    return True


def _check(model: Model, checks: Mapping[str, NDArray[Any]]) -> None:
    """It gives what PyTorch made of the same observations, several steps long."""
    states = model.fresh(checks["obs"].shape[1])
    for step, observations in enumerate(checks["obs"]):
        outputs = model.run(observations, states)
        states = outputs.states
        made: list[Any] = [*outputs.action, outputs.values, *states, outputs.pressures]
        for name, array in zip(model.manifest.outputs, made, strict=True):
            np.testing.assert_allclose(array, checks[name][step], atol=1e-4, err_msg=name)


@contextmanager
def _on_core(core: int) -> Iterator[None]:
    """What is started meanwhile keeps to this core; this process to that of the load."""
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, {LOAD_CORE})


@contextmanager
def _beside(*command: str) -> Iterator[Server]:
    """Another server on the core of ours, which prints its ports of HTTP and of gRPC."""
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with _on_core(SERVER_CORE):
        process = subprocess.Popen(
            command,
            env=os.environ | one_thread | {"PEER_TOKEN": TOKEN},
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert process.stdout is not None
        http, rpc = process.stdout.readline().split()
        yield Server(process.pid, f"127.0.0.1:{http}", f"127.0.0.1:{rpc}")
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    asyncio.run(measure())
