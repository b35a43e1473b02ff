"""Verifies a whole log, some entries at a time: of a running server, or of a file at rest."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from steward_server.audit import store, trail
from steward_server.audit.trail import GENESIS, ChainBreak
from steward_server.db import Reader
from steward_server.db.sqlite import SqliteTransaction

AT_ONCE = 500
"""Entries hashed before others have their turn: about five milliseconds."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of reading the log."""

    number: int
    """Of the newest entry that was read; with nothing wrong, how many there are."""
    hash: bytes
    broken: ChainBreak | None


async def verify_log(reader: Reader, known: tuple[int, bytes] | None = None) -> Verdict:
    """Read every entry and check that each follows from the one before, to the head.

    `known` are number and hash of an entry, kept elsewhere since an earlier verification.
    """
    number, digest = 0, GENESIS
    while True:
        links = await store.following(reader, number, AT_ONCE)
        broken = trail.verify(links, number=number, previous=digest)
        if broken is not None:
            return Verdict(number, digest, broken)
        if links:
            number, digest = links[-1][0].number, links[-1][1]
            continue
        head_number, head_hash, newest, count = await store.ends(reader)
        if newest <= number:
            break
    if not isinstance(head_number, int):
        broken = ChainBreak(number, f"is the newest; the head has the number {head_number!r}")
    elif head_number > number:
        broken = ChainBreak(number + 1, f"is missing; the head is entry {head_number}")
    elif head_number < number:
        broken = ChainBreak(head_number + 1, f"stands after the head, entry {head_number}")
    elif head_hash != digest:
        broken = ChainBreak(number, "is not the entry that the head was written with")
    elif count != number:
        broken = ChainBreak(0, f"stands before the first entry, {count - number} of them")
    elif known is not None:
        broken = await _compare(reader, *known)
    return Verdict(number, digest, broken)


async def _compare(reader: Reader, number: int, digest: bytes) -> ChainBreak | None:
    found = await store.hash_of(reader, number)
    if found is None:
        return ChainBreak(number, f"is missing; it had hash {digest.hex()}")
    if found != digest:
        return ChainBreak(number, f"holds hash {found.hex()}; it had {digest.hex()}")
    return None


def verify_file(data_dir: Path, known: tuple[int, bytes] | None = None) -> Verdict:
    """Verify the log in a data folder without changing anything in it; a server may be running.

    Raises:
        FileNotFoundError: there is no database.
        ValueError: it cannot be read, or is none of a server.
    """
    path = data_dir / "steward.db"
    if not path.is_file():
        raise FileNotFoundError(f"there is no database {path}")
    # A file that nobody has open is read as it is: SQLite would put its helper files beside it.
    in_use = path.with_name("steward.db-wal").exists()
    mode = "mode=ro" if in_use else "mode=ro&immutable=1"
    uri = f"{path.resolve().as_uri()}?{mode}"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.text_factory = lambda raw: raw.decode(errors="surrogateescape")
            return asyncio.run(verify_log(SqliteTransaction(connection), known))
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} cannot be read as a server's database: {error}") from error
