"""The elements of a page: found, waited for and used. Errors say which, and what hinders.

A wait that is cancelled ends in Playwright's driver too: nothing is clicked half a minute later.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

from playwright.async_api import Error, Locator, Page
from playwright.async_api import TimeoutError as Expired

from steward_server.executions.steps.pages.deadline import Deadline
from steward_server.executions.steps.pages.telling import NoAnswer, bounded
from steward_server.executions.work import StepFailed

T = TypeVar("T")

LOOK_S = 0.1
"""How often something is read that is to change."""

LEAST_MS = 500
"""What anything may take that is at hand: who has no time left to wait still sees what is there."""

BUSY_MS = 1_000
"""How long Playwright is waited for beyond its time: for a busy page it would wait for ever."""

MAX_TEXT = 100_000
"""Characters of a text of a page that are read."""

_READ = """(element, most) => ({
  isPassword: element instanceof HTMLInputElement && element.type === "password",
  text: ["INPUT", "TEXTAREA", "SELECT"].includes(element.tagName)
    ? String(element.value).slice(0, most)
    : (element.innerText ?? element.textContent ?? "").slice(0, most),
})"""

_TAKES_FILES = "element => (element.control ?? element).type === 'file'"
"""Of a field, or a label for one."""

_DOWNLOADS = """element => {
  const link = element.closest("a[download][href], area[download][href]");
  if (!(link instanceof HTMLAnchorElement || link instanceof HTMLAreaElement)) return false;
  return link.origin === location.origin || ["blob:", "data:"].includes(link.protocol);
}"""
"""Whether a click on an element makes Chromium download; other sites' links are gone to."""

_OBSTACLES = (
    (r"element is not visible", "is not visible"),
    (r"element is not enabled", "is disabled"),
    (r"element is not stable", "does not stop moving"),
    (r"element is outside of the viewport", "is outside of the window"),
    (r"(<.{1,200}>).* intercepts pointer events", r"is covered by \1"),
)
"""What Playwright says hinders a click, and what is said here."""


