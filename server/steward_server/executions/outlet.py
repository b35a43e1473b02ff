"""What one watcher is sent next: events in order, newest frames, answers to what they said."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from steward.executions.v1 import executions_pb2 as pb
from steward_server.executions import projection
from steward_server.executions.execution import About, Event
from steward_server.executions.feed import Feed, Frame, Told

MAX_SHOWN = 256
MAX_SHOWN_BYTES = 65_536
"""Of one event that is kept: what is larger is made anew for each who watches."""
MAX_FRAMES = 32
"""Of different runs; each may have a megabyte."""
MAX_ANSWERS = 16


class Shown:
    """Responses of the newest events and frames: one object for all who watch, framed once."""

    def __init__(self) -> None:
        self._events: dict[int, pb.ExchangeResponse] = {}
        self._frames: dict[str, tuple[int, pb.ExchangeResponse]] = {}
        """Of each run the newest, with its serial."""

    def of(self, told: Told | Frame) -> pb.ExchangeResponse:
        """What is sent for either; not to be changed."""
        return self.frame(told) if isinstance(told, Frame) else self.event(*told)

    def event(self, about: About, event: Event) -> pb.ExchangeResponse:
        """What is sent for an event; not to be changed."""
        found = self._events.get(event.number)
        if found is None:
            found = pb.ExchangeResponse(execution_update=projection.update(about, event))
            if event.size <= MAX_SHOWN_BYTES:
                _make_room(self._events, MAX_SHOWN)
                self._events[event.number] = found
        return found

    def frame(self, frame: Frame) -> pb.ExchangeResponse:
        """What is sent for a frame; not to be changed."""
        execution_id = frame.about.execution_id
        serial, found = self._frames.pop(execution_id, (0, None))
        if found is None or serial != frame.serial:
            found = pb.ExchangeResponse(screenshot_frame=projection.frame(frame))
        _make_room(self._frames, MAX_FRAMES)
        self._frames[execution_id] = frame.serial, found
        return found


def _make_room(kept: dict[Any, Any], most: int) -> None:
    if len(kept) >= most:
        del kept[next(iter(kept))]


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
            for answer in self._answered():
                yield answer
            if self._error is not None:
                raise self._error
            if self._watching is None:
                if self._is_finished:
                    return
            elif found := await self._watching.take():
                for each in found:
                    yield self._shown.of(each)
                    for answer in self._answered():
                        yield answer
                continue
            await asyncio.wait(bells, return_when=asyncio.FIRST_COMPLETED)

    def _answered(self) -> Iterator[pb.ExchangeResponse]:
        while self._answers:
            self._has_room.set()
            yield self._answers.popleft()

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.get_running_loop().create_future()
        bell.set_result(None)
