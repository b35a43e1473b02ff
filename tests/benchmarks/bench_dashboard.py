"""The dashboard in a browser: what a page weighs, when it is seen, and how it bears a storm."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

from steward_gateway.dashboard import SECTIONS
from tests.benchmarks.harness import ROUNDS, Figure, median_of
from tests.e2e.dashboard.site import Site, chromium, window_of
from tests.e2e.dashboard.storm import Watched, watch_storm
from tests.e2e.process import command, steward

MAX_KB = 150
MAX_PAINT_S = 0.5
MIN_EVENTS_PER_S = 2_000
MAX_FRAME_S = 0.5
"""A page that draws nothing for longer looks frozen."""

PAINTED_MS = 'performance.getEntriesByName("first-contentful-paint")[0].startTime'
HEADED_MS = """new Promise((tell) => {
  const look = () => document.querySelector("h1") ? tell(performance.now()) : setTimeout(look, 1);
  look();
})"""


@dataclass(frozen=True, slots=True)
class Opening:
    """What came over the network until nothing more was asked for, and when it was seen."""

    bytes: int
    painted_s: float
    headed_s: float
    """When the page's own heading was there: the modules had been read and run."""


async def measure() -> list[Figure]:
    """The first page of each section, and the overview while thousands of calls are booked."""
    return await asyncio.to_thread(_measure)


def _measure() -> list[Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="steward-bench-") as folder,
        steward(Path(folder) / "data", command) as server,
        chromium() as browser,
    ):
        site = Site(server)
        site.agent("scout")
        paths = ("/", *(f"/{name}" for name in SECTIONS))
        rounds = {path: [_open(browser, site, path) for _ in range(ROUNDS)] for path in paths}
        storms = [_storm(browser, site) for _ in range(ROUNDS)]
    heaviest = max(rounds, key=lambda path: rounds[path][0].bytes)
    slowest = max(rounds, key=lambda path: sorted(o.headed_s for o in rounds[path])[ROUNDS // 2])
    weight_kb = rounds[heaviest][0].bytes / 1e3
    return [
        Figure(
            "dashboard, heaviest page",
            weight_kb,
            "kB",
            MAX_KB,
            lower_is_better=True,
            note=f"{heaviest}; the overview {rounds['/'][0].bytes / 1e3:.0f} kB",
        ),
        *(
            median_of(
                [
                    Figure(
                        f"dashboard, {name}",
                        getattr(opening, field),
                        "s",
                        MAX_PAINT_S,
                        lower_is_better=True,
                    )
                    for opening in rounds[path]
                ]
            )
            for path in dict.fromkeys(("/", slowest))
            for name, field in (
                (f"first paint of {path}", "painted_s"),
                (f"heading of {path}", "headed_s"),
            )
        ),
        median_of(
            [
                Figure("dashboard, events on /ws", each.events_per_s, "/s", MIN_EVENTS_PER_S)
                for each in storms
            ]
        ),
        *(
            median_of(
                [
                    Figure(
                        f"dashboard, {name} meanwhile",
                        getattr(each, field),
                        "s",
                        MAX_FRAME_S,
                        lower_is_better=True,
                    )
                    for each in storms
                ]
            )
            for name, field in (
                ("longest frame", "longest_frame_s"),
                ("another page after a click", "click_s"),
            )
        ),
    ]


def _storm(browser: Browser, site: Site) -> Watched:
    with window_of(browser, site, site.session) as window:
        return watch_storm(window, site)


def _open(browser: Browser, site: Site, path: str) -> Opening:
    """Open a page in a context of its own, which has an empty cache."""
    came = 0

    def count(event: dict[str, Any]) -> None:
        nonlocal came
        came += int(event["encodedDataLength"])

    with window_of(browser, site, site.session) as window:
        wire = window.page.context.new_cdp_session(window.page)
        wire.on("Network.loadingFinished", count)
        wire.send("Network.enable")
        window.page.goto(site.url + path, wait_until="commit")
        headed_ms = window.page.evaluate(HEADED_MS)
        window.page.wait_for_load_state("networkidle")
        painted_ms = window.page.evaluate(PAINTED_MS)
    return Opening(came, painted_ms / 1e3, headed_ms / 1e3)
