"""What runtimes ask for, one method each: shared by unary calls and sessions.

Stands between the wire and the desk: checks, one transaction, the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from steward.budget.v1 import budget_pb2 as pb
from steward.events.v1.events_pb2 import AgentStarted, AgentStopped, CircuitOpened, PiiAlert
from steward_server.budget import store
from steward_server.budget.allotments import allotment_of
from steward_server.budget.bookings import Batch
from steward_server.budget.desk import Desk, Grown, Lent, Returned
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.needs import Alarm, Allotments, Allotted
from steward_server.budget.pricing import PriceBook
from steward_server.budget.refusals import refused
from steward_server.budget.requests import (
    LEASE_STATES,
    booked_or_raise,
    check_amount,
    check_handshake,
    facts_of,
    handshake_digest,
)
from steward_server.budget.sealing import Sealed, Sealer
from steward_server.budget.store import Terms
from steward_server.budget.teller import Teller
from steward_server.budget.values import MAX_BALANCE_NANOUSD, LeaseState
from steward_server.calls import Call
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.db import Database, Reader, T, Transaction
from steward_server.errors import FailedPrecondition, NotFound, ResourceExhausted
from steward_server.events.hub import Hub
from steward_server.ids import new_id

Told = AgentStarted | AgentStopped | PiiAlert | CircuitOpened

MAX_COUNT = 2**53
INSUFFICIENT = "insufficient_budget"
MONEY_REASONS = frozenset({"BUDGET_EXCEEDED", "LIMIT_COST_PER_MONTH"})
"""Of loans that were refused for lack of money."""


class LentKey(Protocol):
    """A provider and its key."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def base_url(self) -> str: ...
    @property
    def api_key(self) -> str: ...


class Providers(Protocol):
    """The part of the providers room that a handshake needs."""

    async def key_for(self, reader: Reader, wanted: str) -> LentKey:
        """The provider of this name, or the only one there is.

        Raises:
            NotFound: there is none.
            InvalidArgument: none was named and there are several.
            Unavailable: its key cannot be decrypted.
        """
        ...


class AgentRecord(Protocol):
    """What is known of an agent."""

    @property
    def provider(self) -> str: ...
    @property
    def stop_wanted(self) -> bool: ...


class Agents(Protocol):
    """The part of the agents room that runtimes need."""

    async def record(self, reader: Reader, agent_id: str) -> AgentRecord:
        """The agent.

        Raises:
            NotFound: no such agent.
        """
        ...

    async def mark_seen(self, transaction: Transaction, *, agent_id: str, now_us: int) -> None:
        """Note that a runtime of the agent was heard."""
        ...

    def forget_seen(self, agent_id: str, now_us: int) -> bool:
        """Forget what was noted at this time, which was undone; whether it was known at all."""
        ...


class Publisher(Protocol):
    """The part of the events room that takes what runtimes tell."""

    async def publish(self, agent_id: str, told: Told) -> int:
        """Write a runtime's event down and return its number.

        Raises:
            InvalidArgument: the event is malformed.
        """
        ...


