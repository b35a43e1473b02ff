"""The `curl` program, and what an answer must look like."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?Z")
MONEY = (int, float)
UPGRADE = (
    "--http1.1 -H 'Connection: Upgrade' -H 'Upgrade: websocket' -H 'Sec-WebSocket-Version: 13'"
    " -H 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='"
)
"""What curl sends to open a WebSocket."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What curl printed."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)


def curl(*arguments: str) -> Answer:
    """Run curl and read what it prints; a missing curl is a failure."""
    ended = subprocess.run(
        ["curl", "--silent", "--show-error", "--include", "--max-time", "20", *arguments],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, (arguments, ended.returncode, ended.stderr)
    rest, status, headers = ended.stdout, 100, {}
    while status < 200:
        head, _, rest = rest.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}
    return Answer(status, headers, rest.decode())


def differences(shape: Any, value: Any, path: str = "body") -> Iterator[str]:
    """What of `value` is not as `shape` has it.

    A shape is a type or a tuple of them, a pattern for a text, a dict with exactly these keys, a
    list of one shape that every item has, or the very value.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            yield f"{path} is {value!r}, not an object"
            return
        if missing := shape.keys() - value.keys():
            yield f"{path} lacks {sorted(missing)}"
        if surplus := value.keys() - shape.keys():
            yield f"{path} has {sorted(surplus)} too"
        for key in shape.keys() & value.keys():
            yield from differences(shape[key], value[key], f"{path}.{key}")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{path} is {value!r}, not a list"
            return
        for index, item in enumerate(value):
            yield from differences(shape[0], item, f"{path}[{index}]")
    elif isinstance(shape, re.Pattern):
        if not isinstance(value, str) or not shape.fullmatch(value):
            yield f"{path} is {value!r}, not like {shape.pattern}"
    elif isinstance(shape, type | tuple):
        kinds = shape if isinstance(shape, tuple) else (shape,)
        types = tuple(kind for kind in kinds if isinstance(kind, type))
        patterns = [kind for kind in kinds if isinstance(kind, re.Pattern)]
        fits = type(value) in types or (value is None and None in kinds)
        fits |= isinstance(value, str) and any(kind.fullmatch(value) for kind in patterns)
        if not fits:
            yield f"{path} is {value!r}, not {shape}"
    elif type(shape) is not type(value) or shape != value:
        yield f"{path} is {value!r}, not {shape!r}"


def error(
    code: str,
    reason: str = "",
    *,
    fields: dict[str, Any] | None = None,
    details: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The shape of a refusal in the Iron dialect."""
    told: dict[str, Any] = {"code": code, "message": re.compile(r"\S.{5,}")}
    if reason:
        told["reason"] = reason
    if fields is not None:
        told["fields"] = fields
    if details is not None:
        told["details"] = details
    return {"error": told}


def invalid(*fields: str) -> dict[str, Any]:
    """The shape of a refusal of these fields."""
    return error("VALIDATION_ERROR", fields=dict.fromkeys(fields, str))


def conflict(reason: str, *details: str) -> dict[str, Any]:
    """The shape of a refusal because of how things stand, with the facts of it."""
    return error("CONFLICT", reason, details=dict.fromkeys(details, str))
