"""What is decided about a runtime reaches it over its session, and a cut stream costs nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget.inbox import MAX_BYTES
from tests.integration.budget.conftest import USD, Bank, open_bank
from tests.integration.budget.runtime import Runtime, batch, session, usages
from tests.integration.conftest import refusal_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

TTL_S, GRACE_S = 20, 5


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    folder = tmp_path_factory.mktemp("bank")
    async with open_bank(folder, lease_ttl_s=TTL_S, settle_grace_s=GRACE_S) as opened:
        yield opened


# What is pushed.


async def test_a_stop_reaches_the_runtime_within_a_tenth_of_a_second(bank: Bank) -> None:
    agent = await bank.agent()
    waits_s = []
    async with session(bank.live.channel, agent) as runtime:
        for _ in range(9):
            lease = await runtime.handshake()
            begun_s = time.perf_counter()
            await bank.stop(agent, "enough")
            stop = await runtime.control(_tells(pb.DESIRED_STATE_STOPPED))
            waits_s.append(time.perf_counter() - begun_s)
            drained = await runtime.control(_is_about(lease))
            assert (stop.reason, stop.lease_id) == ("enough", "")
            assert drained.lease_status == pb.LEASE_STATE_DRAINING
            assert drained.reason == "agent_stopped"
            await bank.start(agent)
            await runtime.control(_tells(pb.DESIRED_STATE_RUNNING))
    assert statistics.median(waits_s) < 0.1, waits_s


async def test_every_stream_of_the_agent_is_told_and_no_other(bank: Bank) -> None:
    agent, stranger = await bank.agent(), await bank.agent()
    channel = bank.live.channel
    async with (
        session(channel, agent) as one,
        session(channel, agent) as two,
        session(channel, stranger) as other,
    ):
        for runtime in (one, two, other):
            await runtime.handshake()
        await bank.stop(agent)
        for runtime in (one, two):
            await runtime.control(_tells(pb.DESIRED_STATE_STOPPED))
        await other.ask(heartbeat=pb.SessionHeartbeat())
        assert not other.controls


async def test_a_change_of_the_budget_is_pushed_with_what_is_left(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=5)
    async with session(bank.live.channel, agent) as runtime:
        await runtime.handshake(2 * USD)
        await bank.allocate(agent, 9 * USD)
        raised = await runtime.control(lambda each: each.HasField("budget_remaining_nanousd"))
        await bank.allocate(agent, 2 * USD)
        cut = await runtime.control(lambda each: each.HasField("budget_remaining_nanousd"))
    assert (raised.budget_remaining_nanousd, cut.budget_remaining_nanousd) == (7 * USD, 0)
    assert raised.desired_state == pb.DESIRED_STATE_UNSPECIFIED


async def test_an_expiry_is_pushed_when_it_begins_and_when_it_is_over(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        bank.clock.advance(TTL_S)
        draining = await runtime.control(_is_about(lease))
        bank.clock.advance(GRACE_S)
        ended = await runtime.control(_is_about(lease))
    assert (draining.lease_status, draining.reason) == (pb.LEASE_STATE_DRAINING, "expired")
    assert draining.desired_state == pb.DESIRED_STATE_STOPPED
    assert ended.lease_status == pb.LEASE_STATE_EXPIRED


async def test_heartbeats_keep_leases_alive_past_their_time(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        leases = [await runtime.handshake(), await runtime.handshake()]
        for _ in range(4):
            bank.clock.advance(TTL_S * 0.9)
            assert await runtime.ask(heartbeat=pb.SessionHeartbeat()) == pb.SessionHeartbeat()
        assert (await bank.status(agent)).last_seen_at.ToMicroseconds() == bank.clock()
        books = bank.sound_books()
        assert {books.lease(lease).state for lease in leases} == {"active"}
        assert not runtime.controls


async def test_a_heartbeat_does_not_revive_what_has_ended(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        await bank.give_back(agent, lease)
        ended = bank.books().lease(lease)
        await runtime.ask(heartbeat=pb.SessionHeartbeat())
        assert bank.sound_books().lease(lease) == ended


# Credentials.


@pytest.mark.parametrize("how", ["revoke_token", "rotate_token"])
async def test_a_token_that_ends_takes_its_streams_with_it(bank: Bank, how: str) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        await runtime.ask(report_batch=batch(lease, usages(3)))
        await getattr(bank, how)(agent)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await runtime.control(lambda _: False)
    refused = refusal_of(cut.value)
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.UNAUTHENTICATED,
        "CREDENTIAL_ENDED",
    )
    state = "draining" if how == "revoke_token" else "active"
    assert bank.sound_books().lease(lease).state == state


async def test_reports_under_way_when_the_token_ends_are_booked_once_or_not_at_all(
    bank: Bank,
) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        for first in range(1, 2_001, 10):
            await runtime.send(report_batch=batch(lease, usages(10, first=first)))
        numbers = [(await runtime.read()).report_ack.sequence]

        async def read_to_the_end() -> None:
            while True:
                numbers.append((await runtime.read()).report_ack.sequence)

        await bank.revoke_token(agent)
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await read_to_the_end()
    assert cut.value.code() is grpc.StatusCode.UNAUTHENTICATED
    booked = bank.sound_books().lease(lease)
    assert booked.sequence >= numbers[-1]
    assert booked.spent_nanousd == booked.sequence * (booked.sequence + 1) // 2


# Cuts.


async def test_a_cut_stream_is_taken_up_where_it_was(bank: Bank) -> None:
    agent = await bank.agent()
    reports = usages(3_000)

    async def send(runtime: Runtime, lease: str, after: int) -> None:
        for start in range(after, len(reports), 10):
            await runtime.send(report_batch=batch(lease, reports[start : start + 10]))

    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        sending = asyncio.create_task(send(runtime, lease, 0))
        acknowledged = 0
        while acknowledged < 500:
            acknowledged = (await runtime.read()).report_ack.sequence
    await asyncio.gather(sending, return_exceptions=True)

    async with session(bank.live.channel, agent) as runtime:
        resumed = await runtime.ask(resume_lease=pb.ResumeLease(lease_id=lease))
        assert resumed.sequence >= acknowledged
        assert resumed.lease_spent_nanousd == resumed.sequence * (resumed.sequence + 1) // 2
        assert resumed.lease_status == pb.LEASE_STATE_ACTIVE
        assert resumed.desired_state == pb.DESIRED_STATE_RUNNING
        assert resumed.lease_duration_ms == TTL_S * 1_000
        # Some of what was acknowledged is sent again, as a runtime does that cannot be sure.
        await send(runtime, lease, max(0, resumed.sequence - 30))
        while (await runtime.read()).report_ack.sequence < len(reports):
            pass

    rows = [row for row in bank.sound_books().of_kind("usage") if row.subject == lease]
    assert [row.key for row in rows] == [usage.request_id for usage in reports]


async def test_two_streams_at_once_book_each_report_once(bank: Bank) -> None:
    agent = await bank.agent()
    reports = usages(400)

    async def send(runtime: Runtime, lease: str) -> None:
        for start in range(0, len(reports), 5):
            # What the other stream has booked is a repetition; what is ahead of it is a gap.
            while True:
                ack = await runtime.ask(report_batch=batch(lease, reports[start : start + 5]))
                if not ack.refused:
                    break

    async with (
        session(bank.live.channel, agent) as one,
        session(bank.live.channel, agent) as two,
    ):
        lease = await one.handshake()
        await two.ask(resume_lease=pb.ResumeLease(lease_id=lease))
        await asyncio.gather(send(one, lease), send(two, lease))
    rows = [row for row in bank.sound_books().of_kind("usage") if row.subject == lease]
    assert [row.key for row in rows] == [usage.request_id for usage in reports]


async def test_a_resume_tells_of_what_happened_meanwhile(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        stopped, returned = await runtime.handshake(), await runtime.handshake()
        await runtime.ask(report_batch=batch(stopped, usages(4)))
    await bank.give_back(agent, returned)
    await bank.stop(agent)
    async with session(bank.live.channel, agent) as runtime:
        draining = await runtime.ask(resume_lease=pb.ResumeLease(lease_id=stopped))
        closed = await runtime.ask(resume_lease=pb.ResumeLease(lease_id=returned))
    assert (draining.sequence, draining.lease_spent_nanousd) == (4, 10)
    assert draining.lease_status == pb.LEASE_STATE_DRAINING
    assert closed.lease_status == pb.LEASE_STATE_CLOSED
    for resumed in (draining, closed):
        assert resumed.desired_state == pb.DESIRED_STATE_STOPPED


async def test_a_caller_that_leaves_leaves_nothing_behind(bank: Bank) -> None:
    agent = await bank.agent()
    before = _task_count()

    async def leave(number: int) -> None:
        async with session(bank.live.channel, agent) as runtime:
            lease = await runtime.handshake(1)
            for first in range(1, 10 * number, 10):
                await runtime.send(report_batch=batch(lease, usages(10, first=first)))

    await asyncio.gather(*(leave(number) for number in range(30)))
    async with asyncio.timeout(30):
        while _task_count() > before:
            await asyncio.sleep(0.01)
    bank.sound_books()


# Slow readers.


async def test_a_runtime_that_does_not_read_is_held_back(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        # Nothing of it can be booked, for a gap: the answers are larger than the batches.
        gaps = batch(lease, usages(1_000, first=2))
        written = 0

        async def write() -> None:
            nonlocal written
            while True:
                await runtime.send(report_batch=gaps)
                written += 1

        writing = asyncio.create_task(write())
        held_back_at = await _settled(lambda: written)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    assert MAX_BYTES < held_back_at * gaps.ByteSize() < 4 * MAX_BYTES


async def test_a_runtime_too_slow_for_each_change_is_told_how_things_stand(bank: Bank) -> None:
    agent = await bank.agent(budget_usd=5)
    responses = bank.open_in_process("Session", agent, _handshakes_and_then_nothing())
    granted = await anext(responses)
    for first in range(0, 1_100, 100):
        amounts = range(5 * USD + first, 5 * USD + first + 100)
        await asyncio.gather(*(bank.allocate(agent, amount) for amount in amounts))
    await bank.allocate(agent, 9 * USD)
    await bank.stop(agent)
    await bank.start(agent)
    await bank.stop(agent)

    controls: list[pb.Control] = []
    async with asyncio.timeout(30):
        async for response in responses:
            controls.append(response.control)
            if response.control.reason == "the agent was asked to stop" and len(controls) > 100:
                break
    await responses.aclose()

    missed = [each for each in controls if each.reason.startswith("changes were missed")]
    assert missed[0].desired_state == pb.DESIRED_STATE_STOPPED
    assert missed[0].budget_remaining_nanousd == 8 * USD
    assert (missed[1].lease_id, missed[1].lease_status) == (
        granted.handshake.lease_id,
        pb.LEASE_STATE_DRAINING,
    )


async def _handshakes_and_then_nothing() -> AsyncIterator[pb.SessionRequest]:
    yield pb.SessionRequest(handshake=pb.HandshakeRequest(requested_budget_nanousd=USD))
    await asyncio.Event().wait()


def _tells(state: Any) -> Any:
    return lambda control: control.desired_state == state and not control.lease_id


def _is_about(lease: str) -> Any:
    return lambda control: control.lease_id == lease


def _task_count() -> int:
    return sum(not task.done() for task in asyncio.all_tasks())


async def _settled(number: Any) -> int:
    """A number once it has not changed for a while."""
    async with asyncio.timeout(30):
        while True:
            before = number()
            await asyncio.sleep(0.5)
            if number() == before and before:
                return int(before)
