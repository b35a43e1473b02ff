"""The durable outbox on a real file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_client.outbox import OpenHold, Outbox, OutboxBusy, OutboxFailed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent_1" / "outbox.sqlite"


@pytest.fixture
async def outbox(path: Path) -> AsyncIterator[Outbox]:
    made = Outbox.open(path)
    made.start()
    made.open_lease("lease_1")
    yield made
    await made.close()


async def hold(outbox: Outbox, call_id: str, *, lease_id: str = "lease_1") -> None:
    await outbox.hold(lease_id=lease_id, call_id=call_id, model="gpt-4o", bound_nanousd=9)


def settle(outbox: Outbox, call_id: str, *, lease_id: str = "lease_1") -> int:
    return outbox.settle(
        lease_id=lease_id,
        call_id=call_id,
        report=lambda sequence: f"{call_id} {sequence}".encode(),
    )


def bodies(outbox: Outbox, lease_id: str = "lease_1", after: int = 0) -> list[str]:
    return [each.body.decode() for each in outbox.reports(lease_id, after=after, limit=1_000)]


async def test_reports_are_numbered_from_one_in_the_order_they_were_settled(
    outbox: Outbox,
) -> None:
    for call_id in "abc":
        await hold(outbox, call_id)
    assert [settle(outbox, call_id) for call_id in "cab"] == [1, 2, 3]
    await outbox.flush()

    assert bodies(outbox) == ["c 1", "a 2", "b 3"]
    assert bodies(outbox, after=1) == ["a 2", "b 3"]


async def test_a_report_is_ready_only_once_it_is_durable(outbox: Outbox) -> None:
    await hold(outbox, "a")
    settle(outbox, "a")
    assert bodies(outbox) == []
    assert outbox.unacknowledged("lease_1") == 1
    await outbox.flush()
    assert bodies(outbox) == ["a 1"]


async def test_what_is_acknowledged_is_not_kept(outbox: Outbox) -> None:
    for call_id in "abc":
        await hold(outbox, call_id)
        settle(outbox, call_id)
    await outbox.flush()
    outbox.acknowledge("lease_1", 2)
    outbox.acknowledge("lease_1", 1)

    assert bodies(outbox) == ["c 3"]
    assert outbox.unacknowledged("lease_1") == 1


async def test_numbers_go_on_after_a_restart_even_if_all_is_acknowledged(path: Path) -> None:
    first = Outbox.open(path)
    first.start()
    first.open_lease("lease_1")
    for call_id in "ab":
        await hold(first, call_id)
        settle(first, call_id)
    await first.flush()
    first.acknowledge("lease_1", 2)
    await first.close()
    second = Outbox.open(path)
    second.start()
    second.open_lease("lease_1")
    await hold(second, "c")

    assert settle(second, "c") == 3
    await second.flush()
    assert bodies(second, after=2) == ["c 3"]
    await second.close()


async def test_an_open_hold_is_assumed_once_after_a_restart(path: Path) -> None:
    first = Outbox.open(path)
    first.start()
    first.open_lease("lease_1")
    for call_id in "abc":
        await hold(first, call_id)
    settle(first, "b")
    await first.close()
    seen: list[OpenHold] = []

    def assumed(hold: OpenHold, sequence: int) -> bytes:
        seen.append(hold)
        return f"{hold.call_id} assumed {sequence}".encode()

    second = Outbox.open(path)
    assert second.assume_open_holds(assumed) == 2
    assert second.assume_open_holds(assumed) == 0
    second.start()

    assert [(each.call_id, each.bound_nanousd, each.model) for each in seen] == [
        ("a", 9, "gpt-4o"),
        ("c", 9, "gpt-4o"),
    ]
    assert bodies(second) == ["b 1", "a assumed 2", "c assumed 3"]
    await second.close()


async def test_a_released_hold_leaves_nothing(path: Path) -> None:
    first = Outbox.open(path)
    first.start()
    first.open_lease("lease_1")
    await hold(first, "a")
    first.release("a")
    await first.close()

    assert not path.exists()


async def test_the_file_is_gone_once_nothing_is_owed(path: Path) -> None:
    outbox = Outbox.open(path)
    outbox.start()
    outbox.open_lease("lease_1")
    await hold(outbox, "a")
    settle(outbox, "a")
    await outbox.flush()
    outbox.acknowledge("lease_1", 1)
    outbox.forget("lease_1")
    await outbox.close()

    assert list(path.parent.iterdir()) == []


async def test_a_file_has_one_owner(outbox: Outbox, path: Path) -> None:
    with pytest.raises(OutboxBusy, match="in use"):
        Outbox.open(path)


async def test_a_hold_that_cannot_be_written_is_refused_and_the_rest_is_tried_again(
    outbox: Outbox, path: Path
) -> None:
    await hold(outbox, "a")
    await outbox.flush()
    outbox._connection.execute("PRAGMA query_only = ON")
    settle(outbox, "a")
    with pytest.raises(OutboxFailed):
        await hold(outbox, "b")
    with pytest.raises(OutboxFailed):
        await outbox.hold(lease_id="lease_1", call_id="c", model="m", bound_nanousd=1, alone=True)
    assert bodies(outbox) == []
    outbox._connection.execute("PRAGMA query_only = OFF")
    await hold(outbox, "d")

    assert bodies(outbox) == ["a 1"]


async def test_a_refused_report_is_kept_and_its_number_is_used_up(path: Path) -> None:
    outbox = Outbox.open(path)
    outbox.start()
    outbox.open_lease("lease_1")
    for call_id in "ab":
        await hold(outbox, call_id)
        settle(outbox, call_id)
    await outbox.flush()
    [first, _] = outbox.reports("lease_1", after=0, limit=9)
    outbox.refuse("lease_1", first, "PRICE_UNKNOWN", void=b"void 1")
    assert bodies(outbox) == ["void 1", "b 2"]
    outbox.acknowledge("lease_1", 2)
    outbox.forget("lease_1")
    await outbox.close()
    rows = sqlite3.connect(path).execute("SELECT call_id, report, reason FROM refused").fetchall()

    assert rows == [("a", b"a 1", "PRICE_UNKNOWN")]


async def test_holds_that_come_together_share_a_commit(outbox: Outbox) -> None:
    import asyncio

    groups: list[int] = []
    commit = outbox._commit

    def counted(changes: list[object]) -> object:
        groups.append(len(changes))
        return commit(changes)  # type: ignore[arg-type]

    outbox._commit = counted  # type: ignore[method-assign, assignment]
    await asyncio.gather(*(hold(outbox, str(number)) for number in range(100)))

    assert sum(groups) >= 100
    assert len(groups) <= 5
