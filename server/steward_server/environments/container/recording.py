"""Records what a container's main command writes, from its engine's log, into the ring.

The engine's log is unnumbered, has one line at a time and ends when it likes. The ring is what is
read: numbered without holes, bounded, with the lines of other commands between. A server that
comes after a killed one goes on behind the last line that was recorded: none is lost, none comes
twice.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing, suppress
from pathlib import Path

from steward_server.environments.container import engine_log
from steward_server.environments.container.engine import Engine
from steward_server.environments.container.engine_log import Piece, Position
from steward_server.environments.driver import Exit
from steward_server.environments.sandbox.inside.log_ring import (
    Lines,
    Ring,
    decode,
    segment_start,
)
from steward_server.environments.sandbox.logs import exit_of

_OPEN_LINE_S = 1.0
"""How long a line without an end, such as a question, is waited for before it is recorded."""
_TOGETHER_NS = 1_000_000
_SEGMENTS = 16
_SLOT = struct.Struct("<QQQ40x")


class KeptRing(Ring):
    """A ring that goes on where one before it in the same folder has ended."""

    def __init__(self, folder: Path, *, log_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        super().__init__(
            self.folder_fd, segment_bytes=log_bytes // _SEGMENTS, segment_count=_SEGMENTS
        )
        found = sorted(path for path in folder.iterdir() if segment_start(path.name) is not None)
        self._segments = [path.name for path in found]
        if found:
            self.next_sequence = segment_start(found[-1].name) or 1
            for record, _ in decode(found[-1].read_bytes()):
                self.next_sequence = record.sequence + record.line_count
            if self.next_sequence == segment_start(found[-1].name):
                self._segments.pop()  # empty: it is begun again

    def close(self) -> None:
        for fd in (self._fd, self.folder_fd):
            if fd >= 0:
                os.close(fd)


class Cursor:
    """Up to where the engine's log is recorded.

    It is written before the ring is, with what the ring then has; whichever of two is true after a
    kill is known by comparing.
    """

    def __init__(self, folder: Path, next_sequence: int) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(folder / "cursor", flags, 0o600)
        content = os.pread(self._fd, 2 * _SLOT.size, 0).ljust(2 * _SLOT.size, b"\0")
        slots = [_SLOT.unpack_from(content, place * _SLOT.size) for place in range(2)]
        true = max(slot if slot[0] <= next_sequence else (0, 0, 0) for slot in slots)
        self.position: Position = true[1:]
        self._place = 0
        for _ in slots:
            self._write(*true)

    def move(self, position: Position, *, next_sequence: int) -> None:
        self.position = position
        self._write(next_sequence, *position)

    def _write(self, *slot: int) -> None:
        with suppress(OSError):  # a full disk: lines may then come twice after a kill
            os.pwrite(self._fd, _SLOT.pack(*slot), self._place * _SLOT.size)
        self._place = 1 - self._place

    def close(self) -> None:
        os.close(self._fd)


class Recorder:
    """The writer of one machine's log."""

    def __init__(self, folder: Path, engine: Engine, container_id: str, *, log_bytes: int) -> None:
        self.folder = folder
        self.engine_file: Path | None = None
        """Podman's own, if it is that."""
        self._engine = engine
        self._container_id = container_id
        self._ring = KeptRing(folder, log_bytes=log_bytes)
        self._cursor = Cursor(folder, self._ring.next_sequence)
        self._position = self._cursor.position
        self._lines = {"stdout": Lines(), "stderr": Lines()}
        self._flushing: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def catch_up(self, *, follow: bool) -> None:
        """Record what the engine has, and with `follow` what comes, until its log ends.

        Raises:
            DockerError: it has no such container, or no log of it.
            OSError: the same.
            Unusable: it does not answer.
        """
        known = self._position
        if self.engine_file is None:
            pieces = engine_log.told(self._engine, self._container_id, known, follow=follow)
        else:
            pieces = engine_log.written(self.engine_file, known, follow=follow)
        async with aclosing(pieces):
            async for some in pieces:
                self._record(some)

    def _record(self, pieces: Sequence[Piece]) -> None:
        """Lines of one stream that came together are one record."""
        together: list[Piece] = []
        for piece in pieces:
            first = together[0] if together else piece
            if piece.stream != first.stream or piece.at_ns - first.at_ns >= _TOGETHER_NS:
                self._write(together)
                together = []
            together.append(piece)
        if together:
            self._write(together)
        if self._flushing is None and any(each.is_open for each in self._lines.values()):
            loop = asyncio.get_running_loop()
            self._flushing = loop.call_later(_OPEN_LINE_S, self._flush)

    def _write(self, pieces: Sequence[Piece]) -> None:
        self._position = pieces[-1].position
        lines = self._lines.get(pieces[0].stream)
        if lines is not None:
            content = b"".join(piece.content for piece in pieces)
            self._put(pieces[0].stream, lines.add(content), pieces[0].at_ns // 1_000)

    def _put(self, stream: str, lines: Iterator[tuple[int, bytes]], at_us: int) -> None:
        for count, payload in lines:
            after = self._ring.next_sequence + count
            self._cursor.move(self._position, next_sequence=after)
            self._ring.write(stream, count, payload, at_us)

    def _flush(self) -> None:
        """Record what has no end yet."""
        self._flushing = None
        if not self._is_closed:
            for stream, lines in self._lines.items():
                self._put(stream, lines.flush(), time.time_ns() // 1_000)

    def add(self, stream: str, texts: Sequence[str]) -> None:
        """Record lines of another command, or what the driver has to say."""
        payload = "".join(f"{text}\n" for text in texts).encode(errors="surrogateescape")
        now_us = time.time_ns() // 1_000
        for count, part in Lines().add(payload):
            self._ring.write(stream, count, part, now_us)

    def end(self, ended: Exit, *, tell: bool) -> None:
        """Record how the main command ended; once."""
        self._flush()
        if exit_of(self.folder) is None:
            how = f"signal {ended.signal}" if ended.signal else f"code {ended.code}"
            if tell:
                self.add("system", [f"the main command ended with {how}"])
            with suppress(OSError):
                (self.folder / "exit").write_text(f"{ended.code} {ended.signal or 0}\n")

    def close(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
        if not self._is_closed:
            self._is_closed = True
            self._ring.close()
            self._cursor.close()
