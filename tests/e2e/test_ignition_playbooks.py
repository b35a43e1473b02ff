"""The playbooks of the Ignition guide, run against a gateway: well, and as it goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from steward_server.executions.steps.ignition_link import IgnitionConfig
from steward_server.playbooks.folders import SHIPPED
from steward_server.settings import Settings
from tests.ignition_gateway import Fault, Gateway, module_file
from tests.live import Live, live_server, live_settings

PASSWORD = "a-secret-of-admin"
HEALTH_CHECK = "gateway/health_check.yaml"
MODULE_UPGRADE = "gateway/module_upgrade.yaml"


@dataclass(frozen=True, slots=True)
class Plant:
    """A server with a credential of a gateway."""

    live: Live
    gateway: Gateway
    data_dir: Path

    async def run(self, path: str, **parameters: Any) -> Any:
        """Run a playbook on the gateway to its end; gives the run."""
        body = {
            "playbook_path": path,
            "parameters": parameters,
            "gateway_url": self.gateway.url,
            "credential_name": "my-gateway",
        }
        answer = await self.live.admin.call("POST", "/api/executions", body)
        assert answer.status == 200, answer
        path = f"/api/executions/{answer.body['execution_id']}"
        async with asyncio.timeout(20):
            while True:
                run = (await self.live.admin.call("GET", path)).body
                if run["status"] in ("completed", "failed", "cancelled"):
                    return run
                await asyncio.sleep(0.02)


@pytest.fixture
async def plant(tmp_path: Path) -> AsyncIterator[Plant]:
    hasty = IgnitionConfig(request_timeout_s=1, poll_s=0.02, settle_s=0.5)
    settings = live_settings(tmp_path / "data", Settings(ignition=hasty))
    async with (
        Gateway().served() as gateway,
        live_server(settings) as live,
    ):
        credential = {"name": "my-gateway", "username": "admin", "password": PASSWORD}
        assert (await live.admin.call("POST", "/api/credentials", credential)).status == 200
        yield Plant(live, gateway, tmp_path / "data")


def states(run: Any) -> dict[str, str]:
    return {each["step_id"]: each["status"] for each in run["step_results"]}


async def test_a_gateway_that_is_well_is_found_well(plant: Plant) -> None:
    run = await plant.run(HEALTH_CHECK)

    assert run["status"] == "completed", run
    assert set(states(run).values()) == {"completed"}
    assert run["current_step_index"] == run["total_steps"] == 6
    summary = next(each for each in run["step_results"] if each["step_id"] == "summary")
    assert summary["output"]["logged"].endswith("with 2 modules")
    assert not plant.gateway._sessions, "it has logged out"


async def test_a_gateway_that_is_down_is_told_with_its_step_and_line(plant: Plant) -> None:
    # The same playbook in the folder of users takes the place of the built-in one.
    own = plant.data_dir / "playbooks" / HEALTH_CHECK
    own.parent.mkdir(parents=True)
    own.write_text((SHIPPED / HEALTH_CHECK).read_text().replace("delay: 2", "delay: 0.01"))
    plant.gateway.faults[""] = Fault.DROP
    run = await plant.run(HEALTH_CHECK)

    assert run["status"] == "failed"
    assert run["error"].startswith("Step 'ping' failed: ")
    assert plant.gateway.url in run["error"]
    assert run["error"].endswith("(step 'ping' in line 10)")
    assert states(run) == {
        "ping": "failed",
        "login": "pending",
        "info": "pending",
        "health": "pending",
        "modules": "pending",
        "summary": "pending",
        "logout": "skipped",
    }
    assert run["step_results"][0]["attempts"] == 3


async def test_a_wrong_password_fails_the_run_and_is_nowhere(plant: Plant) -> None:
    plant.gateway.users["admin"] = "another-password"
    run = await plant.run(HEALTH_CHECK)

    assert run["status"] == "failed"
    assert run["error"].startswith("Step 'login' failed: ")
    assert PASSWORD not in str(run)


async def test_a_module_is_upgraded(plant: Plant) -> None:
    files = plant.data_dir / "files"
    files.mkdir()
    new = module_file("com.inductiveautomation.perspective", "Perspective", "9.0.0")
    (files / "perspective.modl").write_bytes(new)
    run = await plant.run(MODULE_UPGRADE, module_path="perspective.modl", restart=True)

    assert run["status"] == "completed", run["error"]
    assert plant.gateway.modules["com.inductiveautomation.perspective"].version.startswith("9.0.0")
    assert plant.gateway.restarts == 1
    assert len(plant.gateway.uploads) == 1


async def test_a_module_that_is_not_there_is_not_uploaded(plant: Plant) -> None:
    run = await plant.run(MODULE_UPGRADE, module_path="../../etc/passwd")

    assert run["status"] == "failed"
    assert run["error"].startswith("Step 'upload' failed: there is no file '../../etc/passwd'")
    assert states(run)["logout"] == "completed", "it logs out all the same"
    assert plant.gateway.uploads == []


async def test_a_module_that_waits_for_a_restart_is_told(plant: Plant) -> None:
    files = plant.data_dir / "files"
    files.mkdir()
    (files / "new.modl").write_bytes(module_file())
    run = await plant.run(MODULE_UPGRADE, module_path="new.modl")

    assert run["status"] == "failed"
    assert run["error"].startswith("Step 'install' failed: ")
    assert "restart" in run["error"]
