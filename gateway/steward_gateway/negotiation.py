"""What a caller can take: media types, encodings, and whether it has the answer already. Pure."""

from __future__ import annotations

import gzip
from functools import lru_cache

LEAST_COMPRESSED_BYTES = 1_024
"""Below this an answer fits into one packet either way."""

# Level 1: two thirds of what level 9 saves for a fifth of its time.
_LEVEL = 1


@lru_cache(maxsize=256)
def accepts(accept: str, *produced: str) -> bool:
    """Whether an `Accept` header lets in one of these media types; a missing header lets in all.

    RFC 9110 §12.5.1: the most specific range decides, and with `q=0` against the type.
    """
    if not accept.strip():
        return True
    return any(_quality(accept, media_type) > 0 for media_type in produced)


@lru_cache(maxsize=256)
def is_wanted(accept: str, media_type: str, *others: str) -> bool:
    """Whether an `Accept` header names this media type, and wants no other one more."""
    wanted = _quality(accept, media_type)
    named = media_type in accept.lower()
    return named and wanted > 0 and all(_quality(accept, other) <= wanted for other in others)


def _quality(accept: str, media_type: str) -> float:
    found = (-1, 0.0)
    for item in accept.lower().split(","):
        ranged, *parameters = (part.strip() for part in item.split(";"))
        if ranged == media_type:
            rank = 2
        elif ranged == media_type.partition("/")[0] + "/*":
            rank = 1
        elif ranged in ("*/*", "*"):
            rank = 0
        else:
            continue
        found = max(found, (rank, _weight(parameters)))
    return found[1]


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


@lru_cache(maxsize=256)
def takes_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header lets in gzip, by name or by `*`."""
    weights = {}
    for item in accept_encoding.lower().split(","):
        coding, *parameters = (part.strip() for part in item.split(";"))
        weights[coding] = _weight(parameters)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def compressed(body: bytes) -> bytes:
    """The body as gzip; the same bytes for the same body."""
    return gzip.compress(body, _LEVEL, mtime=0)


def is_known(if_none_match: str, etag: str) -> bool:
    """Whether an `If-None-Match` header names this tag. RFC 9110 §13.1.2: compared weakly."""
    wanted = etag.removeprefix("W/")
    names = [name.strip().removeprefix("W/") for name in if_none_match.split(",")]
    return "*" in names or wanted in names
