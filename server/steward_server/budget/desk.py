"""The lending desk: loads what a rule needs, asks the rule, saves what it says and journals it.

Each function is one piece of work in a transaction; the decisions are in `ledger.py`. Other rooms
are handed the `Desk` where they need the money of an agent moved together with something of theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from steward_server.balance import Balance
from steward_server.budget import ledger, store
from steward_server.budget.ledger import (
    Account,
    AccountId,
    AgentId,
    Denial,
    Growth,
    Lease,
    LeaseId,
    LeasePolicy,
    LeaseState,
    Opening,
    Path,
)
from steward_server.budget.refusals import refused
from steward_server.budget.store import Terms
from steward_server.db import Reader, Transaction
from steward_server.errors import AlreadyExists, StewardError
from steward_server.events.store import NewEntry, append, head

SWEEP_AT_ONCE = 200

REFRESHED = ("lease.grown", "lease.denied")
"""The journal's kinds of answers to a refresh."""


Said = tuple[str, str, int, int, int, int, int | None]


@dataclass(frozen=True, slots=True)
class Fact:
    """One usage as it was reported, priced."""

    request_id: str
    sequence: int
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cost_nanousd: int
    price_version: str
    certainty: str
    at_us: int
    """When the call ended, by the runtime's clock; 0 if it did not say."""
    is_priced_here: bool = False
    """The runtime told no cost: it was computed, and might come out otherwise tomorrow."""

    def said(self) -> Said:
        """What makes a repetition the same report; not its number, which may be left out."""
        return (
            self.model,
            self.provider,
            self.input_tokens,
            self.output_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            None if self.is_priced_here else self.cost_nanousd,
        )


@dataclass(frozen=True, slots=True)
class Booked:
    """The answer to one report: of now, or of when it was booked first."""

    sequence: int
    cost_nanousd: int
    overrun_nanousd: int
    lease_spent_nanousd: int
    lease_remaining_nanousd: int
    available_nanousd: int
    lease_state: LeaseState
    lsn: int
    is_repetition: bool = field(default=False, compare=False)
    """It was booked before, and how the lease stands now may differ."""


_UNNUMBERED = Booked(0, 0, 0, 0, 0, 0, LeaseState.ACTIVE, 0)
"""Holds the place of a booking until the journal has numbered it."""

Outcome = Booked | StewardError | ledger.LedgerError
FactsOf = Callable[[Terms], Sequence[Fact | StewardError]]


@dataclass(frozen=True, slots=True)
class Standing:
    """How a lease stands, and what could be lent to its agent still, as of a commit."""

    lease: Lease
    available_nanousd: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Lent:
    """The answer to a handshake: of now, or of when the lease was opened."""

    lease: Lease
    """As it stands now."""
    terms: Terms
    granted_nanousd: int
    available_nanousd: int
    lsn: int

    @property
    def partial(self) -> bool:
        return self.granted_nanousd < self.terms.requested_nanousd


@dataclass(frozen=True, slots=True)
class Grown:
    """The answer to a refresh: of now, or of when it was asked first."""

    denied_because: str
    """Empty if the lease grew."""
    added_nanousd: int
    partial: bool
    lease_granted_nanousd: int
    lease_spent_nanousd: int
    available_nanousd: int
    expires_at_us: int
    lsn: int


@dataclass(frozen=True, slots=True)
class Returned:
    """The answer to a return."""

    lease: Lease
    returned_nanousd: int
    available_nanousd: int
    lsn: int


