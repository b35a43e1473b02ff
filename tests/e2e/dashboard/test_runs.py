"""Runs of playbooks: seen as they go on, held up, answered, made again."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

from tests.e2e.dashboard.parts import dialog
from tests.e2e.dashboard.site import Site, Window, window_of

SLOW = """
name: Slow
version: "1"
parameters:
  - {name: seconds, type: float, default: 60}
steps:
  - {id: tell, name: Tell, type: utility.log, parameters: {message: "off we go"}}
  - {id: wait, name: Wait, type: utility.sleep, parameters: {seconds: "{{ parameter.seconds }}"}}
"""
ASKING = """
name: Asking
version: "1"
steps:
  - id: ask
    name: Ask
    type: approval.wait
    parameters: {message: "Open the valve?", not_by_starter: false}
"""

BROWSING = """
name: Browsing
version: "1"
parameters:
  - {name: url, type: string}
steps:
  - {id: open, name: Open, type: browser.navigate, parameters: {url: "{{ parameter.url }}"}}
  - {id: shot, name: Picture, type: browser.screenshot, parameters: {name: before}}
  - {id: wait, name: Wait, type: utility.sleep, parameters: {seconds: 60}}
"""

SHOWING = """
name: Showing
version: "1"
parameters:
  - {name: url, type: string}
  - {name: results, type: list}
steps:
  - {id: open, name: Open, type: browser.navigate, parameters: {url: "{{ parameter.url }}"}}
  - {id: shot, name: Picture, type: browser.screenshot, parameters: {name: before}}
  - id: report
    name: Report
    type: fat.generate_report
    parameters:
      test_results: {results: "{{ parameter.results }}"}
      metadata: {project_name: "<img src=x onerror=alert(1)>"}
"""
LOOKING = """
name: Looking
version: "1"
parameters:
  - {name: url, type: string}
steps:
  - {id: open, name: Open, type: browser.navigate, parameters: {url: "{{ parameter.url }}"}}
  - id: look
    name: Look
    type: browser.wait
    timeout: 70
    parameters: {selector: "#nowhere", timeout: 60000}
"""
FAILING = """
name: Failing
version: "1"
steps:
  - {id: tell, name: Tell, type: utility.log, parameters: {message: "before"}}
  - {id: begin, name: Begin, type: inference.reset, parameters: {policy: nobody}}
  - {id: end, name: End, type: utility.log, parameters: {message: "after"}}
"""
OUTER = """
name: Outer
version: "1"
steps:
  - {id: inner, name: Inner, type: playbook.run, parameters: {playbook: slow.yaml}}
"""
QUICK = """
name: Quick
version: "1"
steps:
  - {id: tell, name: Tell, type: utility.log, parameters: {message: "done"}}
"""
GUARDED = """
name: Guarded
version: "1"
steps:
  - {id: ask, name: Ask, type: approval.wait, parameters: {message: "Open the valve?"}}
