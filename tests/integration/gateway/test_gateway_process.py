"""The gateway as a process of its own in front of a core."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest


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
    yield running, int(found[1])
    if running.returncode is None:
        running.kill()
    await running.communicate()


async def test_it_serves_until_it_is_told_to_stop(
    process: tuple[asyncio.subprocess.Process, int], core_server: tuple[grpc.aio.Server, int]
) -> None:
    running, port = process
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        async with http.get("/v1/tools/t1") as response:
            assert (await response.json())["id"] == "t1"
        await core_server[0].stop(grace=0)
        async with http.get("/v1/tools/t1") as response:
            assert response.status == 503
            assert str(core_server[1]) not in await response.text()
    running.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await running.wait() == 0
