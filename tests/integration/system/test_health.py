"""Health, as load balancers and people ask for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from steward_server.app import serving
from tests.live import Live, live_settings

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_the_whole_server_and_each_service_are_serving(live: Live) -> None:
    stub: Any = HealthStub(live.channel)
    for name in ("", "steward.budget.v1.BudgetService", "steward.events.v1.EventService"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.Check(health_pb2.HealthCheckRequest(service="steward.nothing.v1.Service"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_watchers_are_told_that_the_server_stops(tmp_path: Path) -> None:
    leave = asyncio.Event()
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with serving(live_settings(tmp_path / "data", drain_s=0.2)) as running:
            address.set_result(running.grpc_address)
            await leave.wait()

    server = asyncio.create_task(serve())
    async with grpc.aio.insecure_channel(await address) as channel:
        stub: Any = HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        leave.set()
        assert (await watch.read()).status == NOT_SERVING
        await server


async def test_health_tells_version_time_and_the_newest_audit(live: Live) -> None:
    answer = await live.api.call("GET", "/health")
    assert answer.status == 200
    assert answer.body.keys() == {
        *("status", "version", "timestamp", "ledger", "notices", "uptime_seconds")
    }
    assert answer.body["status"] == "healthy"
    assert answer.body["ledger"]["balanced"] is True
    assert answer.body["notices"] == []


async def test_health_says_that_local_callers_need_no_credential(tmp_path: Path) -> None:
    async with serving(live_settings(tmp_path / "data", local_single_user=True)) as running:
        import aiohttp

        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://{running.http_address}/health") as response,
        ):
            notices = (await response.json())["notices"]
    assert len(notices) == 1
    assert "STEWARD_LOCAL_SINGLE_USER" in notices[0]
