"""Reads what machines have written, from the segments that their supervisors keep."""

from __future__ import annotations

import asyncio
import os
import struct
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from steward_server.environments.driver import Exit, LogRecord
from steward_server.environments.sandbox.inside import linux
from steward_server.environments.sandbox.inside.log_ring import Record, decode, segment_start

_READ_BYTES = 256 * 1024
_POLL_S = 0.5
"""How long nothing is heard before it is looked anyway, such as whether the machine is gone."""
_TOGETHER_S = 0.002
"""How long more is waited for once something was heard, so that a flood is read in pieces."""
_IN_MODIFY, _IN_CREATE = 0x2, 0x100
_CACHED_READS = 64
_CACHED_LINES = 50_000
"""A line takes some 200 bytes beside its text; one read may hold a hundred thousand."""


class Reader:
    """The log of one machine."""

    def __init__(self, folder: Path, cache: Cache, bells: Bells) -> None:
        self._folder = folder
        self._cache = cache
        self._bells = bells

    def segments(self) -> list[tuple[int, Path]]:
        """The segments there are, oldest first, with the number of each one's first line."""
        try:
            names = os.listdir(self._folder)  # noqa: PTH208 - names only, many times a second
        except FileNotFoundError:
            return []
        found = ((segment_start(name), self._folder / name) for name in names)
        return sorted((start, path) for start, path in found if start is not None)

    def after_of_tail(self, tail: int) -> int:
        """The number of the line before the last `tail` ones."""
        last = 0
        for start, path in self.segments()[-1:]:
            last, offset, end = start - 1, 0, -1
            while end != offset:
                offset = max(end, 0)
                for record, end in _records(path, offset):  # noqa: B007
                    last = record.sequence + record.line_count - 1
                end = max(end, offset)
        return max(0, last - tail)

    async def follow(
        self, after: int, *, is_over: Callable[[], bool], follow: bool
    ) -> AsyncIterator[Sequence[LogRecord]]:
        """The lines after a number, some at a time; with `follow` until it is over."""
        position: tuple[Path, int] | None = None
        bell = self._bells.listen(self._folder) if follow else -1
        try:
            while True:
                rings = self._bells.rings(bell)
                over = is_over()  # asked before it is looked: what came last is still told
                async for behind, lines in self._available(position, after):
                    position = behind
                    if lines:
                        after = lines[-1].sequence
                        yield lines
                if over or not follow:
                    return
                await self._bells.wait(bell, rings)
        finally:
            self._bells.leave(bell)

    async def _available(
        self, position: tuple[Path, int] | None, after: int
    ) -> AsyncIterator[tuple[tuple[Path, int], Sequence[LogRecord]]]:
        """What is there now, from a position on, each with the position behind it."""
        while True:
            segments = self.segments()
            if not segments:
                return
            if position is None or not any(path == position[0] for _, path in segments):
                # New here, or overtaken by the ring: go on with what holds the next line.
                holding = [path for start, path in segments if start <= after + 1]
                position = (holding[-1] if holding else segments[0][1], 0)
            path, offset = position
            lines, end = await self._cache.read(path, offset)
            if end > offset:
                position = (path, end)
                wanted = lines if lines[0].sequence > after else _after(lines, after)
                yield position, wanted
                continue
            later = [other for _, other in segments if other.name > path.name]
            if not later:
                return
            # Nothing was added to this one before the next was seen; look once more, then turn.
            lines, end = await self._cache.read(path, offset)
            position = (path, end) if end > offset else (later[0], 0)
            yield position, _after(lines, after)


class Cache:
    """What was read last: ten who follow one log read and decode it once."""

    def __init__(self) -> None:
        self._reads: OrderedDict[tuple[Path, int], tuple[Sequence[LogRecord], int]] = OrderedDict()
        self.line_count = 0

    async def read(self, path: Path, offset: int) -> tuple[Sequence[LogRecord], int]:
        """The lines at an offset, and the offset behind them; none if nothing is there yet."""
        key = (path, offset)
        if (known := self._reads.get(key)) is not None:
            await asyncio.sleep(0)
            return known
        lines: list[LogRecord] = []
        end = offset
        for record, behind in _records(path, offset):
            lines += _lines(record)
            end = behind
        if end > offset:
            self._reads[key] = (lines, end)
            self.line_count += len(lines)
            while len(self._reads) > _CACHED_READS or (
                self.line_count > _CACHED_LINES and len(self._reads) > 1
            ):
                _, (oldest, _) = self._reads.popitem(last=False)
                self.line_count -= len(oldest)
        await asyncio.sleep(0)  # a long log is read piece by piece, and others have their turn
        return lines, end

    def forget(self, folder: Path) -> None:
        """Drop what was read from a folder."""
        for key in [key for key in self._reads if key[0].parent == folder]:
            self.line_count -= len(self._reads.pop(key)[0])


