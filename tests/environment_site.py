"""A whole server whose environments are child processes and which has images, for its clients."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steward_server import environments
from steward_server.environments.config import EnvironmentsConfig
from steward_server.settings import Settings
from tests.child_driver import ChildDriver, Host
from tests.integration.environments.conftest import UNLIMITED, Site
from tests.live import TurnedClock, live_server, live_settings


@asynccontextmanager
async def environment_site(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **config: Any
) -> AsyncIterator[Site]:
    """One for the block, with everything it has below a folder."""
    machines = folder / "machines"
    machines.mkdir(parents=True)
    driver, clock = ChildDriver(Host(machines)), TurnedClock()
    monkeypatch.setattr(environments, "open_driver", lambda *_: (driver, driver.images))
    fast = EnvironmentsConfig(sweep_interval_s=0.02, stop_grace_s=0.5)
    chosen = Settings(environments=replace(fast, **config))
    settings = live_settings(folder / "data", chosen, rates=UNLIMITED)
    async with live_server(settings, clock) as live:
        yield Site(live, driver, clock, folder / "data")
