"""A playbook under another name: its text with that name in it, and else as it was. Pure.

Nothing is written anew but what changes, so that comments, quotes and empty lines stay as they are.
"""

from __future__ import annotations

import json
from typing import Any

from steward_server.playbooks.document import read_document
from steward_server.playbooks.playbook import Playbook


class Unrenamable(ValueError):
    """The text holds its name in a way that it cannot be changed in, or the name cannot stand."""


def renamed(playbook: Playbook, name: str) -> str:
    """The text of a playbook with this name, and no longer verified.

    Raises:
        Unrenamable: it would not be read with that name, or not as the same otherwise.
    """
    source = playbook.source
    changes: dict[str, Any] = {"name": name}
    if ("verified",) in source.values:
        changes["verified"] = False
    text = source.text
    for key in sorted(changes, key=lambda key: source.values[(key,)].start, reverse=True):
        span = source.values[(key,)]
        written = text[span.start : span.end]
        ending = written[len(written.rstrip()) :]  # of a block: the line's end is part of it
        value = json.dumps(changes[key], ensure_ascii=False)  # JSON is YAML
        text = text[: span.start] + value + ending + text[span.end :]
    # Whatever the ways there are to write a value: what counts is how it is read.
    before, after = read_document(source.text), read_document(text)
    if after.faults or after.value != {**before.value, **changes}:
        raise Unrenamable("its name cannot be replaced by this one")
    return text
