"""Work that must not stop half-way."""

from __future__ import annotations

import asyncio

import pytest

from steward_server.completion import complete
from steward_server.errors import NotFound


async def test_the_result_and_the_error_reach_whoever_waits() -> None:
    async def answer() -> int:
        return 7

    async def fail() -> int:
        raise NotFound("nothing")

    assert await complete(answer()) == 7
    with pytest.raises(NotFound):
        await complete(fail())


async def test_work_goes_on_when_its_caller_is_cancelled() -> None:
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        done.set()

    caller = asyncio.ensure_future(complete(work()))
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go_on.set()
    await asyncio.wait_for(done.wait(), 30)


async def test_an_error_that_nobody_waits_for_is_not_reported_as_forgotten() -> None:
    unheard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: unheard.append(what))
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await go_on.wait()
        raise NotFound("nothing")

    caller = asyncio.ensure_future(complete(work()))
    await begun.wait()
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    go_on.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert unheard == []
