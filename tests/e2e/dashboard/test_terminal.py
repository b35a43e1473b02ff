"""A terminal in an environment, typed into by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.dashboard.site import Site, Window
from tests.missing import missing


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"STEWARD_ENVIRONMENTS_DRIVER": "auto"}


@pytest.fixture(scope="module")
def environment_id(site: Site) -> Iterator[str]:
    """One that runs."""
    health = site.call("GET", "/api/v1/health")["environments"]
    if not health["usable"]:
        missing(f"no environments can be made on this machine: {health['reason']}")
    resources = {"cpu": "500m", "memory": "64Mi", "storage": "16Mi"}
    wish = {"name": "machine", "image": "host", "resources": resources, "wait": 20}
    made = site.call("POST", "/api/v1/environments", wish)
    yield made["id"]
    site.end(f"/api/v1/environments/{made['id']}?force=true")


def enter(page: Page, line: str) -> None:
    page.keyboard.type(line)
    page.keyboard.press("Enter")


def opened(window: Window, environment_id: str) -> Page:
    page = window.open(f"/environments/{environment_id}/terminal")
    expect(page.get_by_text("Connected.")).to_be_visible()
    return page


def test_what_is_typed_runs_and_its_output_is_seen(window: Window, environment_id: str) -> None:
    page = opened(window, environment_id)
    enter(page, "echo $((6 * 7))-answers")
    expect(page.locator(".xterm-rows")).to_contain_text("42-answers")
    page.keyboard.press("Control+Alt+x")
    expect(page.get_by_role("button", name="New shell")).to_be_focused()
    window.assert_accessible()
    window.assert_fits(380)


def test_the_shell_learns_the_size_of_the_window(window: Window, environment_id: str) -> None:
    page = opened(window, environment_id)
    enter(page, "echo was:$(stty size | cut -d' ' -f2).")
    rows = page.locator(".xterm-rows")
    expect(rows).to_contain_text("was:1")
    page.set_viewport_size({"width": 800, "height": 900})
    enter(page, "sleep 0.5; test $(stty size | cut -d' ' -f2) -lt 80 && echo now-$((1 + 1))")
    expect(rows).to_contain_text("now-2")


def test_a_shell_that_was_cut_off_is_the_same_when_it_comes_back(
    window: Window, site: Site, environment_id: str
) -> None:
    page = opened(window, environment_id)
    enter(page, "kept=before; echo said-$kept")
    rows = page.locator(".xterm-rows")
    expect(rows).to_contain_text("said-before")
    page.context.set_offline(True)
    expect(page.get_by_text("Cut off;")).to_be_visible()
    page.context.set_offline(False)
    expect(page.get_by_text("Connected.")).to_be_visible()
    expect(rows).to_contain_text("said-before")
    page.locator(".xterm-helper-textarea").focus()
    enter(page, "echo still-$kept-$((2 + 2))")
    expect(rows).to_contain_text("still-before-4")


def test_a_shell_that_ended_says_so_and_another_can_be_opened(
    window: Window, environment_id: str
) -> None:
    page = opened(window, environment_id)
    enter(page, "exit")
    expect(page.get_by_text("The shell has ended.")).to_be_visible()
    page.get_by_role("button", name="New shell").click()
    expect(page.get_by_text("Connected.")).to_be_visible()
