"""A server for the generated tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server import environments
from tests.child_driver import ChildDriver, Host
from tests.integration.access.world import World, open_world


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    machines = tmp_path / "machines"
    machines.mkdir()
    driver = ChildDriver(Host(machines))
    monkeypatch.setattr(environments, "open_driver", lambda *_: (driver, driver.images))
    async with open_world(tmp_path / "data") as opened:
        yield opened
