"""Environments: looked for, made, looked at and ended, by those who may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.site import Site, Window, window_of
from tests.missing import missing


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return {"STEWARD_ENVIRONMENTS_DRIVER": "auto"}


@pytest.fixture(scope="module", autouse=True)
def emptied(site: Site) -> Iterator[None]:
    """No environment is left on this machine."""
    health = site.call("GET", "/api/v1/health")["environments"]
    if not health["usable"]:
        missing(f"no environments can be made on this machine: {health['reason']}")
    yield
    for each in site.call("GET", "/api/v1/environments?limit=100")["environments"]:
        site.end(f"/api/v1/environments/{each['id']}?force=true")


def made(site: Site, name: str, **fields: Any) -> str:
    """The id of an environment that runs."""
    wish = {
        "name": name,
        "image": "host",
        "resources": {"cpu": "100m", "memory": "64Mi", "storage": "16Mi"},
        "wait": 20,
    }
    environment = site.call("POST", "/api/v1/environments", {**wish, **fields})
    assert environment["status"] == "running", environment
    return str(environment["id"])


def test_who_has_none_is_told_what_the_host_holds_to(window: Window) -> None:
    page = window.open("/environments")
    expect(page.get_by_text("No environments yet.")).to_be_visible()
    expect(page.get_by_text("What its isolation promises")).to_be_visible()
    expect(page.get_by_text("enforced").first).to_be_visible()


def test_one_is_made_from_the_form_after_its_mistakes_are_told_at_their_fields(
    window: Window, site: Site
) -> None:
    page = window.open("/environments")
    page.get_by_role("button", name="Create an environment").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("from-the-form")
    dialog.get_by_label("Image").select_option("host")
    dialog.get_by_label("Memory").fill("a lot")
    dialog.get_by_label("Labels").fill("project=lake")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_label("Memory")).to_have_attribute("aria-invalid", "true")
    dialog.get_by_label("Memory").fill("64Mi")
    dialog.get_by_label("CPU").fill("100m")
    dialog.get_by_label("Disk").fill("16Mi")
    dialog.get_by_label("Variables").fill("GREETING=hello=there")
    dialog.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="from-the-form")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    environment = site.call("GET", f"/api/v1/environments/{page.url.rsplit('/', 1)[1]}")
    assert environment["resources"]["memory"] == "64Mi"
    assert environment["env"] == {"GREETING": "hello=there"}
    assert environment["labels"] == {"project": "lake"}
    window.assert_accessible()
    window.assert_fits(380)
    window.faults.clear()  # the browser's own line about the 400


def test_the_list_is_narrowed_by_state_and_label_and_the_url_keeps_that(
    window: Window, site: Site
) -> None:
    made(site, "kept-apart", labels={"team": "north"})
    made(site, "another")
    page = window.open("/environments?label=team%3Dnorth")
    table = page.get_by_role("table", name="Environments")
    expect(table.get_by_role("link")).to_have_text(["kept-apart"])
    page.get_by_role("button", name="Any label").click()
    expect(table.get_by_role("link", name="another")).to_be_visible()
    window.assert_accessible()
    page.get_by_label("State").select_option("failed")
    expect(page.get_by_text("No environment is like this.")).to_be_visible()
    assert page.url.endswith("?status=failed")
    window.assert_fits(380)


def test_it_is_paused_resumed_and_deleted(window: Window, site: Site) -> None:
    environment_id = made(site, "short-lived")
    path = f"/api/v1/environments/{environment_id}"
    page = window.open(f"/environments/{environment_id}")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("paused", exact=True)).to_be_visible()
    assert site.call("GET", path)["paused"]
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Environments")).to_be_visible()
    listed = site.call("GET", "/api/v1/environments?limit=100")["environments"]
    assert environment_id not in [each["id"] for each in listed]
    window.open(f"/environments/{environment_id}")
    expect(page.get_by_text("It is gone, or is not for you to see.")).to_be_visible()
    window.faults.clear()  # the browser's own line about the 404


def test_a_command_is_run_and_what_runs_is_listed_and_signalled(window: Window, site: Site) -> None:
    environment_id = made(site, "busy", command=["sh", "-c", "sleep 77; exec sleep 3600"])
    page = window.open(f"/environments/{environment_id}")
    page.get_by_label("Command").fill("echo out-$((20 + 3)); echo wrong-$((40 + 5)) >&2; exit 3")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_text("out-23")).to_be_visible()
    expect(page.get_by_text("wrong-45")).to_be_visible()
    expect(page.get_by_text("Exit code 3")).to_be_visible()
    rows = page.get_by_role("table", name="Processes").get_by_role("row")
    row = rows.filter(has=page.get_by_text("sleep 77", exact=True))
    expect(row).to_have_count(1)
    window.assert_accessible()
    window.assert_fits(380)
    row.get_by_role("button", name="KILL").click()
    expect(row).to_have_count(0)
    left = site.call("GET", f"/api/v1/environments/{environment_id}/processes")["processes"]
    assert [each["command"] for each in left] == ["sleep 3600"]


def test_the_log_follows_tells_streams_apart_and_goes_on_after_a_break(
    window: Window, site: Site
) -> None:
    count = "i=0; while :; do i=$((i+1)); echo line-$i; echo oops-$i >&2; sleep 0.2; done"
    environment_id = made(site, "talking", command=["sh", "-c", count])
    page = window.open(f"/environments/{environment_id}/logs")
    log = page.get_by_role("region", name="Lines of the log")
    expect(log).to_contain_text("line-3")
    expect(log.locator(".stderr").first).to_contain_text("oops-")
    page.context.set_offline(True)
    expect(page.get_by_text("Cut off; connecting again…")).to_be_visible()
    page.context.set_offline(False)
    expect(log).to_contain_text("line-30", timeout=20_000)
    page.get_by_label("Search").fill("line-")
    expect(log.locator(".stderr")).to_have_count(0)
    numbers = [int(text.split("-")[1]) for text in log.locator(".stdout").all_inner_texts()]
    assert numbers == list(range(1, len(numbers) + 1))
    page.get_by_label("Search").fill("no such line")
    expect(page.get_by_text("No line has this.")).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)


def test_a_viewer_sees_what_is_shared_and_can_neither_create_nor_delete(
    browser: Browser, site: Site
) -> None:
    environment_id = made(site, "shared")
    viewer = site.person("vera", "viewer")
    share = f"/api/v1/environments/{environment_id}/shares/{viewer['user']['id']}"
    site.call("PUT", share, {"permission": "read"})
    with window_of(browser, site, viewer) as window:
        page = window.open("/environments")
        page.get_by_role("link", name="shared").click()
        expect(page.get_by_role("heading", name="shared")).to_be_visible()
        expect(page.get_by_text("Facts")).to_be_visible()
        for name in ("Delete", "Pause"):
            expect(page.get_by_role("button", name=name)).to_have_count(0)
        expect(page.get_by_role("link", name="Terminal")).to_have_count(0)
        window.open("/environments")
        expect(page.get_by_role("link", name="shared")).to_be_visible()
        expect(page.get_by_role("button", name="Create an environment")).to_have_count(0)
