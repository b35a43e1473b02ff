"""What commands write, cut into what an answer holds and into the lines of a log. Pure."""

from __future__ import annotations

from codecs import getincrementaldecoder

from steward_server.environments.driver import Stream

MAX_LINE_BYTES = 16_384
"""A longer line of a log is cut in several."""

_DECODER = getincrementaldecoder("utf-8")


class Bounded:
    """The beginning of what was written, up to a number of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held = bytearray()
        self.is_truncated = False

    def add(self, data: bytes) -> None:
        room = self._limit_bytes - len(self._held)
        self.is_truncated |= len(data) > room
        self._held += data[:room]

    def text(self) -> str:
        """As text; a character that was cut in two is left out, other bytes are replaced."""
        held = bytes(self._held)
        if self.is_truncated:
            return _DECODER("replace").decode(held)
        return held.decode(errors="replace")


class Texts:
    """Turns pieces of bytes into pieces of text without ever splitting a character."""

    def __init__(self) -> None:
        self._decoders = {stream: _DECODER("replace") for stream in Stream}

    def text(self, stream: Stream, data: bytes, *, final: bool = False) -> str:
        """What can be shown now; of the final piece everything."""
        return self._decoders[stream].decode(data, final)


class Lines:
    """Cuts what is written into lines, up to a number of bytes of both streams together."""

    def __init__(self, limit_bytes: int) -> None:
        self._left_bytes = limit_bytes
        self._begun = dict.fromkeys(Stream, b"")
        self._told = False

    def add(self, stream: Stream, data: bytes) -> list[str]:
        """The lines that are whole by now."""
        if self._told:
            return []
        taken = data[: self._left_bytes]
        self._left_bytes -= len(taken)
        *whole, rest = (self._begun[stream] + taken).split(b"\n")
        while len(rest) > MAX_LINE_BYTES:
            whole.append(rest[:MAX_LINE_BYTES])
            rest = rest[MAX_LINE_BYTES:]
        self._begun[stream] = rest
        return [_shown(line) for line in whole]

    def is_full(self) -> bool:
        """Whether more was written than goes into the log; true once."""
        if self._left_bytes or self._told:
            return False
        self._told = True
        return True

    def rest(self, stream: Stream) -> list[str]:
        """The last line, where it was not ended."""
        line, self._begun[stream] = self._begun[stream], b""
        return [_shown(line)] if line else []


def _shown(line: bytes) -> str:
    return line.removesuffix(b"\r").decode(errors="replace")


def without_beginning(data: bytes) -> bytes:
    """Bytes cut out of the middle of a text, from the first whole character on."""
    for at in range(min(4, len(data))):
        if data[at] & 0xC0 != 0x80:
            return data[at:]
    return data
