"""Where a playbook may lie in a library: relative, downwards, a YAML file. Pure."""

from __future__ import annotations

import re

MAX_CHARACTERS = 500
_PART = re.compile(r"[^/\\\x00-\x1f:]+")


def why_unsafe(path: str) -> str:
    """What forbids a path; empty if nothing does. Links are for whoever opens it to look at."""
    if not path or len(path) > MAX_CHARACTERS:
        return f"a path has 1 to {MAX_CHARACTERS} characters"
    if path.startswith(("/", "~")) or "\\" in path:
        return "a path is relative, with / between its parts"
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return "a path has no empty parts, '.' or '..'"
    if any(_PART.fullmatch(part) is None for part in parts):
        return "a path has no ':' and no control characters"
    if not path.endswith((".yaml", ".yml")):
        return "a playbook's path ends with .yaml or .yml"
    return ""
