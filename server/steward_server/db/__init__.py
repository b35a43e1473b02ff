"""The database as rooms see it: transactions are functions, SQL is plain, rows are mappings.

One engine is chosen at start: `sqlite.py`, the embedded default.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Row = Mapping[str, Any]


class Reader(Protocol):
    """Reads committed rows. `?` marks a parameter; no literal stands in the SQL text."""

    async def fetch_one(self, sql: str, *parameters: object) -> Row | None:
        """The first row of few, which an index finds: nothing else runs meanwhile."""
        ...

    async def fetch_all(self, sql: str, *parameters: object) -> list[Row]:
        """All rows, however many are looked through for them, as they are for a count."""
        ...


class Transaction(Reader, Protocol):
    """Reads its own writes; all of it is committed or none."""

    async def execute(self, sql: str, *parameters: object) -> int:
        """Run one statement and return how many rows it changed."""
        ...

    async def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None: ...


class Database(Reader, Protocol):
    """What a room is given."""

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction and return its result once that is durable.

        `work` may run more than once, must await nothing but the transaction, and must have no
        effect outside it. Whatever it raises undoes it and is raised here; work of other callers
        that shares the commit is not touched.

        Raises:
            Unavailable: the commit failed; nothing was changed.
        """
        ...

    def on_commit(self, listener: Callable[[], None]) -> None:
        """Have `listener` called on the event loop after each commit."""
        ...


def now_us() -> int:
    """The server's clock: microseconds since 1970, UTC. Rules are given it, they never ask."""
    return time.time_ns() // 1000
