"""Reports of tests, as pages and as PDF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward_server.executions.run import StepState
from steward_server.executions.steps import designer, fat
from steward_server.executions.steps.pages.chromium import NO_CHROMIUM, Browsers
from steward_server.executions.steps.pages.config import BrowserConfig
from steward_server.executions.work import ArtifactKind, Result, StepFailed
from steward_server.playbooks.catalogue import CATALOGUE
from tests.integration.executions.run_on_page import Run
from tests.integration.executions.web_pages import WebPages
from tests.jobs import TestJob, TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = "<script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"
RESULTS = {
    "total": 3,
    "passed": 1,
    "failed": 1,
    "skipped": 1,
    "results": [
        {
            "component_id": "Start motor",
            "action": "click",
            "expected": "The motor starts",
            "status": "passed",
            "actual": "click done; the page is http://plant/overview",
            "screenshot": "form.png",
        },
        {
            "component_id": HOSTILE,
            "action": "fill",
            "status": "failed",
            "error": f"'#speed' matches nothing within 10 s {HOSTILE}",
            "screenshot": "gone.png",
        },
        {"component_id": "Stop motor", "action": "click", "status": "skipped"},
    ],
}
METADATA = {
    "project_name": "Boiler house 2",
    "test_date": "27 November 2026",
    "tester": "Ann Example",
    "client": HOSTILE,
}


@pytest.fixture(scope="module")
def no_browser() -> Browsers:
    return Browsers(BrowserConfig(executable="/nowhere/chromium"))


@pytest_asyncio.fixture(loop_scope="module")
async def run(session: TestSession, browsers: Browsers, site: WebPages) -> Run:
    return Run(session, browsers, site)


async def generate(session: TestSession, browsers: Browsers, **parameters: Any) -> Any:
    given = {"test_results": RESULTS, "metadata": METADATA, **parameters}
    return await session.do(fat.work(browsers), "fat.generate_report", **given)


async def test_a_report_is_one_page_with_what_came_of_tests_and_steps(
    run: Run, no_browser: Browsers
) -> None:
    await run.open("form")
    await run.do("screenshot", name="form")
    session = run.session
    session.results[:] = [
        Result("open", "Open the page", "browser.navigate", StepState.COMPLETED, 0, 1_250_000),
        Result("gone", "Look for more", "browser.wait", StepState.FAILED, 0, 9, error=HOSTILE),
    ]
    made = await generate(session, no_browser, visual_analysis={"seen": HOSTILE})
    assert made == {
        "report_id": "report-step.html",
        "report_path": "report-step.html",
        "total": 3,
        "passed": 1,
        "failed": 1,
        "skipped": 1,
    }
    artifact, content = session.artifacts[-1]
    assert (artifact.kind, artifact.content_type) == (
        ArtifactKind.REPORT,
        "text/html; charset=utf-8",
    )
    html = content.decode()
    for text in ("Boiler house 2", "Start motor", "The motor starts", "Open the page", "1.2 s"):
        assert text in html
    assert html.count("data:image/png;base64,") == 1  # the other one is gone, and is named
    assert "gone.png" in html
    assert HOSTILE not in html
    assert html.count("<script") == html.count("http-equiv=refresh") == 0
    for parts in ('src="http', "href=", "url(", "@import"):
        assert parts not in html  # it needs nothing else


async def test_texts_of_pages_do_nothing_in_a_report(run: Run, no_browser: Browsers) -> None:
    made = await generate(run.session, no_browser)
    page = await run.tab._context.new_page()
    try:
        await page.set_content(run.session.artifacts[-1][1].decode())
        assert await page.title() == "Test report: Boiler house 2"
        assert await page.locator("script, img[onerror]").count() == 0
        assert await page.locator(".card header b").nth(1).inner_text() == HOSTILE
    finally:
        await page.close()
    assert made["failed"] == 1


async def test_what_is_not_counted_is_counted_here(
    session: TestSession, no_browser: Browsers
) -> None:
    made = await generate(session, no_browser, test_results={"results": RESULTS["results"]})
    assert [made[each] for each in fat.COUNTS] == [3, 1, 1, 1]
    made = await generate(session, no_browser, test_results={})
    assert [made[each] for each in fat.COUNTS] == [0, 0, 0, 0]


async def test_a_report_is_kept_once_more_under_another_name(
    session: TestSession, no_browser: Browsers
) -> None:
    made = await generate(session, no_browser)
    works = fat.work(no_browser)
    report_id = made["report_id"]
    again = await session.do(works, "fat.export_report", report_id=report_id, output_path="final")
    assert again == {"report_id": report_id, "format": "html", "output_path": "final.html"}
    assert session.artifacts[-1][1] == session.artifacts[-2][1]


async def test_a_report_is_printed(session: TestSession, browsers: Browsers) -> None:
    made = await generate(session, browsers)
    works = fat.work(browsers)
    report_id = made["report_id"]
    printed = await session.do(works, "fat.export_report", report_id=report_id, format="pdf")
    assert printed["output_path"] == "report-step-export.pdf"
    artifact, content = session.artifacts[-1]
    assert artifact.content_type == "application/pdf"
    assert content.startswith(b"%PDF-")
    assert len(content) > 10_000


async def test_without_a_browser_only_pdf_fails(session: TestSession, no_browser: Browsers) -> None:
    made = await generate(session, no_browser)
    works = fat.work(no_browser)
    with pytest.raises(StepFailed) as failed:
        await session.do(works, "fat.export_report", report_id=made["report_id"], format="pdf")
    assert str(failed.value).startswith(NO_CHROMIUM)


async def test_only_reports_are_exported(session: TestSession, no_browser: Browsers) -> None:
    works = fat.work(no_browser)
    (session.folder / "other.html").write_text("<h1>Other</h1>")
    with pytest.raises(StepFailed, match=r"'other\.html' is no report"):
        await session.do(works, "fat.export_report", report_id="other.html")
    with pytest.raises(StepFailed, match=r"no file 'never\.html'"):
        await session.do(works, "fat.export_report", report_id="never.html")


@pytest.mark.parametrize("step_type", [each for each in CATALOGUE if each.startswith("designer.")])
async def test_there_is_nothing_that_could_drive_a_designer(step_type: str, tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="no designer driver on this host"):
        await designer.work()[step_type](TestJob(TestSession(tmp_path), step_type, {}))
