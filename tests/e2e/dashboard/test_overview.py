"""The overview: how fast money goes, and what waits for a decision."""

from __future__ import annotations

from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.agents import NOT_NOW, ask, lent, owned_by, report
from tests.e2e.dashboard.parts import row
from tests.e2e.dashboard.site import Site, Window, window_of
from tests.e2e.dashboard.storm import watch_storm

FROZEN_S = 1
"""A page that draws nothing for so long is frozen, also on a machine that has much else to do."""
SHOWN = """
    Object.defineProperty(document, "hidden", {{ value: {is_hidden}, configurable: true }});
    document.dispatchEvent(new Event("visibilitychange"));
"""
LOADED_AGAIN_MS = 4_000
"""Within this a page that is looked at loads again what has changed."""


def ask_for_a_raise(site: Site, name: str) -> str:
    """The id of the agent it is asked for."""
    agent_id = site.agent(name)
    ask(site, agent_id)
    return agent_id


def waiting(page: Page, name: str) -> Locator:
    return row(page, "Budget requests", name)


def test_spending_of_the_last_hour_is_there_at_once_and_grows_as_calls_are_booked(
    window: Window, site: Site
) -> None:
    token, lease_id = lent(site, site.agent("crawler"))
    report(site, token, lease_id, "before", 0.5)
    page = window.open("/")
    expect(page.get_by_text("$0.50/h")).to_be_visible()
    expect(page.get_by_role("heading", name="The last hour")).to_be_visible()
    report(site, token, lease_id, "after", 0.25)
    expect(page.get_by_text("$0.75/h")).to_be_visible()
    expect(page.get_by_text("all gone in")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)


def test_a_raise_is_approved_and_another_rejected_where_they_are_shown(
    window: Window, site: Site
) -> None:
    raised, left = ask_for_a_raise(site, "raised"), ask_for_a_raise(site, "left alone")
    page = window.open("/")
    waiting(page, "raised").get_by_role("button", name="Approve").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("New budget, in dollars").fill("20")
    window.assert_accessible()
    dialog.get_by_role("button", name="Raise it").click()
    expect(waiting(page, "raised")).to_be_hidden()
    waiting(page, "left alone").get_by_role("button", name="Reject").click()
    dialog.get_by_label("Why?").fill("No.")
    dialog.get_by_role("button", name="Reject it").click()
    expect(dialog.get_by_text("must have at least 20 characters")).to_be_visible()
    dialog.get_by_label("Why?").fill(NOT_NOW)
    dialog.get_by_role("button", name="Reject it").click()
    expect(waiting(page, "left alone")).to_be_hidden()
    budgets = [
        site.call("GET", f"/api/v1/agents/{agent_id}")["budget"]["limit_usd"]
        for agent_id in (raised, left)
    ]
    assert budgets == [20, 10]
    window.faults.clear()  # the browser's own line about the 400


def test_a_request_that_newer_ones_push_out_is_decided_over_all_the_same(
    window: Window, site: Site
) -> None:
    oldest = ask_for_a_raise(site, "pushed out")
    page = window.open("/")
    waiting(page, "pushed out").get_by_role("button", name="Reject").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why?").fill(NOT_NOW)
    for number in range(6):
        ask_for_a_raise(site, f"newer {number}")
    shown = page.locator("table[aria-label='Budget requests'] tbody tr")
    expect(shown).to_contain_text([f"newer {number}" for number in reversed(range(6))])
    expect(dialog.get_by_label("Why?")).to_have_value(NOT_NOW)
    dialog.get_by_role("button", name="Reject it").click()
    expect(dialog).to_have_count(0)
    [request] = site.call("GET", f"/api/v1/budget/requests?agent_id={oldest}")["budget_requests"]
    assert (request["status"], request["rejection_reason"]) == ("rejected", NOT_NOW)


def test_who_may_not_decide_is_not_offered_to(browser: Browser, site: Site) -> None:
    person = site.person("ann", "user")
    ask(site, owned_by(site, person, "hers"), token=person["access_token"])
    with window_of(browser, site, person) as window:
        page = window.open("/")
        expect(waiting(page, "hers")).to_be_visible()
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)


def test_a_page_nobody_looks_at_asks_for_nothing_until_somebody_does(
    window: Window, site: Site
) -> None:
    page = window.open("/")
    expect(page.get_by_role("heading", name="Agents", exact=True)).to_be_visible()
    expect(page.get_by_text("Loading…")).to_have_count(0)
    page.wait_for_load_state("networkidle")
    page.evaluate(SHOWN.format(is_hidden="true"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ask_for_a_raise(site, "meanwhile")
    page.wait_for_timeout(LOADED_AGAIN_MS)
    # The library of a chart comes when it comes; of the server nothing is asked.
    assert [url for url in asked if "/dashboard/vendor/" not in url] == []
    page.evaluate(SHOWN.format(is_hidden="false"))
    expect(waiting(page, "meanwhile")).to_be_visible()


def test_thousands_of_events_a_second_do_not_freeze_the_page(window: Window, site: Site) -> None:
    assert watch_storm(window, site).longest_frame_s < FROZEN_S