@dataclass(frozen=True, slots=True)
class BudgetRoom:
    """What the servicer and its sessions share."""

    database: Database
    desk: Desk
    teller: Teller
    prices: PriceBook
    providers: Providers
    agents: Agents
    publisher: Publisher
    hub: Hub
    clock: Callable[[], int]
    limits: Allotments
    alarm: Alarm

    async def handshake(
        self, call: Call, request: pb.HandshakeRequest, *, in_session: bool = False
    ) -> pb.HandshakeResponse:
        """Open a lease for the caller and seal the provider's key to it.

        `in_session` if the caller will be told of changes to its shares, and obey.
        """
        check_handshake(request)
        agent_id = call.principal.subject
        ic_token = call.ic_token or request.ic_token
        lease_id = new_id("lease")
        now_us = self.clock()

        async def lend(
            transaction: Transaction,
        ) -> tuple[LentKey, Lent, Sealed, Allotted | None]:
            # All in one transaction: reads of their own would each be handed to another thread.
            agent = await self.agents.record(transaction, agent_id)
            if agent.stop_wanted:
                raise stopped(agent_id)
            key = await self.providers.key_for(transaction, _provider_of(request, agent_id, agent))
            await self.agents.mark_seen(transaction, agent_id=agent_id, now_us=now_us)
            terms = Terms(
                provider=key.name,
                provider_kind=key.kind,
                token_id=call.principal.credential,
                runtime_id=request.runtime_id,
                request_id=request.request_id or None,
                request_digest=handshake_digest(request),
                requested_nanousd=0,
            )
            lent = await self.desk.open_lease(
                transaction,
                lease_id=lease_id,
                agent_id=agent_id,
                requested_nanousd=_optional(request),
                minimum_nanousd=request.minimum_budget_nanousd,
                terms=terms,
                acknowledges=in_session,
                now_us=now_us,
            )
            if lent.lease.lease_id != lease_id:
                # A repetition: the lease goes on with the provider it was opened for.
                key = await self.providers.key_for(transaction, lent.terms.provider)
            # A key that cannot be sealed to costs no money: what was lent is undone with this.
            sealer = Sealer(key.api_key, request.public_key, ic_token)
            sealed = sealer.seal(lent.lease.lease_id, agent_id, lent.lease.expires_at_us)
            allotted = await self.limits.allotted(transaction, lent.lease.lease_id, now_us)
            return key, lent, sealed, allotted

        return self._granted(*await self.lend(agent_id, lend, now_us), now_us)

    def _granted(
        self,
        key: LentKey,
        lent: Lent,
        sealed: Sealed,
        allotted: Allotted | None,
        now_us: int,
    ) -> pb.HandshakeResponse:
        lease = lent.lease
        return pb.HandshakeResponse(
            lease_id=lease.lease_id,
            ip_token=sealed.text,
            seal_format=sealed.format,
            seal_salt=sealed.salt,
            seal_info=sealed.info,
            budget_requested_nanousd=lent.terms.requested_nanousd,
            budget_granted_nanousd=lent.granted_nanousd,
            partial=lent.partial,
            budget_remaining_nanousd=lent.available_nanousd,
            provider=key.name,
            provider_kind=key.kind,
            base_url=key.base_url,
            expires_at=timestamp(lease.expires_at_us),
            lease_duration_ms=max(0, (lease.expires_at_us - now_us) // 1_000),
            settle_grace_ms=self.desk.policy.settle_grace_ms,
            desired_state=desired(lease.state, stop_wanted=False),
            agent_id=lease.agent_id,
            price_version=self.prices.table.version,
            commit_number=lent.lsn,
            allotment=allotment_of(allotted),
        )

    async def report(self, call: Call, request: pb.ReportRequest) -> pb.ReportResponse:
        """Book one usage and say how the money stands."""
        lease_id = request.lease_id
        if not 0 < len(lease_id) <= 100:
            with Checks() as checks:
                checks.text("lease_id", lease_id, 1, 100)
        batch = Batch(
            lease_id,
            call.principal.subject,
            1,
            lambda terms: facts_of([request], terms, self.prices),
        )
        (answer,) = await self.teller.book([batch])
        if isinstance(answer, NotFound):
            raise answer
        booked = booked_or_raise(answer.outcomes[0])
        return pb.ReportResponse(
            success=True,
            lease_spent_nanousd=booked.lease_spent_nanousd,
            lease_remaining_nanousd=booked.lease_remaining_nanousd,
            budget_remaining_nanousd=booked.available_nanousd,
            # An agent that is told to stop has no lease that is active.
            desired_state=desired(booked.lease_state, stop_wanted=False),
            sequence=booked.sequence,
            cost_nanousd=booked.cost_nanousd,
            overrun_nanousd=booked.overrun_nanousd,
            lease_status=LEASE_STATES[booked.lease_state],
            commit_number=booked.lsn,
        )

    async def refresh(self, call: Call, request: pb.RefreshRequest) -> pb.RefreshResponse:
        """Grow a lease, or say why not."""
        requested_nanousd = check_amount(request)
        agent_id = call.principal.subject
        now_us = self.clock()

        async def write(transaction: Transaction) -> tuple[Grown, Allotted | None]:
            record = await self.agents.record(transaction, agent_id)
            await self.agents.mark_seen(transaction, agent_id=agent_id, now_us=now_us)
            grown = await self.desk.grow_lease(
                transaction,
                lease_id=request.lease_id,
                agent_id=agent_id,
                requested_nanousd=requested_nanousd,
                request_id=request.request_id or None,
                stop_wanted=record.stop_wanted,
                now_us=now_us,
            )
            return grown, await self.limits.allotted(transaction, request.lease_id, now_us)

        grown, allotted = await self.lend(agent_id, write, now_us)
        if grown.denied_because == INSUFFICIENT:
            facts = {"available_nanousd": str(grown.available_nanousd)}
            if grown.scope:
                facts["scope"] = grown.scope
            await self.alarm.refused(agent_id, reason="BUDGET_EXCEEDED", facts=facts)
        return pb.RefreshResponse(
            status="denied" if grown.denied_because else "approved",
            reason=grown.denied_because,
            lease_id=request.lease_id,
            budget_granted_nanousd=grown.added_nanousd,
            partial=grown.partial,
            budget_remaining_nanousd=grown.available_nanousd,
            lease_granted_nanousd=grown.lease_granted_nanousd,
            lease_spent_nanousd=grown.lease_spent_nanousd,
            expires_at=timestamp(grown.expires_at_us),
            lease_duration_ms=max(0, (grown.expires_at_us - now_us) // 1_000),
            commit_number=grown.lsn,
            allotment=allotment_of(allotted),
        )

    async def give_back(self, call: Call, request: pb.ReturnRequest) -> pb.ReturnResponse:
        """Close a lease."""
        believed = request.spent_nanousd if request.HasField("spent_nanousd") else None
        made = request.requests_last_minute if request.HasField("requests_last_minute") else None
        with Checks() as checks:
            checks.text("lease_id", request.lease_id, 1, 100)
            if believed is not None:
                checks.between("spent_usd", believed, 0, MAX_BALANCE_NANOUSD)
            if made is not None:
                checks.between("requests_last_minute", made, 0, MAX_COUNT)
        now_us = self.clock()

        async def write(transaction: Transaction) -> Returned:
            return await self.desk.close_lease(
                transaction,
                lease_id=request.lease_id,
                agent_id=call.principal.subject,
                believed_spent_nanousd=believed,
                requests_last_minute=made,
                now_us=now_us,
            )

        returned = await self.run(write)
        return pb.ReturnResponse(
            success=True,
            returned_nanousd=returned.returned_nanousd,
            lease_status=LEASE_STATES[returned.lease.state],
            lease_spent_nanousd=returned.lease.spent_nanousd,
            budget_remaining_nanousd=returned.available_nanousd,
            commit_number=returned.lsn,
        )

    async def allotment(self, lease_id: str) -> pb.Allotment | None:
        """What a lease is told of its limits now."""
        return allotment_of(await self.limits.allotted(self.database, lease_id, self.clock()))

    async def take_allotment(self, call: Call, request: pb.TakeAllotment) -> pb.Allotment:
        """Note that a runtime obeys its allotment, or allot more tokens to it."""
        with Checks() as checks:
            checks.text("lease_id", request.lease_id, 1, 100)
            for field in ("version", "requests_held", "tokens_held", "tokens_wanted"):
                checks.between(field, getattr(request, field), 0, MAX_COUNT)
        now_us = self.clock()

        async def write(transaction: Transaction) -> Allotted | None:
            lease, _ = await store.lease(transaction, request.lease_id, call.principal.subject)
            may_start = lease.state is LeaseState.ACTIVE and not lease.is_expiry_due(now_us)
            return await self.limits.take(
                transaction,
                lease_id=request.lease_id,
                agent_id=call.principal.subject,
                version=request.version,
                requests_held=request.requests_held,
                tokens_held=request.tokens_held,
                tokens_wanted=request.tokens_wanted if may_start else 0,
                now_us=now_us,
            )

        return allotment_of(await self.run(write)) or pb.Allotment(lease_id=request.lease_id)

    async def lend(
        self, agent_id: str, work: Callable[[Transaction], Awaitable[T]], now_us: int
    ) -> T:
        """As `run`; that money was refused is told to whoever listens for that."""
        try:
            return await self.run(work)
        except ResourceExhausted as refusal:
            if self.agents.forget_seen(agent_id, now_us):
                # A runtime that waits for money is there all the same.
                await self.run(
                    lambda transaction: self.agents.mark_seen(
                        transaction, agent_id=agent_id, now_us=now_us
                    )
                )
            if refusal.reason in MONEY_REASONS:
                await self.alarm.refused(agent_id, reason=refusal.reason, facts=refusal.facts)
            raise

    async def run(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run `work` in a transaction, with the ledger's refusals as callers are told them."""
        try:
            return await self.database.run(work)
        except LedgerError as error:
            raise refused(error) from error


def desired(state: LeaseState, *, stop_wanted: bool) -> pb.DesiredState.ValueType:
    """What is wanted of a runtime whose lease stands like this."""
    goes_on = state is LeaseState.ACTIVE and not stop_wanted
    return pb.DESIRED_STATE_RUNNING if goes_on else pb.DESIRED_STATE_STOPPED


def _provider_of(request: pb.HandshakeRequest, agent_id: str, agent: AgentRecord) -> str:
    """The name of the provider an agent may and wants to use; empty leaves it open."""
    if agent.provider and request.provider not in ("", agent.provider):
        raise FailedPrecondition(
            f"agent {agent_id!r} may use provider {agent.provider!r}, not {request.provider!r}",
            reason="PROVIDER_NOT_ALLOWED",
            facts={"allowed": agent.provider},
        )
    return request.provider or agent.provider


def _optional(request: pb.HandshakeRequest) -> int | None:
    given = request.HasField("requested_budget_nanousd")
    return request.requested_budget_nanousd if given else None


def stopped(agent_id: str) -> FailedPrecondition:
    """The refusal of money to an agent that is to stop."""
    return FailedPrecondition(
        f"agent {agent_id!r} was told to stop; let it run again with "
        f"POST /api/agents/{agent_id}/start",
        reason="AGENT_STOPPED",
        facts={"agent_id": agent_id},
    )
