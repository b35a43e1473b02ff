"""The one Chromium of the server: begun by the first step that needs it, ended when none does."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from steward_server.config import variable_name
from steward_server.executions.steps.pages.config import BrowserConfig
from steward_server.executions.work import StepFailed

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext

log = structlog.get_logger()

NO_PLAYWRIGHT = (
    "there is no browser here: install Playwright with: pip install 'steward-agents[browser]'"
)
NO_CHROMIUM = (
    "there is no browser here: install Chromium with `make system-packages` or "
    "`apt install chromium`, or say where it is with "
    f"{variable_name('browser', 'executable')}"
)
USUAL_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")

ARGUMENTS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-pings",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--disable-translate",
    "--metrics-recording-only",
    "--deny-permission-prompts",
    "--dns-prefetch-disable",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    # Nothing is resolved, and so nothing reached, but through the relays of runs.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
"""What Chromium is told beside what Playwright tells it."""

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "FONTCONFIG_PATH")
"""Variables that the browser has from the server; others may be secrets."""

START_MS = 30_000
CLOSE_S = 5.0

VIEWPORT_WIDTH, VIEWPORT_HEIGHT = 1_920, 1_080


@dataclass(frozen=True, slots=True)
class _Process:
    browser: Browser
    parts: AsyncExitStack
    """What it is made of besides: Playwright's driver and a folder."""


class Browsers:
    """Gives contexts, each as if it were a browser of its own. Close it with `aclose`."""

    def __init__(self, config: BrowserConfig) -> None:
        self.config = config
        self._starting: asyncio.Task[_Process] | None = None
        self._users = 0
        self._idle: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def context(self, **options: Any) -> AsyncIterator[BrowserContext]:
        """A context with Playwright's options for one; at the end its pages are closed.

        Raises:
            StepFailed: there is no browser; the message says what to install.
        """
        self._users += 1
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        try:
            context = await self._new_context(options)
            try:
                yield context
            finally:
                with suppress(_errors(), TimeoutError):  # it has ended already, or never will
                    async with asyncio.timeout(CLOSE_S):
                        await context.close()
        finally:
            self._users -= 1
            if not self._users:
                loop = asyncio.get_running_loop()
                self._idle = loop.call_later(self.config.idle_s, self._retire)

    def tell_what_is_missing(self) -> None:
        """Say in the log where steps in a browser will fail for want of one."""
        try:
            _found(self.config.executable)
            if importlib.util.find_spec("playwright") is None:
                raise StepFailed(NO_PLAYWRIGHT)
        except StepFailed as error:
            log.warning("browser.missing", reason=str(error))

    async def aclose(self) -> None:
        """End the browser, whoever uses it."""
        if self._idle is not None:
            self._idle.cancel()
        self._retire()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _process(self) -> _Process:
        """The browser that runs. Who no longer waits for its start does not end it for others."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._start(), name="chromium")
            self._starting.add_done_callback(self._started)
        return await asyncio.shield(self._starting)

    def _started(self, starting: asyncio.Task[_Process]) -> None:
        if starting.cancelled() or starting.exception() is not None:
            if self._starting is starting:
                self._starting = None  # the next one tries again
            return
        process = starting.result()
        process.browser.on("disconnected", lambda _: self._retire(process))

    def _retire(self, process: _Process | None = None) -> None:
        """End the process that runs, if it is this one; who comes next gets another."""
        starting = self._starting
        if starting is None or (process and not (starting.done() and starting.result() is process)):
            return
        task = asyncio.create_task(_end(starting), name="chromium's end")
        self._starting = None
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _start(self) -> _Process:
        await require_playwright()
        from playwright.async_api import Error, async_playwright

        executable = _found(self.config.executable)
        async with AsyncExitStack() as parts:
            playwright = await async_playwright().start()
            parts.push_async_callback(playwright.stop)
            temporary = tempfile.TemporaryDirectory(
                prefix="steward-browser-", ignore_cleanup_errors=True
            )
            home = parts.enter_context(temporary)
            try:
                browser = await playwright.chromium.launch(
                    executable_path=executable,
                    args=ARGUMENTS,
                    chromium_sandbox=self.config.sandbox and os.geteuid() != 0,
                    env=_environment(home),
                    timeout=START_MS,
                    # Signals are the server's; it ends the browser itself.
                    handle_sigint=False,
                    handle_sigterm=False,
                    handle_sighup=False,
                )
            except Error as error:
                raise StepFailed(_why_not_started(str(error), executable)) from None
            log.info("browser.started", version=browser.version)
            return _Process(browser, parts.pop_all())

    async def _new_context(self, options: Mapping[str, Any]) -> BrowserContext:
        """A context of the browser that runs, or of another where that has ended unnoticed."""
        process = await self._process()
        try:
            return await self._context_of(process.browser, options)
        except _errors():
            self._retire(process)
        try:
            return await self._context_of((await self._process()).browser, options)
        except _errors() as error:
            raise StepFailed(f"the browser opens no page: {str(error).splitlines()[0]}") from None

    async def _context_of(self, browser: Browser, options: Mapping[str, Any]) -> BrowserContext:
        return await browser.new_context(
            viewport={"width": VIEWPORT_WIDTH, "height": VIEWPORT_HEIGHT},
            ignore_https_errors=self.config.any_certificate,
            permissions=[],
            **options,
        )


async def require_playwright() -> None:
    """Load Playwright, which takes a while, beside what else goes on.

    Raises:
        StepFailed: it is not installed; the message says how to.
    """
    try:
        await asyncio.to_thread(importlib.import_module, "playwright.async_api")
    except ImportError:
        raise StepFailed(NO_PLAYWRIGHT) from None


async def _end(starting: asyncio.Task[_Process]) -> None:
    try:
        process = await starting
    except StepFailed:
        return
    for end in (process.browser.close, process.parts.aclose):
        with suppress(Exception):  # it has ended already, one way or another
            async with asyncio.timeout(CLOSE_S):
                await end()
    log.info("browser.ended")


def _errors() -> type[Exception]:
    from playwright.async_api import Error

    return Error


def _found(executable: str | None) -> Path:
    names = USUAL_NAMES if executable is None else (executable,)
    for name in names:
        if found := shutil.which(name):
            return Path(found)
    if executable is None:
        raise StepFailed(NO_CHROMIUM)
    raise StepFailed(f"{NO_CHROMIUM}; {executable!r} is no program")


def _environment(home: str) -> dict[str, str | float | bool]:
    passed_on = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed_on, "HOME": home}


def _why_not_started(message: str, executable: Path) -> str:
    if "No usable sandbox" in message:
        setting = variable_name("browser", "sandbox")
        return (
            f"{executable} has no sandbox here: this machine forbids user namespaces; allow them, "
            f"or set {setting}=0"
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = next((line for line in lines if "rror" in line[20:]), lines[0])
    return f"{executable} does not start: {told[:500]}"
