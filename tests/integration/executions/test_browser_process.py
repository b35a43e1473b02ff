"""The browser's process: begun when it is needed, ended when it is not, lost in the middle."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import warnings
from pathlib import Path

import pytest

from steward_server.executions.steps.pages.chromium import NO_CHROMIUM, NO_PLAYWRIGHT, Browsers
from steward_server.executions.steps.pages.config import BrowserConfig
from tests.integration.executions.run_on_page import Run
from tests.integration.executions.web_pages import WebPages
from tests.jobs import TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def process_of(run: Run) -> int:
    """The id of the browser's own process."""
    cdp = await run.tab._browser.new_browser_cdp_session()
    info = await cdp.send("SystemInfo.getProcessInfo")
    return int(next(each["id"] for each in info["processInfo"] if each["type"] == "browser"))


def children() -> set[int]:
    """The ids of this process's children."""
    told = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    return {int(each) for each in told.split()}


async def is_gone(process_id: int) -> bool:
    for _ in range(50):
        try:
            os.kill(process_id, 0)
        except ProcessLookupError:
            return True
        await asyncio.sleep(0.1)
    return False


async def test_a_browser_that_is_killed_fails_the_step_and_later_runs_get_another(
    browsers: Browsers, site: WebPages, tmp_path: Path
) -> None:
    session = TestSession(tmp_path)
    run = Run(session, browsers, site)
    await run.open("still")
    waiting = asyncio.create_task(run.fails("wait", selector="#never"))
    await asyncio.sleep(0.3)
    killed = await process_of(run)
    os.kill(killed, signal.SIGKILL)
    failed = await asyncio.wait_for(waiting, 30)
    lost = "the browser has ended in the middle of the run, and what was open with it; run it again"
    assert str(failed) == lost
    assert await run.why("navigate", url=f"{site.url}/still") == lost
    await session.aclose()
    again = TestSession(tmp_path)
    run = Run(again, browsers, site)
    assert (await run.open("still"))["http_status"] == 200
    assert await process_of(run) != killed
    await again.aclose()


async def test_a_driver_that_is_killed_does_no_more_harm_than_the_browser(
    site: WebPages, tmp_path: Path, browsers: Browsers
) -> None:
    await _kill_a_driver(site, tmp_path)
    # Playwright lets go of its driver's pipes without closing them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


async def _kill_a_driver(site: WebPages, tmp_path: Path) -> None:
    own = Browsers(BrowserConfig())
    session = TestSession(tmp_path)
    run = Run(session, own, site)
    others = children()
    await run.open("still")
    (driver,) = children() - others
    waiting = asyncio.create_task(run.why("wait", selector="#never"))
    await asyncio.sleep(0.3)
    os.kill(driver, signal.SIGKILL)
    assert "the browser has ended in the middle of the run" in await asyncio.wait_for(waiting, 30)
    await session.aclose()
    again = TestSession(tmp_path)
    assert (await Run(again, own, site).open("still"))["http_status"] == 200
    await again.aclose()
    await own.aclose()


async def test_one_process_serves_all_runs_and_ends_when_none_has_used_it_for_long(
    site: WebPages, tmp_path: Path, browsers: Browsers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEWARD_ADMIN_PASSWORD", "hunter2")
    own = Browsers(BrowserConfig(idle_s=0.2))
    sessions = [TestSession(tmp_path), TestSession(tmp_path)]
    runs = [Run(session, own, site) for session in sessions]
    await asyncio.gather(*(run.open("still") for run in runs))
    first, second = [await process_of(run) for run in runs]
    assert first == second
    environment = Path(f"/proc/{first}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"hunter2" not in environment  # none of the server's variables that may be secret
    await sessions[0].aclose()
    await asyncio.sleep(0.4)
    assert (await runs[1].open("form"))["http_status"] == 200
    await sessions[1].aclose()
    assert await is_gone(first)
    await own.aclose()


async def test_closing_ends_the_browser_under_those_who_use_it(
    site: WebPages, tmp_path: Path, browsers: Browsers
) -> None:
    own = Browsers(BrowserConfig())
    session = TestSession(tmp_path)
    run = Run(session, own, site)
    await run.open("still")
    process_id = await process_of(run)
    await own.aclose()
    assert await is_gone(process_id)
    await session.aclose()


async def test_a_step_that_is_cancelled_while_the_browser_starts_leaves_it_to_others(
    site: WebPages, tmp_path: Path, browsers: Browsers
) -> None:
    own = Browsers(BrowserConfig())
    session = TestSession(tmp_path)
    run = Run(session, own, site)
    opening = asyncio.create_task(run.open("still"))
    await asyncio.sleep(0.1)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(opening, 0.5)
    assert (await run.open("still"))["http_status"] == 200
    await session.aclose()
    await own.aclose()


async def test_without_chromium_steps_say_what_to_install(site: WebPages, tmp_path: Path) -> None:
    own = Browsers(BrowserConfig(executable="/nowhere/chromium"))
    session = TestSession(tmp_path)
    failed = await Run(session, own, site).why("navigate", url=site.url)
    assert failed == f"{NO_CHROMIUM}; '/nowhere/chromium' is no program"
    assert "`make system-packages`" in failed
    assert "`apt install chromium`" in failed
    await session.aclose()
    await own.aclose()


async def test_without_playwright_steps_say_what_to_install(
    site: WebPages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "playwright.async_api", None)
    own = Browsers(BrowserConfig())
    session = TestSession(tmp_path)
    failed = await Run(session, own, site).why("navigate", url=site.url)
    assert failed == NO_PLAYWRIGHT
    assert "pip install 'steward-agents[browser]'" in failed
    await session.aclose()
    await own.aclose()


async def test_a_program_that_is_no_browser_is_told(site: WebPages, tmp_path: Path) -> None:
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\necho 'libnothing.so: cannot open' >&2; exit 127\n")
    program.chmod(0o755)
    own = Browsers(BrowserConfig(executable=str(program)))
    session = TestSession(tmp_path)
    failed = await Run(session, own, site).why("navigate", url=site.url)
    assert failed.startswith(f"{program} does not start: ")
    await session.aclose()
    await own.aclose()
