"""What a runtime owes the ledger, durable on disk until the server has it.

One SQLite file per runtime. A hold is on disk before its call leaves the machine, so that a crash
at any moment leaves either its report or the hold itself, which is then charged in full. Settling
and acknowledging ride along with the next commit. No rule of money lives here, and no network.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from steward_client.write_ahead import lengthen

log = logging.getLogger(__name__)

RIDE_ALONG_S = 0.01
"""How long a settled call waits for a hold to share its commit with."""

RETRY_S = 0.5
"""After a failed commit, what it held is tried again this much later."""

LOG_BYTES = 1_100_000
"""Of the write-ahead log: what it grows to until SQLite, at 1,000 pages, begins it anew."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS lease (lease_id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS call (
  number INTEGER PRIMARY KEY,
  call_id TEXT NOT NULL,
  lease_id TEXT NOT NULL,
  model TEXT NOT NULL,
  bound_nanousd INTEGER NOT NULL CHECK (bound_nanousd >= 0),
  held_at_ms INTEGER NOT NULL,
  sequence INTEGER,
  report BLOB
);
CREATE TABLE IF NOT EXISTS refused (
  call_id TEXT PRIMARY KEY,
  lease_id TEXT NOT NULL,
  report BLOB NOT NULL,
  reason TEXT NOT NULL
) WITHOUT ROWID;
"""
# No index: rows are found by the number they were appended under, so that a commit touches a page
# or two.

_HOLD = (
    "INSERT INTO call (number, call_id, lease_id, model, bound_nanousd, held_at_ms)"
    " VALUES (?,?,?,?,?,?)"
)
_SETTLE = "UPDATE call SET sequence = ?, report = ? WHERE number = ?"
_DELETE = "DELETE FROM call WHERE number = ?"
_LEASE = "INSERT OR IGNORE INTO lease (lease_id) VALUES (?)"
_REFUSE = "INSERT OR IGNORE INTO refused (call_id, lease_id, report, reason) VALUES (?,?,?,?)"
_FORGET = "DELETE FROM lease WHERE lease_id = ?"
_FORGET_CALLS = "DELETE FROM call WHERE lease_id = ?"


class OutboxBusy(Exception):
    """Another process has the file: its runtime lives."""


class OutboxFailed(Exception):
    """The hold could not be made durable, so its call must not be sent."""


@dataclass(frozen=True, slots=True)
class Report:
    """One usage, numbered within its lease; `body` is what is sent, to the byte, every time."""

    sequence: int
    call_id: str
    body: bytes
    number: int
    """Of the row."""


@dataclass(frozen=True, slots=True)
class OpenHold:
    """A hold whose call was under way when its runtime died."""

    call_id: str
    lease_id: str
    model: str
    bound_nanousd: int
    held_at_ms: int


@dataclass(slots=True)
class _Lease:
    next_sequence: int = 1
    acknowledged: int = 0
    mark: int = 0
    """The row of the newest acknowledged report: it stays, as the mark of how far numbers went."""
    reports: deque[Report] = field(default_factory=deque)
    """Durable and not yet acknowledged, in order."""


@dataclass(slots=True)
class _Change:
    statements: tuple[tuple[str, tuple[Any, ...]], ...]
    durable: Callable[[], None] | None = None
    """Called on the loop once it is on disk."""
    awaited: bool = False
    """Somebody waits for it; if it fails they are told, and it is not tried again."""
    waiter: asyncio.Future[None] | None = None


class Outbox:
    """The file and its writer thread. Its methods belong to one event loop, once `start`ed."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self.path = path
        self.on_durable: Callable[[], None] = lambda: None
        """Called when reports have become ready to send."""
        self._connection = connection
        self._leases: dict[str, _Lease] = {}
        self._rows: dict[str, int] = {}
        """The row of each open hold."""
        self._next_row = 1
        self._changes: queue.SimpleQueue[list[_Change] | None] = queue.SimpleQueue()
        self._writing = False
        """The writer has a group, and with it the connection; what comes meanwhile gathers."""
        self._riders: list[_Change] = []
        self._urgent = False
        """Somebody waits for one of the riders."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writer: threading.Thread | None = None
        self._ended = asyncio.Event()
        self._load()

    @classmethod
    def open(cls, path: Path) -> Outbox:
        """The outbox in this file, made if there is none.

        Raises:
            OutboxBusy: another process has it open.
        """
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            connection.execute("PRAGMA page_size = 1024")
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN EXCLUSIVE")
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute("COMMIT")
            lengthen(path.with_name(f"{path.name}-wal"), LOG_BYTES)
        except sqlite3.OperationalError as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                raise OutboxBusy(f"{path} is in use by another runtime") from error
            raise
        except BaseException:
            connection.close()
            raise
        path.chmod(0o600)
        return cls(connection, path)

    def _load(self) -> None:
        for (lease_id,) in self._connection.execute("SELECT lease_id FROM lease"):
            self._leases[lease_id] = _Lease()
        for number, lease_id, sequence, call_id, body in self._connection.execute(
            "SELECT number, lease_id, sequence, call_id, report FROM call"
            " WHERE sequence IS NOT NULL ORDER BY lease_id, sequence"
        ):
            lease = self._leases.setdefault(lease_id, _Lease())
            if not lease.reports:
                lease.acknowledged = sequence - 1
            lease.reports.append(Report(sequence, call_id, body, number))
            lease.next_sequence = sequence + 1
        row = self._connection.execute("SELECT max(number) FROM call").fetchone()
        self._next_row = (row[0] or 0) + 1

    def leases(self) -> list[str]:
        """Leases that are not forgotten yet."""
        return list(self._leases)

    def assume_open_holds(self, report: Callable[[OpenHold, int], bytes]) -> int:
        """Turn each hold left open into a report made by `report(hold, sequence)`.

        Before `start` only; blocks until it is durable.

        Returns:
            How many there were.
        """
        holds = self._connection.execute(
            "SELECT number, call_id, lease_id, model, bound_nanousd, held_at_ms FROM call"
            " WHERE sequence IS NULL ORDER BY number"
        ).fetchall()
        self._connection.execute("BEGIN")
        for number, *columns in holds:
            hold = OpenHold(*columns)
            lease = self._leases.setdefault(hold.lease_id, _Lease())
            ready = Report(
                lease.next_sequence, hold.call_id, report(hold, lease.next_sequence), number
            )
            self._connection.execute(_LEASE, (hold.lease_id,))
            self._connection.execute(_SETTLE, (ready.sequence, ready.body, number))
            lease.reports.append(ready)
            lease.next_sequence += 1
        self._connection.execute("COMMIT")
        return len(holds)

    def start(self) -> None:
        """Begin to write, for the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._writer = threading.Thread(target=self._write, name="steward-outbox", daemon=True)
        self._writer.start()

    def open_lease(self, lease_id: str) -> None:
        """Reports of this lease are numbered from 1, or go on where they ended."""
        if lease_id not in self._leases:
            self._leases[lease_id] = _Lease()
            self._ride(_Change(((_LEASE, (lease_id,)),)))

    async def hold(
        self, *, lease_id: str, call_id: str, model: str, bound_nanousd: int, alone: bool = False
    ) -> None:
        """Put a hold on disk; the call may leave once this returns.

        With `alone`, no other call being under way, it is written at once and on this thread: two
        changes of thread cost more than the disk. Else it shares a commit with the others.

        If the waiting is cancelled the hold may exist all the same: release it.

        Raises:
            OutboxFailed: it is not on disk.
        """
        number = self._next_row
        self._next_row += 1
        self._rows[call_id] = number
        row = (number, call_id, lease_id, model, bound_nanousd, time.time_ns() // 1_000_000)
        change = _Change(((_HOLD, row),), awaited=True)
        if not alone or self._writing or self._writer is None:
            await self._now(change)
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        riders, self._riders = self._riders, []
        riders.append(change)
        failure = self._commit(riders)
        self._committed(riders, failure)
        if failure is not None:
            raise OutboxFailed(f"{self.path} could not be written: {failure}") from failure

    def settle(self, *, lease_id: str, call_id: str, report: Callable[[int], bytes]) -> int:
        """End a hold by the report that `report(sequence)` makes; it is sent once durable.

        Returns:
            The number given to it.
        """
        lease = self._leases[lease_id]
        number = self._rows.pop(call_id)
        ready = Report(lease.next_sequence, call_id, report(lease.next_sequence), number)
        lease.next_sequence += 1
        self._ride(
            _Change(
                ((_SETTLE, (ready.sequence, ready.body, number)),),
                durable=lambda: lease.reports.append(ready),
            )
        )
        return ready.sequence

    def release(self, call_id: str) -> None:
        """End a hold that cost nothing."""
        self._ride(_Change(((_DELETE, (self._rows.pop(call_id),)),)))

    def acknowledge(self, lease_id: str, sequence: int) -> None:
        """The server has every report up to this number: they are deleted."""
        lease = self._leases.get(lease_id)
        if lease is None or sequence <= lease.acknowledged:
            return
        lease.acknowledged = sequence
        done = []
        while lease.reports and lease.reports[0].sequence <= sequence:
            if lease.mark:
                done.append((_DELETE, (lease.mark,)))
            lease.mark = lease.reports.popleft().number
        if done:
            self._ride(_Change(tuple(done)))

    def refuse(self, lease_id: str, report: Report, reason: str, *, void: bytes = b"") -> None:
        """Keep a report the server will never book, for people to look at.

        `void` takes its place, so that its number is used up.
        """
        kept = (report.call_id, lease_id, report.body, reason)
        statements: list[tuple[str, tuple[Any, ...]]] = [(_REFUSE, kept)]
        if void:
            statements.append((_SETTLE, (report.sequence, void, report.number)))
            lease = self._leases[lease_id]
            lease.reports = deque(
                replace(each, body=void) if each is report else each for each in lease.reports
            )
        self._ride(_Change(tuple(statements)))

    def reports(self, lease_id: str, *, after: int, limit: int) -> list[Report]:
        """Durable reports numbered above `after`, in order."""
        lease = self._leases.get(lease_id)
        if lease is None or not lease.reports:
            return []
        first = max(0, after + 1 - lease.reports[0].sequence)
        return [lease.reports[at] for at in range(first, min(first + limit, len(lease.reports)))]

    def unacknowledged(self, lease_id: str) -> int:
        """How many reports are numbered and not acknowledged, durable or not."""
        lease = self._leases.get(lease_id)
        return 0 if lease is None else lease.next_sequence - 1 - lease.acknowledged

    def forget(self, lease_id: str) -> None:
        """The lease is closed and everything about it is acknowledged."""
        if self._leases.pop(lease_id, None) is not None:
            self._ride(_Change(((_FORGET, (lease_id,)), (_FORGET_CALLS, (lease_id,)))))

    async def flush(self) -> None:
        """Wait until everything asked for so far is on disk.

        Raises:
            OutboxFailed: it is not.
        """
        await self._now(_Change((), awaited=True))

    async def close(self) -> None:
        """Write what waits, end the thread and delete the file if nothing is owed any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            self._changes.put(self._riders)
            self._riders = []
            self._changes.put(None)
            await self._ended.wait()
            self._writer.join()
            self._writer = None
        owed = self._connection.execute(
            "SELECT (SELECT count(*) FROM call) + (SELECT count(*) FROM refused)"
        ).fetchone()[0]
        self._connection.close()
        if owed == 0:
            for suffix in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _ride(self, change: _Change) -> None:
        self._riders.append(change)
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(RIDE_ALONG_S, self._depart)

    async def _now(self, change: _Change) -> None:
        if self._loop is None or self._writer is None:
            raise OutboxFailed(f"{self.path} is not open for writing")
        change.waiter = self._loop.create_future()
        self._riders.append(change)
        if not self._urgent:
            self._urgent = True
            if not self._writing:
                # Once this turn of the loop is over: what else it brings comes along.
                self._loop.call_soon(self._depart)
        await change.waiter

    def _depart(self) -> None:
        """Hand what has gathered to the writer, if it is free; else it goes when it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._riders and not self._writing:
            self._writing = True
            self._urgent = False
            riders, self._riders = self._riders, []
            self._changes.put(riders)

    def _write(self) -> None:
        loop = self._loop
        while loop is not None:
            changes = self._changes.get()
            try:
                if changes is None:
                    loop.call_soon_threadsafe(self._ended.set)
                    return
                loop.call_soon_threadsafe(self._written, changes, self._commit(changes))
            except RuntimeError:  # the loop has closed; nobody waits any more
                return

    def _commit(self, changes: Iterable[_Change]) -> sqlite3.Error | None:
        execute = self._connection.execute
        try:
            execute("BEGIN")
            for change in changes:
                for statement, values in change.statements:
                    execute(statement, values)
            execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                execute("ROLLBACK")
            return error
        return None

    def _written(self, changes: list[_Change], failure: sqlite3.Error | None) -> None:
        self._writing = False
        self._committed(changes, failure)
        if self._urgent:
            self._depart()
        elif self._riders and self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(RIDE_ALONG_S, self._depart)

    def _committed(self, changes: list[_Change], failure: sqlite3.Error | None) -> None:
        if failure is not None:
            self._retry(changes, failure)
            return
        ready = False
        for change in changes:
            if change.durable is not None:
                change.durable()
                ready = True
            if change.waiter is not None and not change.waiter.done():
                change.waiter.set_result(None)
        if ready:
            self.on_durable()

    def _retry(self, changes: list[_Change], failure: sqlite3.Error) -> None:
        log.error("%s could not be written: %s", self.path, failure)
        for change in changes:
            if change.waiter is not None and not change.waiter.done():
                change.waiter.set_exception(
                    OutboxFailed(f"{self.path} could not be written: {failure}")
                )
        self._riders[:0] = [change for change in changes if not change.awaited]
        if self._timer is None and self._loop is not None and self._writer is not None:
            self._timer = self._loop.call_later(RETRY_S, self._depart)
