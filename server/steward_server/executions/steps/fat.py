"""The work of `fat.*`: test reports, as pages that need nothing else, and as PDF."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from steward_server.executions.steps.pages.chromium import Browsers, require_playwright
from steward_server.executions.work import ArtifactKind, Job, StepFailed, Work

MARK = '<meta name="generator" content="Steward test report">'
"""What a report has in its head: nothing else is printed."""

MAX_REPORT_BYTES = 64 * 1024 * 1024
MAX_PICTURE_BYTES = 2 * 1024 * 1024
MAX_PICTURES_BYTES = 24 * 1024 * 1024
"""Of all pictures in a report; those beyond are only named."""

PRINT_S = 60.0
COUNTS = ("total", "passed", "failed", "skipped")
_PNG = b"\x89PNG\r\n\x1a\n"


def work(browsers: Browsers) -> Mapping[str, Work]:
    """The work of each type of step on reports; the browser is for PDF only."""
    return {
        "fat.generate_report": _generate_report,
        "fat.export_report": partial(_export_report, browsers),
    }


async def _generate_report(job: Job) -> dict[str, Any]:
    given = job.values["test_results"]
    results = [each for each in given.get("results", ()) if isinstance(each, Mapping)]
    counts = _counts(given, results)
    facts = {**_facts(job), "counts": counts}
    html = await asyncio.to_thread(_html, facts, results, dict(_paths(job, results)))
    artifact = await job.keep(
        f"report-{job.step_id}.html",
        html.encode("utf-8", "replace"),
        kind=ArtifactKind.REPORT,
        content_type="text/html; charset=utf-8",
    )
    return {"report_id": artifact.name, "report_path": artifact.name, **counts}


async def _export_report(browsers: Browsers, job: Job) -> dict[str, Any]:
    report_id, form = job.values["report_id"], job.values["format"]
    html = await asyncio.to_thread(_read, job.file(report_id), report_id)
    stem = report_id.removesuffix(".html")
    name = job.values.get("output_path") or f"{stem}-export"
    if not name.lower().endswith(f".{form}"):
        name += f".{form}"
    if form == "pdf":
        content, content_type = await _pdf(browsers, html), "application/pdf"
    else:
        content, content_type = html.encode(), "text/html; charset=utf-8"
    artifact = await job.keep(name, content, kind=ArtifactKind.REPORT, content_type=content_type)
    return {"report_id": report_id, "format": form, "output_path": artifact.name}


async def _pdf(browsers: Browsers, html: str) -> bytes:
    """Print a report, in a context where no script runs and that reaches no network."""
    await require_playwright()
    from playwright.async_api import Error

    try:
        async with (
            asyncio.timeout(PRINT_S),
            browsers.context(java_script_enabled=False, offline=True) as context,
        ):
            page = await context.new_page()
            await page.set_content(html)
            return await page.pdf(format="A4", print_background=True, outline=True, tagged=True)
    except (Error, TimeoutError) as error:
        why = str(error).splitlines()[0] if str(error) else f"not within {PRINT_S:g} s"
        raise StepFailed(f"the report could not be printed: {why}") from None


def _facts(job: Job) -> dict[str, Any]:
    """What the template is given of a run."""
    return {
        "mark": MARK,
        "playbook": job.session.playbook_name,
        "execution_id": job.session.execution_id,
        "made_at": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "metadata": job.values["metadata"],
        "visual_analysis": _text(job.values.get("visual_analysis")),
        "steps": [
            {
                "name": each.name,
                "type": each.type,
                "state": each.state.value,
                "duration": _duration(each.started_at_us, each.ended_at_us),
                "error": each.error,
            }
            for each in job.session.results
        ],
    }


def _paths(job: Job, results: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Path]]:
    """Where the pictures are that results name; those that were deleted are left out."""
    for each in results:
        name = each.get("screenshot")
        if isinstance(name, str) and name.endswith(".png"):
            with suppress(StepFailed):
                yield name, job.file(name)


def _html(
    facts: Mapping[str, Any], results: Sequence[Mapping[str, Any]], paths: Mapping[str, Path]
) -> str:
    pictures = dict(_pictures(paths))
    shown = [{**each, "picture": pictures.get(str(each.get("screenshot")))} for each in results]
    return _TEMPLATE.render(**facts, results=shown)


def _pictures(paths: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Pictures as URLs that have them in themselves; none that would make the page too large."""
    left_bytes = MAX_PICTURES_BYTES
    for name, path in paths.items():
        with suppress(OSError):
            if path.stat().st_size > min(MAX_PICTURE_BYTES, left_bytes):
                continue
            content = path.read_bytes()
            if content.startswith(_PNG):
                left_bytes -= len(content)
                yield name, "data:image/png;base64," + base64.b64encode(content).decode()


def _counts(given: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """As they were given, or else as the results have them."""

    def counted() -> Iterator[tuple[str, int]]:
        for name in COUNTS:
            value = given.get(name)
            if isinstance(value, int) and not isinstance(value, bool):
                yield name, value
            elif name == "total":
                yield name, len(results)
            else:
                yield name, sum(each.get("status") == name for each in results)

    return dict(counted())


def _read(path: Path, report_id: str) -> str:
    if path.stat().st_size <= MAX_REPORT_BYTES:
        html = path.read_text(encoding="utf-8", errors="replace")
        if MARK in html[:1_000]:
            return html
    raise StepFailed(f"{report_id!r} is no report of fat.generate_report")


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _duration(started_at_us: int, ended_at_us: int | None) -> str:
    return "" if ended_at_us is None else f"{(ended_at_us - started_at_us) / 1e6:.1f} s"


_TEMPLATE = Environment(
    loader=PackageLoader(__package__, "."),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
).get_template("report.html")
