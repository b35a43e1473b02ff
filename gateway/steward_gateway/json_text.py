"""JSON text to Python values: orjson where it is exact, decimals where a float would not be."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from typing import Any

import orjson

from steward_gateway.duplicates import duplicate_key

# Every digit or point becomes "1", so that a long number or a small exponent is a plain substring:
# several times quicker than a regular expression.
_SHAPE = bytes.maketrans(b"0123456789.E", b"11111111111e")
_LONG_NUMBER = b"1" * 16


def _needs_decimals(text: bytes) -> bool:
    """Whether a number in the text may not be told from the shortest text of its double.

    If not, each has at most 15 significant digits (or is an integer) and is far from the subnormal
    doubles: two such decimals never share a double, so the shortest text is what was written. What
    is too large for a double is refused before, and what is nearly so is no amount of anything.
    """
    shape = text.translate(_SHAPE)
    return _LONG_NUMBER in shape or b"1e-111" in shape


MAX_CONTAINERS = 20_000
"""Objects and lists in a text: each costs as much as hundreds of bytes of anything else."""
MAX_VALUES = 500_000
"""Values of any kind in a text, by the commas between them."""

_NO_MARKS = bytes(set(range(256)) - set(b'"{[,'))


def _outside_texts(raw: bytes) -> bytes:
    """The beginnings of objects and lists, and the commas, that do not stand within a text.

    A regular expression would take ten times as long.
    """
    marks = raw.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_MARKS)
    return b"".join(marks.replace(b'""', b"").split(b'"')[::2])


def _too_much(marks: bytes) -> str:
    """What there is too much of; "" if it may be read."""
    if marks.count(b"{") + marks.count(b"[") > MAX_CONTAINERS:
        return f"more than {MAX_CONTAINERS} objects and lists"
    return f"more than {MAX_VALUES} values" if marks.count(b",") >= MAX_VALUES else ""


class BadJson(ValueError):
    """The text is not JSON, or not JSON that can be held; says where."""


def parse(text: bytes | str) -> Any:
    """Read JSON.

    Raises:
        BadJson: with line and column. NaN, infinities and lone surrogates are not JSON, nor is a
            key that an object has twice. Also, if it holds more than is good for who else calls.
    """
    if len(text) > MAX_CONTAINERS:
        raw = text if isinstance(text, bytes) else text.encode()
        # What stands within texts does not count; it is rarely so much that one has to look.
        if _too_much(raw) and (told := _too_much(_outside_texts(raw))):
            raise BadJson(f"the body holds {told}")
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadJson(
            f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    if type(value) is dict and type(text) is bytes and len(value) == text.count(b":"):
        return value  # a colon follows every key: none was lost
    try:
        twice = duplicate_key(text, value)
    except RecursionError:
        raise BadJson("the body is nested too deeply") from None
    if twice is not None:
        raise BadJson(f"the body has the key {twice!r} twice in one object")
    return value


def parse_exactly(text: bytes | str) -> Any:
    """As `parse`, with `Decimal` for numbers that a double could not stand for.

    Raises:
        BadJson: as `parse`, or a number has too many digits.
    """
    value = parse(text)
    raw = text if isinstance(text, bytes) else text.encode()
    if not _needs_decimals(raw):
        return value
    try:
        return json.loads(raw, parse_float=Decimal)
    except (InvalidOperation, ValueError):
        raise BadJson("a number in the body has too many digits") from None
    except RecursionError:
        raise BadJson("the body is nested too deeply") from None
