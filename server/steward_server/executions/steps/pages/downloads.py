"""The files that a run's pages download."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steward_server.executions.work import ArtifactKind, Job, StepFailed

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

MAX_DOWNLOADS = 20
"""In one step."""

MAX_NAME = 100

LOOK_S = 0.05
"""How often it is looked how large they are: Chromium itself tells it three times a second."""


@dataclass
class _Download:
    guid: str
    name: str
    state: str = "inProgress"


class Downloads:
    """What one run's pages download into a folder of its own, until a step keeps it."""

    def __init__(self, cdp: CDPSession, context_id: str, folder: Path, *, max_bytes: int) -> None:
        """`cdp` leads to the browser, not to a page; `context_id` is Chromium's for the run's."""
        self._cdp = cdp
        self._context_id = context_id
        self._folder = folder
        self._max_bytes = max_bytes
        self._found: dict[str, _Download] = {}
        self._problem = ""
        self._changed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take the place of Playwright, which tells of a download only when it is over."""
        self._cdp.on("Browser.downloadWillBegin", self._begun)
        self._cdp.on("Browser.downloadProgress", self._progress)
        await self._cdp.send(
            "Browser.setDownloadBehavior",
            {
                "behavior": "allowAndName",
                "browserContextId": self._context_id,
                "downloadPath": str(self._folder),
                "eventsEnabled": True,
            },
        )

    async def drop(self) -> None:
        """Cut off what is under way, and forget what has come."""
        if self._watching is not None:
            self._watching.cancel()
        await self._cut_off()
        self._problem = ""
        self._forget()

    async def close(self) -> None:
        """Let go of the browser too."""
        await self.drop()
        with suppress(_errors()):
            await self._cdp.detach()

    async def begun(self) -> None:
        """Wait until one begins."""
        while not self._found:
            self._changed.clear()
            await self._changed.wait()

    async def kept(self, job: Job) -> list[str]:
        """Wait for what is under way, and keep it; gives the artifacts' names.

        Raises:
            StepFailed: it was too large or too much, or did not come whole.
        """
        while not self._problem and self._is_busy():
            self._changed.clear()
            await self._changed.wait()
        problem, self._problem = self._problem, ""
        try:
            if problem:
                raise StepFailed(problem)
            return [await self._keep(each, job) for each in self._found.values()]
        finally:
            self._forget()

    def _forget(self) -> None:
        for each in self._found.values():
            (self._folder / each.guid).unlink(missing_ok=True)
        self._found = {}

    async def _keep(self, download: _Download, job: Job) -> str:
        if download.state != "completed":
            raise StepFailed(f"the download of {download.name!r} was broken off")
        artifact = await job.keep(
            download.name,
            self._folder / download.guid,
            kind=ArtifactKind.DOWNLOAD,
            # What it says of itself is not believed: it is never to be opened as a page.
            content_type="application/octet-stream",
        )
        return artifact.name

    def _is_busy(self) -> bool:
        return any(each.state == "inProgress" for each in self._found.values())

    def _begun(self, event: Mapping[str, Any]) -> None:
        name = safe_name(str(event.get("suggestedFilename", "")))
        self._found[event["guid"]] = _Download(event["guid"], name)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="downloads")
        self._changed.set()

    def _progress(self, event: Mapping[str, Any]) -> None:
        if (each := self._found.get(event["guid"])) is not None:
            each.state = event["state"]
        self._changed.set()

    async def _watch(self) -> None:
        """Cut them off as soon as they are too large."""
        while self._is_busy():
            if problem := self._excess():
                self._problem = self._problem or problem
                self._changed.set()
                await self._cut_off()
            await asyncio.sleep(LOOK_S)

    def _excess(self) -> str:
        if len(self._found) > MAX_DOWNLOADS:
            return f"the page downloads more than {MAX_DOWNLOADS} files"
        if sum(_size(each) for each in self._folder.iterdir()) > self._max_bytes:
            names = ", ".join(repr(each.name) for each in self._found.values())
            most = f"{self._max_bytes} bytes that a step may download"
            return f"the download of {names} was cut off: it is larger than the {most}"
        return ""

    async def _cut_off(self) -> None:
        for each in list(self._found.values()):
            if each.state == "inProgress":
                with suppress(_errors()):  # it has just ended by itself
                    await self._cdp.send(
                        "Browser.cancelDownload",
                        {"guid": each.guid, "browserContextId": self._context_id},
                    )


def _errors() -> type[Exception]:
    from playwright.async_api import Error

    return Error


def safe_name(suggested: str) -> str:
    """A name for a file that a page calls what it likes: no folders, nothing hidden."""
    last = re.split(r"[/\\]", suggested)[-1]
    plain = re.sub(r"[^A-Za-z0-9 ._-]", "_", last).strip(" .")
    stem, dot, ending = plain.rpartition(".")
    if len(plain) > MAX_NAME and dot and len(ending) < 20:
        return f"{stem[: MAX_NAME - len(ending) - 1]}.{ending}"
    return plain[:MAX_NAME] or "download"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it has just been renamed
        return 0
