"""One runtime's stream: what it sends is answered in order, what is wanted of it is pushed.

Reports that arrive while a commit is under way go into the next one together. A stream that is cut
ends nothing: its leases live until they are returned or their time is over, and the runtime goes
on with them over another stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import groupby

import structlog
from google.rpc import status_pb2

from steward.budget.v1 import budget_pb2 as pb
from steward_server.budget import chart, store
from steward_server.budget.bookings import Answer, Batch, Booked, Outcome
from steward_server.budget.inbox import Inbox, Incoming
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.refusals import refused
from steward_server.budget.requests import LEASE_STATES, facts_of, status_of
from steward_server.budget.room import BudgetRoom, desired
from steward_server.budget.teller import MAX_USAGES
from steward_server.budget.values import ORGANISATION, Lease, LeaseState, scope_of_agent
from steward_server.calls import Call, Refused
from steward_server.checks import Checks
from steward_server.db import Transaction
from steward_server.errors import InvalidArgument, NotFound
from steward_server.events.hub import Entry, Subscription
from steward_server.interceptors.errors import refusal

log = structlog.get_logger(__name__)

MAX_USAGES_PER_BATCH = 1_000
GATHER_S = 0.002
"""How long more reports are waited for, once they come faster than one by one."""

MAX_UNREAD = 32
"""Answers the runtime has not taken; beyond that nothing more is done for it."""

CONTROL_KINDS = frozenset(
    {
        *("agent.stopping", "agent.starting", "agent.updated", "lease.draining", "lease.ended"),
        *("account.opened", "account.resumed", "account.reallocated"),
        *("limits.allotted", "limits.changed"),
    }
)


async def answer(
    room: BudgetRoom, call: Call, requests: AsyncIterator[pb.SessionRequest]
) -> AsyncGenerator[pb.SessionResponse]:
    """Serve one stream until the runtime ends it or it is cut."""
    session = _Session(room, call)
    # Before anything is answered: what is decided after an answer must not be missed.
    subscription = await room.hub.subscribe(
        CONTROL_KINDS, _anybody, audiences=frozenset({call.principal.subject, ORGANISATION})
    )
    tasks: list[asyncio.Task[None]] = []
    try:
        await session.listen(subscription)
        tasks += [
            asyncio.create_task(session.read(requests)),
            asyncio.create_task(session.work()),
            asyncio.create_task(session.push(subscription)),
        ]
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
            gathers = False
            while True:
                request = following.pop() if following else await self._inbox.get()
                if request is None:
                    break
                if not _is_bookable(request):
                    await self._outbox.put(await self._answer_one(request))
                    continue
                if gathers:
                    await asyncio.sleep(GATHER_S)
                group = [request, *self._take_reports(request, following)]
                # One that was full is followed by what had no room in it.
                gathers = len(group) > 1 and _usages_in(group) < MAX_USAGES
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
        while count < MAX_USAGES and not self._inbox.empty():
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
                granted = await room.handshake(call, request.handshake, in_session=True)
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
            case "take_allotment":
                taken = await room.take_allotment(call, request.take_allotment)
                response.allotment.CopyFrom(taken)
            case "resume_lease":
                resumed = await self._resume(request.resume_lease.lease_id)
                response.lease_resumed.CopyFrom(resumed)
            case "agent_started" | "pii_alert" | "agent_stopped" | "circuit_opened" as told:
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

        async def write(transaction: Transaction) -> tuple[Lease, bool]:
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
            allotment=await self._room.allotment(lease_id),
        )

    # Reports.

    async def _book(self, group: list[pb.SessionRequest]) -> list[pb.SessionResponse]:
        """Book batches; neighbours of one lease are answered once if all of them went in."""
        runs = [list(run) for _, run in groupby(group, lambda each: each.report_batch.lease_id)]
        try:
            answers = await self._room.teller.book([self._batch(run) for run in runs])
        except Exception as error:  # noqa: BLE001 - told to the runtime, or logged as a fault
            return _refuse(group, self._status(error))
        responses: list[pb.SessionResponse] = []
        for run, answer in zip(runs, answers, strict=True):
            if isinstance(answer, NotFound):
                responses += _refuse(run, answer.to_status())
            else:
                responses += _acknowledge(run, answer)
        return responses

    def _batch(self, run: list[pb.SessionRequest]) -> Batch:
        prices = self._room.prices
        usages = [usage for request in run for usage in request.report_batch.usages]
        return Batch(
            run[0].report_batch.lease_id,
            self._agent_id,
            len(usages),
            lambda terms: facts_of(usages, terms, prices),
        )

    # What is pushed.

    async def listen(self, subscription: Subscription) -> None:
        """Hear what is about the agent, and about the budgets that it spends from by now."""
        scope_id = scope_of_agent(self._agent_id)
        above = await chart.scopes_above(self._room.database, scope_id)
        self._room.hub.listen_to(subscription, frozenset({self._agent_id, *above}))

    async def push(self, subscription: Subscription) -> None:
        """Tell the runtime what others decided about it."""
        try:
            while True:
                entry = await subscription.next()
                if not isinstance(entry, Entry):
                    await self.listen(subscription)  # it may have moved
                    controls = await self._missed_controls()
                elif _changes_nothing(entry):
                    continue
                else:
                    if entry.kind == "agent.updated":
                        await self.listen(subscription)
                    controls = [await self._control(entry)]
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
                    lease_status=LEASE_STATES[LeaseState(body["state"])],
                )
            case "limits.allotted":
                return pb.Control(
                    reason="the lease's share of the limits has changed",
                    allotment=await self._room.allotment(entry.subject),
                )
            case "limits.changed":
                return await self._budget_control("the agent's limits were changed")
            case "agent.updated":
                return await self._budget_control("the agent spends from another project")
        whose = "the agent" if entry.agent_id else repr(body["scope"])
        begins = entry.kind == "account.opened"
        what = f"a new period of {whose} began" if begins else f"the budget of {whose} was changed"
        return await self._budget_control(what)

    async def _budget_control(self, reason: str) -> pb.Control:
        available_nanousd = await self._available_nanousd()
        return pb.Control(reason=reason, budget_remaining_nanousd=available_nanousd)

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
            if allotment := await self._room.allotment(lease_id):
                controls.append(pb.Control(reason=reason, allotment=allotment))
            if lease.state is not LeaseState.ACTIVE:
                status = LEASE_STATES[lease.state]
                control = pb.Control(reason=reason, lease_id=lease_id, lease_status=status)
                controls.append(control)
        return controls

    async def _available_nanousd(self) -> int:
        scope_id = scope_of_agent(self._agent_id)
        return await chart.available_nanousd(self._room.database, scope_id, self._room.clock())

    def _status(self, error: Exception) -> status_pb2.Status:
        if isinstance(error, LedgerError):
            error = refused(error)
        refusal_: Refused = refusal(error, self._call, "/steward.budget.v1.BudgetService/Session")
        return refusal_.status


def _changes_nothing(entry: Entry) -> bool:
    """Neither the agent's project, nor an account that is followed: the first one is no news."""
    if entry.kind == "agent.updated":
        return "project_id" not in entry.body
    return entry.kind == "account.opened" and entry.body["follows"] is None


