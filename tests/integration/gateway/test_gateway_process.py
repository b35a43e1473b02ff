"""The gateway as a process of its own in front of a core."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import aiohttp
import grpc


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


async def test_told_to_stop_it_ends_what_is_under_way_and_says_so(
    process: tuple[asyncio.subprocess.Process, int], core: Any
) -> None:
    running, port = process
    events = {"Accept": "text/event-stream"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
        call = asyncio.create_task(http.get("/v1/wait?name=call"))
        lines = await http.get("/v1/count?count=1&hold=true")
        told = await http.get("/v1/count?count=1&hold=true", headers=events)
        socket = await http.ws_connect("/ws/count/1?hold=true")
        for _ in range(4):
            await asyncio.wait_for(core.started.get(), 30)
        assert (await socket.receive_json(timeout=30))["number"] == 1
        running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            *_, last = (await lines.text()).splitlines()
            assert json.loads(last)["error"]["code"] == "UNAVAILABLE"
            assert "event: error\ndata: " in await told.text()
            assert (await socket.receive()).data == 1001
            core.release.set()
            assert (await call).status == 200
            assert await running.wait() == 0
