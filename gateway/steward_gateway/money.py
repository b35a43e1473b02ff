"""Nano-dollars and the decimal dollars JSON shows: exact both ways, no binary float in between."""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

import orjson

NANOS_PER_DOLLAR = 1_000_000_000
MAX_NANOUSD = 2**63 - 1
_SURE = 1_000_000
"""Dollars below which a count of nano-dollars has at most 15 digits."""
_PLAIN = 100_000
"""Nano-dollars from which on a double is written without an exponent."""

MAX_DIGITS = 40  # of a number given as text; the largest amount has 19

FIELD_SUFFIX = "_nanousd"
JSON_SUFFIX = "_usd"

_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?")
# Twice the digits of any amount: a result that does not fit has decimals below a nano-dollar.
_EXACT = Context(prec=2 * MAX_DIGITS, traps=[Inexact, InvalidOperation, Overflow])


class NotMoney(ValueError):
    """The value is no amount of dollars; the text says why."""


def dollars(nanousd: int) -> float | orjson.Fragment:
    """Give what orjson prints as that many dollars, without trailing zeros: 1.25, 3."""
    whole, rest = divmod(nanousd, NANOS_PER_DOLLAR)
    if not rest:
        return whole
    if _PLAIN <= nanousd < _SURE * NANOS_PER_DOLLAR:
        # At most 15 digits: the shortest text of the nearest double is the exact amount.
        return nanousd / NANOS_PER_DOLLAR
    if nanousd >= 0:
        return orjson.Fragment((b"%d.%09d" % (whole, rest)).rstrip(b"0"))
    whole, rest = divmod(-nanousd, NANOS_PER_DOLLAR)
    return orjson.Fragment((b"-%d.%09d" % (whole, rest)).rstrip(b"0"))


def nanousd(value: object) -> int:
    """Read dollars, given as a number of JSON or as its text, into nano-dollars.

    A float is read by its shortest text. That is the text it came from, if that had at most 15
    significant digits and was no subnormal number: two such decimals never share a double. Longer
    ones must come as `Decimal`; `json_text.parse_exactly` sees to that.

    Raises:
        NotMoney: no number, more than 9 decimals, or beyond a signed 64-bit count of nano-dollars.
    """
    if type(value) is float:
        return _from_float(value)
    if type(value) is int:
        return _in_range(value * NANOS_PER_DOLLAR)
    if type(value) is Decimal:
        return _from_decimal(value)
    if type(value) is str:
        if len(value) > MAX_DIGITS or not _TEXT.fullmatch(value):
            raise NotMoney("must be an amount in dollars, such as 1.25")
        return _from_decimal(Decimal(value))
    raise NotMoney("must be an amount in dollars, such as 1.25")


def _from_float(value: float) -> int:
    if -_SURE < value < _SURE:
        nanos = round(value * NANOS_PER_DOLLAR)
        # A quotient is rounded correctly, and no other decimal of 15 digits has the same double:
        # if it is this one, then so many nano-dollars were written.
        if nanos / NANOS_PER_DOLLAR == value:
            return nanos
    return _from_decimal(Decimal(repr(value)))


def _from_decimal(value: Decimal) -> int:
    if not value.is_finite():
        raise NotMoney("must be an amount in dollars, such as 1.25")
    # Compared before it is scaled: an exponent of millions would be written out as digits.
    if abs(value) > MAX_NANOUSD // NANOS_PER_DOLLAR + 1:
        raise NotMoney(_RANGE)
    try:
        nanos = _EXACT.multiply(value, NANOS_PER_DOLLAR)
        whole = _EXACT.to_integral_exact(nanos)
    except Inexact:
        raise NotMoney("must have at most 9 decimals") from None
    return _in_range(int(whole))


_RANGE = "must be from -9223372036.854775808 to 9223372036.854775807 dollars"


def _in_range(nanos: int) -> int:
    if -MAX_NANOUSD - 1 <= nanos <= MAX_NANOUSD:
        return nanos
    raise NotMoney(_RANGE)