class Desk:
    """Moves money between accounts and leases."""

    def __init__(self, policy: LeasePolicy) -> None:
        self.policy = policy

    # For the rooms of agents and tokens.

    async def open_account(
        self, transaction: Transaction, *, agent_id: str, allocated_nanousd: int, now_us: int
    ) -> None:
        """Give a new agent its budget."""
        account = Account(AccountId(agent_id), None, allocated_nanousd, 0, 0, 0)
        await store.insert_account(transaction, account)
        body = {"parent": None, "allocated": allocated_nanousd}
        await append(transaction, now_us, NewEntry("account.opened", body, agent_id, agent_id))

    async def reallocate(
        self, transaction: Transaction, *, agent_id: str, allocated_nanousd: int, now_us: int
    ) -> None:
        """Set what an agent may spend in all.

        Raises:
            FailedPrecondition: BUDGET_BELOW_COMMITTED, less than is spent and leased already.
        """
        before = await store.path(transaction, agent_id)
        try:
            after = ledger.reallocate(before, allocated_nanousd)
        except ledger.LedgerError as error:
            raise refused(error) from error
        await store.save_path(transaction, after[:1])
        body = {"allocated": allocated_nanousd, "previous": before[0].allocated_nanousd}
        await append(
            transaction,
            now_us,
            NewEntry("account.reallocated", body, agent_id, agent_id),
            *_warnings(before[0], after[0]),
        )

    async def balances(self, reader: Reader, agent_ids: Sequence[str]) -> dict[str, Balance]:
        """The money of each of these agents."""
        marks = ", ".join("?" * len(agent_ids))
        rows = await reader.fetch_all(
            "SELECT account_id, parent_id, allocated_nanousd, spent_nanousd, leased_nanousd,"
            " overrun_nanousd, (SELECT count(*) FROM lease WHERE lease.account_id ="
            " account.account_id AND state IN ('active', 'draining')) AS open_leases"
            f" FROM account WHERE account_id IN ({marks})",
            *agent_ids,
        )
        found = {}
        for row in rows:
            account = store.account_of(row)
            found[account.account_id] = Balance(
                allocated_nanousd=account.allocated_nanousd,
                spent_nanousd=account.spent_nanousd,
                leased_nanousd=account.leased_nanousd,
                overrun_nanousd=account.overrun_nanousd,
                available_nanousd=account.available_nanousd,
                open_leases=row["open_leases"],
            )
        return {str(name): balance for name, balance in found.items()}

    async def drain(self, transaction: Transaction, *, agent_id: str, why: str, now_us: int) -> int:
        """Revoke what is lent to an agent: calls under way settle, none starts. How many leases."""
        count = 0
        for lease in await store.open_leases(transaction, agent_id):
            revoked = ledger.revoke(lease, now_us, self.policy)
            if revoked is not lease:
                await store.save_lease(transaction, revoked)
                await append(transaction, now_us, _draining(revoked, why))
                count += 1
        return count

    # For runtimes.

    async def open_lease(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        requested_nanousd: int | None,
        minimum_nanousd: int,
        terms: Terms,
        now_us: int,
    ) -> Lent:
        """Lend money; a repeated request id gives the lease it opened before.

        Raises:
            AlreadyExists: the request id was used with another body.
            ledger.LeaseClosed: the lease it opened has ended; nothing is to be handed over for it.
            ledger.BudgetExceeded: too little is left.
        """
        before = await store.path(transaction, agent_id)
        if terms.request_id is not None:
            repeated = await store.lease_by_request(transaction, agent_id, terms.request_id)
            if repeated is not None:
                lease, first = repeated
                if first.request_digest != terms.request_digest:
                    raise _reused(terms.request_id, first.request_digest.hex())
                if not lease.is_open:
                    raise ledger.LeaseClosed(lease.lease_id, lease.state)
                body = (await store.written_at(transaction, first.opened_lsn)).body
                return Lent(lease, first, body["granted"], body["available"], first.opened_lsn)
        opening: Opening = ledger.open_lease(
            before,
            lease_id=LeaseId(lease_id),
            agent_id=AgentId(agent_id),
            requested_nanousd=requested_nanousd,
            minimum_nanousd=minimum_nanousd,
            now_us=now_us,
            policy=self.policy,
        )
        lease = opening.lease
        available_nanousd = ledger.tightest(opening.path).available_nanousd
        body = {
            "account": lease.account_id,
            "granted": lease.granted_nanousd,
            "requested": opening.requested_nanousd,
            "available": available_nanousd,
            "provider": terms.provider,
            "token": terms.token_id,
            "runtime": terms.runtime_id,
            "expires_at_us": lease.expires_at_us,
        }
        entry = NewEntry("lease.opened", body, agent_id, lease.lease_id, terms.request_id)
        lsn = await append(transaction, now_us, entry)
        terms = replace(terms, opened_lsn=lsn, requested_nanousd=opening.requested_nanousd)
        await store.insert_lease(transaction, lease, terms, now_us)
        await store.save_path(transaction, opening.path)
        return Lent(lease, terms, lease.granted_nanousd, available_nanousd, lsn)

    async def book(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        facts_of: FactsOf,
        now_us: int,
    ) -> list[Outcome]:
        """Book usages in order; each gets its answer or its refusal, and refusals change nothing.

        `facts_of` prices what was reported by the lease's terms; it may refuse one by one.

        Raises:
            NotFound: the agent has no such lease.
        """
        lease, terms = await store.lease(transaction, lease_id, agent_id)
        path = await store.path(transaction, lease.account_id)
        facts = facts_of(terms)
        request_ids = [fact.request_id for fact in facts if isinstance(fact, Fact)]
        repeated = await store.written(transaction, lease_id, ("usage",), request_ids)
        first_path, first_lease = path, lease
        outcomes: list[Outcome] = []
        entries: list[NewEntry] = []
        bookings: list[tuple[int, int, dict[str, Any]]] = []
        first_said: dict[str, tuple[int, Said]] = {}
        echoes: list[tuple[int, int]] = []
        for fact in facts:
            if isinstance(fact, StewardError):
                outcomes.append(fact)
                continue
            known = repeated.get(fact.request_id)
            if known is not None:
                outcomes.append(_answer_again(fact, known))
                continue
            if fact.request_id in first_said:
                slot, said = first_said[fact.request_id]
                if said == fact.said():
                    echoes.append((len(outcomes), slot))
                outcomes.append(_reused(fact.request_id, _digest(said)))
                continue
            try:
                booking = ledger.book(
                    path,
                    lease,
                    sequence=fact.sequence,
                    cost_nanousd=fact.cost_nanousd,
                    now_us=now_us,
                )
            except ledger.LedgerError as refusal:
                outcomes.append(refusal)
                continue
            before, path, lease = path[0], booking.path, booking.lease
            first_said[fact.request_id] = (len(outcomes), fact.said())
            body = _usage_body(fact, booking, path)
            bookings.append((len(outcomes), len(entries), body))
            outcomes.append(_UNNUMBERED)
            entries.append(NewEntry("usage", body, agent_id, lease_id, fact.request_id))
            entries.extend(_warnings(before, path[0]))
        if not entries:
            return outcomes
        if lease.state is not first_lease.state:
            entries.append(_draining(lease, "overrun"))
        lease = ledger.touch(lease, now_us=now_us, policy=self.policy)
        last_lsn = await append(transaction, now_us, *entries)
        await store.save_lease(transaction, lease)
        if path is not first_path:
            await store.save_path(transaction, path)
        first_lsn = last_lsn - len(entries) + 1
        for slot, at, body in bookings:
            outcomes[slot] = _booked(body, first_lsn + at)
        for slot, first_slot in echoes:
            outcomes[slot] = outcomes[first_slot]
        return outcomes

    async def grow_lease(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        requested_nanousd: int | None,
        request_id: str | None,
        stop_wanted: bool = False,
        now_us: int,
    ) -> Grown:
        """Lend more to a lease, or say why not; a repeated request id gives the first answer again.

        Raises:
            NotFound: the agent has no such lease.
            AlreadyExists: the request id was used for another amount.
        """
        lease, _ = await store.lease(transaction, lease_id, agent_id)
        if request_id is not None:
            found = await store.written(transaction, lease_id, REFRESHED, [request_id])
            if known := found.get(request_id):
                if known.body["asked"] != requested_nanousd:
                    raise _reused(request_id, str(known.body["asked"]))
                return _grown(known.body, known.lsn)
        path = await store.path(transaction, lease.account_id)
        growth = ledger.grow(
            path,
            lease,
            requested_nanousd=requested_nanousd,
            now_us=now_us,
            policy=self.policy,
        )
        body = _growth_body(path, lease, growth, requested_nanousd)
        if isinstance(growth, Denial):
            body["denied"] = "agent_stopped" if stop_wanted else growth.reason
            if request_id is None:
                return _grown(body, (await head(transaction))[0])
            # Written down although nothing changed: its repetition is to be denied as well.
            entry = NewEntry("lease.denied", body, agent_id, lease_id, request_id)
            return _grown(body, await append(transaction, now_us, entry))
        entry = NewEntry("lease.grown", body, agent_id, lease_id, request_id)
        lsn = await append(transaction, now_us, entry)
        await store.save_lease(transaction, growth.lease)
        await store.save_path(transaction, growth.path)
        return _grown(body, lsn)

    async def close_lease(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        believed_spent_nanousd: int | None,
        now_us: int,
    ) -> Returned:
        """Take a lease back on its runtime's word that nothing more will come.

        Raises:
            NotFound: the agent has no such lease.
            ledger.LeaseClosed: it has ended already.
        """
        lease, _ = await store.lease(transaction, lease_id, agent_id)
        path = await store.path(transaction, lease.account_id)
        closing = ledger.give_back(path, lease, now_us=now_us)
        differs = believed_spent_nanousd not in (None, lease.spent_nanousd)
        entry = _ended(closing.lease, closing.returned_nanousd)
        if differs:
            entry.body["believed_spent"] = believed_spent_nanousd
        lsn = await append(transaction, now_us, entry)
        await store.save_lease(transaction, closing.lease)
        await store.save_path(transaction, closing.path)
        available_nanousd = ledger.tightest(closing.path).available_nanousd
        return Returned(closing.lease, closing.returned_nanousd, available_nanousd, lsn)

    async def touch_lease(
        self, transaction: Transaction, *, lease_id: str, agent_id: str, now_us: int
    ) -> Lease:
        """Note a sign of life.

        Raises:
            NotFound: the agent has no such lease.
        """
        lease, _ = await store.lease(transaction, lease_id, agent_id)
        touched = ledger.touch(lease, now_us=now_us, policy=self.policy)
        if touched is not lease:
            await store.save_lease(transaction, touched)
        return touched

    async def standing(self, transaction: Transaction, *, lease_id: str, agent_id: str) -> Standing:
        """How a lease stands now.

        Raises:
            NotFound: the agent has no such lease.
        """
        lease, _ = await store.lease(transaction, lease_id, agent_id)
        path = await store.path(transaction, lease.account_id)
        lsn, _ = await head(transaction)
        return Standing(lease, ledger.tightest(path).available_nanousd, lsn)

    # For the clock.

    async def sweep(self, transaction: Transaction, now_us: int) -> int:
        """Let leases drain and end whose time is over; how many moved."""
        overdue = await store.overdue_leases(transaction, now_us, SWEEP_AT_ONCE)
        for lease in overdue:
            if lease.is_expiry_due(now_us):
                draining = ledger.begin_expiry(lease, now_us, self.policy)
                await store.save_lease(transaction, draining)
                await append(transaction, now_us, _draining(draining, "expired"))
                continue
            path = await store.path(transaction, lease.account_id)
            closing = ledger.end_draining(path, lease, now_us)
            await append(transaction, now_us, _ended(closing.lease, closing.returned_nanousd))
            await store.save_lease(transaction, closing.lease)
            await store.save_path(transaction, closing.path)
        return len(overdue)


