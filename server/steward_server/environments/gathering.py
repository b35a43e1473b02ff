"""What comes one by one, taken together as far as it is there: nothing waits for more to come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import TypeVar

MOST_TOGETHER = 500
MOST_TOGETHER_BYTES = 1024 * 1024
"""Of one group, and of what is read ahead of whoever takes groups."""

_T = TypeVar("_T")


async def gathered(
    items: AsyncGenerator[_T, None], size_bytes: Callable[[_T], int]
) -> AsyncGenerator[list[_T], None]:
    """The items in groups; what ends or breaks them comes after the last group.

    They are read by a task of its own, which stops ahead of a slow taker.
    """
    waiting: list[_T] = []
    total_bytes = 0
    there, room = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        nonlocal total_bytes
        async for item in items:
            waiting.append(item)
            total_bytes += size_bytes(item)
            there.set()
            if len(waiting) >= MOST_TOGETHER or total_bytes >= MOST_TOGETHER_BYTES:
                room.clear()
                await room.wait()

    reading = asyncio.create_task(read())
    reading.add_done_callback(lambda _: there.set())
    try:
        while waiting or not reading.done():
            await there.wait()
            there.clear()
            if waiting:
                group, waiting, total_bytes = waiting, [], 0
                room.set()
                yield group
        reading.result()
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        await items.aclose()
