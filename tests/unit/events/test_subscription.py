"""What one reader has not taken yet: in order, bounded, with its gaps told."""

from __future__ import annotations

import asyncio

from steward_server.events.hub import Entry, Missed, Subscription


def entry(lsn: int, kind: str = "usage", agent_id: str = "agent_1") -> Entry:
    return Entry(lsn, 0, kind, agent_id, "", None, {})


def subscription(capacity: int = 3, lsn: int = 10) -> Subscription:
    return Subscription(frozenset({"usage"}), "agent_1".__eq__, capacity, lsn)


async def test_entries_come_in_order_and_only_those_asked_for() -> None:
    reader = subscription()
    reader.offer(entry(10))
    reader.offer(entry(11, kind="lease.opened"))
    reader.offer(entry(12, agent_id="agent_2"))
    reader.offer(entry(13))
    reader.offer(entry(14))
    assert [await reader.next(), await reader.next()] == [entry(13), entry(14)]
    assert reader.take() is None


async def test_the_oldest_give_way_to_one_gap() -> None:
    reader = subscription(capacity=3)
    for lsn in range(11, 18):
        reader.offer(entry(lsn))
    taken = [await reader.next() for _ in range(4)]
    assert taken == [Missed(11, 14), entry(15), entry(16), entry(17)]


async def test_a_reader_that_falls_behind_again_is_told_again() -> None:
    reader = subscription(capacity=1)
    for lsn in (11, 12):
        reader.offer(entry(lsn))
    first = await reader.next()
    for lsn in (13, 14):
        reader.offer(entry(lsn))
    assert first == Missed(11, 11)
    assert [await reader.next(), await reader.next()] == [Missed(12, 13), entry(14)]


async def test_a_gap_tells_only_of_what_the_reader_wanted() -> None:
    reader = subscription(capacity=1)
    for lsn in (11, 13):
        reader.offer(entry(lsn))
    reader.offer(entry(20, agent_id="agent_2"))
    assert await reader.next() == Missed(11, 11)


async def test_waiting_ends_with_the_next_entry() -> None:
    reader = subscription()
    waiting = asyncio.create_task(reader.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    reader.offer(entry(11))
    assert await waiting == entry(11)