def _usage_body(fact: Fact, booking: ledger.Booking, path: Path) -> dict[str, Any]:
    lease = booking.lease
    return {
        "seq": booking.sequence,
        "cost": fact.cost_nanousd,
        "over": booking.overrun_nanousd,
        "provider": fact.provider,
        "model": fact.model,
        "input": fact.input_tokens,
        "output": fact.output_tokens,
        "cache_read": fact.cache_read_tokens,
        "cache_write": fact.cache_write_tokens,
        "price": fact.price_version,
        "priced_here": fact.is_priced_here,
        "certainty": fact.certainty,
        "at_us": fact.at_us,
        "spent": path[0].used_nanousd,
        "available": ledger.tightest(path).available_nanousd,
        "lease_spent": lease.spent_nanousd,
        "lease_left": lease.remaining_nanousd,
        "lease_state": lease.state,
    }


def _booked(body: dict[str, Any], lsn: int, *, is_repetition: bool = False) -> Booked:
    return Booked(
        body["seq"],
        body["cost"],
        body["over"],
        body["lease_spent"],
        body["lease_left"],
        body["available"],
        LeaseState(body["lease_state"]),
        lsn,
        is_repetition,
    )


def _said(body: dict[str, Any]) -> Said:
    """`Fact.said`, as the journal has it."""
    return (
        body["model"],
        body["provider"],
        body["input"],
        body["output"],
        body["cache_read"],
        body["cache_write"],
        None if body["priced_here"] else body["cost"],
    )


