from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import Machines, groups, traces, until
from tests.missing import missing


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("images"))


@pytest.fixture
def runsc() -> str | None:
    """gVisor's program; without one a driver opens four times as fast."""
    return None


@pytest.fixture
async def driver(tmp_path: Path, images: Catalogue) -> AsyncIterator[SandboxDriver]:
    """A driver that leaves nothing behind, which every test that uses it shows once more."""
    opened = SandboxDriver(tmp_path / "sandbox", images)
    await opened.open()
    if opened.capabilities().unusable:
        missing(f"machines cannot be made here: {opened.capabilities().unusable}")
    try:
        yield opened
    finally:
        for owned in await opened.list_owned():
            await opened.delete(owned.environment_id, grace_s=0)
        left = groups(opened)
        await opened.aclose()
        await asyncio.wait_for(until(lambda: not traces(tmp_path / "sandbox")), 30)
        assert not left


@pytest.fixture
async def machines(driver: SandboxDriver) -> Machines:
    return Machines(driver)


@pytest.fixture
async def machine(machines: Machines) -> str:
    """A small one that runs."""
    return await machines.make()
