"""The overview: how fast money goes, and what waits for a decision."""

from __future__ import annotations

import time
from threading import Event, Thread
from typing import Any

import grpc
from playwright.sync_api import Browser, Locator, Page, expect

from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.e2e.dashboard.agents import NOT_NOW, ask, owned_by, report
from tests.e2e.dashboard.parts import row
from tests.e2e.dashboard.site import Site, Window, window_of

WATCHED_EVENTS = 6_000
FROZEN_MS = 1_000
"""A page that draws nothing for so long is frozen, also on a machine that has much else to do."""
COUNT_EVENTS = """
    window.heard = 0;
    window.WebSocket = class extends WebSocket {
      constructor(...given) {
        super(...given);
        this.addEventListener("message", () => window.heard++);
      }
    };
"""
SHOWN = """
    Object.defineProperty(document, "hidden", {{ value: {is_hidden}, configurable: true }});
    document.dispatchEvent(new Event("visibilitychange"));
"""
LOADED_AGAIN_MS = 4_000
"""Within this a page that is looked at loads again what has changed."""
WATCH_FRAMES = """
    window.longest = 0;
    let before = performance.now();
    const watch = (now) => {
      window.longest = Math.max(window.longest, now - before);
      before = now;
      requestAnimationFrame(watch);
    };
    requestAnimationFrame(watch);
    new PerformanceObserver((list) => {
      for (const each of list.getEntries()) {
        window.longest = Math.max(window.longest, each.duration);
      }
    }).observe({ entryTypes: ["longtask"] });
"""


def lent(site: Site, name: str) -> tuple[str, str]:
    """The token of a new agent, and a lease of it."""
    agent_id = site.agent(name)
    token = site.call("POST", "/api/tokens", {"agent_id": agent_id})["token"]
    wish = {"requested_budget_usd": 5, "ic_token": token}
    return token, site.call("POST", "/api/budget/handshake", wish, token="")["lease_id"]


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
    token, lease_id = lent(site, "crawler")
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
    page.wait_for_load_state("networkidle")
    page.evaluate(SHOWN.format(is_hidden="true"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    ask_for_a_raise(site, "meanwhile")
    page.wait_for_timeout(LOADED_AGAIN_MS)
    assert asked == []
    page.evaluate(SHOWN.format(is_hidden="false"))
    expect(waiting(page, "meanwhile")).to_be_visible()


def test_thousands_of_events_a_second_do_not_freeze_the_page(window: Window, site: Site) -> None:
    token, lease_id = lent(site, "busy")
    window.page.add_init_script(COUNT_EVENTS)
    page = window.open("/")
    expect(page.get_by_role("heading", name="Agents", exact=True)).to_be_visible()
    page.evaluate(WATCH_FRAMES)
    enough = Event()
    sending = Thread(target=report_until, args=(enough, site, token, lease_id))
    sending.start()
    try:
        begun = time.monotonic()
        while (heard := page.evaluate("window.heard")) < WATCHED_EVENTS and sending.is_alive():
            page.wait_for_timeout(100)
        assert heard >= WATCHED_EVENTS
        rate = heard / (time.monotonic() - begun)
        longest_ms = page.evaluate("window.longest")
        begun = time.monotonic()
        page.get_by_role("link", name="Settings").click()
        expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        answered_s = time.monotonic() - begun
        assert sending.is_alive()
    finally:
        enough.set()
        sending.join()
    print(f"{rate:,.0f} events/s: longest frame {longest_ms:.0f} ms, a click {answered_s:.2f} s")
    assert longest_ms < FROZEN_MS


def report_until(enough: Event, site: Site, token: str, lease_id: str) -> None:
    """Report calls of a nano-dollar, some 3,000 a second, for half a minute at most."""
    count, until = 0, time.monotonic() + 30
    with grpc.insecure_channel(site.server.grpc_address) as channel:
        stub: Any = BudgetServiceStub(channel)

        def batches() -> Any:
            nonlocal count
            while time.monotonic() < until and not enough.is_set():
                usages = [
                    budget_pb2.Usage(request_id=f"r{number}", model="own", cost_nanousd=1)
                    for number in range(count, count + 250)
                ]
                batch = budget_pb2.ReportBatch(lease_id=lease_id, usages=usages)
                yield budget_pb2.SessionRequest(message_id=count + 1, report_batch=batch)
                count += 250
                time.sleep(0.07)

        for _ in stub.Session(batches(), metadata=[("x-ic-key", token)]):
            pass