def _digest(said: Said) -> str:
    return hashlib.sha256(repr(said).encode()).hexdigest()[:32]


def _answer_again(fact: Fact, known: store.Written) -> Outcome:
    first = _said(known.body)
    if first != fact.said():
        return _reused(fact.request_id, _digest(first))
    return _booked(known.body, known.lsn, is_repetition=True)


def _growth_body(
    path: Path, lease: Lease, growth: Growth | Denial, asked_nanousd: int | None
) -> dict[str, Any]:
    added_nanousd = requested_nanousd = 0
    if isinstance(growth, Growth):
        path, lease = growth.path, growth.lease
        added_nanousd, requested_nanousd = growth.added_nanousd, growth.requested_nanousd
    return {
        "added": added_nanousd,
        "requested": requested_nanousd,
        "asked": asked_nanousd,
        "expires_at_us": lease.expires_at_us,
        "lease_granted": lease.granted_nanousd,
        "lease_spent": lease.spent_nanousd,
        "available": ledger.tightest(path).available_nanousd,
    }


def _grown(body: dict[str, Any], lsn: int) -> Grown:
    denied_because = body.get("denied", "")
    return Grown(
        denied_because,
        body["added"],
        bool(denied_because) or body["added"] < body["requested"],
        body["lease_granted"],
        body["lease_spent"],
        body["available"],
        body["expires_at_us"],
        lsn,
    )


def _warnings(before: Account, after: Account) -> list[NewEntry]:
    return [
        NewEntry(
            "budget.warning",
            {
                "threshold": percent,
                "spent": after.used_nanousd,
                "limit": after.allocated_nanousd,
            },
            after.account_id,
            after.account_id,
        )
        for percent in ledger.thresholds_crossed(before, after, frozenset())
    ]


def _draining(lease: Lease, why: str) -> NewEntry:
    body = {
        "ending": lease.ending,
        "settle_until_us": lease.settle_until_us,
        "why": why,
    }
    return NewEntry("lease.draining", body, lease.agent_id, lease.lease_id)


def _ended(lease: Lease, returned_nanousd: int) -> NewEntry:
    body = {"state": lease.state, "returned": returned_nanousd}
    return NewEntry("lease.ended", body, lease.agent_id, lease.lease_id)


def _reused(request_id: str, first: str) -> AlreadyExists:
    return AlreadyExists(
        f"request id {request_id!r} was used before with another body; use a new id",
        reason="REQUEST_ID_REUSED",
        facts={"request_id": request_id, "first_digest": first},
    )
