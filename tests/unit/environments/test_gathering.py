"""What comes one by one is taken together as far as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from steward_server.environments.gathering import MOST_TOGETHER, MOST_TOGETHER_BYTES, gathered


def one(_: object) -> int:
    return 1


async def test_what_is_there_comes_together_and_nothing_waits_for_more() -> None:
    more = asyncio.Event()

    async def items() -> AsyncGenerator[int, None]:
        yield 1
        yield 2
        await more.wait()
        yield 3

    groups = gathered(items(), one)
    assert await anext(groups) == [1, 2]
    more.set()
    assert [group async for group in groups] == [[3]]


async def test_what_breaks_comes_after_all_that_came_before() -> None:
    async def items() -> AsyncGenerator[int, None]:
        yield 1
        raise LookupError

    groups = gathered(items(), one)
    assert await anext(groups) == [1]
    with pytest.raises(LookupError):
        await anext(groups)


@pytest.mark.parametrize(
    ("size", "most"), [(1, MOST_TOGETHER), (MOST_TOGETHER_BYTES // 4, 4)], ids=["many", "large"]
)
async def test_a_slow_taker_is_not_read_ahead_of_without_end(size: int, most: int) -> None:
    read = 0

    async def items() -> AsyncGenerator[int, None]:
        nonlocal read
        while True:
            read += 1
            yield read

    groups = gathered(items(), lambda _: size)
    first = await anext(groups)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(first) == most
    assert read <= 2 * most
    second = await anext(groups)
    assert second[0] == first[-1] + 1
    await groups.aclose()


async def test_who_leaves_ends_what_is_read() -> None:
    ended = False

    async def items() -> AsyncGenerator[int, None]:
        nonlocal ended
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            ended = True

    groups = gathered(items(), one)
    await anext(groups)
    await groups.aclose()
    assert ended
