"""Tests of the back end without root. Run by root, they are run by an ordinary user instead."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.bubblewrap.elsewhere import INSIDE, Elsewhere
from tests.integration.environments.bubblewrap.machines import supervisors
from tests.integration.environments.sandbox.machines import Machines, until
from tests.missing import missing

_elsewhere = pytest.StashKey[Elsewhere]()


def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    """Have another process run it, and report what happened there."""
    is_here = item.path.parent == Path(__file__).parent
    if not is_here or os.geteuid() != 0 or INSIDE in os.environ:
        return None
    if _elsewhere not in item.config.stash:
        item.config.stash[_elsewhere] = Elsewhere()
        item.config.add_cleanup(item.config.stash[_elsewhere].close)
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for told in item.config.stash[_elsewhere].run(item.nodeid):
        reason = (str(item.path), item.location[1] or 0, told["text"])
        report = pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords=dict.fromkeys(item.keywords, 1),
            outcome=told["outcome"],
            longrepr=reason if told["outcome"] == "skipped" else told["text"] or None,
            when=told["when"],
            duration=told["duration"],
        )
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return Catalogue(tmp_path_factory.mktemp("images"))


@pytest.fixture
async def driver(tmp_path: Path, images: Catalogue) -> AsyncIterator[SandboxDriver]:
    """A driver that leaves nothing behind, which every test that uses it shows once more."""
    if shutil.which("bwrap") is None:
        text = "machines without root cannot be made here: there is no bwrap"
        missing(text)
    opened = SandboxDriver(tmp_path / "sandbox", images)
    await opened.open()
    if opened.capabilities().unusable:
        missing(f"machines cannot be made here: {opened.capabilities().unusable}")
    try:
        yield opened
    finally:
        await Machines(opened).clear()
        await opened.aclose()
        await until(lambda: not supervisors(), 30)


@pytest.fixture
async def machines(driver: SandboxDriver) -> Machines:
    return Machines(driver)


@pytest.fixture
async def machine(machines: Machines) -> str:
    """A small one that runs."""
    return await machines.make()
