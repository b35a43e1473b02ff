"""One server a module, a window a test, and one browser that has them all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.dashboard.site import Site, Window, chromium, window_of
from tests.e2e.process import forked, steward

FOLDER = Path(__file__).parent


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Settings of the module's server; a module may have others."""
    return {}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Site]:
    with steward(tmp_path_factory.mktemp("dashboard") / "data", forked, **settings) as server:
        yield Site(server)


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Browser:
    """The only one of this folder; its windows share nothing."""
    return started_for(next(each for each in request.node.listchain() if each.path == FOLDER))


@cache
def started_for(folder: pytest.Collector) -> Browser:
    """Closed after the folder's last test: it keeps the thread's event loop to itself."""
    started = ExitStack()
    browser = started.enter_context(chromium())
    folder.addfinalizer(started_for.cache_clear)
    folder.addfinalizer(started.close)
    return browser


@pytest.fixture
def window(browser: Browser, site: Site) -> Iterator[Window]:
    """Of the administrator."""
    with window_of(browser, site, site.session) as window:
        yield window


@pytest.fixture
def stranger(browser: Browser, site: Site) -> Iterator[Window]:
    """Of nobody who is signed in."""
    with window_of(browser, site, None) as window:
        yield window
