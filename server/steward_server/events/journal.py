"""The journal: numbered rows, each hashed over the one before. Pure; stores read and write them."""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson

GENESIS = bytes(32)
"""What the first row of a journal is hashed over."""

_HEADER = struct.Struct(">qqIIIIQ")
_NO_KEY = 0xFFFFFFFF  # as a length: longer than any key, so that no key differs from an empty one


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One thing that happened, committed under number `lsn`."""

    lsn: int
    at_us: int
    kind: str
    agent_id: str
    subject: str
    """What it happened to: an account, a lease; the kind tells."""
    key: str | None
    """The request that caused it, where it had an id."""
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class JournalRow:
    """An entry as it is stored: its body as the very bytes that were hashed."""

    lsn: int
    at_us: int
    kind: str
    agent_id: str
    subject: str
    key: str | None
    body: bytes
    hash: bytes = field(repr=False)

    def entry(self) -> JournalEntry:
        """The row with its body read."""
        body: dict[str, Any] = orjson.loads(self.body)
        return JournalEntry(
            self.lsn, self.at_us, self.kind, self.agent_id, self.subject, self.key, body
        )


@dataclass(frozen=True, slots=True)
class ChainBreak:
    """The first row that does not follow from the one before it."""

    lsn: int
    what: str


def entry_hash(
    previous: bytes,
    lsn: int,
    at_us: int,
    kind: str,
    agent_id: str,
    subject: str,
    key: str | None,
    body: bytes,
) -> bytes:
    """SHA-256 over the hash before and every field; lengths go first, so fields cannot blur."""
    kind_bytes = kind.encode()
    agent_bytes = agent_id.encode()
    subject_bytes = subject.encode()
    key_bytes = b"" if key is None else key.encode()
    header = _HEADER.pack(
        lsn,
        at_us,
        len(kind_bytes),
        len(agent_bytes),
        len(subject_bytes),
        _NO_KEY if key is None else len(key_bytes),
        len(body),
    )
    return hashlib.sha256(
        b"".join((previous, header, kind_bytes, agent_bytes, subject_bytes, key_bytes, body))
    ).digest()


def verify_chain(rows: Iterable[JournalRow], *, previous: bytes = GENESIS) -> ChainBreak | None:
    """Find the first row that was changed, moved, put in or taken out; None if there is none.

    Rows come in the order of their numbers. `previous` is the hash before the first of them. Rows
    cut off at the end leave a sound chain: compare the last hash with one kept elsewhere.
    """
    last_lsn = 0
    for row in rows:
        if row.lsn <= last_lsn:
            return ChainBreak(row.lsn, f"follows row {last_lsn}")
        expected = entry_hash(
            previous, row.lsn, row.at_us, row.kind, row.agent_id, row.subject, row.key, row.body
        )
        if row.hash != expected:
            return ChainBreak(
                row.lsn, f"holds hash {row.hash.hex()}; its content gives {expected.hex()}"
            )
        last_lsn, previous = row.lsn, row.hash
    return None
