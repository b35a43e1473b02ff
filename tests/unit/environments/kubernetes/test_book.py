"""The numbered log that the driver keeps of a machine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from steward_server.environments.driver import LogRecord
from steward_server.environments.kubernetes.book import MOST_LINE_BYTES, Book


async def read(book: Book, after: int = 0) -> list[LogRecord]:
    return [each async for each in book.read(after, follow=False, is_over=lambda: True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "book"


async def test_lines_are_numbered_from_one_and_keep_their_time_and_stream(folder: Path) -> None:
    book = Book(folder, most_bytes=1 << 20)
    book.add("stdout", [b"one", b"", b"t\nwo", b"\xff"], at_us=7)
    book.add("system", [b"three"], at_us=8)
    assert await read(book) == [
        LogRecord(1, 7, "stdout", "one"),
        LogRecord(2, 7, "stdout", ""),
        LogRecord(3, 7, "stdout", "t wo"),
        LogRecord(4, 7, "stdout", "\ufffd"),
        LogRecord(5, 8, "system", "three"),
    ]


async def test_a_book_that_is_opened_again_goes_on_where_it_was(folder: Path) -> None:
    Book(folder, most_bytes=1 << 20).add("stdout", [b"one", b"two"], at_us=1)
    last = max(folder.glob("*.log"))
    last.write_bytes(last.read_bytes() + b"5 stdout torn in the mid")
    again = Book(folder, most_bytes=1 << 20)
    again.add("stdout", [b"three"], at_us=2)
    assert [(each.sequence, each.message) for each in await read(again)] == [
        (1, "one"),
        (2, "two"),
        (3, "three"),
    ]


async def test_an_empty_segment_is_taken_up_too(folder: Path) -> None:
    Book(folder, most_bytes=1 << 20).add("stdout", [b"one"], at_us=1)
    (folder / f"{2:020d}.log").touch()
    again = Book(folder, most_bytes=1 << 20)
    again.add("stdout", [b"two"], at_us=1)
    assert [each.message for each in await read(again)] == ["one", "two"]


async def test_the_oldest_lines_go_first_and_the_numbers_have_no_holes(folder: Path) -> None:
    book = Book(folder, most_bytes=1)
    for at in range(0, 60_000, 100):
        book.add("stdout", [b"x" * 20 + b"%d" % (at + each) for each in range(100)])
    found = await read(book)
    assert [each.sequence for each in found] == list(range(found[0].sequence, 60_001))
    assert found[-1].message == "x" * 20 + "59999"
    assert sum(each.stat().st_size for each in folder.iterdir()) <= 8 * (MOST_LINE_BYTES + 128)
    assert Book(folder, most_bytes=1).after_of_tail(10) == 59_990


@pytest.mark.parametrize("after", [0, 1, 9_999, 14_000, 14_999, 15_000, 20_000])
async def test_reading_begins_anywhere(folder: Path, after: int) -> None:
    book = Book(folder, most_bytes=64 << 20)
    book.add("stdout", [b"y" * 60 + b"%d" % each for each in range(1, 15_001)])
    found = await read(book, after)
    assert [each.sequence for each in found] == list(range(after + 1, 15_001))
    assert all(each.message.endswith(f"y{each.sequence}") for each in found)


async def test_a_long_line_is_cut_into_several(folder: Path) -> None:
    book = Book(folder, most_bytes=1)
    book.add("stdout", [b"z" * (3 * MOST_LINE_BYTES + 5)])
    assert [len(each.message) for each in await read(book)] == [*[MOST_LINE_BYTES] * 3, 5]


async def test_who_follows_is_woken_and_overtaken_but_never_told_twice(folder: Path) -> None:
    book = Book(folder, most_bytes=1)
    is_over = False
    found: list[int] = []

    async def follow() -> None:
        async for each in book.read(0, follow=True, is_over=lambda: is_over):
            found.append(each.sequence)
            if len(found) % 1_000 == 0:
                await asyncio.sleep(0.01)

    following = asyncio.create_task(follow())
    for _ in range(200):
        book.add("stdout", [b"w" * 80] * 200)
        await asyncio.sleep(0)
    is_over = True
    async with asyncio.timeout(10):
        await following
    assert found == sorted(set(found))
    assert found[-1] == 40_000


async def test_the_place_of_the_main_command_is_kept(folder: Path) -> None:
    book = Book(folder, most_bytes=1)
    assert book.place == ("", 0)
    book.place = ("2026-01-22T10:00:15.000000001Z", 2)
    assert Book(folder, most_bytes=1).place == ("2026-01-22T10:00:15.000000001Z", 2)
