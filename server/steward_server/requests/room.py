"""What is done with budget requests: one transaction each. The rules are in `request.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from steward_server.audit import Change, record
from steward_server.balance import Balance
from steward_server.belongings import Handover
from steward_server.budget_change import BudgetChange, BudgetSummary, Cause, Why
from steward_server.db import Database, Reader, Transaction
from steward_server.errors import FailedPrecondition, NotFound, PermissionDenied
from steward_server.events.store import NewEntry, append
from steward_server.ids import new_id
from steward_server.principals import Kind, Principal
from steward_server.requests import store
from steward_server.requests.needs import Agents, Allocations, People, Purse
from steward_server.requests.request import AlreadyReviewed, BudgetRequest, Status
from steward_server.requests.store import Wanted


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it is shown."""

    request: BudgetRequest
    balance: Balance | None
    """The agent's money now; None once the agent is deleted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a caller asks for."""

    agent_id: str
    requested_nanousd: int
    justification: str
    expires_in_s: int | None


@dataclass(frozen=True, slots=True)
class Approval:
    """What a reviewer grants; None: as was asked."""

    approved_nanousd: int | None
    expires_in_s: int | None
    notes: str


@dataclass(frozen=True, slots=True)
class RequestRoom:
    """Requests, and the budgets they raise."""

    database: Database
    agents: Agents
    people: People
    purse: Purse
    allocations: Allocations
    pending_per_agent: int
    clock: Callable[[], int]

    async def create(self, caller: Principal, asked: Asked) -> Seen:
        """Ask for a larger budget.

        Raises:
            NotFound: there is no such agent that the caller may ask for.
            InvalidArgument: it is not more than the agent has.
            FailedPrecondition: many requests about the agent wait already.
        """
        now_us = self.clock()
        request_id = new_id("breq")

        async def work(transaction: Transaction) -> Seen:
            agent_id = asked.agent_id
            agent = await self.agents.record(transaction, agent_id)
            is_agent = caller.kind is Kind.AGENT
            caller.must_own("agent", agent_id, agent_id if is_agent else agent.owner_id)
            balance = (await self.purse.balances(transaction, [agent_id], now_us))[agent_id]
            request = BudgetRequest(
                request_id=request_id,
                agent_id=agent_id,
                agent_name=agent.name,
                owner_id=agent.owner_id,
                requester_id=caller.subject,
                requester_name=(
                    agent.name
                    if is_agent
                    else await self.people.name_of(transaction, caller.subject)
                ),
                requester_kind="agent" if is_agent else "person",
                current_nanousd=balance.allocated_nanousd,
                requested_nanousd=asked.requested_nanousd,
                justification=asked.justification,
                expires_in_s=asked.expires_in_s,
                created_at_us=now_us,
                updated_at_us=now_us,
            ).check_increase()
            pending = await store.pending_of(transaction, agent_id)
            if len(pending) >= self.pending_per_agent:
                raise FailedPrecondition(
                    f"{len(pending)} requests about agent {agent_id!r} wait for a decision; wait, "
                    "or cancel one",
                    reason="TOO_MANY_PENDING_REQUESTS",
                    facts={"agent_id": agent_id, "pending": str(len(pending))},
                )
            await store.insert(transaction, request)
            await _journal(transaction, now_us, "budget.requested", request)
            change = Change("budget_request.created", request_id, after=_asked(request))
            await record(transaction, now_us, caller, change)
            return Seen(request, balance)

        return await self.database.run(work)

    async def page(
        self, caller: Principal, wanted: Wanted, *, before: tuple[int, str] | None, limit: int
    ) -> list[Seen]:
        """Requests the caller may see, the newest first."""
        if not caller.is_admin:
            wanted = wanted._replace(seen_by=caller.subject)
        found = await store.page(self.database, wanted, before=before, limit=limit)
        agent_ids = sorted({request.agent_id for request in found if self._exists(request)})
        balances = await self.purse.balances(self.database, agent_ids, self.clock())
        return [Seen(request, balances.get(request.agent_id)) for request in found]

    async def get(self, caller: Principal, request_id: str) -> Seen:
        """One request.

        Raises:
            NotFound: there is none that the caller may see.
        """
        request = await self._visible(self.database, caller, request_id)
        return await self._seen(self.database, request)

    async def approve(self, caller: Principal, request_id: str, approval: Approval) -> Seen:
        """Raise the agent's budget; its runtimes are told from the journal.

        Raises:
            NotFound: there is no such request.
            AlreadyReviewed: somebody decided before.
            PermissionDenied: it is the caller's own, and there is another administrator.
            InvalidArgument: it grants more than was asked, or no more than there is.
        """
        now_us = self.clock()

        async def decide(transaction: Transaction, request: BudgetRequest) -> BudgetRequest:
            # What is over by now must not count as what the agent has.
            await self.allocations.take_back(transaction, request.agent_id, now_us)
            balances = await self.purse.balances(transaction, [request.agent_id], now_us)
            approved = request.approve(
                caller.subject,
                budget_nanousd=balances[request.agent_id].allocated_nanousd,
                approved_nanousd=approval.approved_nanousd,
                expires_in_s=approval.expires_in_s,
                notes=approval.notes,
                now_us=now_us,
            )
            assert approved.approved_nanousd is not None  # noqa: S101 - that is what it is
            why = Why(Cause.RAISED, caller.subject, approval.notes, request_id)
            await self.allocations.raise_to(
                transaction,
                request.agent_id,
                approved.approved_nanousd,
                why,
                ends_at_us=approved.ends_at_us,
                now_us=now_us,
            )
            return approved

        return await self._review(caller, request_id, decide, now_us)

    async def reject(self, caller: Principal, request_id: str, reason: str) -> Seen:
        """Turn a request down.

        Raises:
            NotFound: there is no such request.
            AlreadyReviewed: somebody decided before.
            PermissionDenied: it is the caller's own, and there is another administrator.
        """
        now_us = self.clock()

        async def decide(_transaction: Transaction, request: BudgetRequest) -> BudgetRequest:
            return request.reject(caller.subject, reason=reason, now_us=now_us)

        return await self._review(caller, request_id, decide, now_us)

    async def cancel(self, caller: Principal, request_id: str) -> None:
        """Take a request back.

        Raises:
            NotFound: there is none that the caller may see.
            PermissionDenied: the caller did not make it.
            AlreadyReviewed: somebody decided before.
        """
        now_us = self.clock()

        async def work(transaction: Transaction) -> None:
            request = await self._visible(transaction, caller, request_id)
            if not caller.is_admin and not request.is_of(caller.subject):
                raise PermissionDenied(
                    f"request {request_id!r} was made by {request.requester_id!r}; only they and "
                    "administrators may cancel it",
                    reason="NOT_THE_REQUESTER",
                )
            cancelled = request.cancel(caller.subject, why="", now_us=now_us)
            change = await _write_down(transaction, request, cancelled, now_us)
            await record(transaction, now_us, caller, change)

        await self.database.run(work)

    async def cancel_of(
        self, transaction: Transaction, *, agent_id: str, caller: Principal, why: str, now_us: int
    ) -> None:
        """Cancel the requests about an agent that are pending."""
        for request in await store.pending_of(transaction, agent_id):
            cancelled = request.cancel(caller.subject, why=why, now_us=now_us)
            change = await _write_down(transaction, request, cancelled, now_us)
            await record(transaction, now_us, caller, change)

    async def on_user_deleted(
        self, transaction: Transaction, user_id: str, heir_id: str, now_us: int
    ) -> Handover:
        """Cancel what a deleted person asked for; what their agents asked for is the heir's."""
        changes = []
        for request in await store.pending_by(transaction, user_id):
            cancelled = request.cancel(heir_id, why="the requester was deleted", now_us=now_us)
            changes.append(await _write_down(transaction, request, cancelled, now_us))
        await store.hand_on(transaction, user_id, heir_id)
        return Handover(changes)

    async def changes(
        self, caller: Principal, agent_id: str, *, before_lsn: int | None, limit: int
    ) -> tuple[list[BudgetChange], BudgetSummary]:
        """Changes of an agent's budget, the newest first, and what all of them add up to.

        Raises:
            NotFound: there is no such agent that the caller may see.
        """

        # One transaction, so that the sum is of the very changes that are listed.
        async def work(transaction: Transaction) -> tuple[list[BudgetChange], BudgetSummary]:
            agent = await self.agents.record(transaction, agent_id)
            caller.must_own("agent", agent_id, agent.owner_id)
            return (
                await self.allocations.changes(
                    transaction, agent_id, before_lsn=before_lsn, limit=limit
                ),
                await self.allocations.summary(transaction, agent_id),
            )

        return await self.database.run(work)

    async def _review(
        self,
        caller: Principal,
        request_id: str,
        decide: Callable[[Transaction, BudgetRequest], Awaitable[BudgetRequest]],
        now_us: int,
    ) -> Seen:
        async def work(transaction: Transaction) -> Seen:
            request = await store.get(transaction, request_id)
            if request.status is not Status.PENDING:
                raise AlreadyReviewed(request)
            is_sole = await self.people.is_sole_administrator(transaction, caller.subject)
            request.check_reviewer(caller.subject, is_sole_administrator=is_sole)
            decided = await decide(transaction, request)
            change = await _write_down(transaction, request, decided, now_us)
            await record(transaction, now_us, caller, change)
            return await self._seen(transaction, decided)

        return await self.database.run(work)

    async def _visible(self, reader: Reader, caller: Principal, request_id: str) -> BudgetRequest:
        request = await store.get(reader, request_id)
        sees = (request.requester_id, request.owner_id, request.agent_id)
        if not caller.is_admin and caller.subject not in sees:
            raise NotFound.of("budget request", request_id)
        return request

    async def _seen(self, reader: Reader, request: BudgetRequest) -> Seen:
        if not self._exists(request):
            return Seen(request, None)
        balances = await self.purse.balances(reader, [request.agent_id], self.clock())
        return Seen(request, balances.get(request.agent_id))

    def _exists(self, request: BudgetRequest) -> bool:
        return self.agents.owner_of(request.agent_id) is not None


