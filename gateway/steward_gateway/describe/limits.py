"""Limits of a field, read from its comment, where the house says them in fixed words. Pure."""

from __future__ import annotations

import re
from typing import Any

_NUMBER = r"(\d[\d,]*)"
_LENGTH_BETWEEN = re.compile(rf"\b{_NUMBER} to {_NUMBER} characters")
_LENGTH_UP_TO = re.compile(rf"\b[Uu]p to {_NUMBER} characters")
_BETWEEN = re.compile(rf"^{_NUMBER} to {_NUMBER}(?=$|[.;,])")
_ZERO_STANDS_FOR = re.compile(r"; 0 (?:means|is|stands for) ")
_COUNT_UP_TO = re.compile(rf"^[Uu]p to {_NUMBER}(?=$|[.;,])")
_NOT_NEGATIVE = re.compile(r"^0 or more\b")
_POSITIVE = re.compile(r"^More than 0(?:, up to ([\d,]+))?")


def _number(text: str) -> int:
    return int(text.replace(",", "").rstrip("."))


def text_limits(comment: str) -> dict[str, Any]:
    """Of a text: "1 to 100 characters", "up to 255 characters"."""
    if found := _LENGTH_BETWEEN.search(comment):
        return {"minLength": _number(found[1]), "maxLength": _number(found[2])}
    if found := _LENGTH_UP_TO.search(comment):
        return {"maxLength": _number(found[1])}
    return {}


def number_limits(comment: str) -> dict[str, Any]:
    """Of a number: "1 to 1,000; 0 means 100", "0 or more", "More than 0, up to 1,000"."""
    if found := _BETWEEN.search(comment):
        low = 0 if _ZERO_STANDS_FOR.search(comment) else _number(found[1])
        return {"minimum": low, "maximum": _number(found[2])}
    if _NOT_NEGATIVE.search(comment):
        return {"minimum": 0}
    if found := _POSITIVE.search(comment):
        limits: dict[str, Any] = {"exclusiveMinimum": 0}
        if found[1]:
            limits["maximum"] = _number(found[1])
        return limits
    return {}


def count_limits(comment: str) -> dict[str, Any]:
    """Of a list: "Up to 1,000"."""
    found = _COUNT_UP_TO.search(comment)
    return {"maxItems": _number(found[1])} if found else {}