def _anybody(_agent_id: str) -> bool:
    return True


def _usages_in(group: list[pb.SessionRequest]) -> int:
    return sum(len(request.report_batch.usages) for request in group)


def _is_bookable(request: pb.SessionRequest) -> bool:
    if request.WhichOneof("message") != "report_batch":
        return False
    batch = request.report_batch
    return 1 <= len(batch.usages) <= MAX_USAGES_PER_BATCH and 1 <= len(batch.lease_id) <= 100


def _refuse(run: list[pb.SessionRequest], status: status_pb2.Status) -> list[pb.SessionResponse]:
    return [pb.SessionResponse(in_reply_to=each.message_id, refusal=status) for each in run]


def _acknowledge(run: list[pb.SessionRequest], answer: Answer) -> list[pb.SessionResponse]:
    """One answer to all batches if everything was booked; else each is told what was refused."""
    outcomes = answer.outcomes
    if all(isinstance(outcome, Booked) for outcome in outcomes):
        ack = _ack(run[-1].report_batch, outcomes, answer)
        return [pb.SessionResponse(in_reply_to=run[-1].message_id, report_ack=ack)]
    responses: list[pb.SessionResponse] = []
    at = 0
    for request in run:
        batch = request.report_batch
        size = len(batch.usages)
        ack = _ack(batch, outcomes[at : at + size], answer)
        responses.append(pb.SessionResponse(in_reply_to=request.message_id, report_ack=ack))
        at += size
    return responses


def _ack(batch: pb.ReportBatch, outcomes: list[Outcome], answer: Answer) -> pb.ReportAck:
    """What became of usages, and how their lease stands now."""
    lease = answer.lease
    return pb.ReportAck(
        lease_id=batch.lease_id,
        sequence=lease.sequence,
        overrun_nanousd=sum(each.overrun_nanousd for each in outcomes if isinstance(each, Booked)),
        lease_spent_nanousd=lease.spent_nanousd,
        lease_remaining_nanousd=lease.remaining_nanousd,
        budget_remaining_nanousd=answer.available_nanousd,
        desired_state=desired(lease.state, stop_wanted=False),
        lease_status=LEASE_STATES[lease.state],
        refused=[
            pb.RefusedUsage(
                index=index,
                request_id=batch.usages[index].request_id[:100],
                status=status_of(outcome),
            )
            for index, outcome in enumerate(outcomes)
            if not isinstance(outcome, Booked)
        ],
        commit_number=answer.lsn,
    )
