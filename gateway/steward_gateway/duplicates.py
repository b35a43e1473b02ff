"""Whether an object in JSON text names a key twice. Pure.

Readers of JSON differ on which of the two counts, so that a body with such a key may mean one thing
to whoever let it through and another to us. orjson keeps the last without a word.
"""

from __future__ import annotations

import json
from typing import Any

import orjson

MAX_SHOWN_CHARS = 100


def duplicate_key(text: bytes | str, value: Any) -> str | None:
    """A key that stands twice in one object of a text, or None; `value` is what was read from it.

    Every key is followed by a colon. The value is written again: that has as many colons as the
    text unless a key was lost, so that counting is nearly always all it takes.

    Raises:
        RecursionError: the text is nested too deeply.
    """
    if isinstance(text, bytes):
        colons, escaped = text.count(b":"), b"\\" in text and b"\\u003" in text
    else:
        colons, escaped = text.count(":"), "\\u003" in text
    if colons < 2:
        return None
    if not escaped and _written(value).count(b":") == colons:
        return None
    return _search(text)


def _written(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # nested deeper than it writes
        return b""


def _search(text: bytes | str) -> str | None:
    found: list[str] = []

    def read(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen and not found:
                found.append(key)
            seen.add(key)

    # Numbers are not looked at, so that none is too long.
    json.loads(text, object_pairs_hook=read, parse_int=len, parse_float=len)
    return found[0][:MAX_SHOWN_CHARS] if found else None
