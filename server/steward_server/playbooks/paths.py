"""Where a playbook may lie in a library: relative, downwards, a YAML file; and copies. Pure."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 500
SUFFIXES = (".yaml", ".yml")
_PART = re.compile(r"[^/\\\x00-\x1f:]+")
_ESCAPED_SLASH = re.compile("%2f", re.IGNORECASE)
_BETWEEN_WORDS = re.compile(r"[\W_]+")
_MAX_SLUG_BYTES = 200
"""Of the 255 that a file's name has nearly everywhere."""


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
    if not path.endswith(SUFFIXES):
        return "a playbook's path ends with .yaml or .yml"
    return ""


def is_hidden(path: str) -> bool:
    """Whether a library leaves a file out: one that is hidden, or a backup of an editor."""
    return ".backup." in path or any(part.startswith(".") for part in path.split("/"))


def unescaped(path: str) -> str:
    """A path as it is meant whose slashes were written as `%2F`, which templates keep."""
    return _ESCAPED_SLASH.sub("/", path)


def slug(name: str) -> str:
    """A name as files are called: lower case, with hyphens; empty if it has no letter or digit."""
    words = _BETWEEN_WORDS.sub("-", unicodedata.normalize("NFC", name).lower()).strip("-")
    return words.encode()[:_MAX_SLUG_BYTES].decode(errors="ignore").rstrip("-")


def copy_path(source: str, slug: str, number: int) -> str:
    """Where a copy lies: beside its source; with a number after the first, which is 0."""
    folder, slash, _ = source.rpartition("/")
    return f"{folder}{slash}{slug}{f'-{number}' if number else ''}.yaml"
