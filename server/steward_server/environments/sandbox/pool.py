"""Machines that are made ahead, for whoever asks next for one like the last.

They are nobody's: name, variables, limits and labels come when they are given away, and nothing
has run in them before.
"""

from __future__ import annotations

import asyncio
import select
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from uuid import uuid4

import structlog

from steward_server.environments.driver import Unusable
from steward_server.environments.sandbox.making import Body, Shape

SPARE = "spare-"
"""How their folders begin until they are given away."""
_MOST_SHAPES = 4
"""That are kept ahead at the same time; the one that was asked for longest ago goes."""

_PATIENCE_S = 0.05

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Shelf:
    shape: Shape
    bodies: list[Body]


class Pool:
    """Spare machines of the shapes that were asked for last."""

    def __init__(
        self,
        make: Callable[[str, Shape], Awaitable[Body]],
        size: int,
        discard: Callable[[Body], Awaitable[None]],
    ) -> None:
        self._make = make
        self._size = size
        self._discard = discard
        self._shelves: OrderedDict[Shape, _Shelf] = OrderedDict()
        self._ended: list[Body] = []
        """Of no use to anybody, as where the host was short of memory."""
        self._refilling: asyncio.Task[None] | None = None
        self._is_closed = False

    def take(self, shape: Shape) -> Body | None:
        """One of the shape, if there is one; more are made from now on."""
        if not self._size or self._is_closed:
            return None
        shelf = self._shelves.setdefault(shape.frame, _Shelf(shape, []))
        self._shelves.move_to_end(shape.frame)
        body = None
        while body is None and shelf.bodies:
            body = shelf.bodies.pop(0)
            if _has_ended(body):
                self._ended.append(body)
                body = None
        if self._refilling is None or self._refilling.done():
            self._refilling = asyncio.get_running_loop().create_task(self._refill())
        return body

    async def aclose(self) -> None:
        """Make no more, and let those go that there are."""
        self._is_closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            with suppress(asyncio.CancelledError):
                await self._refilling
        while self._shelves:
            await self._drop_oldest()
        await self._drop_ended()

    async def _refill(self) -> None:
        while True:
            # Whoever has just taken one runs something in it now, and is not to wait for this.
            await asyncio.sleep(_PATIENCE_S)
            await self._drop_ended()
            while len(self._shelves) > _MOST_SHAPES:
                await self._drop_oldest()
            lacking = [key for key, each in self._shelves.items() if len(each.bodies) < self._size]
            if not lacking:
                return
            shelf = self._shelves[lacking[-1]]
            try:
                body = await self._make(f"{SPARE}{uuid4().hex[:16]}", shelf.shape)
            except (Unusable, OSError) as error:
                # Its image may have gone. Whoever asks for one like it is told; here nobody waits.
                log.warning("sandbox.no_spare", why=str(error))
                self._shelves.move_to_end(lacking[-1], last=False)
                await self._drop_oldest()
                continue
            shelf.bodies.append(body)

    async def _drop_oldest(self) -> None:
        _, shelf = self._shelves.popitem(last=False)
        for body in shelf.bodies:
            await self._discard(body)

    async def _drop_ended(self) -> None:
        while self._ended:
            await self._discard(self._ended.pop())


def _has_ended(body: Body) -> bool:
    death = select.poll()
    death.register(body.pidfd, select.POLLIN)
    return bool(death.poll(0))
