"""Environments on the driver of this machine outlive a server that is killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.live import Api, ServerProcess
from tests.missing import missing

ENVIRONMENTS = "/api/v1/environments"
BODY: dict[str, Any] = {
    "name": "lasting",
    "image": "host",
    "command": ["sleep", "3600"],
    "resources": {"cpu": "1", "memory": "64Mi", "storage": "16Mi"},
}


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ServerProcess]:
    monkeypatch.chdir(tmp_path)
    process = ServerProcess(
        Path("data"),  # relative, as it is where nobody sets it
        STEWARD_ENVIRONMENTS_DRIVER="auto",
        STEWARD_RATES_ENVIRONMENT_CREATION_PER_MINUTE="0",
        STEWARD_RATES_COMMAND_EXECUTION_PER_MINUTE="0",
    )
    await process.start()
    async with aiohttp.ClientSession() as session:
        api = Api(f"http://{process.http_address}", session)
        health = (await api.call("GET", "/api/v1/health")).body["environments"]
    if not health["usable"]:
        process.stop()
        missing(f"no environments can be made on this machine: {health['reason']}")
    yield process
    process.stop()


async def becomes(admin: Api, environment_id: str, status: str) -> Any:
    async with asyncio.timeout(20):
        while True:
            answer = await admin.call("GET", f"{ENVIRONMENTS}/{environment_id}")
            if answer.status == 200 and answer.body["status"] == status:
                return answer.body
            await asyncio.sleep(0.02)


async def run(admin: Api, environment_id: str, *command: str) -> Any:
    path = f"{ENVIRONMENTS}/{environment_id}/exec"
    answer = await admin.call("POST", path, {"command": command})
    assert answer.status == 200, answer
    return answer.body


async def test_what_runs_is_adopted_after_a_kill(server: ServerProcess) -> None:
    async with aiohttp.ClientSession() as session:
        admin = await Api(f"http://{server.http_address}", session).sign_in()
        made = [await admin.call("POST", ENVIRONMENTS, BODY) for _ in range(3)]
        every = [str(each.body["id"]) for each in made]
        for each in every:
            await becomes(admin, each, "running")
        kept = every[0]
        await run(admin, kept, "sh", "-c", "echo kept > /tmp/file; echo said")
        left = asyncio.create_task(run(admin, kept, "sleep", "600"))
        await asyncio.sleep(0.3)
        server.kill()
        with pytest.raises(aiohttp.ClientError):
            await left

    await server.start()
    async with aiohttp.ClientSession() as session:
        admin = await Api(f"http://{server.http_address}", session).sign_in()
        assert (await becomes(admin, kept, "running"))["metrics"]["process_count"] >= 1
        assert (await run(admin, kept, "cat", "/tmp/file"))["stdout"] == "kept\n"
        processes = (await admin.call("GET", f"{ENVIRONMENTS}/{kept}/processes")).body
        assert not [each for each in processes["processes"] if each["command"] == "sleep 600"]
        logs = (await admin.call("GET", f"{ENVIRONMENTS}/{kept}/logs")).body["logs"]
        assert "said" in [each["message"] for each in logs]
        for each in every:
            gone = await admin.call("DELETE", f"{ENVIRONMENTS}/{each}?force=true")
            assert gone.status == 204
        assert (await admin.call("GET", ENVIRONMENTS)).body["total"] == 0
    machines = server.data_dir / "environments" / "machines"
    assert list(machines.iterdir()) == []
