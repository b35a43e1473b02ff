"""Fixtures every test may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.live import Live, live_server, live_settings

# A busy machine is slow, and that is not what properties are about.
settings.register_profile("steward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steward")


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A whole server in this process, with default settings."""
    async with live_server(live_settings(tmp_path / "data")) as server:
        yield server
