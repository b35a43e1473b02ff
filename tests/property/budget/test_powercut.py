"""The power-cut layer tried on plain reports: what survives it, and what it catches."""

import random
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import apsw
import pytest

from steward_server.db import Transaction
from tests.property.budget.powercut import ApswTransaction, Disk, PowerCut

SCHEMA = """
CREATE TABLE account (name TEXT PRIMARY KEY, spent INTEGER NOT NULL);
CREATE TABLE report (id INTEGER PRIMARY KEY, batch INTEGER NOT NULL, cost INTEGER NOT NULL);
INSERT INTO account VALUES ('agent', 0);
"""


@dataclass
class Ledger:
    """What the caller knows: what it sent in each batch, and which batches were acknowledged."""

    sent: dict[int, set[int]] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)


@dataclass
class Findings:
    cuts: int = 0
    acknowledged: int = 0
    lost: int = 0
    corrupt: int = 0


def new_disk(kind: type[Disk] = Disk) -> Disk:
    disk = kind()
    with disk.connected() as connection:
        connection.execute(SCHEMA)
    return disk


def report_until_the_power_fails(
    disk: Disk, ledger: Ledger, draw: random.Random, synchronous: str
) -> Disk:
    """Commit batches of reports and return what is found of the disk after a cut.

    Half the time the power fails in the middle of something, else between two statements.
    """
    if draw.random() < 0.5:
        disk.fail_after(draw.randrange(1, 60))
    try:
        with disk.connected(synchronous=synchronous) as connection:
            connection.wal_autocheckpoint(draw.choice((4, 16, 1_000)))
            for _ in range(draw.randrange(1, 12)):
                commit_batch(connection, ledger, draw)
            if draw.random() < 0.3:
                connection.execute("BEGIN; DELETE FROM report; UPDATE account SET spent = 0")
            return disk.cut(draw)
    except apsw.Error:
        if not disk.is_dark:
            raise
        return disk.cut(draw)


def commit_batch(connection: apsw.Connection, ledger: Ledger, draw: random.Random) -> None:
    batch = len(ledger.sent)
    ids = {batch * 10 + number for number in range(draw.randrange(1, 6))}
    ledger.sent[batch] = ids
    with connection:
        rows = [(report_id, batch, report_id % 7) for report_id in sorted(ids)]
        connection.executemany("INSERT INTO report VALUES (?, ?, ?)", rows)
        spent = sum(cost for _, _, cost in rows)
        connection.execute("UPDATE account SET spent = spent + ?", (spent,))
    ledger.acknowledged.add(batch)


def inspect(disk: Disk, ledger: Ledger, findings: Findings) -> None:
    try:
        with disk.connected() as connection:
            assert connection.pragma("integrity_check") == "ok"
            rows: list[Any] = connection.execute("SELECT batch, id, cost FROM report").fetchall()
            spent = connection.execute("SELECT spent FROM account").get
    except (apsw.Error, AssertionError):
        findings.corrupt += 1
        return
    found: dict[int, set[int]] = {}
    for batch, report_id, _ in rows:
        found.setdefault(batch, set()).add(report_id)
    findings.cuts += 1
    findings.acknowledged += len(ledger.acknowledged)
    findings.lost += len(ledger.acknowledged - set(found))
    whole = all(ids == ledger.sent[batch] for batch, ids in found.items())
    if not whole or spent != sum(cost for _, _, cost in rows):
        findings.corrupt += 1
    # What was found is what counts from here on.
    ledger.sent |= {batch: set() for batch in ledger.sent if batch not in found}
    ledger.acknowledged = set(found)


def cut_the_power(times: int, *, seed: int, synchronous: str, kind: type[Disk] = Disk) -> Findings:
    """Lives of a disk: some cuts in a row each, the next life beginning on a new disk."""
    draw = random.Random(seed)
    findings = Findings()
    while findings.cuts + findings.corrupt < times:
        disk, ledger = new_disk(kind), Ledger()
        for _ in range(4):
            disk = report_until_the_power_fails(disk, ledger, draw, synchronous)
            inspect(disk, ledger, findings)
            if findings.corrupt:
                break
    return findings


