from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from steward_server.executions.steps.pages.chromium import USUAL_NAMES, Browsers
from steward_server.executions.steps.pages.config import BrowserConfig
from tests.integration.executions.web_pages import WebPages, web_pages
from tests.jobs import TestSession
from tests.missing import missing

MAX_DOWNLOAD_BYTES = 5_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browsers() -> AsyncIterator[Browsers]:
    """One browser process for the tests of a module."""
    if not any(shutil.which(name) for name in USUAL_NAMES):
        missing("Chromium is not installed: make system-packages")
    one = Browsers(BrowserConfig(max_download_bytes=MAX_DOWNLOAD_BYTES))
    yield one
    await one.aclose()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[WebPages]:
    async with web_pages() as pages:
        yield pages


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_session(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestSession]:
    """A run whose page all tests use that need no page of their own: that is quicker."""
    one = TestSession(tmp_path_factory.mktemp("run"))
    yield one
    await one.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def session(one_session: TestSession) -> TestSession:
    """The same, with nothing left of the test before."""
    for left in (one_session.artifacts, one_session.logged, one_session.frames):
        left.clear()
    return one_session


@pytest_asyncio.fixture(loop_scope="module")
async def own_session(tmp_path: Path) -> AsyncIterator[TestSession]:
    """A run of this test."""
    one = TestSession(tmp_path)
    yield one
    await one.aclose()
