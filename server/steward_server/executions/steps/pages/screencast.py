"""What a page shows, as pictures for those who watch the run."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

MAX_PIXELS = 1_280
"""Of the longer side of a picture."""

IN_FLIGHT = 2
"""Pictures that Chromium sends ahead of what is acknowledged; the next one it drops for good."""

LAST_S = 0.5
"""How long the last picture of a step may take to come."""

_PAINTED = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Until then what the step has done cannot be seen."""


class Screencast:
    """Pictures of one page, as few as were asked for; the newest wins.

    Chromium makes a picture when the page changes, as fast as it is acknowledged. Pictures are
    acknowledged when they are shown, so that none is made that nobody would see.
    """

    def __init__(
        self, cdp: CDPSession, show: Callable[[bytes], None], *, frames_per_s: float
    ) -> None:
        self._cdp = cdp
        self._show = show
        self._interval_s = 1 / frames_per_s
        self._next_s = 0.0
        self._newest: bytes | None = None
        self._shown = b""
        self._held: list[int] = []
        self._timer: asyncio.TimerHandle | None = None
        self._came = asyncio.Event()
        self._is_on = False
        self._tasks: set[asyncio.Task[None]] = set()
        cdp.on("Page.screencastFrame", self._on_frame)

    async def start(self) -> None:
        """Begin; there is a picture at once, whether the page changes or not."""
        if self._is_on:
            return
        self._is_on = True
        await self._send("Page.startScreencast", format="png", maxWidth=MAX_PIXELS)

    async def finish(self) -> None:
        """End with the page as it is now; that picture is shown in its turn."""
        if not self._is_on:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await self._send("Runtime.evaluate", expression=_PAINTED, awaitPromise=True)
                self._came.clear()
                await self._restart()
                await self._came.wait()
        await self.stop()

    async def stop(self) -> None:
        """End at once."""
        self._is_on = False
        self._held.clear()
        await self._send("Page.stopScreencast")

    def close(self) -> None:
        """Show what waits for its turn, and nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._turn()
        for task in self._tasks:
            task.cancel()

    def _on_frame(self, event: Mapping[str, Any]) -> None:
        self._newest = base64.b64decode(event["data"])
        self._held.append(event["sessionId"])
        self._came.set()
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(max(loop.time(), self._next_s), self._turn)

    def _turn(self) -> None:
        self._timer = None
        if self._newest is not None and self._newest != self._shown:
            self._next_s = asyncio.get_running_loop().time() + self._interval_s
            self._shown = self._newest
            self._show(self._newest)
        self._newest = None
        if self._is_on:
            task = asyncio.create_task(self._go_on(), name="screencast")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _go_on(self) -> None:
        held, self._held = self._held, []
        for number in held:
            await self._send("Page.screencastFrameAck", sessionId=number)
        if len(held) >= IN_FLIGHT and self._is_on:
            # A picture may have been dropped since. If the page rests now, no other would come.
            await self._restart()

    async def _restart(self) -> None:
        await self._send("Page.stopScreencast")
        await self._send("Page.startScreencast", format="png", maxWidth=MAX_PIXELS)

    async def _send(self, method: str, **parameters: Any) -> None:
        from playwright.async_api import Error

        with suppress(Error, TimeoutError):  # the page is gone or busy: it has no pictures
            async with asyncio.timeout(LAST_S):
                await self._cdp.send(method, parameters)
