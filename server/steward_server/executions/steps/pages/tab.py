"""A run's page: its steps are done on it one after the other, and people watch."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.async_api import (
    Browser,
    BrowserContext,
    CDPSession,
    Dialog,
    Error,
    Frame,
    Page,
    Request,
    Response,
)
from playwright.async_api import TimeoutError as Expired

from steward_server.config import variable_name
from steward_server.executions.steps.pages.chromium import Browsers
from steward_server.executions.steps.pages.deadline import Deadline
from steward_server.executions.steps.pages.downloads import Downloads
from steward_server.executions.steps.pages.elements import Elements, first_line, is_over
from steward_server.executions.steps.pages.relay import Relay
from steward_server.executions.steps.pages.screencast import Screencast
from steward_server.executions.steps.pages.telling import MAX_URL, NoAnswer, bounded, shown_url
from steward_server.executions.work import ArtifactKind, Job, Session, StepFailed
from steward_server.playbooks.catalogue import CATALOGUE

MAX_POPUPS = 8
"""Of a run at a time; a page that opens more has them closed."""

MAX_NOTES = 10
"""Dialogs that a step tells of."""

MAX_HEIGHT = 16_384
"""Pixels of a picture of a whole page; Chromium draws no larger ones."""

SCREENSHOT_MS = 10_000
FACTS_S = 2.0
"""For all that is found out about a page on which a step has failed."""

DROP_S = 0.3
"""For letting go of what is under way, when a step has to end at once."""

KEY_S = 10.0
SETTLE_S = 5.0
"""How long a click waits for the answer to what it has asked for, and for its download."""

ERROR_PAGE_S = 1.0
"""How long Chromium takes to show that it cannot open a page."""

BEGIN_S = 0.2
"""How long a click takes to ask for something, and a download to begin that nothing announces."""

ANNOUNCED_S = 1.0
"""How long a download takes to begin in place of the page that was opened."""

BLANK = "about:blank"
ALLOWED = ("http", "https", "about", "chrome-error")
"""Schemes of pages. Chromium itself keeps pages from files; this is for the rest."""

HIDDEN_FIELDS = "input[type=password], input[autocomplete*=password]"

LOST = "the browser has ended in the middle of the run, and what was open with it; run it again"


PageWork = Callable[["Tab", Job], Awaitable[dict[str, Any]]]


@asynccontextmanager
async def opened(browsers: Browsers, session: Session) -> AsyncIterator[Tab]:
    """A run's page, in a context of its own; all it has opened is closed at the end."""
    async with AsyncExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(
            prefix="steward-downloads-", ignore_cleanup_errors=True
        )
        folder = Path(stack.enter_context(temporary))
        relay = await stack.enter_async_context(Relay().opened())
        context = await stack.enter_async_context(
            browsers.context(proxy={"server": relay.url}, accept_downloads=True)
        )
        try:
            page = await context.new_page()
            cdp = await context.new_cdp_session(page)
            target = await cdp.send("Target.getTargetInfo")
            downloads = Downloads(
                await _browser_of(context).new_browser_cdp_session(),
                target["targetInfo"]["browserContextId"],
                folder,
                max_bytes=browsers.config.max_download_bytes,
            )
            await downloads.start()
        except Error as error:
            raise StepFailed(f"the browser opens no page: {first_line(error)}") from None
        frames_per_s = browsers.config.frames_per_s
        tab = Tab(session, context, page, cdp, downloads, relay, frames_per_s=frames_per_s)
        stack.push_async_callback(tab.close)
        yield tab


