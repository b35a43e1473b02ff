"""Times of last use: noted in memory, written in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from steward_server.errors import Unavailable
from steward_server.last_use import LastUse


class Disk:
    """Runs work, or fails to."""

    def __init__(self) -> None:
        self.written: list[dict[str, int]] = []
        self.is_full = False

    async def run(self, work: Callable[[Any], Awaitable[Any]]) -> Any:
        if self.is_full:
            raise Unavailable("full")
        return await work(self)

    async def save(self, _: Any, times_us: Mapping[str, int]) -> None:
        self.written.append(dict(times_us))


def made() -> tuple[LastUse, Disk]:
    disk = Disk()
    return LastUse(disk, disk.save), disk  # type: ignore[arg-type]


async def test_many_uses_are_one_write() -> None:
    last_use, disk = made()
    for now_us in range(100):
        last_use.note("token_1", now_us)
    last_use.note("token_2", 5)
    await last_use.write()
    assert disk.written == [{"token_1": 99, "token_2": 5}]


async def test_nothing_new_is_not_written() -> None:
    last_use, disk = made()
    last_use.note("token_1", 1)
    await last_use.write()
    await last_use.write()
    assert len(disk.written) == 1


async def test_what_could_not_be_written_is_written_the_next_time() -> None:
    last_use, disk = made()
    last_use.note("token_1", 1)
    disk.is_full = True
    with pytest.raises(Unavailable):
        await last_use.write()
    disk.is_full = False
    await last_use.write()
    assert disk.written == [{"token_1": 1}]


@pytest.mark.parametrize(
    ("noted_us", "stored_us", "newest_us"),
    [(None, None, None), (None, 3, 3), (4, None, 4), (4, 3, 4), (3, 4, 4)],
)
def test_the_later_of_noted_and_stored_is_shown(
    noted_us: int | None, stored_us: int | None, newest_us: int | None
) -> None:
    last_use, _ = made()
    if noted_us is not None:
        last_use.note("token_1", noted_us)
    assert last_use.newest_us("token_1", stored_us) == newest_us


async def test_the_writer_goes_on_after_a_failure_until_it_is_cancelled() -> None:
    last_use, disk = made()
    last_use.note("token_1", 1)
    disk.is_full = True
    writing = asyncio.ensure_future(last_use.keep_writing(0.001))
    await asyncio.sleep(0.01)
    disk.is_full = False
    async with asyncio.timeout(30):
        while not disk.written:
            await asyncio.sleep(0.001)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
