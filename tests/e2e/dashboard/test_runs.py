"""Runs of playbooks: seen as they go on, held up, answered, made again."""

from __future__ import annotations

import re
from typing import Any

from playwright.sync_api import Browser, Locator, Page, expect

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


def start(site: Site, name: str, source: str, parameters: dict[str, Any] | None = None) -> str:
    """The id of a run that was begun."""
    site.call("PUT", f"/api/playbooks/{name}", {"text": source})
    wish = {"playbook_path": name, "parameters": parameters or {}}
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


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


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