async def _write_down(
    transaction: Transaction, before: BudgetRequest, after: BudgetRequest, now_us: int
) -> Change:
    """Save and journal how a request was decided; gives what the audit log is to say."""
    if not await store.save_decision(transaction, after):
        raise AlreadyReviewed(await store.get(transaction, after.request_id))
    await _journal(transaction, now_us, f"budget.{after.status.value}", after)
    return Change(
        f"budget_request.{after.status.value}",
        after.request_id,
        before={"status": before.status.value},
        after={"status": after.status.value, **_granted(after)},
        reason=after.notes or "",
    )


async def _journal(
    transaction: Transaction, now_us: int, kind: str, request: BudgetRequest
) -> None:
    body = {"requester": request.requester_id, "reviewer": request.reviewer_id, **_asked(request)}
    body |= _granted(request)
    await append(transaction, now_us, NewEntry(kind, body, request.agent_id, request.request_id))


def _asked(request: BudgetRequest) -> dict[str, Any]:
    return {
        "agent_id": request.agent_id,
        "current_nanousd": request.current_nanousd,
        "requested_nanousd": request.requested_nanousd,
        "expires_in_s": request.expires_in_s,
    }


def _granted(request: BudgetRequest) -> dict[str, Any]:
    if request.approved_nanousd is None:
        return {}
    return {
        "previous_nanousd": request.previous_nanousd,
        "approved_nanousd": request.approved_nanousd,
        "ends_at_us": request.ends_at_us,
    }
