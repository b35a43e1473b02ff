"""Fixtures every test may ask for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.live import Live, live_server, live_settings


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A whole server in this process, with default settings."""
    async with live_server(live_settings(tmp_path / "data")) as server:
        yield server
