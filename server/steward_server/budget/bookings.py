"""Usages booked: those of many leases in one go, so that all share a handful of statements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from steward_server.budget import entries, ledger, store
from steward_server.budget.allocation import lendable_nanousd
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.needs import Listener
from steward_server.budget.refusals import reused
from steward_server.budget.store import Terms, Written
from steward_server.budget.values import Account, AccountId, Lease, LeasePolicy, LeaseState
from steward_server.db import Transaction
from steward_server.errors import NotFound, StewardError
from steward_server.events.store import NewEntry, append, head

Said = tuple[str, str, int, int, int, int, int | None]


class Fact(NamedTuple):
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
    duration_ms: int = 0
    """How long the call took; 0 if the runtime did not say."""

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


class Booked(NamedTuple):
    """The answer to one report: of now, or of when it was booked first."""

    sequence: int
    cost_nanousd: int
    overrun_nanousd: int
    lease_spent_nanousd: int
    lease_remaining_nanousd: int
    available_nanousd: int
    lease_state: LeaseState
    lsn: int


Outcome = Booked | StewardError | LedgerError
FactsOf = Callable[[Terms], Sequence[Fact | StewardError]]


class Batch(NamedTuple):
    """Usages of one lease, reported together."""

    lease_id: str
    agent_id: str
    usage_count: int
    facts_of: FactsOf
    """Prices them by the lease's terms; it may refuse one by one."""


class Answer(NamedTuple):
    """What became of a batch."""

    outcomes: list[Outcome]
    """Of each usage, in order; refusals changed nothing."""
    lease: Lease
    """As it stands after them."""
    available_nanousd: int
    """What could be lent to the agent still."""
    lsn: int
    """Of the batch's last usage, or of the newest entry if it had nothing new."""


async def book(
    transaction: Transaction,
    batches: Sequence[Batch],
    *,
    policy: LeasePolicy,
    now_us: int,
    listeners: Sequence[Listener] = (),
) -> list[Answer | NotFound]:
    """Book batches in order; NotFound is the answer to one whose agent has no such lease."""
    leases = await store.leases(transaction, [batch.lease_id for batch in batches])
    account_ids = [each for lease, _ in leases.values() for each in lease.account_ids]
    accounts = await store.accounts(transaction, account_ids)
    priced: list[Sequence[Fact | StewardError] | None] = []
    for batch in batches:
        lease, terms = leases.get(batch.lease_id, (None, None))
        is_theirs = lease is not None and lease.agent_id == batch.agent_id
        priced.append(batch.facts_of(terms) if is_theirs and terms is not None else None)
    asked = [
        (batch.lease_id, fact.request_id)
        for batch, facts in zip(batches, priced, strict=True)
        for fact in facts or ()
        if isinstance(fact, Fact)
    ]
    known = await store.usages(transaction, asked)
    page = _Page({name: lease for name, (lease, _) in leases.items()}, accounts, known, now_us)
    drafts = [
        None if facts is None else page.book(batch, facts)
        for batch, facts in zip(batches, priced, strict=True)
    ]
    if page.entries:
        last_lsn = await append(transaction, now_us, *page.entries)
        touched = [
            ledger.touch(page.leases[name], now_us=now_us, policy=policy)
            for name in page.changed_leases
        ]
        await store.save_leases(transaction, touched)
        await store.save_accounts(transaction, [accounts[name] for name in page.changed_accounts])
        for listener in listeners:
            await listener.usages_booked(transaction, now_us, page.entries, last_lsn)
    else:
        last_lsn, _ = await head(transaction)
    first_lsn = last_lsn - len(page.entries) + 1
    return [
        NotFound.of("lease", batch.lease_id)
        if draft is None
        else draft.numbered(first_lsn, last_lsn)
        for batch, draft in zip(batches, drafts, strict=True)
    ]


class _Entered(NamedTuple):
    """A usage among the entries, not numbered yet."""

    at: int
    body: dict[str, Any]

    def numbered(self, first_lsn: int) -> Booked:
        return _booked(self.body, first_lsn + self.at)


