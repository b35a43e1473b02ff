"""A disk whose power can be cut, as a file layer under SQLite.

A write is pending until its file is synced. A cut builds a new disk out of what was durable and a
random part of what was pending: each pending write is kept or lost on its own, and some are torn.
Directories are as file systems with a journal keep them: a sync of any file settles all names.
"""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import apsw

SECTOR_BYTES = 4_096
_layers = count(1)


class PowerCut(apsw.IOError):
    """The power failed; the disk answers nothing any more."""


@dataclass(frozen=True, slots=True)
class _Write:
    offset: int
    data: bytes

    def apply(self, to: bytearray) -> None:
        if len(to) < self.offset:
            to.extend(bytes(self.offset - len(to)))
        to[self.offset : self.offset + len(self.data)] = self.data

    def torn(self, at: int) -> "_Write":
        return _Write(self.offset, self.data[:at])


@dataclass(frozen=True, slots=True)
class _Truncation:
    size: int

    def apply(self, to: bytearray) -> None:
        del to[self.size :]
        to.extend(bytes(self.size - len(to)))


@dataclass(slots=True)
class _File:
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[_Write | _Truncation] = field(default_factory=list)

    def change(self, by: _Write | _Truncation) -> None:
        by.apply(self.data)
        self.pending.append(by)

    def sync(self) -> None:
        self.durable = bytes(self.data)
        self.pending.clear()

    def after_cut(self, draw: random.Random) -> "_File":
        survived = bytearray(self.durable)
        for change in self.pending:
            if draw.random() < 0.5:
                continue
            if isinstance(change, _Write) and change.data and draw.random() < 0.1:
                change.torn(draw.randrange(len(change.data))).apply(survived)
            else:
                change.apply(survived)
        return _File(survived, bytes(survived))


class Disk:
    """Files by name. `connected` opens a database on it; `cut` gives what is found after a cut."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._unsettled: dict[
            str, _File | None
        ] = {}  # what the directory still says; None: no such
        self._operations_left: int | None = None

    @contextmanager
    def connected(
        self, name: str = "ledger.db", *, synchronous: str = "FULL"
    ) -> Iterator[apsw.Connection]:
        """Open a database in WAL mode, locked exclusively: that needs no shared memory.

        It is closed at the end, as far as there is power to.
        """
        layer = _Layer(self)
        connection = apsw.Connection(name, vfs=layer.name)
        try:
            # Before the first access: WAL without shared memory is for exclusive connections only.
            connection.pragma("locking_mode", "EXCLUSIVE")
            connection.pragma("journal_mode", "WAL")
            connection.pragma("synchronous", synchronous)
            yield connection
        finally:
            with suppress(apsw.Error):  # a dark disk cannot be closed in order
                connection.close(force=True)

    def fail_after(self, operations: int) -> None:
        """Let the power fail after so many more writes, truncations, syncs and deletions.

        From then on they raise `PowerCut`, which SQLite may pass on as another `apsw.Error`.
        """
        self._operations_left = operations

    @property
    def is_dark(self) -> bool:
        return self._operations_left == 0

    def cut(self, draw: random.Random) -> "Disk":
        """The disk as it is found when the power is back; this one is left as it is."""
        files = dict(self._files)
        for name, before in self._unsettled.items():
            if draw.random() < 0.5:
                continue
            if before is None:
                files.pop(name, None)
            else:
                files[name] = before
        found = Disk()
        found._files = {name: file.after_cut(draw) for name, file in files.items()}
        return found

    # --- what the layer asks for

    def exists(self, name: str) -> bool:
        return name in self._files

    def open(self, name: str) -> _File:
        if name not in self._files:
            self._unsettled.setdefault(name, None)
            self._files[name] = _File()
        return self._files[name]

    def delete(self, name: str, *, sync_directory: bool) -> None:
        self.spend()
        self._unsettled.setdefault(name, self._files.pop(name))
        if sync_directory:
            self._unsettled.clear()

    def sync(self, file: _File) -> None:
        self.spend()
        file.sync()
        self._unsettled.clear()

    def spend(self) -> None:
        """Count an operation that would change the disk."""
        if self._operations_left is None:
            return
        if self._operations_left == 0:
            raise PowerCut
        self._operations_left -= 1


class _Layer(apsw.VFS):
    """A file layer for one connection, under a name never used before."""

    def __init__(self, disk: Disk) -> None:
        self.name = f"power-cut-{next(_layers)}"
        self._disk = disk
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802  named by SQLite
        flags[1] = flags[0]
        if name is None:
            return _Handle(_File(), None)
        path = name if isinstance(name, str) else name.filename()
        return _Handle(self._disk.open(path), self._disk)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001  named by SQLite
        if not self._disk.exists(filename):
            raise apsw.exception_for(apsw.SQLITE_IOERR_DELETE_NOENT)
        self._disk.delete(filename, sync_directory=syncdir)

    def xAccess(self, pathname: str, flags: int) -> bool:  # noqa: N802  named by SQLite
        return self._disk.exists(pathname)

    def xFullPathname(self, name: str) -> str:  # noqa: N802  named by SQLite
        return name


class _Handle:
    """An open file; one connection holds it, so locks have nothing to keep apart."""

    def __init__(self, file: _File, disk: Disk | None) -> None:
        self._file, self._disk = file, disk

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  named by SQLite
        return bytes(self._file.data[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  named by SQLite
        self._spend()
        self._file.change(_Write(offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802  named by SQLite
        self._spend()
        self._file.change(_Truncation(newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802  named by SQLite
        if self._disk is not None:
            self._disk.sync(self._file)

    def xFileSize(self) -> int:  # noqa: N802  named by SQLite
        return len(self._file.data)

    def xLock(self, level: int) -> None:  # noqa: N802  named by SQLite
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802  named by SQLite
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802  named by SQLite
        return False

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802  named by SQLite
        return False

    def xSectorSize(self) -> int:  # noqa: N802  named by SQLite
        return SECTOR_BYTES

    def xDeviceCharacteristics(self) -> int:  # noqa: N802  named by SQLite
        return 0

    def xClose(self) -> None:  # noqa: N802  named by SQLite
        pass

    def _spend(self) -> None:
        if self._disk is not None:
            self._disk.spend()


class ApswTransaction:
    """A `steward_server.db.Transaction` over such a connection; its coroutines never suspend.

    Beginning and committing are the caller's: `with connection: …`.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    async def execute(self, sql: str, *parameters: object) -> int:
        cursor = self._connection.cursor()
        before = self._connection.total_changes()
        cursor.execute(sql, _bindings(parameters)).fetchall()
        return self._connection.total_changes() - before

    async def execute_many(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        self._connection.cursor().executemany(sql, [_bindings(row) for row in rows]).fetchall()

    async def fetch_one(self, sql: str, *parameters: object) -> Mapping[str, Any] | None:
        rows = await self.fetch_all(sql, *parameters)
        return rows[0] if rows else None

    async def fetch_all(self, sql: str, *parameters: object) -> list[Mapping[str, Any]]:
        cursor = self._connection.cursor()
        cursor.row_trace = _by_name
        rows: list[Any] = cursor.execute(sql, _bindings(parameters)).fetchall()
        return rows


def _by_name(cursor: apsw.Cursor, row: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, row, strict=True)}


def _bindings(parameters: Sequence[object]) -> tuple[Any, ...]:
    """As `sqlite3` binds: a subclass of text or number, such as an enum, goes as its value."""
    return tuple(
        str(value) if isinstance(value, str) else int(value) if isinstance(value, int) else value
        for value in parameters
    )
