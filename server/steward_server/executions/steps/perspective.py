"""The work of `perspective.*`: on the run's page, where a Perspective session is open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.steps.pages.deadline import Deadline
from steward_server.executions.steps.pages.downloads import safe_name
from steward_server.executions.steps.pages.telling import bounded
from steward_server.executions.steps.pages.work import on_page
from steward_server.executions.work import Job, StepFailed, Work
from steward_server.playbooks.catalogue import perspective
from steward_server.playbooks.catalogue.forms import Field, Kind

if TYPE_CHECKING:
    from steward_server.executions.steps.pages.tab import Tab

MAX_COMPONENTS = 1_000
MAX_TEXT = 2_000
"""Characters of anything that a page says of a component."""

MAX_ATTRIBUTES = 20
DISCOVERY_MS = 30_000
TEST_MS = 10_000
"""For what a manifest does with one component."""

BASELINE_MS = 30_000

_SCRIPT = files(__package__).joinpath("components.js").read_text(encoding="utf-8")


def work(browsers: Browsers) -> Mapping[str, Work]:
    """The work of each type of step on a Perspective session."""
    done = partial(on_page, browsers)
    return {
        "perspective.discover_page": done(_discover_page),
        "perspective.extract_component_metadata": _extract_component_metadata,
        "perspective.execute_test_manifest": done(_execute_test_manifest),
        "perspective.verify_navigation": done(_verify_navigation),
        "perspective.verify_dock_opened": done(_verify_dock_opened),
    }


async def _discover_page(tab: Tab, job: Job) -> dict[str, Any]:
    selector = job.values["selector"]
    argument = {
        "types": list(job.values["types"]),
        "excluded": list(job.values["exclude_selectors"]),
        "most": MAX_COMPONENTS,
    }
    found = await tab.elements.evaluate(selector, _SCRIPT, argument, Deadline(DISCOVERY_MS))
    if not isinstance(found, list):
        raise StepFailed(f"{tab.url} gives no list of its components")
    inventory = [_component(each) for each in found[:MAX_COMPONENTS] if isinstance(each, Mapping)]
    return {
        "status": "discovered",
        "count": len(inventory),
        "inventory": inventory,
        "timestamp": _now(),
        "root_selector": selector,
    }


async def _extract_component_metadata(job: Job) -> dict[str, Any]:
    enriched = [{**each, "metadata": metadata(each)} for each in job.values["components"]]
    return {"status": "extracted", "enriched_inventory": enriched, "count": len(enriched)}


async def _execute_test_manifest(tab: Tab, job: Job) -> dict[str, Any]:
    manifest = job.values["manifest"]
    baseline = job.values.get("baseline_url") or tab.address
    results: list[dict[str, Any]] = []
    is_over = False
    for number, entry in enumerate(manifest, 1):
        if is_over:
            results.append(_result(entry, "skipped"))
            continue
        await job.safe_point(f"before test {number} of {len(manifest)}")
        result = await _tested(tab, job, entry, baseline)
        results.append(result)
        is_over = result["status"] == "failed" and job.values["on_failure"] == "abort"
    counts = {
        status: sum(each["status"] == status for each in results)
        for status in ("passed", "failed", "skipped")
    }
    status = "failed" if counts["failed"] else "passed"
    return {"status": status, "total": len(results), **counts, "results": results}


async def _tested(tab: Tab, job: Job, entry: Mapping[str, Any], baseline: str) -> dict[str, Any]:
    """What came of one test. Only what ends the page ends the others with it."""
    result = _result(entry, "passed") | {"started_at": _now()}
    deadline = Deadline(TEST_MS)
    try:
        if entry["action"] == "click":
            await tab.settle(downloads=await tab.elements.click(entry["selector"], deadline))
        else:
            await tab.elements.fill(entry["selector"], entry.get("value", ""), deadline)
        result["actual"] = f"{entry['action']} done; the page is {tab.url}"
    except StepFailed as error:
        result |= {"status": "failed", "error": str(error)}
    if job.values["capture_screenshots"]:
        name = f"test-{result['component_id'] or entry['selector']}"
        try:
            result["screenshot"] = await tab.screenshot(job, safe_name(name))
        except StepFailed as error:
            await job.log(str(error), "warning")
    result["completed_at"] = _now()
    if job.values["return_to_baseline"] and baseline:
        await tab.go(baseline, "load", Deadline(BASELINE_MS))
    return result


async def _verify_navigation(tab: Tab, job: Job) -> dict[str, Any]:
    deadline = Deadline(job.values["timeout"])
    url = job.values.get("expected_url_pattern") or ""
    title = job.values.get("expected_title_pattern") or ""

    async def read() -> tuple[str, str]:
        return tab.url, await tab.title()

    found_url, found_title = await tab.elements.becomes(
        "the page", read, lambda found: url in found[0] and title in found[1], deadline
    )
    if url not in found_url:
        raise StepFailed(f"the page is {found_url}, which does not have {url!r} in it {deadline}")
    if title not in found_title:
        raise StepFailed(
            f"the page's title is {found_title!r}, which does not have {title!r} in it {deadline}"
        )
    return {
        "url": found_url,
        "title": found_title,
        "status": "verified",
        "message": f"the page is {found_url}",
    }


async def _verify_dock_opened(tab: Tab, job: Job) -> dict[str, Any]:
    selector = job.values["dock_selector"]
    try:
        await tab.elements.one(selector, Deadline(job.values["timeout"]))
    except StepFailed as error:
        raise StepFailed(f"the dock is not open: {error}") from None
    return {"status": "verified", "dock_selector": selector, "message": f"{selector!r} is open"}


def metadata(component: Mapping[str, Any]) -> dict[str, Any]:
    """How well a component can be found again."""
    has_id = bool(component.get("componentId")) or str(component.get("selector", ""))[:1] == "#"
    label = any(component.get(each) for each in ("label", "ariaLabel", "text", "placeholder"))
    is_by_place = component.get("selector") == component.get("cssPath")
    reliability = "high" if has_id else "low" if is_by_place else "medium"
    return {
        "analyzed_at": _now(),
        "has_label": label,
        "has_id": has_id,
        "is_perspective_component": bool(
            component.get("componentPath") or component.get("componentId")
        ),
        "selector_reliability": reliability,
    }


def _result(entry: Mapping[str, Any], status: str) -> dict[str, Any]:
    return {
        "component_id": entry.get("component_id", ""),
        "action": entry["action"],
        "expected": entry.get("expected"),
        "status": status,
        "actual": None,
        "error": None,
        "screenshot": None,
        "started_at": None,
        "completed_at": None,
    }


def _component(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a page says of a component, in the form that is promised, whatever it says."""
    return {each.name: _plain(each, given.get(each.name)) for each in perspective.COMPONENT}


def _plain(declared: Field, value: Any) -> Any:
    match declared.kind:
        case Kind.BOOLEAN:
            return value is True
        case Kind.INTEGER:
            return value if isinstance(value, int) and not isinstance(value, bool) else 0
        case Kind.MAP:
            entries = list(value.items())[:MAX_ATTRIBUTES] if isinstance(value, Mapping) else []
            return {bounded(key, MAX_TEXT): _scalar(each) for key, each in entries}
    return bounded(value if value is not None else "", MAX_TEXT)


def _scalar(value: Any) -> float | str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and math.isfinite(value) else bounded(value, MAX_TEXT)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
