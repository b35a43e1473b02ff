from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from steward_server.environments.environment import SecurityContext, Spec
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox import machines as sandbox
from tests.integration.environments.sandbox.machines import groups, spec, traces, until
from tests.missing import missing


class Machines(sandbox.Machines):
    """Machines of the class `gvisor`."""

    async def make(self, wanted: Spec | None = None, name: str = "") -> str:
        return await super().make(replace(wanted or spec(), runtime_class="gvisor"), name)

    async def secured(self, **context: Any) -> str:
        return await self.make(replace(spec(), security=SecurityContext(**context)))


def offers_gvisor(driver: SandboxDriver) -> bool:
    return "gvisor" in driver.capabilities().runtime_classes


def leave_out() -> NoReturn:
    """Leave out a test of what cannot be had here."""
    text = "machines with gVisor cannot be made here: see `runsc --version`"
    missing(text, is_must=platform.machine() == "x86_64")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("images"))


@pytest.fixture
def runsc() -> str:
    return "runsc"


@pytest.fixture
async def driver(tmp_path: Path, images: Catalogue, runsc: str) -> AsyncIterator[SandboxDriver]:
    """A driver that leaves nothing behind, which every test that uses it shows once more."""
    opened = SandboxDriver(tmp_path / "sandbox", images, runsc=runsc)
    await opened.open()
    if not offers_gvisor(opened):
        await opened.aclose()
        leave_out()
    try:
        yield opened
    finally:
        await Machines(opened).clear()
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
