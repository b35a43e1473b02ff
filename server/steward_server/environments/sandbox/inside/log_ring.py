"""What a machine writes, kept in a bounded ring of segment files.

A segment is named after the first line in it and is a row of records; a record holds whole lines
of one stream that came together, so a flood costs one record per read and not one per line. Lines
are numbered from 1 without holes. There is one writer, the machine's supervisor; readers need
nothing from it and find what is torn at the end of a segment to be not there yet.
"""

# pathlib would be a megabyte in every machine's pid 1.
from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("<IIQQBxxx")  # payload bytes, lines, first line's number, time in us, stream
MOST_RECORD_BYTES = 64 * 1024
"""A longer line is cut into several."""

STREAMS = ("stdout", "stderr", "system")


class Record(NamedTuple):
    """Lines of one stream that came together."""

    sequence: int
    """Of the first line."""
    at_us: int
    stream: str
    line_count: int
    payload: bytes
    """The lines, joined by line ends, without the last one's."""


def encode(record: Record) -> bytes:
    """A record as it stands in a segment."""
    return (
        HEADER.pack(
            len(record.payload),
            record.line_count,
            record.sequence,
            record.at_us,
            STREAMS.index(record.stream),
        )
        + record.payload
    )


def decode(content: bytes, offset: int = 0) -> Iterator[tuple[Record, int]]:
    """The whole records from an offset on, each with the offset behind it."""
    while offset + HEADER.size <= len(content):
        length, lines, sequence, at_us, stream = HEADER.unpack_from(content, offset)
        end = offset + HEADER.size + length
        if end > len(content) or length > MOST_RECORD_BYTES or stream >= len(STREAMS):
            return
        payload = content[offset + HEADER.size : end]
        yield Record(sequence, at_us, STREAMS[stream], lines, payload), end
        offset = end


def segment_name(sequence: int) -> str:
    return f"{sequence:020d}.log"


def segment_start(name: str) -> int | None:
    """The number of the first line of a segment, from its file's name; None: not a segment."""
    stem, dot, kind = name.partition(".")
    return int(stem) if dot and kind == "log" and stem.isascii() and stem.isdigit() else None


class Lines:
    """Cuts the bytes of one stream into whole lines; keeps what has no end yet."""

    def __init__(self) -> None:
        self._rest = b""
        self._was_flushed = False

    @property
    def is_open(self) -> bool:
        """Whether a line was begun and not ended."""
        return bool(self._rest)

    def add(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """The lines that are whole now, some at a time: their count, and themselves."""
        if self._was_flushed:
            # The line was given without its end, which is no empty line when it comes.
            data = data.removeprefix(b"\n")
            self._was_flushed = False
        data = self._rest + data
        start = 0
        while start < len(data):
            stop = data.rfind(b"\n", start, start + MOST_RECORD_BYTES)
            if stop < 0:
                if len(data) - start < MOST_RECORD_BYTES:
                    break
                yield 1, data[start : start + MOST_RECORD_BYTES]
                start += MOST_RECORD_BYTES
                continue
            yield data.count(b"\n", start, stop) + 1, data[start:stop]
            start = stop + 1
        self._rest = data[start:]

    def flush(self) -> Iterator[tuple[int, bytes]]:
        """What has no end, as a line."""
        if self._rest:
            yield 1, self._rest
            self._rest, self._was_flushed = b"", True


class Ring:
    """The writer."""

    def __init__(self, directory_fd: int, *, segment_bytes: int, segment_count: int) -> None:
        self._directory_fd = directory_fd
        self._segment_bytes = segment_bytes
        self._segment_count = segment_count
        self._segments: list[str] = []
        self._fd = -1
        self._written_bytes = 0
        self.next_sequence = 1

    def write(self, stream: str, line_count: int, payload: bytes, at_us: int) -> None:
        """Append lines that came together; on a full disk they are lost."""
        record = Record(self.next_sequence, at_us, stream, line_count, payload)
        encoded = encode(record)
        try:
            if self._fd < 0 or self._written_bytes + len(encoded) > self._segment_bytes:
                self._turn()
            written = os.write(self._fd, encoded)
            if written < len(encoded):
                os.ftruncate(self._fd, self._written_bytes)
                return
        except OSError:
            return
        self._written_bytes += written
        self.next_sequence += line_count

    def _turn(self) -> None:
        """Begin the next segment and drop the oldest."""
        name = segment_name(self.next_sequence)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(name, flags, 0o600, dir_fd=self._directory_fd)
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._written_bytes = fd, 0
        self._segments.append(name)
        while len(self._segments) > self._segment_count:
            os.unlink(self._segments.pop(0), dir_fd=self._directory_fd)
