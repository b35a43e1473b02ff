"""What came of an attempt at a step, as far as it can be kept. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

MAX_OUTPUT_BYTES = 1 << 20
"""Of one step, as JSON, with the variables that it sets."""
MAX_DEPTH = 30
"""Of lists and objects in one another: messages hold no more."""


@dataclass(frozen=True, slots=True)
class Came:
    """What came of an attempt: outputs, or why there are none.

    Attributes:
        variables: that it has set.
        context: facts about why.
        is_hopeless: whether another attempt would fail as well.
    """

    outputs: Mapping[str, Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    is_hopeless: bool = False


def kept(outputs: Any, variables: Mapping[str, Any]) -> Came:
    """What a step gave, as JSON has it: no tuples, and null for what is no number.

    It is hopeless where that cannot be: the step has done its work, and is not to do it again.
    """
    if not isinstance(outputs, Mapping):
        return Came(error="what it gave is no map", is_hopeless=True)
    try:
        text = orjson.dumps([dict(outputs), dict(variables)])
    except orjson.JSONEncodeError:
        why = "what it gave is no JSON: texts as keys, whole numbers of 64 bits, and no bytes"
        return Came(error=why, is_hopeless=True)
    if len(text) > MAX_OUTPUT_BYTES:
        why = f"it gave {len(text)} bytes; at most {MAX_OUTPUT_BYTES} are kept"
        return Came(error=why, is_hopeless=True)
    found = orjson.loads(text)
    # Few have so many brackets that they must be looked at.
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _is_deeper(found, MAX_DEPTH + 1):
        why = f"it gave lists and maps more than {MAX_DEPTH} deep in one another"
        return Came(error=why, is_hopeless=True)
    return Came(outputs=found[0], variables=found[1])


def kept_context(context: Mapping[str, Any]) -> Mapping[str, Any]:
    """Facts about a failure; none where they cannot be kept."""
    return kept(context, {}).outputs or {}


def _is_deeper(value: Any, most: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return False
    return most == 0 or any(_is_deeper(each, most - 1) for each in value)
