"""Steps on a Perspective session, or what looks like one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import pytest_asyncio

from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.work import StepFailed
from steward_server.playbooks.catalogue.perspective import COMPONENT
from tests.integration.executions.run_on_page import Run
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


async def discover(run: Run, **parameters: Any) -> dict[str, dict[str, Any]]:
    """The components of a page, by what one would call them."""
    found = await run.do("perspective.discover_page", **parameters)
    assert found["count"] == len(found["inventory"])
    return {each["text"] or each["label"] or each["id"]: each for each in found["inventory"]}


async def test_components_are_found_those_in_shadow_roots_as_well(run: Run) -> None:
    await run.open("perspective")
    found = await run.do("perspective.discover_page", exclude_selectors=[".noise"])
    assert (found["status"], found["root_selector"]) == ("discovered", "body")
    assert [each["type"] for each in found["inventory"]] == [
        "component",
        "button",
        "input",
        "input",
        "link",
        "input",
        "button",
        "button",
    ]
    for each in found["inventory"]:
        assert list(each) == [declared.name for declared in COMPONENT]
    start = found["inventory"][1]
    assert start | {"position": {}, "cssPath": ""} == {
        "id": "button-1",
        "index": 1,
        "type": "button",
        "tagName": "button",
        "className": "",
        "selector": "#start",
        "cssPath": "",
        "xpath": "/html[1]/body[1]/div[1]/button[1]",
        "text": "Start",
        "label": "",
        "placeholder": "",
        "title": "",
        "ariaLabel": "",
        "position": {},
        "visible": True,
        "disabled": False,
        "readonly": False,
        "componentPath": "",
        "componentId": "startButton",
        "dataAttributes": {"component-id": "startButton"},
    }
    assert start["position"]["width"] > 0
    assert "hunter2" not in json.dumps(found)


async def test_every_selector_and_every_path_finds_its_component_alone(run: Run) -> None:
    await run.open("perspective")
    found = await discover(run)
    for name, each in found.items():
        for selector in (each["selector"], each["cssPath"]):
            locator = run.tab._page.locator(selector)
            assert await locator.count() == 1, (name, selector)
            assert await locator.evaluate("element => element.localName") == each["tagName"]
    await run.do("click", selector=found["In the shadow"]["selector"])
    speed = await run.do("get_text", selector=found["Speed"]["selector"])
    assert speed["text"] == ""


async def test_only_what_is_asked_for_is_found(run: Run) -> None:
    await run.open("perspective")
    assert set(await discover(run, types=["checkbox", "link"])) == {"input-0", "Details"}
    assert set(await discover(run, selector="#opener")) == {"Open dock"}
    assert "matches nothing" not in str(await discover(run, selector="#start"))
    failed = await run.why("perspective.discover_page", exclude_selectors=["[["])
    assert "'[[' is not a valid selector" in failed


async def test_pages_that_lie_about_their_components_are_not_believed(run: Run) -> None:
    await run.open("lying")
    (found,) = (await run.do("perspective.discover_page"))["inventory"]
    assert list(found) == [declared.name for declared in COMPONENT]
    assert (len(found["id"]), found["index"], found["visible"]) == (2_000, 0, False)
    assert found["position"] == {"x": "nan", "y": "?"}
    json.dumps(found, allow_nan=False).encode()


async def test_components_are_rated_by_how_well_they_are_found_again(run: Run) -> None:
    await run.open("perspective")
    inventory = (await run.do("perspective.discover_page"))["inventory"]
    rated = await run.do("perspective.extract_component_metadata", components=inventory)
    assert (rated["status"], rated["count"]) == ("extracted", len(inventory))
    by_name = {
        each["text"] or each["label"]: each["metadata"] for each in rated["enriched_inventory"]
    }
    assert by_name["Start"] | {"analyzed_at": ""} == {
        "analyzed_at": "",
        "has_label": True,
        "has_id": True,
        "is_perspective_component": True,
        "selector_reliability": "high",
    }
    assert by_name["Details"]["selector_reliability"] == "low"
    assert by_name["Details"]["is_perspective_component"] is False


MANIFEST = [
    {"component_id": "start", "action": "click", "selector": "#start", "expected": "starts"},
    {"component_id": "gone", "action": "click", "selector": "#start >> #nothing"},
    {"action": "fill", "selector": "[placeholder=rpm]", "value": "hunter2"},
]


async def test_a_manifest_tells_what_came_of_each_test(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.executions.steps.perspective.TEST_MS", 1_500)
    await run.open("perspective")
    done = await run.do("perspective.execute_test_manifest", manifest=MANIFEST)
    counts = {key: done[key] for key in ("status", "total", "passed", "failed", "skipped")}
    assert counts == {"status": "failed", "total": 3, "passed": 2, "failed": 1, "skipped": 0}
    first, second, third = done["results"]
    assert first | {"started_at": "", "completed_at": ""} == {
        "component_id": "start",
        "action": "click",
        "expected": "starts",
        "status": "passed",
        "actual": f"click done; the page is {run.site.url}/perspective",
        "error": None,
        "screenshot": "test-start.png",
        "started_at": "",
        "completed_at": "",
    }
    assert second["error"].startswith("'#start >> #nothing' matches nothing")
    assert third["screenshot"] == "test-_placeholder_rpm_.png"
    assert "hunter2" not in json.dumps(done)
    assert [artifact.name for artifact, _ in run.session.artifacts] == [
        "test-start.png",
        "test-gone.png",
        "test-_placeholder_rpm_.png",
    ]


async def test_a_manifest_can_end_with_its_first_failure(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.executions.steps.perspective.TEST_MS", 1_500)
    await run.open("perspective")
    done = await run.do(
        "perspective.execute_test_manifest",
        manifest=MANIFEST,
        on_failure="abort",
        capture_screenshots=False,
        return_to_baseline=False,
    )
    assert [each["status"] for each in done["results"]] == ["passed", "failed", "skipped"]
    assert (done["skipped"], run.session.artifacts) == (1, [])


async def test_each_test_begins_on_the_first_page(run: Run) -> None:
    await run.open("perspective")
    manifest = [
        {"component_id": "details", "action": "click", "selector": "text=Details"},
        {"component_id": "start", "action": "click", "selector": "#start"},
    ]
    done = await run.do(
        "perspective.execute_test_manifest", manifest=manifest, capture_screenshots=False
    )
    assert done["status"] == "passed"
    assert done["results"][0]["actual"] == f"click done; the page is {run.site.url}/form"


async def test_what_ends_the_page_ends_a_manifest(
    own_session: TestSession, browsers: Browsers, site: WebPages
) -> None:
    own = Run(own_session, browsers, site)
    await own.open("perspective")
    manifest = [{"action": "click", "selector": "#nothing"}, *MANIFEST]
    testing = asyncio.create_task(own.do("perspective.execute_test_manifest", manifest=manifest))
    await asyncio.sleep(0.3)
    await own.tab._page.close()
    with pytest.raises(StepFailed, match="the page has closed itself"):
        await asyncio.wait_for(testing, 30)


async def test_verifying_where_the_page_is(run: Run) -> None:
    await run.open("form")
    at = await run.do(
        "perspective.verify_navigation",
        expected_url_pattern="/form",
        expected_title_pattern="A form",
    )
    assert at == {
        "url": f"{run.site.url}/form",
        "title": "A form",
        "status": "verified",
        "message": f"the page is {run.site.url}/form",
    }
    await run.open("late")
    clicking = await run.do("click", selector="#button")
    assert clicking["status"] == "clicked"
    await run.do("perspective.verify_navigation", expected_title_pattern="Clicked")


@pytest.mark.parametrize(
    ("expected", "why"),
    [
        ({"expected_url_pattern": "/other"}, "/form, which does not have '/other' in it"),
        ({"expected_title_pattern": "Other"}, "title is 'A form', which does not have 'Other'"),
    ],
)
async def test_a_page_elsewhere_is_told(run: Run, expected: dict[str, Any], why: str) -> None:
    await run.open("form")
    assert why in await run.why("perspective.verify_navigation", timeout=100, **expected)


async def test_verifying_that_a_dock_is_open(run: Run) -> None:
    await run.open("perspective")
    assert await run.why("perspective.verify_dock_opened", dock_selector="#dock", timeout=100) == (
        "the dock is not open: '#dock' is there, but not visible within 0.1 s"
    )
    await run.do("click", selector="#opener")
    assert await run.do("perspective.verify_dock_opened", dock_selector="#dock") == {
        "status": "verified",
        "dock_selector": "#dock",
        "message": "'#dock' is open",
    }
