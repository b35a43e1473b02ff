"""Fixtures every test may ask for."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

from steward_server.auth import passwords
from tests import cheap_passwords
from tests.live import Live, live_server, live_settings

if TYPE_CHECKING:
    from tests.integration.environments.container.podman import Podman

# A busy machine is slow, and that is not what properties are about.
settings.register_profile("steward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steward")


passwords._hasher = cheap_passwords.cheap

# To rewrite the assertions of all tests takes each worker seven seconds, but once: what comes of
# it is kept even where Python is told to write no bytecode.
sys.dont_write_bytecode = False

# Many tests make servers log errors. Where nothing else is set, structlog colours every line of
# code around every frame and prints its variables, which takes most of the time of such a test.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)

# Reading the tests makes millions of objects, nearly all of which stay: to look for garbage among
# them meanwhile takes a third of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """Let the collector pass over what lives until the end: the code, and thousands of tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)  # as a server does once it has started
    gc.enable()


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """A whole server in this process, with default settings."""
    async with live_server(live_settings(tmp_path / "data")) as server:
        yield server


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """A container engine with the image `steward-test:1`, the only one of this process."""
    from tests.integration.environments.container.podman import engine

    with engine(tmp_path_factory.mktemp("podman")) as started:
        yield started
