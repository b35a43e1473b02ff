"""The server restarts, the network goes away: the page says so, and goes on by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.site import Site, Window, window_of
from tests.e2e.process import forked, steward
from tests.live import port_to_return_to

RECOVERY_MS = 20_000


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"STEWARD_HTTP_PORT": str(port_to_return_to())}


@pytest.fixture
def cut_off(window: Window) -> Iterator[Window]:
    yield window
    window.faults.clear()


def banner_of(page: Page) -> Locator:
    """What the frame says of the connection; what a page was refused has alerts of its own."""
    return page.get_by_role("alert").filter(has_text="this page goes on by itself")


def is_live(page: Page) -> None:
    expect(page.get_by_text("live", exact=True)).to_be_visible(timeout=RECOVERY_MS)


def test_without_a_network_the_page_says_so_and_goes_on_when_it_is_back(
    cut_off: Window, site: Site
) -> None:
    page = cut_off.open("/")
    is_live(page)
    page.context.set_offline(True)
    banner = banner_of(page)
    expect(banner).to_contain_text("cannot be reached")
    expect(page.get_by_text("cut off")).to_be_visible()
    cut_off.assert_accessible()
    site.agent("made meanwhile")
    page.context.set_offline(False)
    expect(banner).to_be_hidden(timeout=RECOVERY_MS)
    is_live(page)
    expect(page.get_by_role("link", name="made meanwhile")).to_be_visible()


def test_over_a_restart_of_the_server_the_page_keeps_what_it_shows_and_its_sign_in(
    browser: Browser, tmp_path: Path
) -> None:
    port = {"STEWARD_HTTP_PORT": str(port_to_return_to())}
    with steward(tmp_path / "data", forked, **port) as server:
        site = Site(server)
        site.agent("lasting")
        with window_of(browser, site, site.session) as window:
            page = window.open("/")
            is_live(page)
            server.stop()
            expect(banner_of(page)).to_contain_text("cannot be reached")
            expect(page.get_by_role("link", name="lasting")).to_be_visible()
            with steward(tmp_path / "data", forked, **port):
                expect(banner_of(page)).to_be_hidden(timeout=RECOVERY_MS)
                is_live(page)
                site.agent("made afterwards")
                page.reload()
                expect(page.get_by_role("link", name="made afterwards")).to_be_visible()
            window.faults.clear()


def test_a_page_that_is_opened_while_the_server_is_away_comes_when_it_is_back(
    cut_off: Window,
) -> None:
    page = cut_off.open("/")
    is_live(page)
    page.context.set_offline(True)
    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_text("This page could not be loaded.")).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_role("heading", name="Settings")).to_be_visible(timeout=RECOVERY_MS)
