"""Each step in a browser, well and badly, in a real Chromium."""

from __future__ import annotations

import asyncio
import base64
import re
import struct

import pytest
import pytest_asyncio

from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.work import ArtifactKind
from tests.integration.executions.run_on_page import PNG, Run
from tests.integration.executions.web_pages import WebPages
from tests.jobs import TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def run(
    session: TestSession, browsers: Browsers, site: WebPages, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """On pages that are never busy, though the machine may be."""
    monkeypatch.setattr("steward_server.executions.steps.pages.elements.BUSY_MS", 15_000)
    return Run(session, browsers, site)


@pytest_asyncio.fixture(loop_scope="module")
async def own_run(own_session: TestSession, browsers: Browsers, site: WebPages) -> Run:
    return Run(own_session, browsers, site)


async def test_navigating_tells_where_it_ended_and_the_status(run: Run) -> None:
    opened = await run.open("form")
    assert opened == {
        "url": f"{run.site.url}/form",
        "status": "navigated",
        "http_status": 200,
        "downloads": [],
    }
    assert (await run.open("broken"))["http_status"] == 500


async def test_a_page_that_never_loads_ends_in_time_and_the_next_one_opens(run: Run) -> None:
    url = f"{run.site.url}/hangs"
    assert await run.why("navigate", url=url, timeout=300) == f"{url} has not loaded within 0.3 s"
    url = f"{run.site.url}/polls"
    failed = await run.why("navigate", url=url, wait_until="networkidle", timeout=700)
    assert failed == f"{url} is not at rest within 0.7 s"
    assert (await run.open("still"))["http_status"] == 200


async def test_a_server_that_is_not_there_is_told_and_the_next_page_opens(run: Run) -> None:
    for _ in range(2):
        assert "there is no host 'nowhere.invalid'" in await run.why(
            "navigate", url="http://nowhere.invalid/"
        )
        refused = await run.why("navigate", url="http://127.0.0.1:8/")
        assert refused.endswith("127.0.0.1:8 refuses connections")
        assert (await run.open("still"))["http_status"] == 200


async def test_other_failures_of_the_network_are_told_in_words(run: Run) -> None:
    assert "without an answer" in await run.why("navigate", url=f"{run.site.url}/drops")
    assert "leads in circles" in await run.why("navigate", url=f"{run.site.url}/circle")
    assert "do not open this port" in await run.why("navigate", url="http://127.0.0.1:1/")
    secure = run.site.url.replace("http:", "https:")
    assert "does not speak TLS" in await run.why("navigate", url=secure)


async def test_a_failure_has_the_page_and_a_picture_of_it(run: Run) -> None:
    await run.open("form")
    failed = await run.fails("click", selector="#nothing", timeout=100)
    assert failed.context == {
        "url": f"{run.site.url}/form",
        "title": "A form",
        "screenshot": "step-failed.png",
    }
    (artifact, picture) = run.session.artifacts[0]
    assert artifact.kind is ArtifactKind.SCREENSHOT
    assert picture.startswith(PNG)


async def test_clicking_waits_until_it_can(run: Run) -> None:
    await run.open("late")
    assert await run.do("click", selector="#button") == {
        "selector": "#button",
        "status": "clicked",
        "force": False,
        "downloads": [],
    }
    assert await run.title() == "Clicked"


@pytest.mark.parametrize(
    ("selector", "why"),
    [
        ("#nothing", "'#nothing' matches nothing within 1.5 s"),
        ("li", "'li' matches 3 elements; it must match one"),
        ("[[", "'[[' is no selector: "),
        ("//[", "'//[' is no selector: "),
        ("#sealed", "'#sealed' is there, but not visible within 1.5 s"),
        ("#off", "'#off' is disabled, and did not change within 1.5 s"),
    ],
)
async def test_what_cannot_be_clicked_is_told_with_the_reason(
    run: Run, selector: str, why: str
) -> None:
    await run.open("form")
    assert (await run.why("click", selector=selector, timeout=1_500)).startswith(why)


async def test_what_covers_an_element_is_told_and_force_clicks_all_the_same(run: Run) -> None:
    await run.open("covered")
    why = await run.why("click", selector="#under", timeout=1_000)
    assert why.startswith("'#under' is covered by <div id=\"cover\"")
    await run.do("click", selector="#under", force=True)


async def test_a_click_that_is_cancelled_never_comes(run: Run) -> None:
    await run.open("trap")
    click = asyncio.create_task(run.do("click", selector="#later"))
    await asyncio.sleep(0.2)
    click.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(click, 30)
    await run.do("wait", selector="#later")
    await asyncio.sleep(0.3)
    assert "/clicked" not in run.site.asked


async def test_a_navigation_that_is_cancelled_ends_before_its_time(run: Run) -> None:
    await run.open("still")
    going = asyncio.create_task(run.open("hangs"))
    await asyncio.sleep(0.2)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(going, 15)
    assert (await run.open("form"))["http_status"] == 200


async def test_filling_never_tells_what_with(run: Run) -> None:
    await run.open("form")
    filled = await run.do("fill", selector="#name", value="hunter2")
    assert filled == {"selector": "#name", "status": "filled"}
    assert (await run.do("get_text", selector="#name"))["text"] == "hunter2"
    for selector, why in {
        "#age": "could not be filled: Cannot type text into input[type=number]",
        "#choice": "could not be filled: Element is not an <input>",
        "#fixed": "is disabled or read-only",
        "#text": "Element is not an <input>",
        "#file": "could not be filled",
    }.items():
        failed = await run.fails("fill", selector=selector, value="hunter2", timeout=300)
        assert why in str(failed)
        assert "hunter2" not in f"{failed} {failed.context} {failed.__cause__}"
    assert "hunter2" not in str(run.session.logged)


async def test_keys_go_to_what_has_the_focus(run: Run) -> None:
    await run.open("form")
    await run.do("fill", selector="#name", value="Ann")
    pressed = await run.do("keyboard", key="Enter")
    assert pressed == {"key": "Enter", "status": "pressed", "downloads": []}
    assert await run.title() == "Sent Ann"
    assert "'Nonsense' cannot be pressed: " in await run.why("keyboard", key="Nonsense")


async def test_files_are_uploaded_that_the_run_may_read(run: Run) -> None:
    (run.session.folder / "plan.txt").write_text("plan")
    await run.open("form")
    uploaded = await run.do("file_upload", selector="#file", file_path="plan.txt")
    assert uploaded == {"selector": "#file", "file_path": "plan.txt", "status": "uploaded"}
    assert await run.title() == "File plan.txt"
    assert "no file" in await run.why("file_upload", selector="#file", file_path="other.txt")
    failed = await run.why("file_upload", selector="#name", file_path="plan.txt")
    assert failed == "'#name' is no file field"


async def test_pictures_are_kept_under_their_names(run: Run) -> None:
    await run.open("form")
    assert await run.do("screenshot", name="form") == {
        "screenshot": "form.png",
        "status": "captured",
    }
    by_time = (await run.do("screenshot", full_page=True))["screenshot"]
    assert re.fullmatch(r"screenshot-\d{8}-\d{6}\.png", by_time)
    assert all(picture.startswith(PNG) for _, picture in run.session.artifacts)
    assert _size(run.session.artifacts[0][1]) == (1920, 1080)


async def test_pictures_show_nothing_of_passwords(run: Run) -> None:
    await run.open("form")
    await run.do("fill", selector="#password", value="hunter2")
    await run.do("screenshot")
    ((_, picture),) = run.session.artifacts
    field = await run.tab._page.locator("#password").bounding_box()
    colours = await run.tab._page.evaluate(
        """async ([picture, {x, y, width, height}]) => {
          const image = new Image();
          image.src = `data:image/png;base64,${picture}`;
          await image.decode();
          const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
          canvas.drawImage(image, 0, 0);
          const {data} = canvas.getImageData(x + 2, y + 2, width - 4, height - 4);
          return [...new Set(data)];
        }""",
        [base64.b64encode(picture).decode(), field],
    )
    assert colours == [0x88, 0xFF]  # grey all over, and opaque


async def test_the_picture_of_a_whole_page_ends_where_chromium_can_draw_no_more(run: Run) -> None:
    await run.open("tall")
    await run.do("screenshot", name="tall", full_page=True)
    assert _size(run.session.artifacts[0][1])[1] == 16_384


async def test_waiting_ends_when_the_element_is_visible(run: Run) -> None:
    await run.open("late")
    assert await run.do("wait", selector="#new") == {"selector": "#new", "status": "found"}
    assert await run.why("wait", selector="#never", timeout=100) == (
        "'#never' matches nothing within 0.1 s"
    )


async def test_verifying_that_something_is_there_or_is_not(run: Run) -> None:
    await run.open("late")
    there = await run.do("verify", selector="#new")
    assert there == {
        "selector": "#new",
        "exists": True,
        "expected": True,
        "status": "verified",
        "message": "'#new' is there",
    }
    gone = await run.do("verify", selector="#leaving", exists=False)
    assert (gone["exists"], gone["message"]) == (False, "'#leaving' is not there")
    assert await run.why("verify", selector="#leaving", timeout=100) == (
        "'#leaving' matches nothing within 0.1 s"
    )
    assert await run.why("verify", selector="#new", exists=False, timeout=100) == (
        "'#new' is still there within 0.1 s"
    )


async def test_several_that_are_to_be_gone_are_looked_at_together(run: Run) -> None:
    await run.open("form")
    assert "still there" in await run.why("verify", selector="li", exists=False, timeout=100)
    assert "matches 3 elements" in await run.why("verify", selector="li", timeout=100)


@pytest.mark.parametrize(
    ("text", "match"),
    [("Hello, world", "exact"), ("world", "contains"), ("^Hel+o, w.*d$", "regex")],
)
async def test_verifying_a_text(run: Run, text: str, match: str) -> None:
    await run.open("form")
    assert await run.do("verify_text", selector="#text", text=text, match=match) == {
        "expected_text": text,
        "actual_text": "Hello, world",
        "match_type": match,
        "status": "verified",
        "message": "'#text' has the text",
    }


async def test_verifying_a_text_waits_for_it(run: Run) -> None:
    await run.open("late")
    await run.do("verify_text", selector="#head", text="Ready")


@pytest.mark.parametrize(
    ("match", "text", "why"),
    [
        ("exact", "Bye", "has the text 'Hello, world' and not 'Bye' within 0.1 s"),
        ("contains", "moon", "has the text 'Hello, world' and not something with 'moon'"),
        ("regex", "^moon", "has the text 'Hello, world' and not something like '^moon'"),
        ("regex", "(", "'(' is no regular expression"),
    ],
)
async def test_a_text_that_is_not_the_one_is_told(
    run: Run, match: str, text: str, why: str
) -> None:
    await run.open("form")
    failed = await run.why("verify_text", selector="#text", text=text, match=match, timeout=100)
    assert why in failed


async def test_verifying_an_attribute_that_is_there_or_is_not(run: Run) -> None:
    await run.open("late")
    found = await run.do("verify_attribute", selector="#new", attribute="data-state", value="on")
    assert found == {
        "attribute": "data-state",
        "expected_value": "on",
        "actual_value": "on",
        "status": "verified",
        "message": "'#new' has data-state='on'",
    }
    none = await run.do("verify_attribute", selector="#button", attribute="disabled", value=None)
    assert none["message"] == "'#button' has no disabled"
    assert await run.why(
        "verify_attribute", selector="#new", attribute="data-state", value="off", timeout=100
    ) == ("'#new' has data-state='on' and not data-state='off' within 0.1 s")


@pytest.mark.parametrize(
    ("selector", "state"),
    [
        ("#send", "visible"),
        ("#sealed", "hidden"),
        ("#nothing", "hidden"),
        ("#send", "enabled"),
        ("#off", "disabled"),
    ],
)
async def test_verifying_a_state(run: Run, selector: str, state: str) -> None:
    await run.open("form")
    assert await run.do("verify_state", selector=selector, state=state) == {
        "selector": selector,
        "expected_state": state,
        "actual_state": state,
        "status": "verified",
        "message": f"{selector!r} is {state}",
    }


@pytest.mark.parametrize(
    ("selector", "state", "why"),
    [
        ("#sealed", "visible", "'#sealed' is there, but not visible"),
        ("#send", "hidden", "'#send' is visible and not hidden"),
        ("#off", "enabled", "'#off' is disabled and not enabled"),
        ("#send", "disabled", "'#send' is enabled and not disabled"),
        ("#nothing", "enabled", "'#nothing' matches nothing"),
    ],
)
async def test_a_state_that_is_not_the_one_is_told(
    run: Run, selector: str, state: str, why: str
) -> None:
    await run.open("form")
    assert await run.why("verify_state", selector=selector, state=state, timeout=100) == (
        f"{why} within 0.1 s"
    )


async def test_texts_are_read_but_not_those_in_password_fields(run: Run) -> None:
    await run.open("form")
    assert await run.do("get_text", selector="#text") == {
        "selector": "#text",
        "text": "Hello, world",
        "status": "read",
    }
    assert (await run.do("get_text", selector="#notes"))["text"] == "some notes"
    assert (await run.do("get_text", selector="#choice"))["text"] == "b"
    await run.do("fill", selector="#password", value="hunter2")
    assert await run.why("get_text", selector="#password") == (
        "'#password' is a password field, which is not read"
    )


async def test_downloads_become_artifacts_under_safe_names(run: Run) -> None:
    await run.open("links")
    assert (await run.do("click", selector="#small"))["downloads"] == ["report.csv"]
    assert (await run.do("click", selector="#blob"))["downloads"] == ["_.._made.txt"]
    assert (await run.do("click", selector="#slow"))["downloads"] == ["slow.txt"]
    assert (await run.do("click", selector="#named"))["downloads"] == ["slow.txt"]
    opened = await run.open("small")
    assert (opened["downloads"], opened["http_status"]) == (["report.csv"], None)
    kinds = {artifact.kind for artifact, _ in run.session.artifacts}
    types = {artifact.content_type for artifact, _ in run.session.artifacts}
    assert (kinds, types) == ({ArtifactKind.DOWNLOAD}, {"application/octet-stream"})
    assert [content for _, content in run.session.artifacts] == [
        b"a,b\n1,2\n",
        b"made here",
        b"slow",
        b"slow",
        b"a,b\n1,2\n",
    ]


async def test_a_download_that_is_too_large_is_cut_off_while_it_runs(run: Run) -> None:
    await run.open("links")
    run.site.cut_off.clear()
    assert await run.why("click", selector="#big") == (
        "the download of 'big.bin' was cut off: it is larger than the 5000000 bytes that a step "
        "may download"
    )
    await asyncio.wait_for(run.site.cut_off.wait(), 30)
    assert (await run.do("click", selector="#small"))["downloads"] == ["report.csv"]


async def test_dialogs_are_dismissed_and_told(run: Run) -> None:
    await run.open("links")
    await run.do("click", selector="#ask")
    assert await run.title() == "Answer false"
    assert run.session.logged == [("info", "the page's confirm 'Really?' was answered no")]


async def test_windows_that_a_page_opens_are_few_and_closed_with_the_run(own_run: Run) -> None:
    await own_run.open("links")
    await own_run.do("click", selector="#popup")
    await own_run.do("click", selector="#ask", timeout=2_000)
    await own_run.do("click", selector="#many")
    await asyncio.sleep(0.3)
    context = own_run.tab._context
    assert 2 <= len(context.pages) <= 9
    await own_run.session.aclose()
    assert context.pages == []


async def test_a_page_that_has_closed_itself_is_told_and_another_opens(run: Run) -> None:
    await run.open("links")
    await run.tab._page.close()
    assert "the page has closed itself" in await run.why("wait", selector="#bye")
    assert (await run.open("still"))["http_status"] == 200


async def test_a_page_that_crashes_fails_the_step_at_once(run: Run) -> None:
    await run.open("still")
    waiting = asyncio.create_task(run.fails("wait", selector="#never"))
    await asyncio.sleep(0.2)
    crash = asyncio.create_task(run.tab._cdp.send("Page.crash"))
    failed = await asyncio.wait_for(waiting, 30)
    assert str(failed) == "the page has crashed"
    crash.cancel()
    assert (await run.open("still"))["http_status"] == 200


async def test_a_page_that_is_busy_keeps_no_step_and_no_run_from_ending(own_run: Run) -> None:
    await own_run.open("busy")
    await asyncio.sleep(0.2)
    failed = await own_run.why("get_text", selector="h1", timeout=300)
    assert failed == "'h1' did not answer within 0.3 s: the page is busy"
    await asyncio.wait_for(own_run.session.aclose(), 30)


def _size(png: bytes) -> tuple[int, int]:
    width, height = struct.unpack(">II", png[16:24])
    return width, height
