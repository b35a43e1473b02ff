"""`copy.replace`, which Python has from 3.13 on: values with some fields changed."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, /, **changes: Any) -> T:
    """A copy of a dataclass or a named tuple."""
    kept: Any = value
    if isinstance(value, tuple):
        named: T = kept._replace(**changes)
        return named
    copied: T = dataclasses.replace(kept, **changes)
    return copied
