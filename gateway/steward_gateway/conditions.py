"""What headers say of where an answer or a stream stands: `If-Match`, `Last-Event-ID`. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc import StatusCode

from steward_gateway.codec import FieldErrors
from steward_gateway.errors import Refusal, Refused
from steward_gateway.scalars import INTEGER_RANGES

IF_MATCH = "If-Match"
LAST_EVENT_ID = "Last-Event-ID"

# RFC 9110 §8.8.3: anything visible but a quote.
_TAG = re.compile(r'(?:W/)?"([!#-~]*)"')
_PLAIN = re.compile(r"[!#-~]{1,256}")
_DIGITS = re.compile(r"-?[0-9]{1,20}")
_BETWEEN = "~"
"""Between the version and the digest in a tag; stands in no version."""


def tag_of(message: Message, path: Sequence[FieldDescriptor], body: bytes) -> str:
    """The `ETag` of an answer: the version it holds and a digest; weak, of a digest alone, if none.

    The version is what `If-Match` is compared with. The digest tells apart what one version is
    shown as: figures that go on, what only some may see.
    """
    digest = blake2b(body, digest_size=9).hexdigest()
    if path:
        value: Any = message
        for field in path:
            value = getattr(value, field.name)
        text = str(value) if value else ""
        if _PLAIN.fullmatch(text) and _BETWEEN not in text:
            return f'"{text}{_BETWEEN}{digest}"'
    return f'W/"{digest}"'  # the bytes may yet be compressed


def take_if_match(message: Message, field: FieldDescriptor | None, if_match: str) -> None:
    """Put the version a caller insists on into a request.

    The quotes may follow a `W/`, and the version may stand in them alone: it is what is compared,
    not the bytes.

    Raises:
        Refused: with 412, if the method knows no versions: a condition is never ignored.
        FieldErrors: it is not one tag, or not of the kind of the method's versions.
    """
    if if_match.strip() == "*":
        return  # any version: that there is none is told by 404
    if field is None:
        text = "this path compares no versions; leave out If-Match"
        raise Refused(Refusal(StatusCode.FAILED_PRECONDITION, text, http=412))
    found = _TAG.fullmatch(if_match.strip())
    if found is None:
        raise FieldErrors({IF_MATCH: 'must be one version in quotes, such as "7"'})
    _fill(message, field, found[1].partition(_BETWEEN)[0], IF_MATCH)


def take_last_event(message: Message, field: FieldDescriptor, last_event_id: str) -> None:
    """Put the place where a stream was left into a request; it wins over the query.

    A browser connects again with the query it began with.

    Raises:
        FieldErrors: it is not of the kind that the stream's events have.
    """
    _fill(message, field, last_event_id.strip(), LAST_EVENT_ID)


def position_of(shown: Any, field: FieldDescriptor) -> str:
    """Where a stream is, as the `id` of an event; "" if the message does not say."""
    value = getattr(shown, field.name)
    text = str(value) if value else ""
    return text if _PLAIN.fullmatch(text) else ""


def _fill(message: Message, field: FieldDescriptor, text: str, header: str) -> None:
    if field.type not in INTEGER_RANGES:
        setattr(message, field.name, text)
        return
    low, high = INTEGER_RANGES[field.type]
    number = int(text) if _DIGITS.fullmatch(text) else None
    if number is None or not low <= number <= high:
        raise FieldErrors({header: f"must be a whole number from {low} to {high}"})
    setattr(message, field.name, number)
