"""What an engine has kept of what a container's main command wrote.

Docker tells it over its API, with the time of each line. Podman's API tells seconds and loses lines
when its file is full and begun again, so there its file is read, which is on this host.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncGenerator, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from steward_server.environments.container.engine import Engine

_HEADER = struct.Struct(">BxxxL")
_STREAMS = {1: "stdout", 2: "stderr"}
_READ_BYTES = 256 * 1024
_LOOK_S = 0.05
"""How often a file is looked at while nothing comes."""

Position = tuple[int, int]
"""Behind a line: its time and how many lines have had that, or a file and an offset in it."""


class Piece(NamedTuple):
    """A line, or a part of one."""

    stream: str
    at_ns: int
    content: bytes
    """With its line end, if it has one."""
    position: Position


async def told(
    engine: Engine, container_id: str, known: Position, *, follow: bool
) -> AsyncGenerator[Sequence[Piece], None]:
    """What the engine tells, behind a position, some at a time.

    Raises:
        DockerError: it has no such container, or no log of it.
        Unusable: it does not answer.
    """
    frames = _Frames()
    parameters = {"follow": str(int(follow)), "stdout": "1", "stderr": "1", "timestamps": "1"}
    if known[0]:
        parameters["since"] = str(known[0] // 1_000_000_000)
    path = f"containers/{container_id}/logs"
    async with engine.asked(), engine.stream(path, parameters) as answer:
        async for data in answer.content.iter_any():
            yield [piece for piece in frames.add(data) if piece.position > known]


async def written(
    path: Path, known: Position, *, follow: bool
) -> AsyncGenerator[Sequence[Piece], None]:
    """What stands in Podman's file, behind a position, some at a time.

    Raises:
        FileNotFoundError: there is no such file any more.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        inode = os.fstat(fd).st_ino
        offset = known[1] if inode == known[0] else 0
        while True:
            data = os.pread(fd, _READ_BYTES, offset)
            end = data.rfind(b"\n") + 1
            if end:
                yield [*_rows(data[:end], inode, offset)]
                offset += end
                await asyncio.sleep(0)  # others have their turn
                continue
            if _inode(path) == inode:
                if not follow:
                    return
                await asyncio.sleep(_LOOK_S)
                continue
            if os.fstat(fd).st_size > offset:
                continue  # it came before the turn
            os.close(fd)
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            inode, offset = os.fstat(fd).st_ino, 0
    finally:
        os.close(fd)


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _rows(data: bytes, inode: int, offset: int) -> Iterator[Piece]:
    """Rows such as `2026-01-22T10:00:15.123456789+00:00 stdout F text`; P is a part of a line."""
    for row in data.split(b"\n")[:-1]:
        offset += len(row) + 1
        at, stream, kind, content = (*row.split(b" ", 3), b"", b"", b"")[:4]
        end = b"" if kind == b"P" else b"\n"
        yield Piece(stream.decode(), _nanoseconds(at), content + end, (inode, offset))


@lru_cache(maxsize=4_096)
def _nanoseconds(at: bytes) -> int:
    return nanoseconds(at.decode())


class _Frames:
    """Cuts the stream of the API into lines."""

    def __init__(self) -> None:
        self._rest = b""
        self._at_ns = self._count = 0

    def add(self, data: bytes) -> Iterator[Piece]:
        data = self._rest + data
        start = 0
        while start + _HEADER.size <= len(data):
            kind, length = _HEADER.unpack_from(data, start)
            end = start + _HEADER.size + length
            if end > len(data):
                break
            at, _, content = data[start + _HEADER.size : end].partition(b" ")
            at_ns = _nanoseconds(at)
            self._count = self._count + 1 if at_ns == self._at_ns else 1
            self._at_ns = at_ns
            yield Piece(_STREAMS.get(kind, "stdout"), at_ns, content, (at_ns, self._count))
            start = end
        self._rest = data[start:]


def nanoseconds(text: str) -> int:
    """Of a time such as 2026-01-22T10:00:15.123456789Z; 0 if it is none."""
    whole, dot, rest = text.partition(".")
    digits = ""
    while dot and rest and rest[0].isdigit():
        digits, rest = digits + rest[0], rest[1:]
    try:
        seconds = int(datetime.fromisoformat(whole + rest).timestamp())
    except ValueError:
        return 0
    return seconds * 1_000_000_000 + int(digits.ljust(9, "0")[:9])
