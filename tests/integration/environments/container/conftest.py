from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.container import ContainerDriver
from tests.integration.environments.conformance.machines import Machines
from tests.integration.environments.container.podman import IMAGE, KnownEngine, Podman


@pytest.fixture
async def driver(podman: Podman, tmp_path: Path) -> AsyncIterator[ContainerDriver]:
    opened = ContainerDriver(tmp_path / "containers", KnownEngine(podman.url))
    await opened.open()
    assert opened.capabilities().unusable == ""
    try:
        yield opened
    finally:
        for owned in await opened.list_owned():
            await opened.delete(owned.environment_id, grace_s=0)
        await opened.aclose()


@pytest.fixture
async def machines(driver: ContainerDriver) -> Machines:
    return Machines(driver, IMAGE, "steward-test:2")


@pytest.fixture
async def machine(machines: Machines) -> str:
    """A small one that runs."""
    return await machines.make()
