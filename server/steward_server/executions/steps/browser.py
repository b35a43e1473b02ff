"""The work of `browser.*`: on the run's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.steps.pages.deadline import Deadline
from steward_server.executions.steps.pages.work import on_page
from steward_server.executions.work import Job, StepFailed, Work

if TYPE_CHECKING:
    from steward_server.executions.steps.pages.tab import Tab

MAX_TOLD = 200
"""Characters of a page's text in an error."""


def work(browsers: Browsers) -> Mapping[str, Work]:
    """The work of each type of step in a browser."""
    done = partial(on_page, browsers)
    return {
        "browser.navigate": done(_navigate, opens=True),
        "browser.click": done(_click),
        "browser.fill": done(_fill),
        "browser.keyboard": done(_keyboard),
        "browser.file_upload": done(_file_upload),
        "browser.screenshot": done(_screenshot),
        "browser.wait": done(_wait),
        "browser.verify": done(_verify),
        "browser.verify_text": done(_verify_text),
        "browser.verify_attribute": done(_verify_attribute),
        "browser.verify_state": done(_verify_state),
        "browser.get_text": done(_get_text),
    }


async def _navigate(tab: Tab, job: Job) -> dict[str, Any]:
    deadline = Deadline(job.values["timeout"])
    status = await tab.go(job.values["url"], job.values["wait_until"], deadline)
    return {"url": tab.url, "status": "navigated", "http_status": status}


async def _click(tab: Tab, job: Job) -> dict[str, Any]:
    selector, force = job.values["selector"], job.values["force"]
    downloads = await tab.elements.click(selector, Deadline(job.values["timeout"]), force=force)
    await tab.settle(downloads=downloads)
    return {"selector": selector, "status": "clicked", "force": force}


async def _fill(tab: Tab, job: Job) -> dict[str, Any]:
    selector = job.values["selector"]
    await tab.elements.fill(selector, job.values["value"], Deadline(job.values["timeout"]))
    return {"selector": selector, "status": "filled"}


async def _keyboard(tab: Tab, job: Job) -> dict[str, Any]:
    await tab.press(job.values["key"])
    await tab.settle()
    return {"key": job.values["key"], "status": "pressed"}


async def _file_upload(tab: Tab, job: Job) -> dict[str, Any]:
    selector, path = job.values["selector"], job.values["file_path"]
    await tab.elements.upload(selector, job.file(path), Deadline(job.values["timeout"]))
    return {"selector": selector, "file_path": path, "status": "uploaded"}


async def _screenshot(tab: Tab, job: Job) -> dict[str, Any]:
    name = job.values.get("name")
    kept = await tab.screenshot(job, name, full_page=job.values["full_page"])
    return {"screenshot": kept, "status": "captured"}


async def _wait(tab: Tab, job: Job) -> dict[str, Any]:
    selector = job.values["selector"]
    await tab.elements.one(selector, Deadline(job.values["timeout"]))
    return {"selector": selector, "status": "found"}


async def _verify(tab: Tab, job: Job) -> dict[str, Any]:
    selector, expected = job.values["selector"], job.values["exists"]
    deadline = Deadline(job.values["timeout"])
    if expected:
        await tab.elements.one(selector, deadline)
    elif not await tab.elements.gone(selector, deadline):
        raise StepFailed(f"{selector!r} is still there {deadline}")
    message = f"{selector!r} is {'there' if expected else 'not there'}"
    return {
        "selector": selector,
        "exists": expected,
        "expected": expected,
        "status": "verified",
        "message": message,
    }


async def _verify_text(tab: Tab, job: Job) -> dict[str, Any]:
    selector, text, match = (job.values[each] for each in ("selector", "text", "match"))
    deadline = Deadline(job.values["timeout"])
    is_wanted = _matcher(text, match)
    actual = await tab.elements.becomes(
        selector, partial(tab.elements.text, selector, deadline), is_wanted, deadline
    )
    if not is_wanted(actual):
        wanted = {"exact": "", "contains": "something with ", "regex": "something like "}[match]
        raise StepFailed(
            f"{selector!r} has the text {_told(actual)} and not {wanted}{_told(text)} {deadline}"
        )
    return {
        "expected_text": text,
        "actual_text": actual,
        "match_type": match,
        "status": "verified",
        "message": f"{selector!r} has the text",
    }


async def _verify_attribute(tab: Tab, job: Job) -> dict[str, Any]:
    selector, attribute, value = (job.values[each] for each in ("selector", "attribute", "value"))
    deadline = Deadline(job.values["timeout"])
    actual = await tab.elements.becomes(
        selector,
        partial(tab.elements.attribute, selector, attribute, deadline),
        lambda found: found == value,
        deadline,
    )
    if actual != value:
        raise StepFailed(
            f"{selector!r} has {_told_attribute(attribute, actual)} and not "
            f"{_told_attribute(attribute, value)} {deadline}"
        )
    return {
        "attribute": attribute,
        "expected_value": value,
        "actual_value": actual,
        "status": "verified",
        "message": f"{selector!r} has {_told_attribute(attribute, actual)}",
    }


async def _verify_state(tab: Tab, job: Job) -> dict[str, Any]:
    selector, state = job.values["selector"], job.values["state"]
    deadline = Deadline(job.values["timeout"])
    if state == "visible":
        await tab.elements.one(selector, deadline)
    elif state == "hidden":
        if not await tab.elements.gone(selector, deadline):
            raise StepFailed(f"{selector!r} is visible and not hidden {deadline}")
    else:
        wanted = state == "enabled"
        is_enabled = await tab.elements.becomes(
            selector,
            partial(tab.elements.is_enabled, selector, deadline),
            lambda found: found is wanted,
            deadline,
        )
        if is_enabled is not wanted:
            actual = "enabled" if is_enabled else "disabled"
            raise StepFailed(f"{selector!r} is {actual} and not {state} {deadline}")
    return {
        "selector": selector,
        "expected_state": state,
        "actual_state": state,
        "status": "verified",
        "message": f"{selector!r} is {state}",
    }


async def _get_text(tab: Tab, job: Job) -> dict[str, Any]:
    selector = job.values["selector"]
    text = await tab.elements.text(selector, Deadline(job.values["timeout"]))
    return {"selector": selector, "text": text, "status": "read"}


def _matcher(text: str, match: str) -> Callable[[str], bool]:
    """Whether a text is what is wanted.

    Raises:
        StepFailed: it is no regular expression.
    """
    if match == "exact":
        return lambda actual: actual == text.strip()
    if match == "contains":
        return lambda actual: text in actual
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        pattern = re2.compile(text, options)
    except re2.error as error:
        # Python's own would let a page choose how long it takes to match.
        raise StepFailed(f"{text[:MAX_TOLD]!r} is no regular expression of RE2: {error}") from None
    return lambda actual: pattern.search(actual) is not None


def _told(text: str) -> str:
    return repr(text if len(text) <= MAX_TOLD else text[:MAX_TOLD] + "…")


def _told_attribute(name: str, value: str | None) -> str:
    return f"no {name}" if value is None else f"{name}={_told(value)}"