class Bells:
    """Tells who waits that something was written to a folder.

    One for all: the kernel gives a user few of what this stands on.
    """

    def __init__(self) -> None:
        self._fd = -1
        self._rings: dict[int, int] = {}
        self._listeners: dict[int, int] = {}
        self._waits: dict[int, set[asyncio.Future[None]]] = {}

    def listen(self, folder: Path) -> int:
        """Begin to listen; a number to ask by.

        A folder that is gone never rings, nor does any where the host has no more of such bells:
        then it is looked twice a second.
        """
        try:
            if self._fd < 0:
                self._fd = linux.inotify()
                asyncio.get_running_loop().add_reader(self._fd, self._heard)
            bell = linux.inotify_watch(self._fd, str(folder), _IN_MODIFY | _IN_CREATE)
        except OSError:
            return -1
        self._listeners[bell] = self._listeners.get(bell, 0) + 1
        self._rings.setdefault(bell, 0)
        return bell

    def rings(self, bell: int) -> int:
        """How often it has rung."""
        return self._rings.get(bell, 0)

    async def wait(self, bell: int, rings: int) -> None:
        """Wait until it has rung more often than that, or for a while."""
        if self.rings(bell) == rings:
            wait = asyncio.get_running_loop().create_future()
            self._waits.setdefault(bell, set()).add(wait)
            try:
                async with asyncio.timeout(_POLL_S):
                    await wait
            except TimeoutError:
                return
            finally:
                self._waits[bell].discard(wait)
        await asyncio.sleep(_TOGETHER_S)

    def leave(self, bell: int) -> None:
        """Stop listening."""
        if bell < 0:
            return
        self._listeners[bell] -= 1
        if not self._listeners[bell]:
            del self._listeners[bell], self._rings[bell]
            self._waits.pop(bell, None)
            with suppress(OSError):  # the folder is gone, and its watch with it
                linux.inotify_unwatch(self._fd, bell)

    async def last_call(self, folder: Path, limit_s: float) -> None:
        """Ring once more, and wait until nobody listens to a folder; not for long."""
        if self._fd < 0 or not self._listeners:
            return
        bell = self.listen(folder)
        try:
            self._ring(bell)
            with suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    while self._listeners.get(bell, 0) > 1:  # noqa: ASYNC110 - seldom and short
                        await asyncio.sleep(_TOGETHER_S)
        finally:
            self.leave(bell)

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _heard(self) -> None:
        try:
            content = os.read(self._fd, 64 * 1024)
        except BlockingIOError:
            return
        for bell in _watches(content):
            self._ring(bell)

    def _ring(self, bell: int) -> None:
        if bell in self._rings:
            self._rings[bell] += 1
        for wait in self._waits.get(bell, ()):
            if not wait.done():
                wait.set_result(None)


def _watches(content: bytes) -> set[int]:
    """The watches of a row of struct inotify_event."""
    found, offset = set(), 0
    while offset + 16 <= len(content):
        watch, _, _, length = struct.unpack_from("=iIII", content, offset)
        found.add(watch)
        offset += 16 + length
    return found


def _records(path: Path, offset: int) -> Iterator[tuple[Record, int]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        content = os.pread(fd, _READ_BYTES, offset)
    finally:
        os.close(fd)
    for record, end in decode(content):
        yield record, offset + end


def _lines(record: Record) -> list[LogRecord]:
    texts = record.payload.decode(errors="replace").split("\n")
    return [
        LogRecord(record.sequence + place, record.at_us, record.stream, text)
        for place, text in enumerate(texts)
    ]


def _after(lines: Sequence[LogRecord], after: int) -> Sequence[LogRecord]:
    return [line for line in lines if line.sequence > after]


def exit_of(folder: Path) -> Exit | None:
    """How a machine's main command ended, as its log's folder tells; None if it does not yet."""
    try:
        code, number = (folder / "exit").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return Exit(int(code), int(number) or None)
