"""SQLite: one writer with group commit, a pool of readers, and a lock on the file.

Everything that waits while a commit is on its way goes into the next one together: one `fsync`
for all. Each piece of work stands in its own savepoint, so that a failing one undoes only itself.

The writer's statements run on the event loop, and so does what reads one row: they take
microseconds, and a thread would spend many times that on handing the interpreter to and fro. Only
the commit, which waits for the disk, and what reads many rows are given to threads.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import aiosqlite
import structlog

from steward_client.write_ahead import lengthen
from steward_server.db import Row, T, Transaction
from steward_server.errors import Unavailable

log = structlog.get_logger(__name__)

MAX_GROUP = 256
"""Pieces of work per commit: enough to hide the disk, few enough to let other things run."""

MAX_GROUP_S = 0.005
"""Nothing else runs while a group's statements do."""

READERS = 4
"""Threads for what reads many rows."""

ROWS_AT_ONCE = 64

LOG_BYTES = 4_130_000
"""Of the write-ahead log: what it grows to until SQLite, at 1,000 pages, begins it anew."""

SHORT_LOG_BYTES = 250_000
"""A log longer than this is of a server that goes on writing: it is given its full length."""

BUSY_TIMEOUT_MS = 5_000

Work = Callable[[Transaction], Awaitable[Any]]
Waiting = tuple[Work, "asyncio.Future[Any]"]
Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]


class DatabaseInUse(Exception):
    """Another process holds the file."""


class SqliteTransaction:
    """Runs statements at once; its coroutines never suspend."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, *parameters: object) -> int:
        return self._connection.execute(sql, parameters).rowcount

    async def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        self._connection.executemany(sql, rows)

    async def fetch_one(self, sql: str, *parameters: object) -> Row | None:
        return cast("Row | None", self._connection.execute(sql, parameters).fetchone())

    async def fetch_all(self, sql: str, *parameters: object) -> list[Row]:
        return cast("list[Row]", self._connection.execute(sql, parameters).fetchall())


class Sqlite:
    """The embedded `Database`. Open it with `await Sqlite.open(path)`, end it with `close`."""

    def __init__(self, path: Path, lock_file: int) -> None:
        self._lock_file = lock_file
        self._log_file = path.with_name(f"{path.name}-wal")
        self._has_short_log = True
        self._connection = _connect(path)
        self._nearby = _connect_reader(path)
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Waiting] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._committer = ThreadPoolExecutor(1, thread_name_prefix="sqlite-commit")
        self._listeners: list[Callable[[], None]] = []
        self._readers: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._closing = False

    @classmethod
    async def open(cls, path: Path) -> Sqlite:
        """Open or create the file, for this process alone.

        Raises:
            DatabaseInUse: another server has it open.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # The writer connects first: readers are read-only and could not make the file.
        database = cls(path, _lock(path.with_name(path.name + ".lock")))
        path.chmod(0o600)  # noqa: ASYNC240 - once, before anything is served
        for _ in range(READERS):
            database._readers.put_nowait(
                await aiosqlite.Connection(partial(_connect_reader, path), 64)
            )
        return database

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        if self._closing:
            raise Unavailable("the server is shutting down; try again shortly")
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.append((work, future))
        if self._committing is None:
            self._committing = self._loop.create_task(self._commit_what_waits())
        return await future

    async def fetch_one(self, sql: str, *parameters: object) -> Row | None:
        cursor = self._nearby.execute(sql, parameters)
        try:
            return cast("Row | None", cursor.fetchone())
        finally:
            cursor.close()  # or it would go on to see the rows of this moment

    async def fetch_all(self, sql: str, *parameters: object) -> list[Row]:
        reader = await self._readers.get()
        try:
            return cast("list[Row]", await reader.execute_fetchall(sql, parameters))
        finally:
            self._readers.put_nowait(reader)

    def on_commit(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    async def close(self) -> None:
        """Finish what waits, then let go of the file."""
        self._closing = True
        if self._committing is not None:
            await asyncio.wait((self._committing,))
        self._committer.shutdown()
        for _ in range(READERS):
            await (await self._readers.get()).close()
        self._nearby.close()
        self._connection.close()
        os.close(self._lock_file)

    async def _commit_what_waits(self) -> None:
        try:
            while self._waiting:
                self._deliver(await self._commit_together())
        finally:
            self._committing = None

    async def _commit_together(self) -> list[Outcome]:
        group: list[Waiting] = []
        outcomes: list[Outcome] = []
        until_s = time.monotonic() + MAX_GROUP_S  # the loop's own clock stands still meanwhile
        transaction = SqliteTransaction(self._connection)
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            while self._waiting and len(group) < MAX_GROUP and time.monotonic() < until_s:
                work, future = self._waiting.popleft()
                group.append((work, future))
                if not future.cancelled():
                    outcomes.append((future, *self._run_one(work, transaction)))
            await self._loop.run_in_executor(self._committer, self._commit)
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if not group:  # it could not even begin: nobody is left waiting for that
                group = list(self._waiting)
                self._waiting.clear()
            log.exception("database.commit_failed", work_count=len(group))
            refusal = Unavailable("the database cannot write now; nothing was changed")
            refusal.__cause__ = error
            return [(future, None, refusal) for _, future in group]
        return outcomes

    def _commit(self) -> None:
        self._connection.execute("COMMIT")
        if self._has_short_log:
            with suppress(OSError):  # it would only have been quicker
                if self._log_file.stat().st_size > SHORT_LOG_BYTES:
                    self._has_short_log = False
                    lengthen(self._log_file, LOG_BYTES)

    def _run_one(
        self, work: Work, transaction: SqliteTransaction
    ) -> tuple[Any, BaseException | None]:
        self._connection.execute("SAVEPOINT work")
        try:
            result = _run_to_end(work(transaction))
        except Exception as error:  # handed to whoever asked for the work
            if not self._connection.in_transaction:
                # A full disk makes SQLite undo the whole transaction, other callers' work too.
                raise sqlite3.OperationalError(str(error)) from error
            self._connection.execute("ROLLBACK TO work")
            self._connection.execute("RELEASE work")
            return None, error
        self._connection.execute("RELEASE work")
        return result, None

    def _deliver(self, outcomes: list[Outcome]) -> None:
        for future, result, error in outcomes:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        for listener in self._listeners:
            listener()


def _run_to_end(work: Awaitable[T]) -> T:
    """Drive a coroutine that never suspends: that keeps the thread hops per statement at none."""
    iterator = work.__await__()
    try:
        next(iterator)
    except StopIteration as stop:
        return cast("T", stop.value)
    iterator.close()
    raise RuntimeError("work in a transaction awaited something other than the transaction")


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=512
    )
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{path}?mode=ro", uri=True, isolation_level=None, cached_statements=512
    )
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    return connection


def _lock(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise DatabaseInUse(
            f"another server has {path.name.removesuffix('.lock')} open; stop it, or give this "
            "one its own STEWARD_DATA_DIR"
        ) from None
    return handle
