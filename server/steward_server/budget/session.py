"""One runtime's stream: what it sends is answered in order, what is wanted of it is pushed.

Reports that arrive while a commit is under way go into the next one together. A stream that is cut
ends nothing: its leases live until they are returned or their time is over, and the runtime goes
on with them over another stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import suppress

import structlog
from google.rpc import status_pb2

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget import ledger, store
from steward_server.budget.desk import Booked, Outcome
from steward_server.budget.refusals import refused
from steward_server.budget.requests import LEASE_STATES, facts_of, status_of
from steward_server.budget.room import BudgetRoom, desired
from steward_server.calls import Call, Refused
from steward_server.checks import Checks
from steward_server.db import Transaction
from steward_server.errors import InvalidArgument, StewardError
from steward_server.events.hub import Entry
from steward_server.interceptors.errors import refusal

log = structlog.get_logger(__name__)

MAX_USAGES_PER_BATCH = 1_000
MAX_USAGES_PER_COMMIT = 512
GATHER_S = 0.002
"""How long more reports are waited for, once they come faster than one by one."""

MAX_WAITING = 256
"""Messages read ahead; beyond that the stream's own flow control holds the runtime back."""

CONTROL_KINDS = frozenset(
    {"agent.stopping", "agent.starting", "lease.draining", "lease.ended", "account.reallocated"}
)

Incoming = pb.SessionRequest | None
"""None stands for the end of what the runtime sends."""


async def answer(
    room: BudgetRoom, call: Call, requests: AsyncIterator[pb.SessionRequest]
) -> AsyncGenerator[pb.SessionResponse]:
    """Serve one stream until the runtime ends it or it is cut."""
    session = _Session(room, call)
    tasks = [
        asyncio.create_task(session.read(requests)),
        asyncio.create_task(session.work()),
        asyncio.create_task(session.push()),
    ]
    try:
        while (response := await session.next_response()) is not None:
            yield response
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


class _Session:
    def __init__(self, room: BudgetRoom, call: Call) -> None:
        self._room = room
        self._call = call
        self._agent_id = call.principal.subject
        self._leases: set[str] = set()
        self._inbox: asyncio.Queue[Incoming] = asyncio.Queue(MAX_WAITING)
        self._outbox: asyncio.Queue[pb.SessionResponse | None | Exception] = asyncio.Queue(
            MAX_WAITING
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
                    size = len(request.report_batch.usages)
                    checks.between("usages", size, 1, MAX_USAGES_PER_BATCH)
            case other:
                raise InvalidArgument(
                    f"message {request.message_id} holds nothing this server knows ({other})",
                    reason="EMPTY_MESSAGE",
                )

    async def _touch(self) -> None:
        now_us = self._room.clock()

        async def write(transaction: Transaction) -> None:
            await self._room.agents.mark_seen(transaction, agent_id=self._agent_id, now_us=now_us)
            for lease_id in self._leases:
                await self._room.desk.touch_lease(
                    transaction, lease_id=lease_id, agent_id=self._agent_id, now_us=now_us
                )

        await self._room.run(write)

    async def _resume(self, lease_id: str) -> pb.LeaseResumed:
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
        responses: list[pb.SessionResponse] = []
        runs: list[list[pb.SessionRequest]] = []
        for request in group:
            lease_id = request.report_batch.lease_id
            if runs and runs[-1][0].report_batch.lease_id == lease_id:
                runs[-1].append(request)
            else:
                runs.append([request])

        async def write(transaction: Transaction) -> list[list[Outcome] | StewardError]:
            booked: list[list[Outcome] | StewardError] = []
            for run in runs:
                try:
                    booked.append(await self._book_run(transaction, run, now_us))
                except StewardError as error:  # the lease is not there: nothing was written
                    booked.append(error)
            return booked

        try:
            outcomes = await self._room.run(write)
        except Exception as error:  # noqa: BLE001 - told to the runtime, or logged as a fault
            status = self._status(error)
            return [
                pb.SessionResponse(in_reply_to=request.message_id, refusal=status)
                for request in group
            ]
        for run, outcome in zip(runs, outcomes, strict=True):
            responses.extend(self._acknowledge(run, outcome))
        return responses

    async def _book_run(
        self, transaction: Transaction, run: list[pb.SessionRequest], now_us: int
    ) -> list[Outcome]:
        usages = [usage for request in run for usage in request.report_batch.usages]
        return await self._room.desk.book(
            transaction,
            lease_id=run[0].report_batch.lease_id,
            agent_id=self._agent_id,
            facts_of=lambda terms: facts_of(usages, terms, self._room.prices),
            now_us=now_us,
        )

    def _acknowledge(
        self, run: list[pb.SessionRequest], outcomes: list[Outcome] | StewardError
    ) -> list[pb.SessionResponse]:
        if isinstance(outcomes, StewardError):
            status = outcomes.to_status()
            return [
                pb.SessionResponse(in_reply_to=request.message_id, refusal=status)
                for request in run
            ]
        last = run[-1]
        if all(isinstance(outcome, Booked) for outcome in outcomes):
            ack = _ack(last.report_batch, outcomes)
            return [pb.SessionResponse(in_reply_to=last.message_id, report_ack=ack)]
        responses = []
        at = 0
        for request in run:
            size = len(request.report_batch.usages)
            ack = _ack(request.report_batch, outcomes[at : at + size])
            responses.append(pb.SessionResponse(in_reply_to=request.message_id, report_ack=ack))
            at += size
        return responses

    # What is pushed.

    async def push(self) -> None:
        """Tell the runtime what others decided about it."""
        hub = self._room.hub
        subscription = await hub.subscribe(CONTROL_KINDS, self._agent_id.__eq__)
        try:
            while True:
                entry = await subscription.next()
                if isinstance(entry, Entry):
                    await self._outbox.put(pb.SessionResponse(control=await self._control(entry)))
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await self._outbox.put(error)
        finally:
            hub.unsubscribe(subscription)

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
        path = await store.path(self._room.database, self._agent_id)
        return pb.Control(
            reason="the agent's budget was changed",
            budget_remaining_nanousd=ledger.tightest(path).available_nanousd,
        )

    def _status(self, error: Exception) -> status_pb2.Status:
        if isinstance(error, ledger.LedgerError):
            error = refused(error)
        refusal_: Refused = refusal(error, self._call, "/steward.budget.v1.BudgetService/Session")
        return refusal_.status


def _is_bookable(request: pb.SessionRequest) -> bool:
    if request.WhichOneof("message") != "report_batch":
        return False
    return 1 <= len(request.report_batch.usages) <= MAX_USAGES_PER_BATCH


def _ack(batch: pb.ReportBatch, outcomes: Sequence[Outcome]) -> pb.ReportAck:
    ack = pb.ReportAck(lease_id=batch.lease_id)
    newest: Booked | None = None
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Booked):
            if newest is None or outcome.sequence > newest.sequence:
                newest = outcome
            ack.overrun_nanousd += outcome.overrun_nanousd
        else:
            ack.refused.append(
                pb.RefusedUsage(
                    index=index,
                    request_id=batch.usages[index].request_id,
                    status=status_of(outcome),
                )
            )
    if newest is not None:
        ack.sequence = newest.sequence
        ack.lease_spent_nanousd = newest.lease_spent_nanousd
        ack.lease_remaining_nanousd = newest.lease_remaining_nanousd
        ack.budget_remaining_nanousd = newest.available_nanousd
        ack.desired_state = desired(newest.lease_state, stop_wanted=False)
        ack.lease_status = LEASE_STATES[newest.lease_state]
        ack.commit_number = newest.lsn
    return ack