class Tab:
    """The page of one run, and the windows it opens."""

    def __init__(
        self,
        session: Session,
        context: BrowserContext,
        page: Page,
        cdp: CDPSession,
        downloads: Downloads,
        relay: Relay,
        *,
        frames_per_s: float,
    ) -> None:
        self._session = session
        self._context = context
        self._browser = _browser_of(context)
        self._downloads = downloads
        self._relay = relay
        self._frames_per_s = frames_per_s
        self._scope: asyncio.Timeout | None = None
        self._is_lost = False
        self._asked: set[Request] = set()
        """What the page has asked for in order to go elsewhere, and not been answered."""
        self._answered = asyncio.Event()
        self._is_attached = False
        """One of them was answered with a download, which begins."""
        self._failed = asyncio.Event()
        """Chromium shows that it could not open a page."""
        self._notes: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._take(page, cdp)
        self._browser.on("disconnected", self._lose)
        context.on("page", self._on_page)
        context.on("dialog", self._on_dialog)

    async def close(self) -> None:
        """Let go of everything; the context closes the pages."""
        self._screencast.close()
        await self._downloads.close()
        self._browser.remove_listener("disconnected", self._lose)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def elements(self) -> Elements:
        return Elements(self._page)

    @property
    def url(self) -> str:
        """Of what is open, fit to be shown."""
        return shown_url(self._page.url)

    @property
    def address(self) -> str:
        """Of what is open, to open it again; empty if nothing is."""
        return "" if self._page.url == BLANK else self._page.url

    async def title(self) -> str:
        """Of what is open.

        Raises:
            StepFailed: the page does not answer.
        """
        try:
            async with asyncio.timeout(FACTS_S):
                return bounded(await self._page.title(), MAX_URL)
        except TimeoutError:
            raise NoAnswer(f"{self.url} does not answer: the page is busy") from None

    async def do(self, job: Job, work: PageWork, *, opens: bool = False) -> dict[str, Any]:
        """Do a step, which has the page for itself; gives its outputs.

        One that opens an address may do with a new page where the last one is over.

        Raises:
            StepFailed: with the page's address and title and a picture of it, where it has any.
        """
        if self._is_lost:
            raise StepFailed(LOST)
        if self._trouble and opens:
            await self._renew()
        if self._trouble:
            raise StepFailed(f"{self._trouble}; open one with browser.navigate")
        self._is_attached = False
        try:
            async with self._interruptible():
                if self._page.url != BLANK:
                    await self._screencast.start()
                outputs = await work(self, job)
                downloads = await self._downloads.kept(job)
                await self._screencast.finish()
        except asyncio.CancelledError:
            await self._drop()
            raise
        except (StepFailed, Error, TimeoutError) as error:
            raise await self._failure(error, job) from None
        finally:
            await self._tell(job)
        if CATALOGUE[job.type].output("downloads") is not None:
            outputs["downloads"] = downloads
        return outputs

    async def go(self, url: str, wait_until: str, deadline: Deadline) -> int | None:
        """Open a URL; gives the status it was answered with, if it was by a server.

        Raises:
            StepFailed: it has no page, or none that comes in time.
        """
        try:
            response = await self._go(url, wait_until, deadline)
        except BaseException:
            await self._stop_loading()
            raise
        return None if response is None else response.status

    async def press(self, key: str) -> None:
        """Press a key, on the element that has the focus."""
        try:
            async with asyncio.timeout(KEY_S):
                await self._page.keyboard.press(key)
        except TimeoutError:
            raise NoAnswer(f"{self.url} does not answer to keys: the page is busy") from None
        except Error as error:
            if is_over(error):
                raise
            raise StepFailed(f"{key!r} cannot be pressed: {first_line(error)}") from None

    async def settle(self, *, downloads: bool = False) -> None:
        """Wait until what a click or a key has asked for is answered, if anything.

        A link that `downloads` asks for it where pages do not see it.
        """
        await asyncio.sleep(BEGIN_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while self._asked:
                    self._answered.clear()
                    await self._answered.wait()
                if downloads or self._is_attached:
                    await self._downloads.begun()
        self._asked.clear()
        self._is_attached = False

    async def screenshot(self, job: Job, name: str | None, *, full_page: bool = False) -> str:
        """Keep a picture of the page, without what is in password fields; gives its name."""
        picture = await self._picture(SCREENSHOT_MS, full_page=full_page)
        name = name or f"screenshot-{datetime.now(UTC):%Y%m%d-%H%M%S}"
        if not name.lower().endswith(".png"):
            name += ".png"
        artifact = await job.keep(
            name, picture, kind=ArtifactKind.SCREENSHOT, content_type="image/png"
        )
        return artifact.name

    async def _renew(self) -> None:
        """Go on with a new page, the old one being over."""
        self._screencast.close()
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(DROP_S):
                await self._page.close()
        try:
            page = await self._context.new_page()
            self._take(page, await self._context.new_cdp_session(page))
        except Error as error:
            raise StepFailed(f"the browser opens no page: {first_line(error)}") from None

    def _take(self, page: Page, cdp: CDPSession) -> None:
        self._page, self._cdp = page, cdp
        self._trouble = ""
        """Why no step can be done on the page."""
        self._failed_url = ""
        self._asked.clear()
        self._screencast = Screencast(cdp, self._session.show, frames_per_s=self._frames_per_s)
        page.on("crash", lambda _: self._stop("the page has crashed", page))
        page.on("close", lambda _: self._stop("the page has closed itself", page))
        page.on("framenavigated", lambda frame: self._on_navigated(page, frame))
        page.on("request", self._on_request)
        page.on("response", self._on_response)
        page.on("requestfailed", self._on_request_failed)

    async def _go(self, url: str, wait_until: str, deadline: Deadline) -> Response | None:
        while True:
            self._failed_url = ""
            self._failed.clear()
            try:
                return await self._page.goto(
                    url,
                    wait_until=wait_until,  # type: ignore[arg-type]
                    timeout=deadline.left_ms,
                )
            except Expired:
                what = "is not at rest" if wait_until == "networkidle" else "has not loaded"
                raise StepFailed(f"{shown_url(url)} {what} {deadline}") from None
            except Error as error:
                if is_over(error):
                    raise
                if "Download is starting" in error.message:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(ANNOUNCED_S):
                            await self._downloads.begun()
                    return None
                # What the page before was about to do came in between.
                if "interrupted by another navigation" not in error.message:
                    await self._error_page(error)
                    raise NoAnswer(self._why_not_open(url, error)) from None
            await asyncio.sleep(BEGIN_S)
            if deadline.is_over:
                raise StepFailed(f"{shown_url(url)} has not loaded {deadline}")

    async def _error_page(self, error: Error) -> None:
        """Wait for Chromium's page about a failure, which would come in place of the next one."""
        if "ERR_ABORTED" not in error.message:
            with suppress(TimeoutError):
                async with asyncio.timeout(ERROR_PAGE_S):
                    await self._failed.wait()

    def _why_not_open(self, url: str, error: Error) -> str:
        failed = self._failed_url or url
        after = "" if _same(failed, url) else f", where {shown_url(url)} led"
        why = self._relay.why(failed) or _words(first_line(error))
        return f"{shown_url(failed)} cannot be opened{after}: {why}"

    async def _picture(self, timeout_ms: float, *, full_page: bool = False) -> bytes:
        secret = [frame.locator(HIDDEN_FIELDS) for frame in self._page.frames]
        clip = None
        try:
            async with asyncio.timeout(timeout_ms / 1_000):
                if full_page:
                    metrics = await self._cdp.send("Page.getLayoutMetrics")
                    size = metrics["cssContentSize"]
                    if size["height"] > MAX_HEIGHT:
                        width = min(size["width"], MAX_HEIGHT)
                        clip = {"x": 0, "y": 0, "width": width, "height": MAX_HEIGHT}
                return await self._page.screenshot(
                    full_page=full_page,
                    clip=clip,  # type: ignore[arg-type]
                    mask=secret,
                    mask_color="#888888",
                    timeout=timeout_ms,
                )
        except (Expired, TimeoutError):
            raise NoAnswer(f"there is no picture of {self.url}: the page is busy") from None
        except Error as error:
            if is_over(error):
                raise
            why = first_line(error)
            raise StepFailed(f"there is no picture of {self.url}: {why}") from None

    @asynccontextmanager
    async def _interruptible(self) -> AsyncIterator[None]:
        """What `_interrupt` ends with a TimeoutError."""
        try:
            async with asyncio.timeout(None) as self._scope:
                yield
        finally:
            self._scope = None

    def _interrupt(self) -> None:
        """End the step in hand."""
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    async def _failure(self, error: Exception, job: Job) -> StepFailed:
        """What a step that failed tells, with what can be found out about the page."""
        if self._trouble:
            await asyncio.sleep(BEGIN_S)  # that the browser went with the page is told last
        elif not isinstance(error, NoAnswer):
            await self._screencast.finish()
        await self._drop()
        if not self._trouble and isinstance(error, Error) and is_over(error):
            self._is_lost = True  # the driver, which would have told it, has ended
        if self._is_lost:
            return StepFailed(LOST)
        if self._trouble:
            return StepFailed(self._trouble)
        if isinstance(error, TimeoutError):  # nobody else's: those are told where they come
            return StepFailed("the page does not answer")
        if isinstance(error, NoAnswer):
            return StepFailed(str(error))
        message = str(error)
        if isinstance(error, Error):
            message = f"the browser failed: {first_line(error)}"
        context = dict(error.context) if isinstance(error, StepFailed) else {}
        return StepFailed(message, **{**context, **await self._facts(job)})

    async def _facts(self, job: Job) -> Mapping[str, Any]:
        if self._page.url == BLANK:
            return {}
        facts: dict[str, Any] = {"url": self.url}
        with suppress(StepFailed, Error, TimeoutError):
            async with asyncio.timeout(FACTS_S):
                facts["title"] = await self.title()
                picture = await self._picture(FACTS_S * 1_000)
                artifact = await job.keep(
                    f"{job.step_id}-failed.png",
                    picture,
                    kind=ArtifactKind.SCREENSHOT,
                    content_type="image/png",
                )
                facts["screenshot"] = artifact.name
        return facts

    async def _drop(self) -> None:
        """Let go of what a step had under way."""
        with suppress(TimeoutError, Error):
            async with asyncio.timeout(DROP_S):
                await self._downloads.drop()
                await self._screencast.stop()

    async def _stop_loading(self) -> None:
        with suppress(TimeoutError, Error):
            async with asyncio.timeout(DROP_S):
                await self._cdp.send("Page.stopLoading")

    async def _tell(self, job: Job) -> None:
        notes, self._notes = self._notes, []
        for note in notes:
            await job.log(note)

    def _stop(self, trouble: str, page: Page) -> None:
        """No step can be done on the page any more."""
        if page is self._page:
            self._trouble = self._trouble or trouble
            self._interrupt()

    def _lose(self, _: Browser) -> None:
        self._is_lost = True
        self._interrupt()

    def _on_page(self, page: Page) -> None:
        page.on("framenavigated", lambda frame: self._on_navigated(page, frame))
        if len(self._context.pages) > 1 + MAX_POPUPS:
            self._later(page.close())

    def _on_navigated(self, page: Page, frame: Frame) -> None:
        scheme = urlsplit(frame.url).scheme
        if frame.parent_frame is None and scheme not in ALLOWED:
            self._stop(f"the page went to {scheme}:, which is not opened", page)
            self._later(page.goto(BLANK))
        if frame != self._page.main_frame:
            return
        if scheme == "chrome-error":
            self._failed.set()
        elif self._scope is not None:
            self._later(self._screencast.start())

    def _on_dialog(self, dialog: Dialog) -> None:
        if dialog.type == "beforeunload":  # whoever leaves has decided to
            self._later(dialog.accept())
            return
        if len(self._notes) < MAX_NOTES:
            answer = "was dismissed" if dialog.type == "alert" else "was answered no"
            self._notes.append(
                f"the page's {dialog.type} {bounded(dialog.message, 200)!r} {answer}"
            )
        self._later(dialog.dismiss())

    def _on_request(self, request: Request) -> None:
        with suppress(Error):  # the frame is not made yet, and so not the page's own
            if request.is_navigation_request() and request.frame == self._page.main_frame:
                self._asked.add(request)

    def _on_response(self, response: Response) -> None:
        if response.request in self._asked:
            disposition = response.headers.get("content-disposition", "")
            self._is_attached = disposition.strip().lower().startswith("attachment")
            self._asked.discard(response.request)
            self._answered.set()

    def _on_request_failed(self, request: Request) -> None:
        if request in self._asked:
            self._asked.discard(request)
            self._failed_url = request.url
            self._answered.set()

    def _later(self, work: Coroutine[Any, Any, Any]) -> None:
        async def quietly() -> None:
            with suppress(Error):  # the page was faster, and is gone
                await work

        task = asyncio.create_task(quietly(), name="page")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _browser_of(context: BrowserContext) -> Browser:
    if context.browser is None:
        raise TypeError("contexts of browsers that were launched have one")
    return context.browser


def _same(one: str, other: str) -> bool:
    return shown_url(one).rstrip("/") == shown_url(other).rstrip("/")


def _words(message: str) -> str:
    """What an error of the network means."""
    return next((words for code, words in _NETWORK.items() if code in message), message)


_NETWORK = {
    "ERR_CERT": "nobody vouches for its certificate; if that is as it should be, set "
    f"{variable_name('browser', 'any_certificate')}=1",
    "ERR_UNSAFE_PORT": "browsers do not open this port",
    "ERR_TOO_MANY_REDIRECTS": "it leads in circles",
    "ERR_EMPTY_RESPONSE": "the server closed the connection without an answer",
    "ERR_CONNECTION_RESET": "the server broke the connection off",
    "ERR_CONNECTION_CLOSED": "the server closed the connection without an answer",
    "ERR_SSL_PROTOCOL_ERROR": "the server does not speak TLS there",
    "ERR_INVALID_AUTH_CREDENTIALS": "the name or the password in it is not accepted",
    "ERR_ABORTED": "the page broke it off",
}
