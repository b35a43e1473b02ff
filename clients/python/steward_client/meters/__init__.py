"""Meters: what a provider's calls ask for, what its answers used, how it words a refusal. Pure.

A route without a meter is closed, and so is a request with a member no meter knows: what cannot be
bounded before a call cannot be held. Start reading at openai.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from steward_client.prices import TokenUsage

LEAST_OUTPUT_TOKENS = 256
"""An answer is not cut shorter than this to fit the money, unless the caller asked for less."""


class Unmetered(Exception):
    """The request asks for something whose cost cannot be bounded, or is malformed."""


@dataclass(frozen=True, slots=True)
class Ask:
    """What bounds a call's cost."""

    model: str
    stream: bool
    input_tokens: int
    """At most this many are read: a token is at least a byte."""
    output_tokens: int
    """At most this many are wanted for each choice."""
    output_limited: bool
    """The caller set that limit."""
    least_output_tokens: int
    """Fewer would be no answer, or one the provider refuses to give."""
    choice_count: int = 1
    hour_writes: bool = False
    usage_wanted: bool = True
    """The caller asked for the usage of the stream, or the stream always tells."""
    thinks_unseen: bool = False
    """The model may write tokens it does not show, so what is relayed counts too little."""


class Reading(Protocol):
    """What one answer used, as far as it has been read."""

    usage: TokenUsage | None
    """What the provider counted; None until it said."""
    complete: bool
    """The answer came to its end."""
    output_bytes: int
    """Of text relayed: at least as many as the tokens it was made of."""
    unpriced: str
    """Why the usage does not tell the cost: "" if it does."""

    def body(self, answer: Mapping[str, Any]) -> None:
        """Read a whole answer."""
        ...

    def event(self, event: Any) -> list[tuple[str, str]]:
        """Read an event of a stream; the pieces of text in it as (which text, piece)."""
        ...

    def ended(self) -> None:
        """Read the mark that ends a stream and is no JSON."""
        ...


class Meter(Protocol):
    """One route of one kind of provider."""

    kind: str
    """"openai" or "anthropic"."""
    path: str
    """Of the route, without the version in front."""

    def read(self, body: Mapping[str, Any], *, size_bytes: int) -> Ask:
        """What the request asks for.

        Raises:
            Unmetered: it cannot be bounded.
        """
        ...

    def prepare(self, body: dict[str, Any], ask: Ask, *, output_tokens: int) -> None:
        """Change the request so that no more than `output_tokens` are written and usage is told."""
        ...

    def reading(self) -> Reading: ...

    def is_usage_only(self, event: Mapping[str, Any]) -> bool:
        """The event tells usage and nothing else, and exists because it was asked for."""
        ...

    def refusal(self, *, code: str, message: str) -> dict[str, Any]:
        """The body of a refusal, as the provider's own clients expect one."""
        ...

    def stream_refusal(self, *, code: str, message: str) -> bytes:
        """The event that ends a stream which cannot go on."""
        ...


def whole_number(body: Mapping[str, Any], name: str, *, least: int = 1) -> int | None:
    """The member's value; None if it is absent or null.

    Raises:
        Unmetered: it is no whole number, or too small.
    """
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise Unmetered(f"{name} is a whole number from {least} up, not {value!r}")
    return value


def refuse_unknown(body: Mapping[str, Any], known: frozenset[str], *, where: str) -> None:
    """Refuse members that no meter knows the price of.

    Raises:
        Unmetered: there are some; it names them.
    """
    unknown = sorted(body.keys() - known)
    if unknown:
        raise Unmetered(f"{', '.join(unknown)} in {where}: not metered, so not let through")


def text_bytes(value: Any) -> int:
    """The bytes of all strings in a JSON value."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(text_bytes(member) for member in value.values())
    if isinstance(value, list):
        return sum(text_bytes(item) for item in value)
    return 0
