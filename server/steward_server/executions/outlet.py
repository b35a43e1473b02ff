"""What one watcher is sent next: events in order, newest frames, answers to what they said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from steward.executions.v1 import executions_pb2 as pb
from steward_server.executions import projection
from steward_server.executions.execution import About, Event
from steward_server.executions.feed import Feed, Frame, Told

MAX_SHOWN = 256
MAX_ANSWERS = 16


class Shown:
    """Responses of the newest events and frames: one object for all who watch, framed once."""

    def __init__(self) -> None:
        self._responses: dict[tuple[str, int], pb.ExchangeResponse] = {}

    def of(self, told: Told | Frame) -> pb.ExchangeResponse:
        """What is sent for either; not to be changed."""
        return self.frame(told) if isinstance(told, Frame) else self.event(*told)

    def event(self, about: About, event: Event) -> pb.ExchangeResponse:
        """What is sent for an event; not to be changed."""
        key = ("event", event.number)
        found = self._responses.get(key)
        if found is None:
            told = projection.update(about, event)
            found = self._keep(key, pb.ExchangeResponse(execution_update=told))
        return found

    def frame(self, frame: Frame) -> pb.ExchangeResponse:
        """What is sent for a frame; not to be changed."""
        key = ("frame", frame.serial)
        found = self._responses.get(key)
        if found is None:
            told = projection.frame(frame)
            found = self._keep(key, pb.ExchangeResponse(screenshot_frame=told))
        return found

    def _keep(self, key: tuple[str, int], response: pb.ExchangeResponse) -> pb.ExchangeResponse:
        if len(self._responses) >= MAX_SHOWN:
            del self._responses[next(iter(self._responses))]
        self._responses[key] = response
        return response


def _all(_: Event) -> bool:
    return True


@dataclass(slots=True)
class Watching:
    """What somebody is to see, and how far they have come.

    Attributes:
        number: of the last event they were given.
        serial: of the last frame.
    """

    feed: Feed
    wants: Callable[[About], bool]
    number: int
    frames: bool = True
    wants_event: Callable[[Event], bool] = _all
    serial: int = 0

    async def take(self) -> list[Told | Frame]:
        """What is new by now."""
        found: list[Told | Frame] = []
        while not found and (told := await self.feed.after(self.number)):
            self.number = told[-1][1].number
            found += [each for each in told if self.wants(each[0]) and self.wants_event(each[1])]
        if self.frames and (frames := self.feed.frames_after(self.serial)):
            self.serial = frames[-1].serial
            found += [each for each in frames if self.wants(each.about)]
        return found

    async def next(self) -> list[Told | Frame]:
        """What is new; waits for it."""
        while True:
            bell = self.feed.bell
            if found := await self.take():
                return found
            await asyncio.wait({bell})


class Outlet:
    """Merges what one caller watches with the answers to what they say."""

    def __init__(self, feed: Feed, shown: Shown) -> None:
        self._feed = feed
        self._shown = shown
        self._watching: Watching | None = None
        self._answers: deque[pb.ExchangeResponse] = deque()
        self._has_room = asyncio.Event()
        self._is_open = asyncio.Event()
        self._is_finished = False
        self._error: BaseException | None = None
        self._bell: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def watch(self, watching: Watching) -> None:
        """Send this from now on, in place of what was before."""
        self._watching = watching
        self._ring()

    async def answer(self, response: pb.ExchangeResponse) -> None:
        """Send this; waits while too much before it was not taken."""
        while len(self._answers) >= MAX_ANSWERS:
            self._has_room.clear()
            await self._has_room.wait()
        self._answers.append(response)
        self._ring()

    async def opened(self, grace_s: float) -> None:
        """Wait until the first message was taken, but not for long."""
        try:
            async with asyncio.timeout(grace_s):
                await self._is_open.wait()
        except TimeoutError:
            return

    async def fill(
        self,
        requests: AsyncIterator[pb.ExchangeRequest],
        take: Callable[[pb.ExchangeRequest], Awaitable[None]],
    ) -> None:
        """Take what the caller says, to the end of it."""
        try:
            async for request in requests:
                await take(request)
                self._is_open.set()
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            self._error = error
        finally:
            self._is_finished = True
            self._is_open.set()
            self._ring()

    async def responses(self) -> AsyncIterator[pb.ExchangeResponse]:
        """What is to be sent, until the caller has no more to say and watches nothing."""
        while True:
            bells = {self._bell, self._feed.bell}
            while self._answers:
                yield self._answers.popleft()
                self._has_room.set()
            if self._error is not None:
                raise self._error
            if self._watching is None:
                if self._is_finished:
                    return
            elif found := await self._watching.take():
                for each in found:
                    yield self._shown.of(each)
                continue
            await asyncio.wait(bells, return_when=asyncio.FIRST_COMPLETED)

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.get_running_loop().create_future()
        bell.set_result(None)
