"""EventService on the wire, and the publisher that writes down what runtimes tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from steward.events.v1 import events_pb2 as pb
from steward.events.v1.events_pb2_grpc import EventServiceServicer
from steward_server.calls import Call, Context, call_of
from steward_server.db import Database, Transaction
from steward_server.errors import InvalidArgument, NotFound, PermissionDenied
from steward_server.events.config import EventsConfig
from steward_server.events.hub import READ_AT_ONCE, Entry, Hub, Missed, Subscription
from steward_server.events.projection import Told, body_of, event_of, kinds_of
from steward_server.events.store import NewEntry, append
from steward_server.interceptors.errors import refusal
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


BUDGET_SCOPE = "budget"

EXCHANGE = "/steward.events.v1.EventService/Exchange"

OPENING_GRACE_S = 0.1
"""How long the first message of an exchange is waited for; its sender may wait to be let in."""

Outbox = asyncio.Queue[pb.ExchangeResponse | Exception | None]
"""What goes out next on an exchange; an error or None ends it."""

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
class Selection:
    """What one reader asked for, and may see."""

    kinds: frozenset[str]
    wants: Callable[[str], bool]
    """Whether events of the agent with this id are among it."""
    agent_id: str
    """The only agent that can be among it; empty if there are several."""
    since: int | None


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
        selection = self._select(request, call_of(context).principal)
        async with self._subscribed(selection) as events:
            # Let in only now: what happens from here on will not be missed.
            await context.send_initial_metadata(())
            async for event in events:
                yield pb.SubscribeResponse(event=event)

    async def Exchange(
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: Context
    ) -> AsyncIterator[pb.ExchangeResponse]:
        outbox: Outbox = asyncio.Queue(1)
        opened = asyncio.Event()
        taking_in = self._take_in(request_iterator, call_of(context), outbox, opened)
        reading = asyncio.create_task(taking_in)
        try:
            # Whoever subscribes first thing is let in when the subscription stands.
            with suppress(TimeoutError):
                async with asyncio.timeout(OPENING_GRACE_S):
                    await opened.wait()
            await context.send_initial_metadata(())
            while (response := await outbox.get()) is not None:
                if isinstance(response, Exception):
                    raise response
                yield response
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def _take_in(
        self,
        requests: AsyncIterator[pb.ExchangeRequest],
        call: Call,
        outbox: Outbox,
        opened: asyncio.Event,
    ) -> None:
        handing_out: asyncio.Task[None] | None = None
        try:
            async for request in requests:
                try:
                    if request.WhichOneof("data") == "subscribe":
                        selection = self._select(request.subscribe, call.principal)
                        await _end(handing_out)
                        stands = asyncio.Event()
                        handing_out = asyncio.create_task(self._hand_out(selection, outbox, stands))
                        await stands.wait()
                    else:
                        await self._tell(request, call)
                except Exception as error:  # noqa: BLE001 - told to the caller, or logged as a fault
                    status = refusal(error, call, EXCHANGE).status
                    await outbox.put(pb.ExchangeResponse(refusal=status))
                opened.set()
            # The caller has no more to say, and may go on listening.
            if handing_out is not None:
                await handing_out
            await outbox.put(None)
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await outbox.put(error)
        finally:
            opened.set()
            await _end(handing_out)

    async def _hand_out(self, selection: Selection, outbox: Outbox, stands: asyncio.Event) -> None:
        try:
            async with self._subscribed(selection) as events:
                stands.set()
                async for event in events:
                    await outbox.put(pb.ExchangeResponse(event=event))
        except Exception as error:  # noqa: BLE001 - ends the stream with it
            await outbox.put(error)
        finally:
            stands.set()

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

    @asynccontextmanager
    async def _subscribed(self, selection: Selection) -> AsyncIterator[AsyncGenerator[pb.Event]]:
        subscription = await self.hub.subscribe(
            selection.kinds, selection.wants, capacity=self.config.queue_events
        )
        try:
            async with aclosing(self._events(selection, subscription)) as events:
                yield events
        finally:
            self.hub.unsubscribe(subscription)

    async def _events(
        self, selection: Selection, subscription: Subscription
    ) -> AsyncGenerator[pb.Event]:
        if selection.since is not None:
            async for entry in self._past(selection, subscription.start_lsn):
                yield event_of(entry)
        while True:
            try:
                async with asyncio.timeout(self.config.heartbeat_s):
                    entry_or_missed = await subscription.next()
            except TimeoutError:
                # One may have come with the alarm; a heartbeat would say that it was passed.
                if not subscription.has_waiting:
                    passed_lsn = max(self.hub.lsn, subscription.start_lsn)
                    yield self._own(pb.Event(heartbeat=pb.Heartbeat()), passed_lsn)
                continue
            if isinstance(entry_or_missed, Missed):
                gap = pb.Gap(
                    from_sequence=entry_or_missed.from_lsn,
                    to_sequence=entry_or_missed.to_lsn,
                )
                yield self._own(pb.Event(gap=gap), entry_or_missed.to_lsn)
            else:
                yield event_of(entry_or_missed)

    async def _past(self, selection: Selection, up_to_lsn: int) -> AsyncIterator[Entry]:
        after_lsn = selection.since or 0
        while after_lsn < up_to_lsn:
            entries = await self.hub.read(selection.kinds, after_lsn, up_to_lsn, selection.agent_id)
            for entry in entries:
                if selection.wants(entry.agent_id):
                    yield entry
            if len(entries) < READ_AT_ONCE:
                return
            after_lsn = entries[-1].lsn

    def _own(self, event: pb.Event, lsn: int) -> pb.Event:
        event.sequence = lsn
        event.timestamp.FromMicroseconds(self.clock())
        return event


async def _end(handing_out: asyncio.Task[None] | None) -> None:
    if handing_out is not None:
        handing_out.cancel()
        await asyncio.wait({handing_out})
