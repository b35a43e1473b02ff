"""Values that come from outside, before they become outputs."""

from __future__ import annotations

from typing import Any

MOST_DEPTH = 32
"""As deep as playbooks go themselves; whatever walks through values recurses."""


def is_deep(value: Any) -> bool:
    """Whether a value of JSON has lists and maps in each other beyond `MOST_DEPTH`."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MOST_DEPTH):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
