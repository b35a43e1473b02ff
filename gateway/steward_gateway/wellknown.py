"""The texts of Timestamp, Duration, bytes and float in JSON, both ways. Pure."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
SECONDS_PER_DAY = 86_400
MIN_TIMESTAMP_S = -62_135_596_800  # 0001-01-01T00:00:00Z
MAX_TIMESTAMP_S = 253_402_300_799  # 9999-12-31T23:59:59Z
MAX_DURATION_S = 315_576_000_000  # google/protobuf/duration.proto: 10,000 years

_TO_THE_MINUTE = re.compile(r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):")
_AFTER_SECONDS = re.compile(r"(?:\.([0-9]{1,9}))?(?:Z|([+-])([0-9]{2}):([0-9]{2}))")
_NO_TIME = "must be a time such as 2026-11-21T09:30:00Z"
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_URL_SAFE = str.maketrans("-_", "+/")


class Unreadable(ValueError):
    """The text is not of the form it must have; says which form that is."""


class _Seconds(dict[int, str]):
    """Times to the second, which repeat in one answer and in answers to many readers."""

    def __missing__(self, seconds: int) -> str:
        if not MIN_TIMESTAMP_S <= seconds <= MAX_TIMESTAMP_S:
            raise ValueError(f"no such time: {seconds} s after 1970")
        if len(self) >= 1_024:
            self.clear()
        text = self[seconds] = (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19] + "Z"
        return text


SECOND_TEXTS = _Seconds()
"""The RFC 3339 text of a time that is a whole number of seconds; ValueError if it has none."""


def _fraction(nanos: int) -> str:
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03d}"
    if nanos % 1_000 == 0:
        return f".{nanos // 1_000:06d}"
    return f".{nanos:09d}"


def timestamp_text(seconds: int, nanos: int) -> str:
    """Write a time as RFC 3339 in UTC, with 0, 3, 6 or 9 decimals.

    Raises:
        ValueError: outside the years 1 to 9999, or nanos outside 0 to 999,999,999.
    """
    text = SECOND_TEXTS[seconds]
    if not nanos:
        return text
    if not 0 < nanos <= 999_999_999:
        raise ValueError(f"no such time: {seconds} s, {nanos} ns after 1970")
    return f"{text[:-1]}{_fraction(nanos)}Z"


def read_timestamp(text: object) -> dict[str, int]:
    """Read an RFC 3339 time with any offset into seconds and nanos.

    Raises:
        Unreadable: not of that form, no such day or hour, or outside the years 1 to 9999.
    """
    if type(text) is not str or len(text) < 20 or not text.isascii():
        raise Unreadable(_NO_TIME)
    second = text[17:19]
    if not second.isdigit() or second > "59":
        raise Unreadable(_NO_TIME)
    seconds = read_minute(text[:17]) + int(second)
    nanos = 0
    if text[19:] != "Z":
        offset_s, nanos = _read_tail(text[19:])
        seconds -= offset_s
    if not MIN_TIMESTAMP_S <= seconds <= MAX_TIMESTAMP_S:
        raise Unreadable("must be a time in the years 1 to 9999")
    return {"seconds": seconds, "nanos": nanos}


@lru_cache(maxsize=1024)  # what is reported happened lately
def read_minute(text: str) -> int:
    """Read "2026-11-21T09:30:" into seconds since 1970.

    Raises:
        Unreadable: not of that form, or no such day or hour.
    """
    found = _TO_THE_MINUTE.fullmatch(text)
    if found is None:
        raise Unreadable(_NO_TIME)
    year, month, day, hour, minute = map(int, found.groups())
    if hour > 23 or minute > 59:
        raise Unreadable(f"{_NO_TIME}: no such time of day")
    try:
        days = date(year, month, day).toordinal() - _EPOCH_ORDINAL
    except ValueError:
        raise Unreadable(f"{_NO_TIME}: no such day") from None
    return days * SECONDS_PER_DAY + hour * 3600 + minute * 60


def _read_tail(text: str) -> tuple[int, int]:
    """The offset in seconds and the fraction in nanoseconds."""
    found = _AFTER_SECONDS.fullmatch(text)
    if found is None:
        raise Unreadable(_NO_TIME)
    fraction, sign, hours, minutes = found.groups()
    nanos = int(fraction.ljust(9, "0")) if fraction else 0
    if not sign:
        return 0, nanos
    if int(hours) > 23 or int(minutes) > 59:
        raise Unreadable(f"{_NO_TIME}: no such offset")
    offset_s = int(hours) * 3600 + int(minutes) * 60
    return (offset_s if sign == "+" else -offset_s), nanos


def duration_text(seconds: int, nanos: int) -> str:
    """Write a duration as seconds with 0, 3, 6 or 9 decimals: "1.500s".

    Raises:
        ValueError: beyond 10,000 years, or the parts have different signs.
    """
    out_of_range = abs(seconds) > MAX_DURATION_S or abs(nanos) > 999_999_999
    if out_of_range or (seconds < 0 < nanos) or (nanos < 0 < seconds):
        raise ValueError(f"no such duration: {seconds} s, {nanos} ns")
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos)) if nanos else ''}s"


def read_duration(text: object) -> dict[str, int]:
    """Read "1.5s" into seconds and nanos.

    Raises:
        Unreadable: not of that form, or beyond 10,000 years.
    """
    found = _DURATION.fullmatch(text) if type(text) is str else None
    if found is None or int(found[2]) > MAX_DURATION_S:
        raise Unreadable('must be a duration in seconds such as "1.5s"')
    sign = -1 if found[1] else 1
    nanos = int(found[3].ljust(9, "0")) if found[3] else 0
    return {"seconds": sign * int(found[2]), "nanos": sign * nanos}


def base64_text(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode()


def read_base64(text: object) -> bytes:
    """Read base64 of either alphabet, padded or not.

    Raises:
        Unreadable: not base64.
    """
    if type(text) is not str:
        raise Unreadable("must be bytes in base64")
    standard = text.translate(_URL_SAFE)
    if not _BASE64.fullmatch(standard):
        raise Unreadable("must be bytes in base64")
    digits = standard.rstrip("=")
    if len(digits) % 4 == 1 or ("=" in standard and len(standard) % 4):
        raise Unreadable("must be bytes in base64")
    return binascii.a2b_base64(digits + "=" * (-len(digits) % 4))


def shortest_float32(value: float) -> float:
    """Give the double with the shortest text that is still the same finite 32-bit float."""
    return float(orjson.dumps(np.float32(value), option=orjson.OPT_SERIALIZE_NUMPY))


def shortest_floats32(values: Iterable[float]) -> list[Any]:
    """The same of many, at a fiftieth of the cost; None for what is not finite."""
    array = np.fromiter(values, np.float32)
    read: list[Any] = orjson.loads(orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY))
    return read


def camel_case(path: str) -> str:
    """Write one path of a FieldMask as ProtoJSON does.

    Raises:
        ValueError: the path does not survive the way back.
    """
    camel = re.sub(r"_([a-z])", lambda found: found[1].upper(), path)
    if "_" in camel or snake_case(camel) != path:
        raise ValueError(f"the path {path!r} has no camelCase form")
    return camel


def snake_case(path: str) -> str:
    """Read one path of a FieldMask from its camelCase form."""
    return re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), path)