def test_with_full_synchronisation_nothing_acknowledged_is_lost() -> None:
    findings = cut_the_power(2_000, seed=1, synchronous="FULL")
    assert findings.acknowledged > 10_000
    assert (findings.lost, findings.corrupt) == (0, 0)


@pytest.mark.proof
def test_ten_thousand_power_cuts_lose_nothing_acknowledged() -> None:
    findings = cut_the_power(10_000, seed=2, synchronous="FULL")
    assert findings.acknowledged > 50_000
    assert (findings.lost, findings.corrupt) == (0, 0)


def test_the_layer_catches_a_database_that_does_not_wait_for_the_disk() -> None:
    findings = cut_the_power(200, seed=1, synchronous="NORMAL")
    assert findings.lost > 100
    assert findings.corrupt == 0


class LyingDisk(Disk):
    """Says that it synced, and did not."""

    def sync(self, file: object) -> None:
        self.spend()


def test_the_layer_catches_a_disk_that_lies() -> None:
    findings = cut_the_power(50, seed=1, synchronous="FULL", kind=LyingDisk)
    assert findings.lost + findings.corrupt > 0


def test_a_cut_leaves_the_old_disk_as_it_is() -> None:
    disk = new_disk()
    with disk.connected() as connection:
        connection.execute("INSERT INTO report VALUES (1, 1, 1)")
        found = disk.cut(random.Random(1))
        connection.execute("DELETE FROM report")
    with found.connected() as connection:
        assert connection.execute("SELECT count(*) FROM report").get == 1


def test_the_power_fails_at_the_operation_it_was_told_to() -> None:
    disk = new_disk()
    disk.fail_after(0)
    with disk.connected() as connection, pytest.raises(PowerCut):
        connection.execute("INSERT INTO report VALUES (1, 1, 1)")


# --- the transaction over it


class Colour(StrEnum):
    RED = "red"


async def test_a_transaction_reads_rows_by_name_and_counts_its_changes() -> None:
    with new_disk().connected() as connection, connection:
        transaction: Transaction = ApswTransaction(connection)
        await transaction.execute_many(
            "INSERT INTO report VALUES (?, ?, ?)", [(1, 1, 10), (2, 1, 20), (3, 2, 30)]
        )
        assert await transaction.execute("UPDATE report SET cost = 0 WHERE batch = ?", 1) == 2
        assert await transaction.execute("UPDATE report SET cost = 0 WHERE batch = ?", 9) == 0
        row = await transaction.fetch_one("SELECT id, cost FROM report WHERE id = ?", 3)
        assert row is not None
        assert (row["id"], row["cost"]) == (3, 30)
        assert await transaction.fetch_one("SELECT id FROM report WHERE id = ?", 9) is None
        rows = await transaction.fetch_all("SELECT id FROM report ORDER BY id")
        assert [row["id"] for row in rows] == [1, 2, 3]


async def test_a_transaction_binds_enums_booleans_and_bytes_as_plain_values() -> None:
    with new_disk().connected() as connection, connection:
        transaction = ApswTransaction(connection)
        sql = "SELECT ? AS colour, ? AS truth, ? AS raw, ? AS absent"
        row = await transaction.fetch_one(sql, Colour.RED, True, b"\x00", None)
        assert row == {"colour": "red", "truth": 1, "raw": b"\x00", "absent": None}


async def test_a_transaction_that_fails_leaves_nothing() -> None:
    with new_disk().connected() as connection:
        transaction = ApswTransaction(connection)
        with pytest.raises(apsw.ConstraintError), connection:
            await transaction.execute_many(
                "INSERT INTO report VALUES (?, ?, ?)", [(1, 1, 1), (1, 1, 1)]
            )
        assert connection.execute("SELECT count(*) FROM report").get == 0
