"""The same tests for every driver: what a room may rely on, whichever makes its machines."""

from __future__ import annotations

import platform
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.driver import Driver
from steward_server.environments.images.catalogue import Catalogue
from tests.integration.environments.conformance import kinds
from tests.integration.environments.conformance.kinds import Kind
from tests.integration.environments.conformance.machines import Machines
from tests.integration.environments.container.podman import Podman
from tests.missing import missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what a driver does not promise; kinds.py says what, and why."""
    items[:] = [each for each in items if not kinds.is_left_out(each)]


@pytest.fixture(scope="session", params=["sandbox", "gvisor", "container", "kubernetes"])
def source(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Podman | Catalogue | None:
    """Where machines come from; None: a cluster, which lasts for one test."""
    if request.param in ("sandbox", "gvisor"):
        return Catalogue(tmp_path_factory.mktemp("images"))
    if request.param == "container":
        podman: Podman = request.getfixturevalue("podman")
        return podman
    return None


@pytest.fixture
async def kind(
    request: pytest.FixtureRequest, source: Podman | Catalogue | None, tmp_path: Path
) -> AsyncIterator[Kind]:
    if isinstance(source, Podman):
        yield kinds.container(source)
    elif isinstance(source, Catalogue):
        is_gvisor = request.node.callspec.params["source"] == "gvisor"
        yield kinds.gvisor(source) if is_gvisor else kinds.sandbox(source)
    else:
        async with kinds.kubernetes(tmp_path) as found:
            yield found


@pytest.fixture
def another(kind: Kind) -> kinds.Opener:
    """Makes a driver of the same kind, which is the test's to open and to close."""
    return kind.opener


@pytest.fixture
async def driver(kind: Kind, tmp_path: Path) -> AsyncIterator[Driver]:
    opened = kind.opener(tmp_path / "machines")
    await opened.open()
    if why := opened.capabilities().unusable:
        await opened.aclose()
        missing(f"machines cannot be made here: {why}")
    if kind.runtime_class and kind.runtime_class not in opened.capabilities().runtime_classes:
        await opened.aclose()
        text = f"machines of class {kind.runtime_class} cannot be made here: see `runsc --version`"
        missing(text, is_must=platform.machine() == "x86_64")
    try:
        yield opened
    finally:
        for owned in await opened.list_owned():
            await opened.delete(owned.environment_id, grace_s=0)
        await opened.aclose()


@pytest.fixture
async def machines(driver: Driver, kind: Kind) -> Machines:
    return Machines(driver, kind.image, kind.absent_image, kind.runtime_class)


@pytest.fixture
async def machine(machines: Machines) -> str:
    """A small one that runs."""
    return await machines.make()
