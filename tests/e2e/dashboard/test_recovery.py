"""The server restarts, the network goes away: the page says so, and goes on by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from tests.e2e.dashboard.parts import dialog
from tests.e2e.dashboard.site import Site, Window, held_at, window_of
from tests.e2e.process import forked, steward
from tests.live import port_to_return_to

RECOVERY_MS = 20_000
FOR_A_MOMENT = {
    "status": 503,
    "headers": {"Retry-After": "1", "Content-Type": "application/json"},
    "body": '{"error": {"code": "UNAVAILABLE", "message": "try again"}}',
}


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
            lasting = page.get_by_role("link", name="lasting")
            expect(lasting).to_be_visible()
            server.stop()
            expect(banner_of(page)).to_contain_text("cannot be reached")
            expect(lasting).to_be_visible()
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


def test_once_the_server_has_been_away_a_page_still_loads_each_thing_once(cut_off: Window) -> None:
    page = cut_off.open("/")
    is_live(page)
    page.context.set_offline(True)
    expect(banner_of(page)).to_be_visible()
    page.context.set_offline(False)
    expect(banner_of(page)).to_be_hidden(timeout=RECOVERY_MS)
    is_live(page)
    asked: Counter[str] = Counter()
    page.on("request", lambda request: asked.update([request.url]))
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Agents").click()
    expect(page.get_by_role("heading", name="Agents")).to_be_visible()
    page.wait_for_load_state("networkidle")
    lists = {url: times for url, times in asked.items() if "/api/v1/agents?" in url}
    assert list(lists.values()) == [1], asked


def test_what_loads_slower_than_it_is_asked_for_is_let_end(cut_off: Window) -> None:
    page = cut_off.page
    page.clock.install()
    held = held_at(page, "**/api/playbooks")
    cut_off.open("/playbooks")
    for _ in range(3):
        page.clock.fast_forward(31_000)
    expect(page.get_by_text("Loading…")).to_be_visible()
    assert len(held) == 1
    with page.expect_request("**/api/playbooks"):  # it was asked for again meanwhile
        held[0].continue_()
    expect(page.get_by_text("Loading…")).to_be_hidden()
    held[1].continue_()


def test_a_sign_in_that_cannot_be_renewed_for_a_moment_is_kept(cut_off: Window) -> None:
    page = cut_off.open("/")
    is_live(page)
    page.context.set_offline(True)  # so that the socket needs a token too
    expect(banner_of(page)).to_be_visible()
    # Only now: an answer to a renewal counts as the server's, also while there is no network.
    page.route("**/api/auth/refresh", lambda route: route.fulfill(**FOR_A_MOMENT))
    kept = page.evaluate(
        """() => {
            const kept = { ...JSON.parse(localStorage["steward.session"]), endsAtMs: 0 };
            return (localStorage["steward.session"] = JSON.stringify(kept));
        }"""
    )
    page.context.set_offline(False)
    expect(banner_of(page)).to_be_hidden(timeout=RECOVERY_MS)
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Agents").click()
    expect(page.get_by_text("could not be renewed just now").first).to_be_visible()
    assert page.evaluate("localStorage['steward.session']") == kept
    page.unroute("**/api/auth/refresh")
    expect(page.get_by_text("could not be renewed just now")).to_be_hidden(timeout=RECOVERY_MS)
    is_live(page)


def test_an_answer_that_breaks_off_is_told_and_asked_for_again(cut_off: Window) -> None:
    page = cut_off.page
    page.route(
        "**/api/playbooks",
        lambda route: route.fulfill(body='{"half', content_type="application/json"),
    )
    cut_off.open("/playbooks")
    expect(page.get_by_text("The answer broke off on its way.")).to_be_visible()
    page.unroute("**/api/playbooks")
    expect(page.get_by_text("The answer broke off")).to_be_hidden(timeout=RECOVERY_MS)


def test_what_was_made_while_its_answer_got_lost_is_not_made_again(
    cut_off: Window, site: Site
) -> None:
    site.agent("there before")  # so that there is a provider
    page = cut_off.open("/agents")
    page.get_by_role("button", name="New agent").click()
    dialog(page).get_by_label("Name").fill("made once")
    dialog(page).get_by_label("Budget, in dollars").fill("3")

    def lose(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/api/v1/agents", lose, times=1)
    create = dialog(page).get_by_role("button", name="Create it")
    create.click()
    expect(dialog(page).get_by_role("alert")).to_be_visible()
    create.click()
    expect(page.get_by_role("heading", name="made once")).to_be_visible()
    agents = site.call("GET", "/api/v1/agents")["agents"]
    assert [each["name"] for each in agents].count("made once") == 1
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Agents").click()
    page.get_by_role("button", name="New agent").click()
    dialog(page).get_by_label("Name").fill("made once")
    dialog(page).get_by_label("Budget, in dollars").fill("3")
    create.click()  # wished anew, so a second one
    expect(page.get_by_role("heading", name="made once")).to_be_visible()
    agents = site.call("GET", "/api/v1/agents")["agents"]
    assert [each["name"] for each in agents].count("made once") == 2


def test_an_address_that_is_no_text_is_answered_as_one_of_nothing(cut_off: Window) -> None:
    page = cut_off.open("/")
    page.evaluate(
        "history.pushState(null, '', '/agents/%E0'); dispatchEvent(new Event('popstate'))"
    )
    expect(page.get_by_role("navigation", name="Main")).to_be_visible()
    expect(page.locator("main").get_by_role("alert")).to_be_visible()
