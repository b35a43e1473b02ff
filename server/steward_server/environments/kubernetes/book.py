"""The log of one machine on this server's disk: numbered lines in a bounded ring of files.

A cluster keeps what the main command writes until the pod is gone, with its time but without a
number; the book gives numbers, which stay what they are when the server starts again, and holds
what other commands have written. It has one writer, this process, which wakes whoever reads.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from steward_server.environments.driver import LogRecord
from steward_server.environments.removal import remove_tree

MOST_LINE_BYTES = 64 * 1024
"""A longer line is cut into several."""
_PLACE = "place"
_SEGMENT_COUNT = 8
_READ_BYTES = 256 * 1024
_LOOK_AGAIN_S = 0.5
"""How long nothing is written before it is looked anyway whether more can come."""


class Book:
    """One of them."""

    def __init__(self, folder: Path, *, most_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._segment_bytes = max(most_bytes // _SEGMENT_COUNT, MOST_LINE_BYTES + 128)
        starts = (int(each.stem) for each in folder.glob("*.log") if each.stem.isdecimal())
        self._starts = sorted(starts)
        self._next = 1
        self._written_bytes = self._segment_bytes  # the first line begins a segment
        self._written = asyncio.Event()
        self._reader_count = 0
        if self._starts:
            self._take_up(self._path(self._starts[-1]))

    def _path(self, start: int) -> Path:
        return self.folder / f"{start:020d}.log"

    def _take_up(self, path: Path) -> None:
        """Go on where the last server stopped, and cut off what it had not finished."""
        content = path.read_bytes()
        whole, end, _ = content.rpartition(b"\n")
        self._written_bytes = len(whole) + len(end)
        os.truncate(path, self._written_bytes)
        self._next = self._starts[-1] + whole.count(b"\n") + len(end)

    def add(self, stream: str, lines: Sequence[bytes], at_us: int | None = None) -> None:
        """Write lines that came together."""
        at_us = time.time_ns() // 1_000 if at_us is None else at_us
        head = b"%d %s " % (at_us, stream.encode())
        waiting = bytearray()
        for line in lines:
            for start in range(0, max(len(line), 1), MOST_LINE_BYTES):
                part = line[start : start + MOST_LINE_BYTES].replace(b"\n", b" ")
                if (
                    self._written_bytes + len(waiting) + len(head) + len(part)
                    >= self._segment_bytes
                ):
                    self._append(waiting)
                    self._turn()
                waiting += head + part + b"\n"
                self._next += 1
        self._append(waiting)
        self._written.set()
        self._written = asyncio.Event()

    def _append(self, waiting: bytearray) -> None:
        if waiting:
            with self._path(self._starts[-1]).open("ab") as segment:
                segment.write(waiting)
            self._written_bytes += len(waiting)
            waiting.clear()

    def _turn(self) -> None:
        """Begin the next segment and drop the oldest."""
        self._path(self._next).touch(mode=0o600)
        self._starts.append(self._next)
        self._written_bytes = 0
        while len(self._starts) > _SEGMENT_COUNT:
            self._path(self._starts.pop(0)).unlink(missing_ok=True)

    def after_of_tail(self, tail: int) -> int:
        """The number of the line before the last `tail` ones."""
        return max(0, self._next - 1 - tail)

    async def read(
        self, after: int, *, follow: bool, is_over: Callable[[], bool]
    ) -> AsyncIterator[LogRecord]:
        """The lines after a number; with `follow` those to come too, until it is over."""
        sequence, offset = after + 1, None
        self._reader_count += 1
        try:
            while True:
                written, over = self._written, is_over()
                while sequence < self._next:
                    if sequence < self._starts[0]:  # overtaken by the ring
                        sequence, offset = self._starts[0], None
                    records, sequence, offset = self._some(sequence, offset)
                    for record in records:
                        yield record
                    await asyncio.sleep(0)  # a long log is read in pieces; others have their turn
                if over or not follow:
                    return
                try:
                    async with asyncio.timeout(_LOOK_AGAIN_S):
                        await written.wait()
                except TimeoutError:
                    continue
        finally:
            self._reader_count -= 1

    def _some(self, sequence: int, offset: int | None) -> tuple[list[LogRecord], int, int | None]:
        """Some lines from a number on, with the number and the place of the next."""
        start = max(each for each in self._starts if each <= sequence)
        path, skipped = self._path(start), 0
        if offset is None or start == sequence:
            offset, skipped = 0, sequence - start
        with path.open("rb") as segment:
            segment.seek(offset)
            # At least one line, and of a line all of it.
            content = segment.read(max(_READ_BYTES, 2 * MOST_LINE_BYTES))
        whole = content[: content.rindex(b"\n") + 1]
        records: list[LogRecord] = []
        number = sequence - skipped
        for line in whole[:-1].split(b"\n"):
            if number >= sequence:
                at_us, stream, message = line.split(b" ", 2)
                text = message.decode(errors="replace")
                records.append(LogRecord(number, int(at_us), stream.decode(), text))
            number += 1
        if number <= sequence and not records:  # all of it was before what is wanted
            return self._skip(start, offset + len(whole), number, sequence)
        return records, number, offset + len(whole)

    def _skip(
        self, start: int, offset: int, number: int, sequence: int
    ) -> tuple[list[LogRecord], int, int | None]:
        """Go through a segment to a number deep in it."""
        with self._path(start).open("rb") as segment:
            segment.seek(offset)
            for _ in range(sequence - number):
                offset += len(segment.readline())
        return [], sequence, offset

    async def last_call(self, limit_s: float) -> None:
        """Wake who reads, and wait until nobody does; not for long."""
        deadline = time.monotonic() + limit_s
        self._written.set()
        while self._reader_count and time.monotonic() < deadline:  # noqa: ASYNC110 - short
            await asyncio.sleep(0.005)

    @property
    def place(self) -> tuple[str, int]:
        """Up to where the main command's lines stand in it.

        The time of the last one, as the cluster writes it, and how many of that very time.
        """
        try:
            text, count = (self.folder / _PLACE).read_text(encoding="ascii").split()
        except (FileNotFoundError, ValueError):
            return "", 0
        return text, int(count)

    @place.setter
    def place(self, value: tuple[str, int]) -> None:
        fresh = self.folder / f"{_PLACE}.new"
        fresh.write_text(f"{value[0]} {value[1]}", encoding="ascii")
        fresh.replace(self.folder / _PLACE)

    def remove(self) -> None:
        """Nothing of it is left."""
        remove_tree(self.folder, ignore_errors=True)
        self._starts, self._next = [], 1
