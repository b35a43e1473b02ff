"""An overview that is looked at while thousands of calls a second are booked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import grpc
from playwright.sync_api import expect

from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.e2e.dashboard.agents import lent
from tests.e2e.dashboard.site import Site, Window

WATCHED_EVENTS = 6_000
MAX_S = 30
BATCH = 250
PAUSE_S = 0.07
"""Between two batches: some 3,000 calls a second, with the time that sending takes."""
COUNT_EVENTS = """
    window.heard = 0;
    window.WebSocket = class extends WebSocket {
      constructor(...given) {
        super(...given);
        this.addEventListener("message", () => window.heard++);
      }
    };
"""
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


@dataclass(frozen=True, slots=True)
class Watched:
    """What a page was like under it."""

    events_per_s: float
    """That came on its socket."""
    longest_frame_s: float
    """In which it drew nothing."""
    click_s: float
    """Until a click on another page was answered."""


def watch_storm(window: Window, site: Site) -> Watched:
    """Open the overview, send it thousands of events, and click once they have come.

    Raises:
        AssertionError: too few came within half a minute, or the click was answered after it.
    """
    token, lease_id = lent(site, site.agent("busy"))
    window.page.add_init_script(COUNT_EVENTS)
    page = window.open("/")
    expect(page.get_by_role("heading", name="Agents", exact=True)).to_be_visible()
    page.evaluate(WATCH_FRAMES)
    enough = Event()
    sending = Thread(target=_report_until, args=(enough, site, token, lease_id))
    sending.start()
    try:
        begun = time.monotonic()
        while (heard := page.evaluate("window.heard")) < WATCHED_EVENTS and sending.is_alive():
            page.wait_for_timeout(100)
        assert heard >= WATCHED_EVENTS
        events_per_s = heard / (time.monotonic() - begun)
        longest_frame_s = page.evaluate("window.longest") / 1e3
        begun = time.monotonic()
        page.get_by_role("link", name="Settings").click()
        expect(page.get_by_role("heading", name="Settings")).to_be_visible()
        click_s = time.monotonic() - begun
        assert sending.is_alive()
        return Watched(events_per_s, longest_frame_s, click_s)
    finally:
        enough.set()
        sending.join()


def _report_until(enough: Event, site: Site, token: str, lease_id: str) -> None:
    """Report calls of a nano-dollar."""
    count, until = 0, time.monotonic() + MAX_S
    with grpc.insecure_channel(site.server.grpc_address) as channel:
        stub: Any = BudgetServiceStub(channel)

        def batches() -> Any:
            nonlocal count
            while time.monotonic() < until and not enough.is_set():
                usages = [
                    budget_pb2.Usage(request_id=f"r{number}", model="own", cost_nanousd=1)
                    for number in range(count, count + BATCH)
                ]
                batch = budget_pb2.ReportBatch(lease_id=lease_id, usages=usages)
                yield budget_pb2.SessionRequest(message_id=count + 1, report_batch=batch)
                count += BATCH
                time.sleep(PAUSE_S)

        for _ in stub.Session(batches(), metadata=[("x-ic-key", token)]):
            pass