"""


def start(
    site: Site,
    name: str,
    source: str,
    parameters: dict[str, Any] | None = None,
    **wishes: Any,
) -> str:
    """The id of a run that was begun."""
    site.call("PUT", f"/api/playbooks/{name}", {"text": source})
    wish = {"playbook_path": name, "parameters": parameters or {}, **wishes}
    execution_id: str = site.call("POST", "/api/executions", wish)["execution_id"]
    return execution_id


def run_of(site: Site, execution_id: str) -> dict[str, Any]:
    run: dict[str, Any] = site.call("GET", f"/api/executions/{execution_id}")
    return run


def cancelled(site: Site) -> None:
    """Let there be a run that is over."""
    slow = start(site, "slow.yaml", SLOW)
    site.call("POST", f"/api/executions/{slow}/cancel", {"reason": "seen"})


def head(page: Page) -> Locator:
    return page.locator("main .head").first


def test_a_run_is_paused_resumed_and_cancelled_with_a_reason(window: Window, site: Site) -> None:
    slow = start(site, "slow.yaml", SLOW)
    page = window.open(f"/executions/{slow}")
    expect(page.get_by_role("listitem").filter(has_text="off we go")).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(head(page).get_by_text("paused")).to_be_visible()
    assert run_of(site, slow)["status"] == "paused"
    window.assert_accessible()
    page.get_by_role("button", name="Resume").click()
    expect(head(page).get_by_text("running")).to_be_visible()
    page.get_by_role("button", name="Cancel run").click()
    dialog(page).get_by_label("Why?").fill("the pump is hot")
    dialog(page).get_by_role("button", name="Cancel run").click()
    expect(head(page).get_by_text("cancelled")).to_be_visible()
    assert run_of(site, slow)["status"] == "cancelled"
    window.assert_fits(380)


def test_a_step_is_skipped_and_the_run_deleted(window: Window, site: Site) -> None:
    slow = start(site, "slow.yaml", SLOW)
    page = window.open(f"/executions/{slow}")
    expect(page.get_by_role("row").filter(has_text="Wait")).to_contain_text("running")
    page.get_by_role("button", name="Skip step").click()
    expect(page.get_by_role("row").filter(has_text="Wait")).to_contain_text("skipped")
    expect(head(page).get_by_text("completed")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    dialog(page).get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()
    ids = [each["execution_id"] for each in site.call("GET", "/api/executions")]
    assert slow not in ids


def test_a_question_is_approved_with_a_comment_and_another_rejected(
    window: Window, site: Site
) -> None:
    for verb, state in (("Approve", "completed"), ("Reject", "failed")):
        asking = start(site, "asking.yaml", ASKING)
        page = window.open(f"/executions/{asking}")
        expect(page.get_by_text("Open the valve?")).to_be_visible()
        page.get_by_role("button", name=verb).click()
        dialog(page).get_by_label("Comment").fill("looked at it")
        dialog(page).get_by_role("button", name=verb).click()
        expect(head(page).get_by_text(state)).to_be_visible()
        assert run_of(site, asking)["status"] == state


def test_a_comment_is_kept_though_somebody_else_answered_meanwhile(
    window: Window, site: Site
) -> None:
    asking = start(site, "asking.yaml", ASKING)
    page = window.open(f"/executions/{asking}")
    page.get_by_role("button", name="Approve").click()
    dialog(page).get_by_label("Comment").fill("looked at it")
    step = run_of(site, asking)["question"]["step_id"]
    site.call("POST", f"/api/executions/{asking}/reject", {"step_id": step})
    expect(page.get_by_text("Open the valve?")).to_have_count(0)
    expect(dialog(page).get_by_label("Comment")).to_have_value("looked at it")
    dialog(page).get_by_role("button", name="Approve").click()
    expect(dialog(page).get_by_role("alert")).to_be_visible()
    window.faults.clear()  # the browser's own line about the refusal


def test_a_rejected_run_is_made_again(window: Window, site: Site) -> None:
    asking = start(site, "asking.yaml", ASKING)
    page = window.open(f"/executions/{asking}")
    page.get_by_role("button", name="Reject").click()
    dialog(page).get_by_role("button", name="Reject").click()
    page.get_by_role("button", name="Run again from where it stopped").click()
    expect(page.get_by_text("an earlier run")).to_be_visible()
    page.get_by_role("link", name="an earlier run").click()
    page.get_by_role("button", name="Run again from the start").click()
    expect(page.get_by_text("Open the valve?")).to_be_visible()
    again = page.url.rsplit("/", 1)[1]
    assert run_of(site, again)["rerun_of"] == asking


def test_the_list_and_the_overview_follow_what_happens_without_being_loaded_again(
    window: Window, site: Site
) -> None:
    cancelled(site)
    for path in ("/executions", "/"):
        page = window.open(path)
        page.get_by_role("region", name="Runs").wait_for()
        slow = start(site, "slow.yaml", SLOW, {"seconds": 60})
        link = page.locator(f"a[href='/executions/{slow}']")
        expect(link).to_be_visible()
        site.call("POST", f"/api/executions/{slow}/cancel", {"reason": "seen"})
        row = page.get_by_role("row").filter(has=link)
        expect(row).to_contain_text("cancelled")


def test_the_list_is_filtered_by_state_in_the_address(window: Window, site: Site) -> None:
    cancelled(site)
    page = window.open("/executions")
    page.get_by_label("State").select_option("pending")
    expect(page.get_by_text("No run is like that.")).to_be_visible()
    assert page.url.endswith("?status=pending")
    page.get_by_role("link", name="Show all runs").click()
    expect(page.get_by_role("region", name="Runs")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)


def test_a_viewer_sees_nothing_of_the_runs_of_others(browser: Browser, site: Site) -> None:
    slow = start(site, "slow.yaml", SLOW)
    viewer = site.person("looker", "viewer")
    with window_of(browser, site, viewer) as window:
        page = window.open("/executions")
        expect(page.get_by_text("No playbook has run yet.")).to_be_visible()
        page = window.open(f"/executions/{slow}")
        expect(page.get_by_role("alert").first).to_contain_text("not found")
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        window.faults.clear()  # the browser's own line about the 404
    site.call("POST", f"/api/executions/{slow}/cancel", {"reason": "seen"})


def test_what_the_browser_of_a_run_shows_appears_and_its_picture_is_downloaded(
    window: Window, site: Site
) -> None:
    run = start(site, "browsing.yaml", BROWSING, {"url": f"{site.url}/"})
    page = window.open(f"/executions/{run}")
    shown = page.get_by_role("img", name="What the browser of the run shows")
    expect(shown).to_have_attribute("src", re.compile("^data:image/png;base64,"), timeout=20_000)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.path().read_bytes().startswith(b"\x89PNG")
    site.call("POST", f"/api/executions/{run}/cancel", {"reason": "seen"})


def test_pictures_and_texts_of_a_run_are_looked_at_and_none_becomes_a_page(
    window: Window, site: Site
) -> None:
    results = [{"name": f"pump {i} turns", "status": "passed"} for i in range(500)]
    run = start(site, "showing.yaml", SHOWING, {"url": f"{site.url}/", "results": results})
    page = window.open(f"/executions/{run}")
    files = page.get_by_role("region", name="Files")
    expect(files.get_by_role("row")).to_have_count(3)
    page.get_by_role("button", name="Show before.png").click()
    picture = page.get_by_role("img", name="before.png")
    expect(picture).to_have_attribute("src", re.compile("^blob:"))
    page.wait_for_function("document.querySelector('img[alt=\"before.png\"]').naturalWidth > 0")
    window.assert_accessible()

    page.get_by_role("button", name="Show report-report.html").click()
    shown = page.get_by_role("region", name="report-report.html")
    expect(shown).to_contain_text("<!doctype html>")
    expect(shown.locator("*")).to_have_count(0)
    expect(page.get_by_text("Its first 64 KiB")).to_be_visible()
    assert len(shown.inner_text()) <= 64 * 1024
    expect(picture).to_have_count(0)
    window.assert_accessible()
    window.assert_fits(380)
    page.get_by_role("button", name="Show report-report.html").click()
    expect(shown).to_have_count(0)


def test_where_a_run_will_pause_is_told_until_it_has(window: Window, site: Site) -> None:
    run = start(site, "looking.yaml", LOOKING, {"url": f"{site.url}/docs"})
    page = window.open(f"/executions/{run}")
    expect(page.get_by_role("row").filter(has_text="Look")).to_contain_text("running")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("The step in hand, Look, is ended first")).to_be_visible()
    expect(page.get_by_role("button", name="Pause")).to_be_disabled()
    assert run_of(site, run)["pausing"] is True
    site.call("POST", f"/api/executions/{run}/cancel", {"reason": "seen"})

    slow = start(site, "slow.yaml", SLOW)
    page = window.open(f"/executions/{slow}")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused in step 'wait'.")).to_be_visible()
    site.call("POST", f"/api/executions/{slow}/cancel", {"reason": "seen"})


def test_in_debug_mode_a_step_that_failed_is_tried_again_and_then_skipped(
    window: Window, site: Site
) -> None:
    run = start(site, "failing.yaml", FAILING, debug_mode=True)
    page = window.open(f"/executions/{run}")
    expect(page.get_by_text("Begin failed: no policy 'nobody'")).to_be_visible()
    window.assert_accessible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("cell", name="2", exact=True)).to_be_visible()
    expect(head(page).get_by_text("paused")).to_be_visible()
    page.get_by_role("button", name="Skip step").click()
    expect(head(page).get_by_text("completed")).to_be_visible()
    steps = {each["step_id"]: each["status"] for each in run_of(site, run)["step_results"]}
    assert steps == {"tell": "completed", "begin": "skipped", "end": "completed"}


def test_one_that_failed_goes_on_from_there_without_what_was_done_before(
    window: Window, site: Site
) -> None:
    failed = start(site, "failing.yaml", FAILING)
    page = window.open(f"/executions/{failed}")
    expect(head(page).get_by_text("failed")).to_be_visible()
    expect(page.get_by_text("no policy 'nobody'").first).to_be_visible()
    page.get_by_role("button", name="Run again from where it stopped").click()
    page.wait_for_url(lambda url: not url.endswith(failed))
    expect(head(page).get_by_text("failed")).to_be_visible()
    expect(page.get_by_text("an earlier run")).to_be_visible()
    again = run_of(site, page.url.rsplit("/", 1)[1])
    assert again["rerun_of"] == failed
    begun = [each["step_id"] for each in again["step_results"] if each.get("attempts")]
    assert begun == ["begin"]


def test_a_run_within_a_run_is_reached_from_it_and_resumed_through_it_alone(
    window: Window, site: Site
) -> None:
    site.call("PUT", "/api/playbooks/slow.yaml", {"text": SLOW})
    outer = start(site, "outer.yaml", OUTER)
    page = window.open(f"/executions/{outer}")
    link = page.get_by_role("link", name="the run it started")
    expect(link).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(head(page).get_by_text("paused")).to_be_visible()
    link.click()
    expect(page.get_by_role("heading", name="Slow")).to_be_visible()
    expect(head(page).get_by_text("paused")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    refusal = page.get_by_role("alert").filter(has_text="resume that")
    expect(refusal).to_contain_text("the run that runs this one is paused")
    window.assert_fits(380)
    page.get_by_role("link", name="another run").click()
    expect(page.get_by_role("heading", name="Outer")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(head(page).get_by_text("running")).to_be_visible()
    site.call("POST", f"/api/executions/{outer}/cancel", {"reason": "seen"})
    window.faults.clear()  # the browser's own line about the refusal


def test_who_started_a_run_may_not_approve_it_though_reject_and_another_may(
    window: Window, browser: Browser, site: Site
) -> None:
    told = "Whoever started the run may not approve it."
    guarded = start(site, "guarded.yaml", GUARDED)
    page = window.open(f"/executions/{guarded}")
    expect(page.get_by_text(told)).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.get_by_role("button", name="Reject").click()
    dialog(page).get_by_role("button", name="Reject").click()
    expect(head(page).get_by_text("failed")).to_be_visible()

    guarded = start(site, "guarded.yaml", GUARDED)
    with window_of(browser, site, site.person("second", "admin")) as other:
        page = other.open(f"/executions/{guarded}")
        expect(page.get_by_text(told)).to_be_visible()
        page.get_by_role("button", name="Approve").click()
        dialog(page).get_by_role("button", name="Approve").click()
        expect(head(page).get_by_text("completed")).to_be_visible()


def test_older_runs_are_on_the_pages_behind(window: Window, site: Site) -> None:
    oldest = start(site, "quick.yaml", QUICK)
    for _ in range(51):
        newest = start(site, "quick.yaml", QUICK)
    page = window.open("/executions?playbook=quick.yaml")
    table = page.get_by_role("region", name="Runs")
    expect(table.get_by_role("link", name="Quick")).to_have_count(50)
    expect(table.locator(f"a[href='/executions/{newest}']")).to_be_visible()
    page.get_by_role("link", name="Older runs").click()
    expect(table.locator(f"a[href='/executions/{oldest}']")).to_be_visible()
    expect(table.get_by_role("link", name="Quick")).to_have_count(2)
    page.get_by_role("button", name="Newest runs").click()
    expect(table.locator(f"a[href='/executions/{newest}']")).to_be_visible()
    assert page.url.endswith("?playbook=quick.yaml")


def test_a_user_sees_their_own_runs_alone(browser: Browser, site: Site) -> None:
    theirs = start(site, "quick.yaml", QUICK)
    user = site.person("runner", "user")
    wish = {"playbook_path": "quick.yaml"}
    token = user["access_token"]
    own = site.call("POST", "/api/executions", wish, token=token)["execution_id"]
    with window_of(browser, site, user) as window:
        page = window.open("/executions")
        table = page.get_by_role("region", name="Runs")
        expect(table.locator(f"a[href='/executions/{own}']")).to_be_visible()
        expect(table.locator(f"a[href='/executions/{theirs}']")).to_have_count(0)
        table.get_by_role("link", name="Quick").click()
        expect(page.get_by_role("button", name="Run again from the start")).to_be_visible()
