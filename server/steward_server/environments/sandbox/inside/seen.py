"""The processes of a machine with gVisor, as its kernel tells of them, and whose each is. Pure.

That kernel groups them in no way that can be seen from outside. What a command has started is told
by three things: who its parents are, the mark among the variables it began with, and, of what has
lost both, that it was born while the command lived. All of a process but these numbers is its own
word: one that takes on the mark of another command is ended with that one, or with the machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from steward_server.environments.sandbox.inside.oci import MARK

_EARLY_NS = 20_000_000
"""How far its clock may be from ours."""
_MOST_CHARACTERS = 4_096
"""Of a command that are told; it may have megabytes."""


class Seen(NamedTuple):
    """One process."""

    pid: int
    parent: int
    """0 for what was started from outside, 1 for what has lost its parents."""
    user: int
    command: str
    mark: str
    born_ns: int
    memory_kib: int


class Kept(NamedTuple):
    """A command, by what its processes are known by."""

    pid: int
    mark: str
    began_ns: int


def parse(dump: str) -> list[Seen]:
    """What `runsc trace procfs` says; the dead are left out, and whose first thread is dead."""
    found = []
    decoder = json.JSONDecoder()
    at = dump.find("{")
    while at >= 0:
        told, end = decoder.raw_decode(dump, at)
        seen = _seen(told)
        if seen is not None:
            found.append(seen)
        at = dump.find("{", end)
    return found


def _seen(told: dict[str, Any]) -> Seen | None:
    status = told.get("status") or {}
    if not status.get("vm_size"):
        return None  # it has ended, and nobody has asked how
    env = told.get("env") or []
    mark = next((each.partition("=")[2] for each in env if each.startswith(f"{MARK}=")), "")
    return Seen(
        pid=status["pid"],
        parent=status.get("ppid", 0),
        user=(status.get("uid") or {}).get("effective", 0),
        command=" ".join(told.get("args") or [])[:_MOST_CHARACTERS]
        or f"[{status.get('comm', '')}]",
        mark=mark,
        born_ns=told.get("clone_ts", 0),
        memory_kib=status.get("vm_rss", 0),
    )


def of_command(seen: Collection[Seen], kept: Kept, others: Collection[Kept]) -> list[int]:
    """The processes that a command has started, itself among them."""
    marks = {each.mark for each in others}
    known = {each.pid for each in others}
    lost = (
        each.pid
        for each in seen
        if each.parent in (0, 1)
        and each.pid not in known
        and each.mark not in marks
        and each.born_ns >= kept.began_ns - _EARLY_NS
    )
    marked = (each.pid for each in seen if each.mark == kept.mark)
    return sorted(_tree(seen, {kept.pid, *lost, *marked} - {0, 1}))


def _tree(seen: Iterable[Seen], roots: Collection[int]) -> set[int]:
    """Those of the roots that live, and all that is below them."""
    alive = set()
    children: dict[int, list[int]] = {}
    for each in seen:
        alive.add(each.pid)
        children.setdefault(each.parent, []).append(each.pid)
    found: set[int] = set()
    rest = [root for root in roots if root in alive]
    while rest:
        pid = rest.pop()
        if pid not in found:
            found.add(pid)
            rest += children.get(pid, [])
    return found
