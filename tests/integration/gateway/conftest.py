"""A made-up core behind each transport there is, and the gateway in front of it.

A door is how the gateway reaches the core. Whatever is in `DOORS` runs the whole suite.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import grpc_tools  # type: ignore[import-untyped]
import pytest
from grpc_tools import protoc

from steward_gateway.app import RunningGateway, build_app, serve_gateway
from steward_gateway.channel import ChannelTransport, open_channel
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import Contracts, load_contracts
from steward_gateway.transport import Transport
from steward_server.dispatch import Dispatcher
from steward_server.in_process import InProcess

HERE = Path(__file__).parent
PROTOS = HERE / "protos"
Register = Callable[[Any], None]
"""Adds servicers to what looks like a `grpc.aio.Server`."""


@contextlib.asynccontextmanager
async def channel_door(register: Register, contracts: Contracts) -> AsyncIterator[Transport]:
    server = grpc.aio.server()
    register(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield ChannelTransport(channel, contracts)
    finally:
        await server.stop(grace=0)


@contextlib.asynccontextmanager
async def in_process_door(register: Register, contracts: Contracts) -> AsyncIterator[Transport]:
    methods = Dispatcher(lambda signature: ())
    register(methods)
    yield InProcess(methods)


DOORS = {"channel": channel_door, "in_process": in_process_door}


class Workshop:
    """The compiled contract of the core."""

    def __init__(self, out: Path) -> None:
        self.out = out
        bundled = Path(grpc_tools.__file__).parent / "_proto"
        root = HERE.parents[2] / "proto"
        descriptors = out / "descriptors.binpb"
        arguments = [
            *("", f"-I{PROTOS}", f"-I{root}", f"-I{root / 'third_party'}", f"-I{bundled}"),
            *(f"--python_out={out}", f"--grpc_python_out={out}"),
            *(f"--descriptor_set_out={descriptors}", "--include_imports"),
            "workshop/v1/workshop.proto",
        ]
        assert protoc.main(arguments) == 0
        sys.path.insert(0, str(out))
        try:
            self.pb: Any = importlib.import_module("workshop.v1.workshop_pb2")
            self.rpc: Any = importlib.import_module("workshop.v1.workshop_pb2_grpc")
        finally:
            sys.path.remove(str(out))
        self.contracts = load_contracts(descriptors)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.fixture(params=list(DOORS))
async def transport(
    request: pytest.FixtureRequest, workshop: Workshop, core: Any
) -> AsyncIterator[Transport]:
    def register(server: Any) -> None:
        workshop.rpc.add_WorkshopServiceServicer_to_server(core, server)

    async with DOORS[request.param](register, workshop.contracts) as transport:
        yield transport


@pytest.fixture
def core(workshop: Workshop) -> Any:
    """The servicer; tests read what it has seen."""
    module = _load("workshop_service")
    return module.WorkshopCore(workshop.pb)


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def config() -> GatewayConfig:
    return GatewayConfig(half_close_grace_s=10, drain_grace_s=2, accept_timeout_s=1)


@pytest.fixture
def seen_requests() -> list[tuple[str, int]]:
    """Endpoint and status of each request that has ended."""
    return []


@pytest.fixture
async def gateway(
    transport: Transport,
    workshop: Workshop,
    config: GatewayConfig,
    seen_requests: list[tuple[str, int]],
) -> AsyncIterator[RunningGateway]:
    def observe(endpoint: str, status: int, time_s: float) -> None:
        assert time_s >= 0
        seen_requests.append((endpoint, status))

    app = build_app(transport, contracts=workshop.contracts, config=config, observe=observe)
    running = await serve_gateway(app, port=0)
    yield running
    await running.stop()


@pytest.fixture
async def http(gateway: RunningGateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{gateway.port}") as session:
        yield session


@pytest.fixture
async def core_server(workshop: Any, core: Any) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    server = grpc.aio.server()
    workshop.rpc.add_WorkshopServiceServicer_to_server(core, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield server, port
    await server.stop(grace=0)


@pytest.fixture
async def process(
    workshop: Any, core_server: tuple[grpc.aio.Server, int]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    arguments = [
        *("-m", "steward_gateway", "--port", "0", "--core", f"127.0.0.1:{core_server[1]}"),
        *("--descriptors", str(workshop.out / "descriptors.binpb")),
    ]
    path = os.pathsep.join([str(workshop.out), *sys.path])
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        env={**os.environ, "PYTHONPATH": path},
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    async with asyncio.timeout(20):
        line = (await running.stdout.readline()).decode()
    found = re.search(r"gateway\.listening.*port=([0-9]+)", line)
    assert found is not None, line
    reading = asyncio.create_task(running.stdout.read())  # else its log would hold it up
    yield running, int(found[1])
    if running.returncode is None:
        running.kill()
    await reading
    await running.wait()
