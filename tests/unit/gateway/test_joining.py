"""Frames that are there together are written together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steward_gateway.joining import MOST_WAITING_BYTES, JoinedWriter


class Reader:
    """A response whose reader takes what it is let."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self.has_gone = False

    async def write(self, data: bytes) -> None:
        if self.has_gone:
            raise ConnectionResetError
        self.written.append(data)
        await self.takes.wait()


def joined(reader: Reader) -> JoinedWriter:
    response: Any = reader
    return JoinedWriter(response)


async def pause() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_there_is_one_write_and_none_waits_for_more() -> None:
    reader = Reader()
    async with joined(reader) as writer:
        await writer.write(b"a")
        await writer.write(b"b")
        await pause()
        assert reader.written == [b"ab"]
        await writer.write(b"c")
    assert reader.written == [b"ab", b"c"]


async def test_all_is_written_before_an_error_is_let_through() -> None:
    reader = Reader()

    async def say() -> None:
        async with joined(reader) as writer:
            await writer.write(b"a")
            raise LookupError

    with pytest.raises(LookupError):
        await say()
    assert reader.written == [b"a"]


async def test_who_says_more_than_is_read_waits_for_the_reader() -> None:
    reader = Reader()
    reader.takes.clear()
    given = 0

    async def say() -> None:
        nonlocal given
        async with joined(reader) as writer:
            for _ in range(100):
                await writer.write(bytes(MOST_WAITING_BYTES // 4))
                given += 1

    saying = asyncio.create_task(say())
    await pause()
    assert given < 10
    reader.takes.set()
    await saying
    assert sum(map(len, reader.written)) == 100 * (MOST_WAITING_BYTES // 4)


async def test_a_reader_who_has_gone_is_told_of_and_nobody_waits_for_them() -> None:
    reader = Reader()
    reader.has_gone = True

    async def say() -> None:
        async with joined(reader) as writer:
            for _ in range(10):
                await writer.write(bytes(MOST_WAITING_BYTES))

    with pytest.raises(ConnectionResetError):
        await say()


async def test_who_is_cancelled_does_not_wait_for_a_reader() -> None:
    reader = Reader()
    reader.takes.clear()

    async def say() -> None:
        async with joined(reader) as writer:
            while True:
                await writer.write(bytes(MOST_WAITING_BYTES))

    saying = asyncio.create_task(say())
    await pause()
    saying.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait({saying})
    assert saying.cancelled()
