"""The log in a real file, altered behind the server's back in every way there is."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from steward_server.audit import Change, record
from steward_server.audit.trail import AuditEntry
from steward_server.audit.verification import AT_ONCE, verify_file
from steward_server.db import Transaction
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite

ENTRIES = AT_ONCE + 20
"""More than are read at once."""
MIDDLE = AT_ONCE + 1


async def written(folder: Path, count: int, action: str = "thing.changed") -> None:
    database = await Sqlite.open(folder / "steward.db")
    await migrate(database, ["steward_server.audit"])

    async def work(transaction: Transaction) -> None:
        for number in range(1, count + 1):
            change = Change(action, f"thing_{number}", {"size": 1}, {"size": number})
            await record(transaction, 1_700_000_000_000_000 + number, None, change)

    await database.run(work)
    await database.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    asyncio.run(written(folder, ENTRIES))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "data"
    shutil.copytree(sound, copy)
    return copy


def alter(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "steward.db")) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def test_a_file_nobody_touched_is_sound_and_stays_untouched(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    verdict = verify_file(folder)
    assert (verdict.number, verdict.broken) == (ENTRIES, None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert verify_file(folder, (verdict.number, verdict.hash)).broken is None


def test_a_folder_that_may_not_be_written_to_is_read(folder: Path) -> None:
    folder.chmod(0o500)
    (folder / "steward.db").chmod(0o400)
    try:
        assert verify_file(folder).broken is None
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize("field", AuditEntry._fields[1:])
@pytest.mark.parametrize("number", [1, MIDDLE, ENTRIES])
def test_a_change_of_any_field_of_any_row_is_found(folder: Path, field: str, number: int) -> None:
    alter(folder, f"UPDATE audit_entry SET {field} = 'x' WHERE number = {number}")
    broken = verify_file(folder).broken
    assert broken is not None
    assert broken.number == number


FIELDS = ", ".join(AuditEntry._fields[1:])


def copied(number: str, source: int) -> str:
    """Put an entry in a second time, under another number."""
    fields = f"number, {FIELDS}, hash"
    return (
        f"INSERT INTO audit_entry ({fields}) SELECT {number}, {FIELDS}, hash"
        f" FROM audit_entry WHERE number = {source}"
    )


def removed(number: int) -> str:
    return f"DELETE FROM audit_entry WHERE number = {number}"


def changed(number: int, assignment: str) -> str:
    return f"UPDATE audit_entry SET {assignment} WHERE number = {number}"


CLOSE_UP = f"UPDATE audit_entry SET number = number - 1 WHERE number > {MIDDLE}"
EXCHANGE = [changed(7, "number = -7"), changed(8, "number = 7"), changed(-7, "number = 8")]

HOW: dict[str, tuple[list[str], int]] = {
    "the first removed": ([removed(1)], 2),
    "one in the middle removed": ([removed(MIDDLE)], MIDDLE + 1),
    "the last removed": ([removed(ENTRIES)], ENTRIES),
    "all removed": (["DELETE FROM audit_entry"], 1),
    "one removed and the rest moved up": ([removed(MIDDLE), CLOSE_UP], MIDDLE),
    "one put in at the end": ([copied("number + 1", ENTRIES)], ENTRIES + 1),
    "one put in before the first": ([copied("-1", 1)], 0),
    "one put in without a number": ([copied("NULL", 1)], 0),
    "two exchanged": (EXCHANGE, 7),
    "a number that is none": ([changed(9, "number = 'last'")], 10),
    "bytes for a text": ([changed(5, "reason = x'ff'")], 5),
    "a text that is none": ([changed(5, "reason = CAST(x'ff' AS TEXT)")], 5),
    "a hash that is a text": ([changed(5, f"hash = '{'x' * 32}'")], 5),
    "the head moved back": (["UPDATE audit_head SET number = number - 1"], ENTRIES),
    "the head altered": (["UPDATE audit_head SET hash = zeroblob(32)"], ENTRIES),
    "the head without a number": (["UPDATE audit_head SET number = 'last'"], ENTRIES),
    "the head removed": (["DELETE FROM audit_head"], 1),
}


@pytest.mark.parametrize("how", HOW)
def test_every_other_alteration_is_found(folder: Path, how: str) -> None:
    statements, number = HOW[how]
    alter(folder, *statements)
    broken = verify_file(folder).broken
    assert broken is not None
    assert broken.number == number


def test_a_whole_new_log_is_found_by_a_hash_kept_elsewhere(folder: Path, tmp_path: Path) -> None:
    sound = verify_file(folder)
    forged = tmp_path / "forged"
    asyncio.run(written(forged, ENTRIES + 5, action="thing.forged"))
    verdict = verify_file(forged)
    assert (verdict.number, verdict.broken) == (ENTRIES + 5, None)  # in itself it is sound
    broken = verify_file(forged, (sound.number, sound.hash)).broken
    assert broken is not None
    assert broken.number == ENTRIES


def test_a_folder_without_a_database_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no database"):
        verify_file(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no database, but long enough to be one" * 100])
def test_a_file_that_is_no_database_is_told_of(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "steward.db").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read"):
        verify_file(tmp_path)


async def test_a_log_begun_before_its_head_was_kept_goes_on(tmp_path: Path) -> None:
    await written(tmp_path, 3)
    alter(
        tmp_path,
        "DROP TABLE audit_head",
        "DROP INDEX audit_entry_by_action",
        "DELETE FROM schema_migration WHERE name = 'audit/0002_keep_the_head.sql'",
    )
    await written(tmp_path, 2)
    verdict = await asyncio.to_thread(verify_file, tmp_path)
    assert (verdict.number, verdict.broken) == (5, None)
