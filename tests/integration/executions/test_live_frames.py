"""What those see who watch a run's page."""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from steward_server.executions.steps.pages.chromium import Browsers
from tests.integration.executions.run_on_page import PNG, Run
from tests.integration.executions.web_pages import WebPages
from tests.jobs import TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")


class WatchedSession(TestSession):
    """Knows when each picture came."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.times: list[float] = []

    def show(self, png: bytes) -> None:
        super().show(png)
        self.times.append(time.monotonic())


@pytest_asyncio.fixture(loop_scope="module")
async def run(tmp_path: Path, browsers: Browsers, site: WebPages) -> AsyncIterator[Run]:
    session = WatchedSession(tmp_path)
    yield Run(session, browsers, site)
    await session.aclose()


async def test_a_page_that_never_changes_gives_a_picture_soon(run: Run) -> None:
    await run.open("still")
    begun = time.monotonic()
    await run.open("form")
    assert run.session.frames[-1].startswith(PNG)
    (width, height) = struct.unpack(">II", run.session.frames[-1][16:24])
    assert (width, height) == (1280, 720)
    assert run.session.times[-1] - begun < 20  # type: ignore[attr-defined]


async def test_pictures_of_a_page_that_changes_all_the_time_are_two_a_second_at_most(
    run: Run,
) -> None:
    await run.open("changing")
    await run.fails("wait", selector="#never", timeout=2_500)
    await run.session.aclose()
    times = run.session.times  # type: ignore[attr-defined]
    assert len(times) >= 5
    between = [after - before for before, after in pairwise(times)]
    assert min(between[:-1]) > 0.45  # the last one does not wait for its turn when the run ends
    assert len(set(run.session.frames)) == len(run.session.frames)


async def test_a_change_while_a_step_waits_is_seen_though_the_page_then_rests(run: Run) -> None:
    await run.open("burst")
    waiting = asyncio.create_task(run.fails("wait", selector="#never", timeout=5_000))
    await asyncio.sleep(4.7)
    before = run.session.frames[-1]
    await waiting
    await asyncio.sleep(0.6)
    assert run.session.frames[-1] == before  # the step's last picture shows nothing else


async def test_a_step_that_fails_ends_with_the_page_as_it_is_too(run: Run) -> None:
    await run.open("still")
    await run.tab._page.evaluate(
        """() => {
          const head = document.querySelector("h1");
          const begun = performance.now();
          const step = () => {
            const now = performance.now();
            head.textContent = now - begun < 700 ? now : "rests";
            if (now - begun < 700) requestAnimationFrame(step);
          };
          step();
        }"""
    )
    await run.fails("wait", selector="#never", timeout=900)
    await asyncio.sleep(0.6)
    shown = run.session.frames[-1]
    await run.do("wait", selector="h1")
    await asyncio.sleep(0.6)
    assert run.session.frames[-1] == shown


async def test_a_step_ends_with_what_it_has_made_of_the_page(run: Run) -> None:
    await run.open("form")
    await asyncio.sleep(0.6)
    before = run.session.frames[-1]
    await run.do("fill", selector="#name", value="Ann")
    await asyncio.sleep(0.6)
    after = list(run.session.frames)
    assert after[-1] != before
    await asyncio.sleep(0.6)
    assert run.session.frames == after  # nothing is done, and nothing shown


async def test_pictures_and_screenshots_do_not_hold_each_other_up(run: Run) -> None:
    await run.open("changing")
    begun = time.monotonic()
    for _ in range(5):
        await run.do("screenshot")
    assert time.monotonic() - begun < 20
    assert len(run.session.frames) >= 2
