"""Server-sent events cut out of a stream of bytes, each whole and unchanged. Pure."""

from __future__ import annotations

from typing import Any

import orjson

DONE = object()
"""The data of the mark that ends an OpenAI stream."""


class EventSplitter:
    """Collects bytes until events are whole; joined again they are the bytes that came in."""

    def __init__(self) -> None:
        self.rest = b""
        """What belongs to an event that has not ended yet."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that ended with this chunk, each with the empty line behind it."""
        text = self.rest + chunk if self.rest else chunk
        events = []
        start = 0
        while True:
            end = _end(text, start)
            if end < 0:
                break
            events.append(text[start:end])
            start = end
        self.rest = text[start:]
        return events


def _end(text: bytes, start: int) -> int:
    plain = text.find(b"\n\n", start)
    if plain >= 0:
        plain += 2
    crlf = text.find(b"\r\n\r\n", start)
    if crlf < 0:
        return plain
    crlf += 4
    return crlf if plain < 0 else min(plain, crlf)


def event_data(event: bytes) -> Any:
    """The JSON an event carries, `DONE` for the end mark, None for anything else."""
    if event.startswith(b"data: "):
        text = event[6:]
        if b"\ndata:" in text:
            text = _joined(event)
    else:
        text = _joined(event)
    text = text.strip()
    if text == b"[DONE]":
        return DONE
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def _joined(event: bytes) -> bytes:
    lines = (line for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
