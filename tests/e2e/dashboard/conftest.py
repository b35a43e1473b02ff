"""One server and one browser a module, a window a test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.dashboard.site import Site, Window, chromium, window_of
from tests.e2e.process import forked, steward


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    """Settings of the module's server; a module may have others."""
    return {}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[Site]:
    with steward(tmp_path_factory.mktemp("dashboard") / "data", forked, **settings) as server:
        yield Site(server)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


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
