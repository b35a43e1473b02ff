"""EventService on the wire, and the publisher that writes down what runtimes tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from steward.events.v1 import events_pb2 as pb
from steward.events.v1.events_pb2_grpc import EventServiceServicer
from steward_server.calls import Call, Context, call_of
from steward_server.clock import timestamp
from steward_server.db import Database, Transaction
from steward_server.errors import InvalidArgument, NotFound, PermissionDenied
from steward_server.events.config import EventsConfig
from steward_server.events.hub import READ_AT_ONCE, Hub, Missed
from steward_server.events.projection import Told, body_of, event_of, kinds_of
from steward_server.events.store import NewEntry, append
from steward_server.principals import Kind, Principal


class Agents(Protocol):
    """The part of the agents room that events need."""

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        ...

    async def mark_started(
        self, transaction: Transaction, *, agent_id: str, runtime_id: str, now_us: int
    ) -> None: ...

    async def mark_stopped(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        runtime_id: str,
        exit_code: int | None,
        reason: str,
        now_us: int,
    ) -> None: ...


Report = Callable[[Call, pb.CostUpdate], Awaitable[object]]
"""Books a usage that came as an event instead of over a budget call."""


class Publisher:
    """Writes runtimes' events into the journal."""

    def __init__(self, database: Database, agents: Agents, clock: Callable[[], int]) -> None:
        self._database = database
        self._agents = agents
        self._clock = clock

    async def publish(self, agent_id: str, told: Told) -> int:
        """Write an event of an agent's runtime down and return its number.

        Raises:
            InvalidArgument: the event is malformed; nothing was written.
        """
        kind, body = body_of(told)
        now_us = self._clock()

        async def write(transaction: Transaction) -> int:
            match told:
                case pb.AgentStarted():
                    await self._agents.mark_started(
                        transaction,
                        agent_id=agent_id,
                        runtime_id=told.runtime_id,
                        now_us=now_us,
                    )
                case pb.AgentStopped():
                    await self._agents.mark_stopped(
                        transaction,
                        agent_id=agent_id,
                        runtime_id=told.runtime_id,
                        exit_code=body["exit_code"],
                        reason=told.reason,
                        now_us=now_us,
                    )
            return await append(transaction, now_us, NewEntry(kind, body, agent_id, agent_id))

        return await self._database.run(write)


@dataclass(frozen=True, slots=True)
class EventService(EventServiceServicer):
    """Hands events out, and takes them in from runtimes."""

    hub: Hub
    publisher: Publisher
    agents: Agents
    report: Report
    config: EventsConfig
    clock: Callable[[], int]

    async def Subscribe(
        self, request: pb.SubscribeRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeResponse]:
        async for event in self._events(request, call_of(context).principal):
            yield pb.SubscribeResponse(event=event)

    async def Exchange(
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Context
    ) -> AsyncIterator[pb.ExchangeResponse]:
        call = call_of(context)
        outbox: asyncio.Queue[pb.Event | Exception | None] = asyncio.Queue(1)
        tasks = [asyncio.create_task(self._take_in(request_iterator, call, outbox))]
        try:
            while (event := await outbox.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield pb.ExchangeResponse(event=event)
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _take_in(
        self,
        requests: AsyncIterator[pb.ExchangeRequest],
        call: Call,
        outbox: asyncio.Queue[pb.Event | Exception | None],
    ) -> None:
        handing_out: asyncio.Task[None] | None = None
        try:
            async for request in requests:
                if request.WhichOneof("data") == "subscribe":
                    if handing_out is not None:
                        handing_out.cancel()
                    events = self._events(request.subscribe, call.principal)
                    handing_out = asyncio.create_task(_pass_on(events, outbox))
                else:
                    await self._tell(request, call)
            # The caller has no more to say, and may go on listening.
            if handing_out is not None:
                await handing_out
            await outbox.put(None)
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await outbox.put(error)
        finally:
            if handing_out is not None:
                handing_out.cancel()

    async def _tell(self, request: pb.ExchangeRequest, call: Call) -> None:
        principal = call.principal
        if principal.kind is not Kind.AGENT:
            raise PermissionDenied(
                "only an agent's runtime may publish; open the stream with its IC token",
                reason="ROLE_NOT_ALLOWED",
            )
        if request.agent_id not in ("", principal.subject):
            raise PermissionDenied(
                f"the token belongs to agent {principal.subject!r}, not {request.agent_id!r}",
                reason="OTHER_AGENT",
            )
        match request.WhichOneof("data"):
            case "agent_started":
                await self.publisher.publish(principal.subject, request.agent_started)
            case "agent_stopped":
                await self.publisher.publish(principal.subject, request.agent_stopped)
            case "pii_alert":
                await self.publisher.publish(principal.subject, request.pii_alert)
            case "cost_update":
                await self.report(call, request.cost_update)
            case _:
                raise InvalidArgument("the frame holds no event", reason="EMPTY_MESSAGE")

    async def _events(
        self, request: pb.SubscribeRequest, principal: Principal
    ) -> AsyncIterator[pb.Event]:
        kinds = kinds_of(list(request.type))
        wants = self._visible(request.agent_id, principal)
        if request.HasField("since") and request.since < 0:
            raise InvalidArgument.of({"since": f"is {request.since}; it must be 0 or more"})
        subscription = await self.hub.subscribe(kinds, wants, capacity=self.config.queue_events)
        try:
            if request.HasField("since"):
                after = request.since
                while after < subscription.start_lsn:
                    past = await self.hub.read(kinds, after, subscription.start_lsn)
                    for entry in past:
                        if wants(entry.agent_id):
                            yield event_of(entry)
                    if len(past) < READ_AT_ONCE:
                        break
                    after = past[-1].lsn
            while True:
                try:
                    async with asyncio.timeout(self.config.heartbeat_s):
                        entry_or_missed = await subscription.next()
                except TimeoutError:
                    yield self._own(pb.Event(heartbeat=pb.Heartbeat()), self.hub.lsn)
                    continue
                if isinstance(entry_or_missed, Missed):
                    gap = pb.Gap(
                        from_sequence=entry_or_missed.from_lsn,
                        to_sequence=entry_or_missed.to_lsn,
                    )
                    yield self._own(pb.Event(gap=gap), entry_or_missed.to_lsn)
                else:
                    yield event_of(entry_or_missed)
        finally:
            self.hub.unsubscribe(subscription)

    def _own(self, event: pb.Event, lsn: int) -> pb.Event:
        event.sequence = lsn
        event.timestamp.FromMicroseconds(self.clock())
        return event

    def _visible(self, agent_id: str, principal: Principal) -> Callable[[str], bool]:
        """Which agents' events the caller gets."""
        if principal.kind is Kind.AGENT:
            if agent_id not in ("", principal.subject):
                raise NotFound.of("agent", agent_id)
            return principal.subject.__eq__
        if agent_id:
            owner = self.agents.owner_of(agent_id)
            if owner is None:
                raise NotFound.of("agent", agent_id)
            principal.must_own("agent", agent_id, owner)
            return agent_id.__eq__
        if principal.is_admin:
            return lambda _: True
        return lambda name: self.agents.owner_of(name) == principal.subject


async def _pass_on(
    events: AsyncIterator[pb.Event], outbox: asyncio.Queue[pb.Event | Exception | None]
) -> None:
    try:
        async for event in events:
            await outbox.put(event)
    except Exception as error:  # noqa: BLE001 - ends the stream with it
        await outbox.put(error)
