"""The trail: numbered entries, each hashed over the one before. Pure; the store keeps them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

GENESIS = bytes(32)
"""What the first entry is hashed over."""


class Change(NamedTuple):
    """Something that a caller changed.

    `before` and `after` are what people see of it, as JSON; a secret never stands in them.
    """

    action: str
    """What happened, as ``agent.created``: the kind of thing, and the past tense."""

    resource_id: str
    before: dict[str, Any] | None = None
    """The fields that changed, as they were; None for what is new."""

    after: dict[str, Any] | None = None
    """The same fields as they are now; None for what is gone."""

    reason: str = ""
    """As the caller gave it."""

    @property
    def resource_type(self) -> str:
        return self.action.partition(".")[0]


class AuditEntry(NamedTuple):
    """One entry as it is stored. The order of the fields is what is hashed."""

    number: int
    at_us: int
    action: str
    resource_type: str
    resource_id: str
    actor_kind: str
    """"person", "key", "agent" or "server"."""
    actor_id: str
    actor_role: str
    credential: str
    """Id of the session, token or key that was used; never its text."""
    address: str
    """Where the call came from."""
    user_agent: str
    request_id: str
    method: str
    """The rpc, as on the wire; empty for what the server did by itself."""
    before: str | None
    """JSON text, as it was hashed."""
    after: str | None
    reason: str

    def hash(self, previous: bytes) -> bytes:
        """SHA-256 over the hash before and every field."""
        return hashlib.sha256(previous + orjson.dumps(tuple(self))).digest()


Link = tuple[AuditEntry, bytes]
"""An entry and the hash that is stored with it."""


class ChainBreak(NamedTuple):
    """The first entry that does not follow from the one before it."""

    number: int
    what: str


def verify(
    entries: Iterable[Link], *, number: int = 0, previous: bytes = GENESIS
) -> ChainBreak | None:
    """Find the first entry that was changed, moved, put in or taken out; None if there is none.

    Entries come in order, each with its stored hash; `number` and `previous` are those of the entry
    before the first. What was cut off at the end leaves a sound chain: compare the last hash with
    one kept elsewhere.
    """
    for entry, stored in entries:
        if not isinstance(entry.number, int):
            return ChainBreak(number + 1, f"has the number {entry.number!r}")
        if entry.number != number + 1:
            return ChainBreak(entry.number, f"follows entry {number}")
        try:
            expected = entry.hash(previous)
        except TypeError:  # bytes, or no UTF-8, where a text was
            return ChainBreak(entry.number, "holds what was never written")
        if stored != expected:
            held = stored.hex() if isinstance(stored, bytes) else repr(stored)
            return ChainBreak(
                entry.number, f"holds hash {held}; its content gives {expected.hex()}"
            )
        number, previous = entry.number, stored
    return None