class _Draft(NamedTuple):
    """An answer before the journal has numbered what it is about."""

    outcomes: list[Outcome | _Entered]
    lease: Lease
    available_nanousd: int
    last_at: int | None
    """Of the last usage among the entries."""

    def numbered(self, first_lsn: int, last_lsn: int) -> Answer:
        outcomes = [
            outcome.numbered(first_lsn) if type(outcome) is _Entered else outcome
            for outcome in self.outcomes
        ]
        lsn = last_lsn if self.last_at is None else first_lsn + self.last_at
        return Answer(outcomes, self.lease, self.available_nanousd, lsn)  # type: ignore[arg-type]


class _Page:
    """Leases and accounts as they stand from booking to booking, and what is to be written."""

    def __init__(
        self,
        leases: dict[str, Lease],
        accounts: dict[str, Account],
        known: dict[tuple[str, str], Written],
        now_us: int,
    ) -> None:
        self.leases = leases
        self.entries: list[NewEntry] = []
        self.changed_leases: dict[str, None] = {}
        self.changed_accounts: dict[AccountId, None] = {}
        self._accounts = accounts
        self._known = known
        self._now_us = now_us
        self._new: dict[tuple[str, str], tuple[_Entered, Fact]] = {}

    def book(self, batch: Batch, facts: Sequence[Fact | StewardError]) -> _Draft:
        lease_id, agent_id = batch.lease_id, batch.agent_id
        lease = first_lease = self.leases[lease_id]
        path = first_path = tuple([self._accounts[each] for each in lease.account_ids])
        limited = [at for at, account in enumerate(path) if account.allocated_nanousd is not None]
        ends_at_us = lease.period_ends_at_us
        is_adjusted = ends_at_us is not None and self._now_us >= ends_at_us
        written = self.entries
        outcomes: list[Outcome | _Entered] = []
        last_at: int | None = None
        for fact in facts:
            if not isinstance(fact, Fact):
                outcomes.append(fact)
                continue
            key = (lease_id, fact.request_id)
            if key in self._known or key in self._new:
                outcomes.append(self._answer_again(key, fact))
                continue
            try:
                booking = ledger.book(
                    path,
                    lease,
                    sequence=fact.sequence,
                    cost_nanousd=fact.cost_nanousd,
                    now_us=self._now_us,
                )
            except LedgerError as refusal:
                outcomes.append(refusal)
                continue
            before, path, lease = path, booking.path, booking.lease
            last_at = len(written)
            entered = _Entered(last_at, _usage_body(fact, booking))
            if is_adjusted:
                entered.body["adjusts"] = True
            outcomes.append(entered)
            self._new[key] = (entered, fact)
            written.append(NewEntry("usage", entered.body, agent_id, lease_id, fact.request_id))
            for at in limited:
                written.extend(entries.warnings(before[at], path[at]))
            if booking.overrun_nanousd:
                written.append(entries.overrun(booking))
        if last_at is not None:
            if lease.state is not first_lease.state:
                written.append(entries.draining(lease, "overrun"))
            self.leases[lease_id] = lease
            self.changed_leases[lease_id] = None
        if path is not first_path:
            for account in path:
                self._accounts[account.account_id] = account
                self.changed_accounts[account.account_id] = None
        return _Draft(outcomes, lease, lendable_nanousd(path), last_at)

    def _answer_again(self, key: tuple[str, str], fact: Fact) -> Outcome | _Entered:
        known = self._known.get(key)
        if known is not None:
            first, answer = _said(known.body), _booked(known.body, known.lsn)
            return answer if first == fact.said() else reused(fact.request_id, _digest(first))
        entered, first_fact = self._new[key]
        first = first_fact.said()
        return entered if first == fact.said() else reused(fact.request_id, _digest(first))


def _usage_body(fact: Fact, booking: ledger.Booking) -> dict[str, Any]:
    path, lease = booking.path, booking.lease
    body = {
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
        "available": lendable_nanousd(path),
        "lease_spent": lease.spent_nanousd,
        "lease_left": lease.remaining_nanousd,
        "lease_state": lease.state,
    }
    if fact.duration_ms:
        body["ms"] = fact.duration_ms
    return body


def _booked(body: dict[str, Any], lsn: int) -> Booked:
    return Booked(
        body["seq"],
        body["cost"],
        body["over"],
        body["lease_spent"],
        body["lease_left"],
        body["available"],
        store.STATES[body["lease_state"]],
        lsn,
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
