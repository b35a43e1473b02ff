"""Who else may use an environment, links to what it serves, and what of it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.request import urlopen

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.dashboard.machines import SETTINGS, emptied_after, made, run
from tests.e2e.dashboard.site import Site, Window, window_of

SERVE = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from inside")
http.server.HTTPServer(("127.0.0.1", 8080), Page).serve_forever()
"""


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return SETTINGS


@pytest.fixture(scope="module", autouse=True)
def emptied(site: Site) -> Iterator[None]:
    yield from emptied_after(site)


def test_it_is_shared_with_somebody_with_more_and_no_longer(
    window: Window, browser: Browser, site: Site
) -> None:
    environment_id = made(site, "lent")
    path = f"/api/v1/environments/{environment_id}/shares"
    friend = site.person("freya", "user")
    page = window.open(f"/environments/{environment_id}/sharing")
    expect(page.get_by_text("It is shared with nobody.")).to_be_visible()
    page.get_by_label("Name of a person").fill("nobody-here")
    page.get_by_role("button", name="Share", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("no user 'nobody-here'")
    page.get_by_label("Name of a person").fill("freya")
    page.get_by_role("button", name="Share", exact=True).click()
    row = page.get_by_role("table", name="Shared with").get_by_role("row").filter(has_text="freya")
    expect(row.get_by_role("cell", name="read")).to_be_visible()
    page.get_by_label("Name of a person").fill("freya")
    page.get_by_label("What they may do").select_option("write")
    page.get_by_role("button", name="Share", exact=True).click()
    expect(row.get_by_role("cell", name="write")).to_be_visible()
    [share] = site.call("GET", path)["shares"]
    assert (share["username"], share["permission"]) == ("freya", "write")
    window.assert_accessible()
    window.assert_fits(380)
    with window_of(browser, site, friend) as hers:
        expect(hers.open("/environments").get_by_role("link", name="lent")).to_be_visible()
    row.get_by_role("button", name="Remove").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_text("It is shared with nobody.")).to_be_visible()
    assert site.call("GET", path)["shares"] == []
    window.faults.clear()  # the browser's own line about the 404


def test_a_link_to_a_port_is_shown_once_and_leads_to_what_answers_there(
    window: Window, site: Site
) -> None:
    isolation = {"network_policy": {"allowed_ingress_ports": [8080]}}
    serving = ["/usr/bin/python3", "-c", SERVE]
    environment_id = made(site, "serving", command=serving, isolation=isolation)
    page = window.open(f"/environments/{environment_id}/sharing")
    page.get_by_label("Good for").fill("2h")
    page.get_by_role("button", name="Make a link").click()
    expect(page.get_by_text("is 7200; it must be from 1 to 3600")).to_be_visible()
    page.get_by_label("Good for").fill("5m")
    page.get_by_role("button", name="Make a link").click()
    dialog = page.get_by_role("dialog")
    link = dialog.get_by_label("The secret").input_value()
    assert link.startswith(f"{site.url}/preview/")
    window.assert_accessible()
    window.assert_fits(380)
    run(site, environment_id, "until grep -q :1F90 /proc/net/tcp; do sleep 0.1; done")
    with urlopen(link, timeout=10) as answer:
        assert answer.read() == b"hello from inside"
    dialog.get_by_role("button", name="I have kept it").click()
    expect(dialog).to_have_count(0)
    assert link not in page.content()
    window.faults.clear()  # the browser's own line about the 400


def test_a_snapshot_is_taken_and_put_back(window: Window, site: Site) -> None:
    environment_id = made(site, "kept")
    run(site, environment_id, "echo before > /workspace/note")
    page = window.open(f"/environments/{environment_id}/snapshots")
    expect(page.get_by_text("Nothing of it was kept yet.")).to_be_visible()
    page.get_by_role("button", name="Take a snapshot").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Not So")
    dialog.get_by_role("button", name="Take it").click()
    expect(dialog.get_by_text("it must be lower-case letters")).to_be_visible()
    dialog.get_by_label("Name").fill("good-state")
    dialog.get_by_role("button", name="Take it").click()
    row = page.get_by_role("row").filter(has_text="good-state")
    expect(row).to_be_visible()
    window.assert_accessible()
    window.assert_fits(380)
    run(site, environment_id, "echo after > /workspace/note")
    row.get_by_role("button", name="Restore").click()
    expect(dialog.get_by_text("what it wrote since is gone")).to_be_visible()
    dialog.get_by_role("button", name="Restore").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    site.call("GET", f"/api/v1/environments/{environment_id}?wait=20")
    assert run(site, environment_id, "cat /workspace/note") == "before\n"
    window.faults.clear()  # the browser's own line about the 400


def test_another_is_made_of_a_snapshot_which_is_removed_once_nothing_stands_on_it(
    window: Window, site: Site
) -> None:
    environment_id = made(site, "grown-from")
    run(site, environment_id, "echo planted > /workspace/note")
    path = f"/api/v1/environments/{environment_id}/snapshots"
    snapshot = site.call("POST", path, {"name": "seedling"})
    page = window.open("/environments")
    page.get_by_role("link", name="Snapshots").click()
    row = page.get_by_role("row").filter(has_text="seedling")
    expect(row.get_by_role("link", name="grown-from", exact=True)).to_be_visible()
    window.assert_accessible()
    row.get_by_role("button", name="Create from it").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Image")).to_have_value(snapshot["image"])
    dialog.get_by_label("Name").fill("grown")
    for label, value in (("CPU", "100m"), ("Memory", "64Mi"), ("Disk", "16Mi")):
        dialog.get_by_label(label).fill(value)
    dialog.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="grown", exact=True)).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    grown = page.url.rsplit("/", 1)[1]
    assert run(site, grown, "cat /workspace/note") == "planted\n"
    window.open("/environments/snapshots")
    row.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("alert")).to_contain_text(grown)
    site.end(f"/api/v1/environments/{grown}?force=true")
    dialog.get_by_role("button", name="Delete").click()
    expect(row).to_have_count(0)
    left = site.call("GET", "/api/v1/snapshots")["snapshots"]
    assert snapshot["id"] not in [each["id"] for each in left]
    window.faults.clear()  # the browser's own line about the 409


def test_who_keeps_nothing_is_told_what_a_snapshot_is_for(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("viola", "viewer")) as window:
        page = window.open("/environments/snapshots")
        expect(page.get_by_text("No snapshots yet.")).to_be_visible()
        expect(page.get_by_text("A snapshot keeps what an environment has written")).to_be_visible()
        window.assert_accessible()
        window.assert_fits(380)