class Elements:
    """Those of one page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def one(self, selector: str, deadline: Deadline, *, visible: bool = True) -> Locator:
        """The only element that a selector matches, once it is there, and visible.

        Raises:
            StepFailed: there is none in time, or there are several, or it is no selector.
        """
        locator = self._page.locator(selector)
        state: Literal["visible", "attached"] = "visible" if visible else "attached"

        async def wait(timeout_ms: float) -> None:
            await locator.wait_for(state=state, timeout=timeout_ms)

        if not await self._comes(selector, wait, deadline):
            if not await self._asked(selector, locator.count, deadline):
                raise StepFailed(f"{selector!r} matches nothing {deadline}")
            if visible and not await self._asked(selector, locator.is_visible, deadline):
                raise StepFailed(f"{selector!r} is there, but not visible {deadline}")
        return locator

    async def gone(self, selector: str, deadline: Deadline) -> bool:
        """Whether all that a selector matches is invisible, or becomes so in time."""
        visible = self._page.locator(selector).filter(visible=True)

        async def wait(timeout_ms: float) -> None:
            await visible.first.wait_for(state="detached", timeout=timeout_ms)

        return await self._comes(selector, wait, deadline)

    async def click(self, selector: str, deadline: Deadline, *, force: bool = False) -> bool:
        """Click an element as soon as it can be, or by force as soon as it is there.

        Gives whether it is a link to a download.
        """
        locator = await self.one(selector, deadline, visible=not force)
        downloads = await self._asked(
            selector,
            lambda: locator.evaluate(_DOWNLOADS, timeout=_enough_ms(deadline)),
            deadline,
        )
        hindered = ""

        async def click(timeout_ms: float) -> None:
            nonlocal hindered
            try:
                await locator.click(force=force, timeout=timeout_ms)
            except Expired as error:
                hindered = _obstacle(str(error))
                raise

        if not await self._comes(selector, click, deadline):
            how = hindered or "cannot be clicked"
            raise StepFailed(f"{selector!r} {how}, and did not change {deadline}")
        return downloads is True

    async def fill(self, selector: str, value: str, deadline: Deadline) -> None:
        """Fill a field. What with is never told."""
        locator = await self.one(selector, deadline)

        async def is_ready() -> bool:
            return await locator.is_editable(timeout=_enough_ms(deadline))

        if not await self.becomes(selector, is_ready, lambda ready: ready, deadline):
            raise StepFailed(
                f"{selector!r} is disabled or read-only, and did not change {deadline}"
            )
        try:
            async with asyncio.timeout((_enough_ms(deadline) + BUSY_MS) / 1_000):
                await locator.fill(value, timeout=_enough_ms(deadline))
        except (Expired, TimeoutError):
            raise StepFailed(f"{selector!r} could not be filled {deadline}") from None
        except Error as error:
            if is_over(error):
                raise
            why = first_line(error)
            shown = why.replace(value, "…") if value else why
            raise StepFailed(f"{selector!r} could not be filled: {shown}") from None

    async def upload(self, selector: str, path: Path, deadline: Deadline) -> None:
        """Give a file to a file field, which may be hidden behind a button."""
        locator = await self.one(selector, deadline, visible=False)
        if not await self.evaluate(selector, _TAKES_FILES, None, deadline):
            raise StepFailed(f"{selector!r} is no file field")
        await self._asked(
            selector, lambda: locator.set_input_files(path, timeout=_enough_ms(deadline)), deadline
        )

    async def text(self, selector: str, deadline: Deadline) -> str:
        """The text of an element, or what is in a field, without spaces around it.

        Raises:
            StepFailed: it is a password field: what is in it is not read.
        """
        locator = await self.one(selector, deadline, visible=False)
        read = await self._asked(
            selector,
            lambda: locator.evaluate(_READ, MAX_TEXT, timeout=_enough_ms(deadline)),
            deadline,
        )
        if not isinstance(read, dict) or read.get("isPassword"):
            raise StepFailed(f"{selector!r} is a password field, which is not read")
        return bounded(read.get("text", ""), MAX_TEXT).strip()

    async def attribute(self, selector: str, name: str, deadline: Deadline) -> str | None:
        locator = await self.one(selector, deadline, visible=False)
        value = await self._asked(
            selector, lambda: locator.get_attribute(name, timeout=_enough_ms(deadline)), deadline
        )
        return None if value is None else bounded(value, MAX_TEXT)

    async def is_enabled(self, selector: str, deadline: Deadline) -> bool:
        locator = await self.one(selector, deadline, visible=False)
        return await self._asked(
            selector, lambda: locator.is_enabled(timeout=_enough_ms(deadline)), deadline
        )

    async def evaluate(self, selector: str, script: str, argument: Any, deadline: Deadline) -> Any:
        """What a function of JavaScript gives for an element. Pages can make it give anything."""
        locator = await self.one(selector, deadline, visible=False)
        return await self._asked(
            selector,
            lambda: locator.evaluate(script, argument, timeout=_enough_ms(deadline)),
            deadline,
        )

    async def becomes(
        self,
        selector: str,
        read: Callable[[], Awaitable[T]],
        is_wanted: Callable[[T], bool],
        deadline: Deadline,
    ) -> T:
        """Read until it is what is wanted, or the time is over; gives what was read last."""
        while True:
            value = await self._asked(selector, read, deadline)
            if is_wanted(value) or deadline.is_over:
                return value
            await asyncio.sleep(min(LOOK_S, deadline.left_ms / 1_000))

    async def _comes(
        self, selector: str, wait: Callable[[float], Awaitable[None]], deadline: Deadline
    ) -> bool:
        """Wait for something; false if it does not come in time."""
        timeout_ms = _enough_ms(deadline) if deadline.is_over else deadline.left_ms
        try:
            async with asyncio.timeout((timeout_ms + BUSY_MS) / 1_000):
                await wait(timeout_ms)
        except Expired:
            return False
        except TimeoutError:
            raise NoAnswer(f"{selector!r} did not answer {deadline}: the page is busy") from None
        except Error as error:
            raise _told(selector, error) from None
        return True

    async def _asked(self, selector: str, ask: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        try:
            # Playwright's own timeout is for what it waits for, not for a page that is busy.
            async with asyncio.timeout((_enough_ms(deadline) + BUSY_MS) / 1_000):
                return await ask()
        except (Expired, TimeoutError):
            raise NoAnswer(f"{selector!r} did not answer {deadline}: the page is busy") from None
        except Error as error:
            raise _told(selector, error) from None


def _enough_ms(deadline: Deadline) -> float:
    """For what is to be done at once, now that all that had to be waited for is there."""
    return max(LEAST_MS, deadline.left_ms)


def is_over(error: Error) -> bool:
    """Whether there is no page any more to do anything on."""
    return "has been closed" in error.message or "onnection closed" in error.message


def first_line(error: Error) -> str:
    """What an error of Playwright says, without its log: what was filled stands there."""
    line = error.message.splitlines()[0] if error.message else "unknown error"
    return re.sub(r"^(?:\w+\.\w+: )?(?:Error: )?", "", line)[:500]


def _told(selector: str, error: Error) -> Exception:
    """The same in our words, or itself where the page is over."""
    if is_over(error):
        return error
    if several := re.search(r"strict mode violation: .* resolved to (\d+) elements", error.message):
        return StepFailed(f"{selector!r} matches {several[1]} elements; it must match one")
    why = first_line(error)
    if _is_of_selector(why):
        return StepFailed(f"{selector!r} is no selector: {why}")
    return StepFailed(f"{selector!r}: {why}")


def _is_of_selector(message: str) -> bool:
    words = (
        "selector",
        "Unexpected token",
        "Unknown engine",
        "SyntaxError",
        "Unexpected end",
        "regular exp",
    )
    return any(each in message for each in words)


def _obstacle(message: str) -> str:
    """What last hindered a click, by Playwright's log."""
    for line in reversed(message.splitlines()):
        for pattern, words in _OBSTACLES:
            if found := re.search(pattern, line):
                return found.expand(words)
    return ""
