"""Page tokens: where the next page begins, opaque to callers."""

from __future__ import annotations

import base64
import binascii

import orjson

from steward_server.checks import Checks

MAX_PAGE = 1_000
DEFAULT_PAGE = 100


def page_size(checks: Checks, field: str, wanted: int) -> int:
    """How many to list: 1 to 1,000; 0 means 100."""
    checks.between(field, wanted, 0, MAX_PAGE)
    return wanted or DEFAULT_PAGE


def to_page_token(at_us: int, name: str) -> str:
    """Stands for the last thing of a page, by its time and its id."""
    return base64.urlsafe_b64encode(orjson.dumps([at_us, name])).decode().rstrip("=")


def from_page_token(checks: Checks, field: str, token: str) -> tuple[int, str] | None:
    """Time and id of the last thing of the page before; None on the first page."""
    if not token:
        return None
    try:
        padded = token + "=" * (-len(token) % 4)
        at_us, name = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if type(at_us) is int and type(name) is str and -(2**63) <= at_us < 2**63:
            return at_us, name
    except (binascii.Error, orjson.JSONDecodeError, ValueError, TypeError):
        pass
    checks.add(field, "is not the `next_page_token` of an answer; leave it out for the first page")
    return None
