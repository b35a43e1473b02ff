"""A session over a real port: everything a runtime does, over one stream."""

from __future__ import annotations

import asyncio
from itertools import accumulate
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from steward.budget.v1 import budget_pb2 as pb
from steward.events.v1 import events_pb2
from steward_client.seal import open_ip_token
from tests.integration.budget.conftest import USD, Bank
from tests.integration.budget.runtime import Runtime, batch, session, usages
from tests.live import PROVIDER_KEY

pytestmark = pytest.mark.asyncio(loop_scope="module")


def reason(status: status_pb2.Status) -> str:
    """The stable reason of a refusal."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), status
    return str(info.reason)


def refused(ack: pb.ReportAck) -> list[tuple[int, str]]:
    return [(each.index, reason(each.status)) for each in ack.refused]


async def acknowledged(runtime: Runtime, last_id: int) -> list[pb.ReportAck]:
    """Acks up to the one that answers this message."""
    acks = []
    while True:
        response = await runtime.read()
        assert response.WhichOneof("message") == "report_ack", response
        acks.append(response.report_ack)
        if response.in_reply_to == last_id:
            return acks


async def test_a_runtime_borrows_spends_grows_and_gives_back(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        granted = await runtime.ask(handshake=pb.HandshakeRequest(requested_budget_nanousd=USD))
        lease = granted.lease_id
        ack = await runtime.ask(report_batch=batch(lease, usages(3)))
        grown = await runtime.ask(
            refresh=pb.RefreshRequest(lease_id=lease, requested_budget_nanousd=USD)
        )
        returned = await runtime.ask(return_lease=pb.ReturnRequest(lease_id=lease))
        assert await runtime.end() == []

    assert open_ip_token(granted, agent.ic_token) == PROVIDER_KEY
    usage_rows = [row for row in bank.books().of_kind("usage") if row.subject == lease]
    assert ack == pb.ReportAck(
        lease_id=lease,
        sequence=3,
        lease_spent_nanousd=6,
        lease_remaining_nanousd=USD - 6,
        budget_remaining_nanousd=9 * USD,
        desired_state=pb.DESIRED_STATE_RUNNING,
        lease_status=pb.LEASE_STATE_ACTIVE,
        commit_number=usage_rows[-1].lsn,
    )
    assert (grown.status, grown.lease_granted_nanousd) == ("approved", 2 * USD)
    assert returned.returned_nanousd == 2 * USD - 6
    bank.sound_books()


async def test_thousands_of_pipelined_reports_are_acknowledged_exactly(bank: Bank) -> None:
    agent = await bank.agent()
    size, batches = 25, 200
    reports = usages(size * batches)
    spent = [0, *accumulate(usage.cost_nanousd for usage in reports)]
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()

        async def send_all() -> None:
            for start in range(0, len(reports), size):
                await runtime.send(report_batch=batch(lease, reports[start : start + size]))

        sending = asyncio.create_task(send_all())
        acks = await acknowledged(runtime, last_id=1 + batches)
        await sending

    rows = [row for row in bank.sound_books().of_kind("usage") if row.subject == lease]
    assert [row.key for row in rows] == [usage.request_id for usage in reports]
    assert [row.body["seq"] for row in rows] == list(range(1, len(reports) + 1))
    numbers = [ack.sequence for ack in acks]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == len(reports)
    for ack in acks:
        assert ack.sequence % size == 0
        assert not ack.refused
        assert ack.lease_spent_nanousd == spent[ack.sequence]
        assert ack.lease_remaining_nanousd == USD - spent[ack.sequence]
        assert ack.commit_number == rows[ack.sequence - 1].lsn


async def test_what_is_acknowledged_is_in_the_database_file(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        for first in range(1, 200, 20):
            ack = await runtime.ask(report_batch=batch(lease, usages(20, first=first)))
            assert bank.books().lease(lease).sequence >= ack.sequence == first + 19


async def test_a_batch_holds_one_to_a_thousand_usages(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        for reported in ([], usages(1_001)):
            refusal = await runtime.ask(report_batch=batch(lease, reported))
            assert refusal.code == code_pb2.INVALID_ARGUMENT
            assert "usages" in refusal.message
        ack = await runtime.ask(report_batch=batch(lease, usages(1_000)))
        assert (ack.sequence, ack.lease_spent_nanousd) == (1_000, 500_500)


async def test_a_refusal_of_one_message_does_not_end_the_stream(bank: Bank) -> None:
    agent, stranger = await bank.agent(budget_usd=1), await bank.agent()
    foreign = (await bank.handshake(stranger)).lease_id
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake(USD)
        before = bank.books()
        messages: list[tuple[dict[str, Any], str]] = [
            ({}, "EMPTY_MESSAGE"),
            ({"handshake": pb.HandshakeRequest()}, "BUDGET_EXCEEDED"),
            ({"handshake": pb.HandshakeRequest(public_key=b"1")}, "VALIDATION_ERROR"),
            ({"report_batch": batch("lease_none", usages(1))}, "LEASE_NOT_FOUND"),
            ({"report_batch": batch(foreign, usages(1))}, "LEASE_NOT_FOUND"),
            ({"report_batch": batch("", usages(1))}, "VALIDATION_ERROR"),
            ({"report_batch": batch("x" * 101, usages(1))}, "VALIDATION_ERROR"),
            ({"refresh": pb.RefreshRequest(lease_id=foreign)}, "LEASE_NOT_FOUND"),
            ({"refresh": pb.RefreshRequest()}, "VALIDATION_ERROR"),
            ({"return_lease": pb.ReturnRequest(lease_id=foreign)}, "LEASE_NOT_FOUND"),
            ({"return_lease": pb.ReturnRequest()}, "VALIDATION_ERROR"),
            ({"resume_lease": pb.ResumeLease(lease_id=foreign)}, "LEASE_NOT_FOUND"),
            ({"resume_lease": pb.ResumeLease(lease_id="x" * 101)}, "VALIDATION_ERROR"),
            ({"agent_stopped": events_pb2.AgentStopped(reason="bored")}, "VALIDATION_ERROR"),
            ({"agent_started": events_pb2.AgentStarted(script="s" * 256)}, "VALIDATION_ERROR"),
        ]
        for message, why in messages:
            refusal = await runtime.ask(**message)
            assert reason(refusal) == why, message
        assert bank.books() == before
        assert (await runtime.ask(report_batch=batch(lease, usages(1)))).sequence == 1


async def test_usages_that_are_refused_do_not_hold_up_the_others(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        first, second, third, fourth, fifth = usages(5)
        second.sequence, third.sequence, fourth.sequence, fifth.sequence = 0, 2, 0, 0
        second.model = ""
        fourth.ClearField("cost_nanousd")
        fourth.model = "no such model"
        ack = await runtime.ask(report_batch=batch(lease, [first, second, third, fourth, fifth]))

    assert refused(ack) == [(1, "VALIDATION_ERROR"), (3, "PRICE_UNKNOWN")]
    assert [each.request_id for each in ack.refused] == [second.request_id, fourth.request_id]
    assert (ack.sequence, ack.lease_spent_nanousd) == (3, 1 + 3 + 5)
    rows = [row.key for row in bank.sound_books().of_kind("usage") if row.subject == lease]
    assert rows == [first.request_id, third.request_id, fifth.request_id]


async def test_after_a_gap_nothing_of_the_batch_is_booked(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        one, two, _, four, five = usages(5)
        ack = await runtime.ask(report_batch=batch(lease, [one, two, four, five]))
        only_gaps = await runtime.ask(report_batch=batch(lease, [five]))
    assert refused(ack) == [(2, "SEQUENCE_GAP"), (3, "SEQUENCE_GAP")]
    assert (ack.sequence, ack.lease_spent_nanousd) == (2, 3)
    assert refused(only_gaps) == [(0, "SEQUENCE_GAP")]
    assert (only_gaps.sequence, only_gaps.lease_spent_nanousd) == (2, 3)
    assert only_gaps.lease_remaining_nanousd == USD - 3
    assert only_gaps.lease_status == pb.LEASE_STATE_ACTIVE


async def test_repetitions_within_a_batch_are_booked_once(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        one, two = usages(2)
        other = pb.Usage()
        other.CopyFrom(two)
        other.cost_nanousd = 99
        ack = await runtime.ask(report_batch=batch(lease, [one, one, two, other, two, one]))
    assert refused(ack) == [(3, "REQUEST_ID_REUSED")]
    assert (ack.sequence, ack.lease_spent_nanousd) == (2, 3)
    assert bank.sound_books().lease(lease).sequence == 2


async def test_what_is_sent_again_is_acknowledged_with_how_the_lease_stands_now(
    bank: Bank,
) -> None:
    agent = await bank.agent()
    reports = usages(30)
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        await runtime.ask(report_batch=batch(lease, reports))
        before = bank.books()
        again = await runtime.ask(report_batch=batch(lease, reports[:10]))
        assert (again.sequence, again.lease_spent_nanousd) == (30, 465)
        assert again.commit_number == before.journal[-1].lsn
        assert not again.refused

        mixed = await runtime.ask(report_batch=batch(lease, [*reports[25:], *usages(5, first=31)]))
        assert (mixed.sequence, mixed.lease_spent_nanousd) == (35, 630)

        await bank.stop(agent)
        stopped = await runtime.ask(report_batch=batch(lease, reports[:1]))
        assert stopped.lease_status == pb.LEASE_STATE_DRAINING
        assert stopped.desired_state == pb.DESIRED_STATE_STOPPED


async def test_an_overrun_is_told_in_the_ack_and_pushed(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake(100)
        ack = await runtime.ask(
            report_batch=batch(
                lease, [*usages(1, cost_nanousd=90), *usages(1, first=2, cost_nanousd=15)]
            )
        )
        pushed = await runtime.control(lambda control: control.lease_id)
    assert (ack.overrun_nanousd, ack.lease_remaining_nanousd) == (5, 0)
    assert ack.lease_status == pushed.lease_status == pb.LEASE_STATE_DRAINING
    assert ack.desired_state == pb.DESIRED_STATE_STOPPED
    assert pushed.reason == "overrun"


async def test_a_lease_returned_in_between_takes_no_more(bank: Bank) -> None:
    agent = await bank.agent()
    one, two, three = usages(3)
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        await runtime.send(report_batch=batch(lease, [one]))
        await runtime.send(return_lease=pb.ReturnRequest(lease_id=lease))
        await runtime.send(report_batch=batch(lease, [one, two, three]))
        acked, returned, late = await runtime.read(), await runtime.read(), await runtime.read()
    assert acked.report_ack.sequence == 1
    assert returned.return_lease.lease_spent_nanousd == 1
    assert refused(late.report_ack) == [(1, "LEASE_CLOSED"), (2, "LEASE_CLOSED")]
    assert late.report_ack.lease_status == pb.LEASE_STATE_CLOSED
    assert late.report_ack.sequence == 1


async def test_leases_of_one_stream_are_kept_apart(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        leases = [await runtime.handshake() for _ in range(3)]
        for first in range(1, 31, 3):
            for lease in leases:
                last_id = await runtime.send(report_batch=batch(lease, usages(3, first=first)))
        acks = await acknowledged(runtime, last_id)
        unknown = await runtime.send(report_batch=batch("lease_none", usages(1)))
        known = await runtime.send(report_batch=batch(leases[0], usages(1, first=31)))
        answers = {each.in_reply_to: each for each in (await runtime.read(), await runtime.read())}
    assert {ack.lease_id: ack.sequence for ack in acks} == dict.fromkeys(leases, 30)
    assert reason(answers[unknown].refusal) == "LEASE_NOT_FOUND"
    assert answers[known].report_ack.sequence == 31
    bank.sound_books()


async def test_many_streams_at_once_are_all_booked(bank: Bank) -> None:
    agents = [await bank.agent() for _ in range(4)]

    async def spend(number: int) -> None:
        async with session(bank.live.channel, agents[number % 4]) as runtime:
            lease = await runtime.handshake(USD // 10)
            for first in range(1, 101, 10):
                last_id = await runtime.send(report_batch=batch(lease, usages(10, first=first)))
            acks = await acknowledged(runtime, last_id)
            returned = await runtime.ask(return_lease=pb.ReturnRequest(lease_id=lease))
            assert acks[-1].sequence == 100
            assert returned.lease_spent_nanousd == 5_050

    await asyncio.gather(*(spend(number) for number in range(32)))
    books = bank.sound_books()
    for agent in agents:
        assert books.account(agent.agent_id).spent_nanousd == 8 * 5_050


async def test_what_an_agent_did_is_told_over_the_stream_too(bank: Bank) -> None:
    agent = await bank.agent()
    finding = events_pb2.PiiFinding(kind=events_pb2.PII_KIND_EMAIL, count=2)
    async with session(bank.live.channel, agent) as runtime:
        started = await runtime.ask(
            agent_started=events_pb2.AgentStarted(runtime_id="r", script="a.py")
        )
        alerted = await runtime.ask(
            pii_alert=events_pb2.PiiAlert(
                request_id="call",
                direction=events_pb2.PII_DIRECTION_INPUT,
                action=events_pb2.PII_ACTION_ALERT,
                findings=[finding],
            )
        )
        stopped = await runtime.ask(
            agent_stopped=events_pb2.AgentStopped(runtime_id="r", exit_code=0, reason="exited")
        )
    rows = {row.lsn: row.kind for row in bank.books().entries}
    kinds = [rows[answer.sequence] for answer in (started, alerted, stopped)]
    assert kinds == ["agent.started", "pii.detected", "agent.stopped"]


# Ends.


async def test_a_half_closed_stream_finishes_what_was_sent(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        for first in range(1, 1_001, 10):
            last_id = await runtime.send(report_batch=batch(lease, usages(10, first=first)))
        rest = await runtime.end()
        assert await runtime.call.code() is grpc.StatusCode.OK
    assert rest[-1].in_reply_to == last_id
    assert rest[-1].report_ack.sequence == 1_000
    assert bank.sound_books().lease(lease).state == "active"


async def test_bytes_that_are_no_message_end_the_stream_and_change_nothing(bank: Bank) -> None:
    agent = await bank.agent()
    before = bank.books()
    open_raw: Any = bank.live.channel.stream_stream("/steward.budget.v1.BudgetService/Session")
    call = open_raw(metadata=agent.metadata)
    await call.write(b"\xff\xff\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert bank.books() == before
    async with session(bank.live.channel, agent) as runtime:
        assert await runtime.handshake()


async def test_a_message_that_is_too_large_ends_the_stream(bank: Bank) -> None:
    agent = await bank.agent()
    async with session(bank.live.channel, agent) as runtime:
        lease = await runtime.handshake()
        await runtime.send(report_batch=batch(lease, usages(1, request_id="x" * 5 * 1024 * 1024)))
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            await runtime.read()
    assert cut.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert bank.sound_books().lease(lease).sequence == 0


async def test_nobody_but_an_agent_opens_a_session(bank: Bank) -> None:
    for metadata, code in (
        (bank.admin, grpc.StatusCode.PERMISSION_DENIED),
        ((), grpc.StatusCode.UNAUTHENTICATED),
        ((("x-ic-key", "ic_wrong"),), grpc.StatusCode.UNAUTHENTICATED),
    ):
        call = bank.budget.Session(metadata=metadata)
        assert await call.code() is code
