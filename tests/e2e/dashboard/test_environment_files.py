"""Files of an environment: walked through, looked at, brought, taken, moved and removed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.e2e.dashboard.machines import SETTINGS, emptied_after, made, run
from tests.e2e.dashboard.site import Site, Window


@pytest.fixture(scope="module")
def settings() -> dict[str, str]:
    return SETTINGS


@pytest.fixture(scope="module", autouse=True)
def emptied(site: Site) -> Iterator[None]:
    yield from emptied_after(site)


def file(name: str, content: bytes) -> FilePayload:
    return {"name": name, "mimeType": "text/plain", "buffer": content}


def row(page: Page, name: str) -> Locator:
    """The row of what has this name."""
    rows = page.get_by_role("table", name="Files").get_by_role("row")
    return rows.filter(has=page.get_by_role("link", name=name, exact=True))


def test_a_file_is_brought_looked_at_and_taken_again(window: Window, site: Site) -> None:
    environment_id = made(site, "brought-to")
    page = window.open(f"/environments/{environment_id}/files")
    expect(page.get_by_text("Nothing is in it.")).to_be_visible()
    page.get_by_label("Files to upload").set_input_files(
        [file("notes.txt", b"first\nsecond\n"), file("<b>bold.txt", b"<i>text</i>")]
    )
    expect(page.get_by_text("2 files are there.")).to_be_visible()
    assert run(site, environment_id, "cat /workspace/notes.txt") == "first\nsecond\n"
    window.assert_accessible()
    window.assert_fits(380)
    with page.expect_download() as download:
        row(page, "notes.txt").get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "notes.txt"
    assert download.value.path().read_bytes() == b"first\nsecond\n"
    page.get_by_role("link", name="<b>bold.txt").click()
    expect(page.get_by_role("region", name="Content of")).to_have_text("<i>text</i>")
    window.assert_accessible()
    window.assert_fits(380)


def test_what_is_there_is_replaced_only_by_those_who_say_so(window: Window, site: Site) -> None:
    environment_id = made(site, "written-to")
    run(site, environment_id, "echo old > /workspace/plan.txt")
    page = window.open(f"/environments/{environment_id}/files")
    chosen = page.get_by_label("Files to upload")
    expect(row(page, "plan.txt")).to_be_visible()
    chosen.set_input_files([file("plan.txt", b"new")])
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("plan.txt is in /workspace already.")).to_be_visible()
    dialog.get_by_role("button", name="Cancel").click()
    assert run(site, environment_id, "cat /workspace/plan.txt") == "old\n"
    chosen.set_input_files([file("plan.txt", b"new")])
    dialog.get_by_role("button", name="Replace").click()
    expect(page.get_by_text("plan.txt is there.")).to_be_visible()
    assert run(site, environment_id, "cat /workspace/plan.txt") == "new"


def test_directories_are_made_and_walked_through_and_what_is_in_them_is_moved_and_removed(
    window: Window, site: Site
) -> None:
    environment_id = made(site, "walked-through")
    run(site, environment_id, "echo x > /workspace/a.txt; ln -s a.txt /workspace/link")
    page = window.open(f"/environments/{environment_id}/files")
    page.get_by_role("button", name="New directory").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("src/deep")
    dialog.get_by_role("button", name="Make it").click()
    row(page, "a.txt").get_by_role("button", name="Rename").click()
    dialog.get_by_label("New name").fill("src/deep/b.txt")
    dialog.get_by_role("button", name="Rename").click()
    expect(row(page, "a.txt")).to_have_count(0)
    page.get_by_role("link", name="src/", exact=True).click()
    page.get_by_role("link", name="deep/", exact=True).click()
    expect(row(page, "b.txt")).to_be_visible()
    page.reload()
    expect(row(page, "b.txt")).to_be_visible()
    path = page.get_by_role("navigation", name="Path")
    path.get_by_role("link", name="workspace").click()
    expect(page.get_by_text("→ a.txt")).to_be_visible()
    row(page, "src/").get_by_role("button", name="Delete").click()
    expect(dialog.get_by_text("The directory and everything in it are gone")).to_be_visible()
    dialog.get_by_role("button", name="Delete").click()
    expect(row(page, "src/")).to_have_count(0)
    assert run(site, environment_id, "ls /workspace") == "link\n"


def test_a_long_file_is_begun_and_one_that_is_no_text_is_not_shown(
    window: Window, site: Site
) -> None:
    environment_id = made(site, "full")
    count = (
        "seq -f 'line %.0f é' 9000 > /workspace/long.txt; head -c 2000 /bin/sh > /workspace/bytes"
    )
    run(site, environment_id, count)
    page = window.open(f"/environments/{environment_id}/files?path=%2Fworkspace%2Flong.txt")
    content = page.get_by_role("region", name="Content of long.txt")
    expect(content).to_contain_text("line 1 é")
    assert 60_000 < len(content.inner_text().encode()) <= 65_536
    expect(page.get_by_text("The first 64 KiB are shown.")).to_be_visible()
    page.get_by_role("link", name="workspace", exact=True).click()
    page.get_by_role("link", name="bytes", exact=True).click()
    expect(page.get_by_text("This is no text.")).to_be_visible()


def test_what_is_refused_is_told_where_it_was_asked_for(window: Window, site: Site) -> None:
    environment_id = made(site, "guarded")
    files = f"/environments/{environment_id}/files"
    page = window.open(f"{files}?path=%2Fnowhere")
    expect(page.get_by_text("'/nowhere': No such file or directory")).to_be_visible()
    window.open(f"{files}?path=%2Froot")
    expect(page.get_by_text("'/root': Permission denied")).to_be_visible()
    window.open(f"{files}?path=%2Fhome")
    chosen = page.get_by_label("Files to upload")
    chosen.set_input_files([file("x", b"x")])
    expect(page.get_by_text("'/home/x': Permission denied")).to_be_visible()
    chosen.set_input_files([file("large", bytes(4 * 1024 * 1024 + 1))])
    expect(page.get_by_text("a browser can bring at most 4.0 MiB")).to_be_visible()
    window.assert_accessible()
    row(page, "agent/").get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Delete").click()
    expect(dialog.get_by_role("alert")).to_contain_text("'/home/agent'")
    window.faults.clear()  # the browser's own lines about what was refused
