"""One runtime's stream: what it sends is answered in order, what is wanted of it is pushed.

Reports that arrive while a commit is under way go into the next one together. A stream that is cut
ends nothing: its leases live until they are returned or their time is over, and the runtime goes
on with them over another stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import structlog
from google.rpc import status_pb2

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget import ledger, store
from steward_server.budget.desk import Booked, Outcome, Standing
from steward_server.budget.inbox import Inbox, Incoming
from steward_server.budget.refusals import refused
from steward_server.budget.requests import LEASE_STATES, facts_of, status_of
from steward_server.budget.room import BudgetRoom, desired
from steward_server.calls import Call, Refused
from steward_server.checks import Checks
from steward_server.db import Transaction
from steward_server.errors import InvalidArgument, StewardError
from steward_server.events.hub import Entry, Subscription
from steward_server.interceptors.errors import refusal

log = structlog.get_logger(__name__)

MAX_USAGES_PER_BATCH = 1_000
MAX_USAGES_PER_COMMIT = 512
GATHER_S = 0.002
"""How long more reports are waited for, once they come faster than one by one."""

MAX_UNREAD = 32
"""Answers the runtime has not taken; beyond that nothing more is done for it."""

CONTROL_KINDS = frozenset(
    {"agent.stopping", "agent.starting", "lease.draining", "lease.ended", "account.reallocated"}
)

_Answered = tuple[pb.SessionRequest, list[Outcome]]
"""What became of the usages that are answered together, in reply to this request."""


async def answer(
    room: BudgetRoom, call: Call, requests: AsyncIterator[pb.SessionRequest]
) -> AsyncGenerator[pb.SessionResponse]:
    """Serve one stream until the runtime ends it or it is cut."""
    session = _Session(room, call)
    # Before anything is answered: what is decided after an answer must not be missed.
    subscription = await room.hub.subscribe(CONTROL_KINDS, call.principal.subject.__eq__)
    tasks = [
        asyncio.create_task(session.read(requests)),
        asyncio.create_task(session.work()),
        asyncio.create_task(session.push(subscription)),
    ]
    try:
        while (response := await session.next_response()) is not None:
            yield response
    finally:
        room.hub.unsubscribe(subscription)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Session:
    def __init__(self, room: BudgetRoom, call: Call) -> None:
        self._room = room
        self._call = call
        self._agent_id = call.principal.subject
        self._leases: set[str] = set()
        self._inbox = Inbox()
        self._outbox: asyncio.Queue[pb.SessionResponse | Exception | None] = asyncio.Queue(
            MAX_UNREAD
        )

    async def next_response(self) -> pb.SessionResponse | None:
        response = await self._outbox.get()
        if isinstance(response, Exception):
            raise response
        return response

    async def read(self, requests: AsyncIterator[pb.SessionRequest]) -> None:
        """Take in what the runtime sends, as far ahead as there is room."""
        try:
            async for request in requests:
                await self._inbox.put(request)
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await self._outbox.put(error)
        await self._inbox.put(None)

    async def work(self) -> None:
        """Answer in order."""
        try:
            following: list[Incoming] = []
            is_streaming = False
            while True:
                request = following.pop() if following else await self._inbox.get()
                if request is None:
                    break
                if not _is_bookable(request):
                    await self._outbox.put(await self._answer_one(request))
                    continue
                if is_streaming:
                    await asyncio.sleep(GATHER_S)
                group = [request, *self._take_reports(request, following)]
                is_streaming = len(group) > 1
                for response in await self._book(group):
                    await self._outbox.put(response)
            await self._outbox.put(None)
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await self._outbox.put(error)

    def _take_reports(
        self, first: pb.SessionRequest, following: list[Incoming]
    ) -> list[pb.SessionRequest]:
        taken: list[pb.SessionRequest] = []
        count = len(first.report_batch.usages)
        while count < MAX_USAGES_PER_COMMIT and not self._inbox.empty():
            request = self._inbox.get_nowait()
            if request is None or not _is_bookable(request):
                following.append(request)
                break
            taken.append(request)
            count += len(request.report_batch.usages)
        return taken

    async def _answer_one(self, request: pb.SessionRequest) -> pb.SessionResponse:
        response = pb.SessionResponse(in_reply_to=request.message_id)
        try:
            await self._fill(request, response)
        except Exception as error:  # noqa: BLE001 - told to the runtime, or logged as a fault
            response.refusal.CopyFrom(self._status(error))
        return response

    async def _fill(self, request: pb.SessionRequest, response: pb.SessionResponse) -> None:
        room, call = self._room, self._call
        match request.WhichOneof("message"):
            case "handshake":
                granted = await room.handshake(call, request.handshake)
                self._leases.add(granted.lease_id)
                response.handshake.CopyFrom(granted)
            case "refresh":
                response.refresh.CopyFrom(await room.refresh(call, request.refresh))
            case "return_lease":
                returned = await room.give_back(call, request.return_lease)
                self._leases.discard(request.return_lease.lease_id)
                response.return_lease.CopyFrom(returned)
            case "heartbeat":
                await self._touch()
                response.heartbeat.SetInParent()
            case "resume_lease":
                resumed = await self._resume(request.resume_lease.lease_id)
                response.lease_resumed.CopyFrom(resumed)
            case "agent_started" | "pii_alert" | "agent_stopped" as told:
                lsn = await room.publisher.publish(self._agent_id, getattr(request, told))
                response.event_accepted.sequence = lsn
            case "report_batch":
                with Checks() as checks:
                    checks.text("lease_id", request.report_batch.lease_id, 1, 100)
                    size = len(request.report_batch.usages)
                    checks.between("usages", size, 1, MAX_USAGES_PER_BATCH)
            case other:
                raise InvalidArgument(
                    f"message {request.message_id} holds nothing this server knows ({other})",
                    reason="EMPTY_MESSAGE",
                )

    async def _touch(self) -> None:
        now_us = self._room.clock()

        async def write(transaction: Transaction) -> set[str]:
            await self._room.agents.mark_seen(transaction, agent_id=self._agent_id, now_us=now_us)
            touched = [
                await self._room.desk.touch_lease(
                    transaction, lease_id=lease_id, agent_id=self._agent_id, now_us=now_us
                )
                for lease_id in self._leases
            ]
            return {lease.lease_id for lease in touched if lease.is_open}

        self._leases = await self._room.run(write)

    async def _resume(self, lease_id: str) -> pb.LeaseResumed:
        with Checks() as checks:
            checks.text("lease_id", lease_id, 1, 100)
        now_us = self._room.clock()

        async def write(transaction: Transaction) -> tuple[ledger.Lease, bool]:
            lease = await self._room.desk.touch_lease(
                transaction, lease_id=lease_id, agent_id=self._agent_id, now_us=now_us
            )
            record = await self._room.agents.record(transaction, self._agent_id)
            return lease, record.stop_wanted

        lease, stop_wanted = await self._room.run(write)
        if lease.is_open:
            self._leases.add(lease_id)
        return pb.LeaseResumed(
            lease_id=lease_id,
            lease_status=LEASE_STATES[lease.state],
            sequence=lease.sequence,
            lease_granted_nanousd=lease.granted_nanousd,
            lease_spent_nanousd=lease.spent_nanousd,
            lease_duration_ms=max(0, (lease.expires_at_us - now_us) // 1_000),
            desired_state=desired(lease.state, stop_wanted=stop_wanted),
        )

    # Reports.

    async def _book(self, group: list[pb.SessionRequest]) -> list[pb.SessionResponse]:
        """Book a run of batches in one commit, each answered by itself."""
        now_us = self._room.clock()
        runs: list[list[pb.SessionRequest]] = []
        for request in group:
            lease_id = request.report_batch.lease_id
            if runs and runs[-1][0].report_batch.lease_id == lease_id:
                runs[-1].append(request)
            else:
                runs.append([request])

        async def write(transaction: Transaction) -> list[list[pb.SessionResponse]]:
            await self._room.agents.mark_seen(transaction, agent_id=self._agent_id, now_us=now_us)
            return [await self._book_run(transaction, run, now_us) for run in runs]

        try:
            answers = await self._room.run(write)
        except Exception as error:  # noqa: BLE001 - told to the runtime, or logged as a fault
            status = self._status(error)
            return [
                pb.SessionResponse(in_reply_to=request.message_id, refusal=status)
                for request in group
            ]
        return [response for run in answers for response in run]

    async def _book_run(
        self, transaction: Transaction, run: list[pb.SessionRequest], now_us: int
    ) -> list[pb.SessionResponse]:
        """Book the batches of one lease; the answers count once the transaction is durable."""
        lease_id = run[0].report_batch.lease_id
        usages = [usage for request in run for usage in request.report_batch.usages]
        desk = self._room.desk
        try:
            outcomes = await desk.book(
                transaction,
                lease_id=lease_id,
                agent_id=self._agent_id,
                facts_of=lambda terms: facts_of(usages, terms, self._room.prices),
                now_us=now_us,
            )
        except StewardError as error:  # the lease is not there: nothing was written
            status = error.to_status()
            return [
                pb.SessionResponse(in_reply_to=request.message_id, refusal=status)
                for request in run
            ]
        together = _answered_together(run, outcomes)
        standing: Standing | None = None
        if not all(any(map(_is_new, of_request)) for _, of_request in together):
            standing = await desk.standing(transaction, lease_id=lease_id, agent_id=self._agent_id)
        return [
            pb.SessionResponse(
                in_reply_to=request.message_id,
                report_ack=_ack(request.report_batch, of_request, standing),
            )
            for request, of_request in together
        ]

    # What is pushed.

    async def push(self, subscription: Subscription) -> None:
        """Tell the runtime what others decided about it."""
        try:
            while True:
                entry = await subscription.next()
                controls = (
                    [await self._control(entry)]
                    if isinstance(entry, Entry)
                    else await self._missed_controls()
                )
                for control in controls:
                    await self._outbox.put(pb.SessionResponse(control=control))
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await self._outbox.put(error)

    async def _control(self, entry: Entry) -> pb.Control:
        body = entry.body
        match entry.kind:
            case "agent.stopping":
                reason = body.get("reason") or "the agent was asked to stop"
                return pb.Control(desired_state=pb.DESIRED_STATE_STOPPED, reason=reason)
            case "agent.starting":
                return pb.Control(
                    desired_state=pb.DESIRED_STATE_RUNNING, reason="the agent may run again"
                )
            case "lease.draining":
                return pb.Control(
                    desired_state=pb.DESIRED_STATE_STOPPED,
                    reason=body["why"],
                    lease_id=entry.subject,
                    lease_status=pb.LEASE_STATE_DRAINING,
                )
            case "lease.ended":
                return pb.Control(
                    lease_id=entry.subject,
                    lease_status=LEASE_STATES[ledger.LeaseState(body["state"])],
                )
        return pb.Control(
            reason="the agent's budget was changed",
            budget_remaining_nanousd=await self._available_nanousd(),
        )

    async def _missed_controls(self) -> list[pb.Control]:
        """How things stand, for a runtime that was too slow to be told each change."""
        reason = "changes were missed; this is how things stand"
        database = self._room.database
        record = await self._room.agents.record(database, self._agent_id)
        stopped, running = pb.DESIRED_STATE_STOPPED, pb.DESIRED_STATE_RUNNING
        controls = [
            pb.Control(
                desired_state=stopped if record.stop_wanted else running,
                reason=reason,
                budget_remaining_nanousd=await self._available_nanousd(),
            )
        ]
        for lease_id in sorted(self._leases):
            lease, _ = await store.lease(database, lease_id, self._agent_id)
            if lease.state is not ledger.LeaseState.ACTIVE:
                status = LEASE_STATES[lease.state]
                control = pb.Control(reason=reason, lease_id=lease_id, lease_status=status)
                controls.append(control)
        return controls

    async def _available_nanousd(self) -> int:
        path = await store.path(self._room.database, self._agent_id)
        return ledger.tightest(path).available_nanousd

    def _status(self, error: Exception) -> status_pb2.Status:
        if isinstance(error, ledger.LedgerError):
            error = refused(error)
        refusal_: Refused = refusal(error, self._call, "/steward.budget.v1.BudgetService/Session")
        return refusal_.status


def _is_bookable(request: pb.SessionRequest) -> bool:
    if request.WhichOneof("message") != "report_batch":
        return False
    batch = request.report_batch
    return 1 <= len(batch.usages) <= MAX_USAGES_PER_BATCH and 1 <= len(batch.lease_id) <= 100


def _answered_together(run: list[pb.SessionRequest], outcomes: list[Outcome]) -> list[_Answered]:
    """All of a run that was booked wholly is answered once; else each batch by itself."""
    if all(isinstance(outcome, Booked) for outcome in outcomes):
        return [(run[-1], outcomes)]
    answered: list[_Answered] = []
    at = 0
    for request in run:
        size = len(request.report_batch.usages)
        answered.append((request, outcomes[at : at + size]))
        at += size
    return answered


def _is_new(outcome: Outcome) -> bool:
    return isinstance(outcome, Booked) and not outcome.is_repetition


def _ack(
    batch: pb.ReportBatch, outcomes: Sequence[Outcome], standing: Standing | None
) -> pb.ReportAck:
    """What became of usages of a lease; where none of them is new, how the lease stands."""
    ack = pb.ReportAck(lease_id=batch.lease_id)
    newest: Booked | None = None
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Booked):
            is_newer = newest is None or outcome.sequence > newest.sequence
            if is_newer and not outcome.is_repetition:
                newest = outcome
            ack.overrun_nanousd += outcome.overrun_nanousd
        else:
            ack.refused.append(
                pb.RefusedUsage(
                    index=index,
                    request_id=batch.usages[index].request_id[:100],
                    status=status_of(outcome),
                )
            )
    if newest is None:
        assert standing is not None  # noqa: S101 - loaded for every batch without news
        lease = standing.lease
        ack.sequence = lease.sequence
        ack.lease_spent_nanousd = lease.spent_nanousd
        ack.lease_remaining_nanousd = lease.remaining_nanousd
        ack.budget_remaining_nanousd = standing.available_nanousd
        ack.desired_state = desired(lease.state, stop_wanted=False)
        ack.lease_status = LEASE_STATES[lease.state]
        ack.commit_number = standing.lsn
    else:
        ack.sequence = newest.sequence
        ack.lease_spent_nanousd = newest.lease_spent_nanousd
        ack.lease_remaining_nanousd = newest.lease_remaining_nanousd
        ack.budget_remaining_nanousd = newest.available_nanousd
        ack.desired_state = desired(newest.lease_state, stop_wanted=False)
        ack.lease_status = LEASE_STATES[newest.lease_state]
        ack.commit_number = newest.lsn
    return ack
