"""EventService on the wire, and the publisher that writes down what runtimes tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Protocol

from steward.events.v1 import events_pb2 as pb
from steward.events.v1.events_pb2_grpc import EventServiceServicer
from steward_server.calls import Call, Context, call_of
from steward_server.db import Database, Transaction
from steward_server.errors import InvalidArgument, NotFound, PermissionDenied
from steward_server.events.config import EventsConfig
from steward_server.events.hub import Entry, Hub, Missed
from steward_server.events.outlet import Item, Outlet, Quiet, Refusal, Selection
from steward_server.events.projection import Told, body_of, event_of, kinds_of
from steward_server.events.store import NewEntry, append
from steward_server.interceptors.errors import refusal
from steward_server.principals import Kind, Principal


class Owners(Protocol):
    """Who may see what happens to what."""

    def owner_of(self, name: str, /) -> str | None:
        """Who owns an agent, or what else events are about; None if there is no such thing."""
        ...


class Agents(Protocol):
    """The part of the agents room that events need."""

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


BUDGET_SCOPE = "budget"

EXCHANGE = "/steward.events.v1.EventService/Exchange"

OPENING_GRACE_S = 0.1
"""How long the first message of an exchange is waited for; its sender may wait to be let in."""

MAX_SHOWN = 256

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


class Shown:
    """The responses of newest events by number: one object for all readers.

    Who writes it to many of them may know it again, and frame it once.
    """

    def __init__(self) -> None:
        self._responses: dict[int, pb.ExchangeResponse] = {}

    def of(self, entry: Entry) -> pb.ExchangeResponse:
        """What is sent for an entry; not to be changed."""
        response = self._responses.get(entry.lsn)
        if response is None:
            if len(self._responses) >= MAX_SHOWN:
                del self._responses[next(iter(self._responses))]
            response = pb.ExchangeResponse(event=event_of(entry))
            self._responses[entry.lsn] = response
        return response


@dataclass(frozen=True, slots=True)
class EventService(EventServiceServicer):
    """Hands events out, and takes them in from runtimes."""

    hub: Hub
    publisher: Publisher
    agents: Owners
    report: Report
    config: EventsConfig
    clock: Callable[[], int]
    shown: Shown = field(default_factory=Shown)

    async def Subscribe(
        self, request: pb.SubscribeRequest, context: Context
    ) -> AsyncIterator[pb.SubscribeResponse]:
        selection = self._select(request, call_of(context).principal)
        with closing(self._outlet()) as outlet:
            await outlet.select(selection)
            # Let in only now: what happens from here on will not be missed.
            await context.send_initial_metadata(())
            while (item := await outlet.next()) is not None:
                yield pb.SubscribeResponse(event=self._response(item).event)

    async def Exchange(
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Context
    ) -> AsyncIterator[pb.ExchangeResponse]:
        with closing(self._outlet()) as outlet:
            opened = asyncio.Event()
            taking_in = self._take_in(request_iterator, call_of(context), outlet, opened)
            reading = asyncio.create_task(taking_in)
            try:
                # Whoever subscribes first thing is let in when the subscription stands.
                with suppress(TimeoutError):
                    async with asyncio.timeout(OPENING_GRACE_S):
                        await opened.wait()
                await context.send_initial_metadata(())
                while (item := await outlet.next()) is not None:
                    yield self._response(item)
            finally:
                reading.cancel()
                await asyncio.wait({reading})

    def _outlet(self) -> Outlet:
        config = self.config
        return Outlet(self.hub, capacity=config.queue_events, heartbeat_s=config.heartbeat_s)

    async def _take_in(
        self,
        requests: AsyncIterator[pb.ExchangeRequest],
        call: Call,
        outlet: Outlet,
        opened: asyncio.Event,
    ) -> None:
        try:
            async for request in requests:
                try:
                    if request.WhichOneof("data") == "subscribe":
                        await outlet.select(self._select(request.subscribe, call.principal))
                    else:
                        await self._tell(request, call)
                except Exception as error:  # noqa: BLE001 - told to the caller, or logged as a fault
                    await outlet.refuse(refusal(error, call, EXCHANGE).status)
                opened.set()
            # The caller has no more to say, and may go on listening.
            outlet.finish()
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            outlet.fail(error)
        finally:
            opened.set()

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
            case "circuit_opened":
                await self.publisher.publish(principal.subject, request.circuit_opened)
            case "cost_update":
                if BUDGET_SCOPE not in principal.scopes:
                    raise PermissionDenied(
                        f"a CostUpdate books money: the token needs the scope {BUDGET_SCOPE!r}",
                        reason="SCOPE_MISSING",
                    )
                await self.report(call, request.cost_update)
            case _:
                raise InvalidArgument("the message holds no event", reason="EMPTY_MESSAGE")

    def _select(self, request: pb.SubscribeRequest, principal: Principal) -> Selection:
        """What the caller gets.

        Raises:
            InvalidArgument: an event type that does not exist, or a number below 0.
            NotFound: there is no such agent that the caller may see.
        """
        kinds = kinds_of(list(request.type))
        since = request.since if request.HasField("since") else None
        if since is not None and since < 0:
            raise InvalidArgument.of({"since": f"is {since}; it must be 0 or more"})
        agent_id = request.agent_id
        if principal.kind is Kind.AGENT:
            if agent_id not in ("", principal.subject):
                raise NotFound.of("agent", agent_id)
            return Selection(kinds, principal.subject.__eq__, principal.subject, since)
        if agent_id:
            owner = self.agents.owner_of(agent_id)
            if owner is None:
                raise NotFound.of("agent", agent_id)
            principal.must_own("agent", agent_id, owner)
            return Selection(kinds, agent_id.__eq__, agent_id, since)
        if principal.is_admin:
            return Selection(kinds, lambda _: True, "", since)
        owned = principal.subject
        return Selection(kinds, lambda name: self.agents.owner_of(name) == owned, "", since)

    def _response(self, item: Item) -> pb.ExchangeResponse:
        match item:
            case Entry():
                return self.shown.of(item)
            case Missed():
                gap = pb.Gap(from_sequence=item.from_lsn, to_sequence=item.to_lsn)
                return self._own(pb.Event(gap=gap), item.to_lsn)
            case Quiet():
                return self._own(pb.Event(heartbeat=pb.Heartbeat()), item.lsn)
            case Refusal():
                return pb.ExchangeResponse(refusal=item.status)

    def _own(self, event: pb.Event, lsn: int) -> pb.ExchangeResponse:
        event.sequence = lsn
        event.timestamp.FromMicroseconds(self.clock())
        return pb.ExchangeResponse(event=event)
