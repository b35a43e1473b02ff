"""Environments: looked for, made, looked at and ended, by those who may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Route, expect

from tests.e2e.dashboard.machines import SETTINGS, emptied_after, made
from tests.e2e.dashboard.parts import loaded_again
from tests.e2e.dashboard.site import Site, Window, window_of


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return SETTINGS


@pytest.fixture(scope="module", autouse=True)
def emptied(site: Site) -> Iterator[None]:
    yield from emptied_after(site)


def test_who_has_none_is_told_what_the_host_holds_to(browser: Browser, site: Site) -> None:
    with window_of(browser, site, site.person("nora", "user")) as window:
        page = window.open("/environments")
        expect(page.get_by_text("No environments yet.")).to_be_visible()
        expect(page.get_by_role("button", name="Create an environment")).to_be_visible()
        expect(page.get_by_text("What its isolation promises")).to_be_visible()
        expect(page.get_by_text("enforced").first).to_be_visible()
        window.assert_accessible()
        window.assert_fits(380)


def test_one_is_made_from_the_form_after_its_mistakes_are_told_at_their_fields(
    window: Window, site: Site
) -> None:
    page = window.open("/environments")
    page.get_by_role("button", name="Create an environment").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Name")).to_be_focused()
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
    dialog.get_by_label("Command").fill("echo $GREETING; exec sleep 3600")
    dialog.get_by_label("Open ports").fill("8080, 9000")
    dialog.get_by_label("Lives for").fill("two hours")
    dialog.get_by_role("button", name="Create").click()
    expect(dialog.get_by_text('"two hours" is no time')).to_be_visible()
    dialog.get_by_label("Lives for").fill("2h")
    dialog.get_by_role("button", name="Create").click()
    expect(page.get_by_role("heading", name="from-the-form")).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    environment = site.call("GET", f"/api/v1/environments/{page.url.rsplit('/', 1)[1]}")
    assert environment["resources"]["memory"] == "64Mi"
    assert environment["env"] == {"GREETING": "hello=there"}
    assert environment["labels"] == {"project": "lake"}
    assert environment["timeout"] == 7200
    assert environment["command"] == ["sh", "-c", "echo $GREETING; exec sleep 3600"]
    assert environment["isolation"]["network_policy"]["allowed_ingress_ports"] == [8080, 9000]
    window.assert_accessible()
    window.assert_fits(380)
    window.faults.clear()  # the browser's own line about the 400


def test_the_list_is_narrowed_by_state_and_label_and_the_url_keeps_that(
    window: Window, site: Site
) -> None:
    made(site, "kept-apart", labels={"team": "north", "tier": "web"})
    made(site, "beside", labels={"team": "north"})
    made(site, "another")
    page = window.open("/environments?label=team%3Dnorth")
    table = page.get_by_role("table", name="Environments")
    expect(table.get_by_role("link")).to_have_text(["beside", "kept-apart"])
    table.get_by_role("button", name="tier=web").click()
    expect(table.get_by_role("link")).to_have_text(["kept-apart"])
    expect(page.get_by_label("Label", exact=True)).to_have_value("team=north,tier=web")
    window.assert_accessible()
    page.get_by_role("button", name="No longer team=north").click()
    expect(page.get_by_label("Label", exact=True)).to_have_value("tier=web")
    page.get_by_role("button", name="Any label").click()
    expect(table.get_by_role("link", name="another")).to_be_visible()
    page.get_by_label("State").select_option("failed")
    expect(page.get_by_text("No environment is like this.")).to_be_visible()
    assert page.url.endswith("?status=failed")
    window.assert_fits(380)


def test_what_is_typed_into_the_filter_stays_when_the_list_is_loaded_again(
    window: Window, site: Site
) -> None:
    page = window.open("/environments")
    page.get_by_label("Label", exact=True).fill("team=")
    made(site, "made-meanwhile")
    loaded_again(page)
    expect(page.get_by_role("link", name="made-meanwhile")).to_be_visible()
    expect(page.get_by_label("Label", exact=True)).to_have_value("team=")


def test_a_filter_that_is_none_is_told_in_the_servers_words(window: Window) -> None:
    page = window.open("/environments")
    page.get_by_label("Label", exact=True).fill("team in north")
    page.get_by_label("Label", exact=True).press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("where '(' is wanted")
    window.faults.clear()  # the browser's own line about the 400


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
    page = window.open(f"/environments/{environment_id}/commands")
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


def written(*numbers: int) -> str:
    """Lines of a log, as they are streamed."""
    lines = ((n, json.dumps({"stream": "stdout", "message": f"line-{n}"})) for n in numbers)
    return "".join(f"id: {number}\ndata: {line}\n\n" for number, line in lines)


def test_a_log_goes_on_where_it_was_after_the_server_broke_off_and_had_no_time(
    window: Window, site: Site
) -> None:
    environment_id = made(site, "broken-off")
    streamed = {"content_type": "text/event-stream"}
    answers: list[dict[str, Any]] = [
        {**streamed, "body": f'{written(1, 2)}event: error\ndata: {{"message": "it stops"}}\n\n'},
        {"status": 429, "headers": {"Retry-After": "1"}, "json": {"message": "too many"}},
        {"status": 503, "json": {"message": "not now"}},
        {**streamed, "body": f"{written(3)}event: end\ndata: {{}}\n\n"},
    ]
    asked: list[str] = []

    def answer(route: Route) -> None:
        asked.append(route.request.url.rsplit("?", 1)[1])
        route.fulfill(**answers[len(asked) - 1])

    window.page.route("**/api/v1/environments/*/logs?*", answer)
    page = window.open(f"/environments/{environment_id}/logs")
    expect(page.get_by_text("The log has ended.")).to_be_visible()
    lines = page.get_by_role("region", name="Lines of the log").locator(".stdout")
    expect(lines).to_have_text(["line-1", "line-2", "line-3"])
    assert asked == ["follow=true&tail=500", *["follow=true&after=2"] * 3]
    window.faults.clear()  # the browser's own lines about the 429 and the 503


def test_a_log_that_grows_long_scrolls_within_its_own_box(window: Window, site: Site) -> None:
    many = "for i in $(seq 400); do echo wrong-$i >&2; done; exec sleep 3600"
    environment_id = made(site, "long-winded", command=["sh", "-c", many])
    page = window.open(f"/environments/{environment_id}/logs")
    expect(page.get_by_text("wrong-400")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollHeight") <= 1000


def test_a_viewer_sees_what_is_shared_and_can_change_nothing(browser: Browser, site: Site) -> None:
    environment_id = made(site, "shared", env={"SECRET": "for nobody"})
    viewer = site.person("vera", "viewer")
    share = f"/api/v1/environments/{environment_id}/shares/{viewer['user']['id']}"
    site.call("PUT", share, {"permission": "read"})
    with window_of(browser, site, viewer) as window:
        page = window.open("/environments")
        page.get_by_role("link", name="shared").click()
        expect(page.get_by_role("heading", name="shared")).to_be_visible()
        expect(page.get_by_text("What it is")).to_be_visible()
        tabs = page.get_by_role("navigation", name="Environment", exact=True).get_by_role("link")
        expect(tabs).to_have_text(["Overview", "Metrics", "Logs", "Processes"])
        for name in ("Delete", "Pause", "Change", "Network", "One hour more"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        tabs.filter(has_text="Processes").click()
        expect(page.get_by_role("heading", name="Processes")).to_be_visible()
        expect(page.get_by_role("button", name="Run")).to_have_count(0)
        for path in ("terminal", "files", "snapshots", "sharing"):
            window.open(f"/environments/{environment_id}/{path}")
            expect(page.get_by_text("No page has this address.")).to_be_visible()
        window.open("/environments")
        expect(page.get_by_role("link", name="shared")).to_be_visible()
        expect(page.get_by_role("button", name="Create an environment")).to_have_count(0)


def test_whoever_may_only_write_can_neither_change_nor_delete_nor_share(
    browser: Browser, site: Site
) -> None:
    environment_id = made(site, "worked-in")
    user = site.person("ugo", "user")
    share = f"/api/v1/environments/{environment_id}/shares/{user['user']['id']}"
    site.call("PUT", share, {"permission": "write"})
    with window_of(browser, site, user) as window:
        page = window.open(f"/environments/{environment_id}/sharing")
        expect(page.get_by_role("button", name="Pause")).to_be_visible()
        for name in ("Delete", "Change", "Network", "One hour more", "Share"):
            expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
        expect(page.get_by_text("Its owner can open one.")).to_be_visible()


def test_what_has_failed_says_why_and_has_nothing_that_needs_it_to_run(
    window: Window, site: Site
) -> None:
    wish = {"resources": {"cpu": "100m", "memory": "64Mi", "storage": "16Mi"}, "wait": 20}
    ended = {"name": "broken", "image": "host", "command": ["sh", "-c", "exit 3"], **wish}
    environment_id = site.call("POST", "/api/v1/environments", ended)["id"]
    page = window.open(f"/environments/{environment_id}")
    expect(page.get_by_text("its main command ended with exit code 3")).to_be_visible()
    for tab, said in (
        ("Metrics", "It is measured while it runs."),
        ("Terminal", "There is a terminal while it runs."),
        ("Commands", "Commands run while it does."),
        ("Files", "Its files can be reached while it runs."),
        ("Snapshots", "One can be taken while it runs."),
        ("Sharing", "There are links while it runs."),
    ):
        tabs = page.get_by_role("navigation", name="Environment", exact=True)
        tabs.get_by_role("link", name=tab).click()
        expect(page.get_by_text(said)).to_be_visible()
    for name in ("Pause", "Change", "Network", "One hour more"):
        expect(page.get_by_role("button", name=name, exact=True)).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_be_visible()


def test_use_is_drawn_as_it_is_measured_and_a_pause_is_said(window: Window, site: Site) -> None:
    environment_id = made(site, "busy-with-numbers", command=["sh", "-c", "while :; do :; done"])
    page = window.open(f"/environments/{environment_id}/metrics")
    for name in ("CPU", "Memory", "Disk", "Processes"):
        chart = page.get_by_role("figure").filter(has_text=f"{name} of busy-with-numbers; last:")
        expect(chart.locator("canvas")).to_be_visible()
    cpu = page.get_by_role("figure").filter(has_text="CPU of busy-with-numbers")
    first = cpu.inner_text()
    expect(cpu).not_to_have_text(first)  # another measurement, without a word to the page
    window.assert_accessible()
    window.assert_fits(380)
    site.call("POST", f"/api/v1/environments/{environment_id}/pause", {})
    expect(page.get_by_text("its processes stand still")).to_be_visible()


def test_it_lives_longer_and_its_labels_change(window: Window, site: Site) -> None:
    environment_id = made(site, "changing", labels={"team": "west", "tier": "web"})
    path = f"/api/v1/environments/{environment_id}"
    page = window.open(f"/environments/{environment_id}")
    page.get_by_role("button", name="One hour more").click()
    expect(page.get_by_text("2h from its creation")).to_be_visible()
    assert site.call("GET", path)["timeout"] == 7200
    page.get_by_role("button", name="Change", exact=True).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("Labels")).to_have_value("team=west\ntier=web")
    dialog.get_by_label("Labels").fill("team=south\nnot a label=1")
    dialog.get_by_label("Ends when unused for").fill("30m")
    window.assert_accessible()
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("has the key 'not a label'")).to_be_visible()
    expect(dialog.get_by_label("Labels")).to_be_focused()
    dialog.get_by_label("Labels").fill("team=south\nproject=pond")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_role("link", name="team=south")).to_be_visible()
    expect(page.get_by_text("ends after 30m")).to_be_visible()
    changed = site.call("GET", path)
    assert changed["labels"] == {"team": "south", "project": "pond"}
    assert (changed["timeout"], changed["idle_timeout"]) == (7200, 1800)
    page.get_by_role("link", name="project=pond").click()
    expect(page.get_by_role("table", name="Environments").get_by_role("link")).to_have_text(
        ["changing"]
    )
    window.faults.clear()  # the browser's own line about the 400


def test_its_network_is_opened_and_closed_while_it_runs(window: Window, site: Site) -> None:
    if "network_change" not in site.call("GET", "/api/v1/health")["environments"]["features"]:
        pytest.skip("the driver of this machine cannot change networks")
    environment_id = made(site, "reached")
    path = f"/api/v1/environments/{environment_id}"
    page = window.open(f"/environments/{environment_id}")
    page.get_by_role("button", name="Network").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Open ports").fill("8080, 99999")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog.get_by_text("is 99999; it must be from 1 to 65535")).to_be_visible()
    dialog.get_by_label("Open ports").fill("8080 9000")
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text("8080, 9000")).to_be_visible()
    policy = site.call("GET", path)["isolation"]["network_policy"]
    assert policy["allowed_ingress_ports"] == [8080, 9000]
    page.get_by_role("button", name="Network").click()
    dialog.get_by_label("Open ports").fill("")
    dialog.get_by_role("button", name="Save").click()
    expect(dialog).to_have_count(0)
    policy = site.call("GET", path)["isolation"]["network_policy"]
    assert policy["allowed_ingress_ports"] == []
    window.faults.clear()  # the browser's own line about the 400
