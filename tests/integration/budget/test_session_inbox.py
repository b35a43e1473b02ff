"""What waits to be answered is bounded, in number and in size."""

from __future__ import annotations

import asyncio

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget.inbox import MAX_BYTES, MAX_MESSAGES, Inbox


def message(number: int, size_bytes: int = 0) -> pb.SessionRequest:
    told = pb.HandshakeRequest(runtime_id="x" * size_bytes)
    return pb.SessionRequest(message_id=number, handshake=told)


async def put_until_held_back(inbox: Inbox, size_bytes: int) -> tuple[int, asyncio.Task[None]]:
    """How many messages find room, and the task that waits to put the next one."""
    taken = 0

    async def put() -> None:
        nonlocal taken
        while True:
            await inbox.put(message(taken + 1, size_bytes))
            taken += 1

    putting = asyncio.create_task(put())
    for _ in range(3):
        await asyncio.sleep(0)
    return taken, putting


async def test_messages_come_out_in_order_and_then_the_end() -> None:
    inbox = Inbox()
    for number in (1, 2, 3):
        await inbox.put(message(number))
    await inbox.put(None)
    first = await inbox.get()
    assert first is not None
    rest = [inbox.get_nowait() for _ in range(3)]
    assert [first.message_id, *(each and each.message_id for each in rest)] == [1, 2, 3, None]
    assert inbox.empty()


async def test_small_messages_are_bounded_by_their_number() -> None:
    inbox = Inbox()
    taken, putting = await put_until_held_back(inbox, 0)
    assert taken == MAX_MESSAGES
    await inbox.get()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not putting.done()
    putting.cancel()


async def test_large_messages_are_bounded_by_their_size() -> None:
    inbox = Inbox()
    taken, putting = await put_until_held_back(inbox, MAX_BYTES // 4)
    assert taken == 3
    putting.cancel()


async def test_a_message_as_large_as_all_the_room_waits_alone() -> None:
    inbox = Inbox()
    taken, putting = await put_until_held_back(inbox, 2 * MAX_BYTES)
    assert taken == 1
    assert await inbox.get() is not None
    assert await inbox.get() is not None
    putting.cancel()
