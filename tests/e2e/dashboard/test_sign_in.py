"""Signing in and out, and what ends a session."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.dashboard.site import Site, Window, held_at, window_of
from tests.live import ADMIN_PASSWORD


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"STEWARD_AUTH_LOGINS_PER_MINUTE": "0"}  # more people sign in here than in a minute


def be_busy(page: Page, path: str, status: int) -> None:
    """Calls of a path are refused for a second, until `page.unroute` lets them pass."""
    headers = {"Retry-After": "1", "Content-Type": "application/json"}
    body = '{"error": {"code": "BUSY", "message": "try again"}}'
    page.route(path, lambda route: route.fulfill(status=status, headers=headers, body=body))


def test_a_person_signs_in_stays_so_over_a_reload_and_signs_out(stranger: Window) -> None:
    page = stranger.open("/")
    stranger.assert_accessible()
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Password")).to_be_visible()


def test_a_wrong_password_is_told_and_what_was_typed_stays(stranger: Window) -> None:
    page = stranger.open("/")
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("no user has this name and this password")
    expect(page.get_by_label("User")).to_have_value("admin")
    stranger.faults.clear()  # the browser's own line about the 401


def test_who_was_given_a_password_chooses_another_first(browser: Browser, site: Site) -> None:
    given = "given on a slip of paper"
    wish = {"username": "newcomer", "password": given, "role": "user"}
    site.call("POST", "/api/v1/users", {**wish, "must_change_password": True})
    with window_of(browser, site, None) as window:
        page = window.open("/agents")
        page.get_by_label("User").fill("newcomer")
        page.get_by_label("Password").fill(given)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="A password of your own")).to_be_visible()
        window.assert_accessible()
        page.get_by_label("Present password").fill(given)
        page.get_by_label("New password", exact=False).first.fill("one that I chose myself")
        page.get_by_label("New password, again").fill("another")
        page.get_by_role("button", name="Change password").click()
        expect(page.get_by_text("is not the same as the new password")).to_be_visible()
        page.get_by_label("New password, again").fill("one that I chose myself")
        page.get_by_role("button", name="Change password").click()
        expect(page.get_by_role("navigation", name="Main")).to_be_visible()


def test_an_access_token_that_ended_is_renewed_without_a_word(browser: Browser, site: Site) -> None:
    person = site.person("renewed", "user")
    with window_of(browser, site, {**person, "access_token": "ended"}) as window:
        page = window.open("/")
        expect(page.get_by_text("No agents yet.")).to_be_visible()
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        window.faults.clear()  # the browser's own line about the 401


def test_a_session_that_was_ended_elsewhere_says_so_and_goes_on_where_it_was(
    browser: Browser, site: Site
) -> None:
    person = site.person("suspended", "user")
    with window_of(browser, site, person) as window:
        page = window.open("/?kept=1")
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        site.call("PUT", f"/api/v1/users/{person['user']['id']}/suspend", {})
        expect(page.get_by_text("Your session has ended.")).to_be_visible()
        site.call("PUT", f"/api/v1/users/{person['user']['id']}/activate", {})
        page.get_by_label("User").fill("suspended")
        page.get_by_label("Password").fill("a quiet evening by the lake")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        assert page.url.endswith("/?kept=1")
        window.faults.clear()  # the browser's own lines about the 401


def test_signing_out_in_one_tab_ends_the_others(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("two tabs", "viewer")) as window:
        page = window.open("/")
        other = page.context.new_page()
        other.goto(site.url)
        expect(other.get_by_role("heading", name="Overview")).to_be_visible()
        other.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        window.faults.clear()  # the browser's own line about a 401, had a call been under way


def test_who_signs_in_while_the_server_is_busy_waits_and_need_not_sign_in_again(
    stranger: Window,
) -> None:
    page = stranger.open("/")
    be_busy(page, "**/api/v1/auth/me", 429)
    page.get_by_label("User").fill("admin")
    page.get_by_label("Password").fill(ADMIN_PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Starting…", exact=True)).to_be_visible()
    stranger.assert_accessible()
    page.reload()
    expect(page.get_by_text("Starting…", exact=True)).to_be_visible()
    page.unroute("**/api/v1/auth/me")
    expect(page.get_by_role("heading", name="Overview")).to_be_visible()
    stranger.faults.clear()  # the browser's own lines about the 429


def test_a_window_that_opens_while_a_sign_in_cannot_be_renewed_waits_for_it(
    browser: Browser, site: Site
) -> None:
    person = site.person("patient", "user")
    with window_of(browser, site, {**person, "access_token": "ended"}) as window:
        be_busy(window.page, "**/api/auth/refresh", 503)
        page = window.open("/")
        expect(page.get_by_text("Starting…", exact=True)).to_be_visible()
        page.unroute("**/api/auth/refresh")
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        window.faults.clear()  # the browser's own lines about the 401 and the 503


def test_signing_in_as_somebody_else_in_one_tab_does_so_in_the_others(
    browser: Browser, site: Site
) -> None:
    site.person("the next", "viewer")
    with window_of(browser, site, site.person("the first", "user")) as window:
        page = window.open("/")
        expect(page.get_by_text("the first", exact=True)).to_be_visible()
        other = page.context.new_page()
        other.goto(site.url)
        other.get_by_role("button", name="Sign out").click()
        other.get_by_label("User").fill("the next")
        other.get_by_label("Password").fill("a quiet evening by the lake")
        other.keyboard.press("Enter")
        expect(other.get_by_text("the next", exact=True)).to_be_visible()
        expect(page.get_by_text("the next", exact=True)).to_be_visible()
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        window.faults.clear()  # the browser's own line about a 401, had a call been under way


def test_signing_out_while_the_sign_in_is_renewed_ends_it(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("leaving", "user")) as window:
        page = window.open("/")
        expect(page.get_by_text("live", exact=True)).to_be_visible()
        held = held_at(page, "**/api/auth/refresh")
        with page.expect_request("**/api/auth/refresh"):
            page.evaluate(
                """() => {
                    const kept = JSON.parse(localStorage["steward.session"]);
                    localStorage["steward.session"] = JSON.stringify({ ...kept, endsAtMs: 0 });
                }"""
            )
            page.get_by_role("navigation", name="Main").get_by_role("link", name="Agents").click()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        pair = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}
        with page.expect_response("**/api/auth/refresh"):
            held[0].fulfill(json=pair)
        page.reload()
        expect(page.get_by_label("Password")).to_be_visible()
        assert page.evaluate("localStorage['steward.session']") is None
