"""The lending desk: loads what a rule needs, asks the rule, saves what it says and journals it.

Each function is one piece of work in a transaction; the decisions are in `ledger.py`. Other rooms
are handed the `Desk` where they need the money of an agent moved together with something of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steward_server.budget import allocations, chart, entries, ledger, store
from steward_server.budget.allocation import lendable_nanousd
from steward_server.budget.ledger import Denial, Growth, Opening
from steward_server.budget.ledger_errors import LeaseClosed
from steward_server.budget.refusals import reused
from steward_server.budget.store import Terms
from steward_server.budget.treasury import Treasury
from steward_server.budget.values import AgentId, Lease, LeaseId, Path, scope_of_agent
from steward_server.db import Transaction
from steward_server.events.store import NewEntry, append, head

SWEEP_AT_ONCE = 200

REFRESHED = ("lease.grown", "lease.denied")
"""The journal's kinds of answers to a refresh."""


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
    scope: str
    """Whose budget is insufficient, if that is why it did not."""
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


class Desk(Treasury):
    """Moves money between accounts and leases."""

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
        acknowledges: bool = False,
        now_us: int,
    ) -> Lent:
        """Lend money; a repeated request id gives the lease it opened before.

        Raises:
            AlreadyExists: the request id was used with another body.
            LeaseClosed: the lease it opened has ended; nothing is to be handed over for it.
            BudgetExceeded: too little is left.
            ResourceExhausted: a limit leaves too little.
        """
        # First, so that nothing of a raise is lent once its time is over.
        await allocations.take_back(transaction, agent_id, now_us)
        before = await chart.path(transaction, scope_of_agent(agent_id), now_us)
        if terms.request_id is not None:
            repeated = await store.lease_by_request(transaction, agent_id, terms.request_id)
            if repeated is not None:
                lease, first = repeated
                if first.request_digest != terms.request_digest:
                    raise reused(terms.request_id, first.request_digest.hex())
                if not lease.is_open:
                    raise LeaseClosed(lease.lease_id, lease.state)
                body = (await store.written_at(transaction, first.opened_lsn)).body
                return Lent(lease, first, body["granted"], body["available"], first.opened_lsn)
        ceiling_nanousd = await self._limits.ceiling(
            transaction, agent_id=agent_id, minimum_nanousd=minimum_nanousd, now_us=now_us
        )
        opening: Opening = ledger.open_lease(
            before,
            lease_id=LeaseId(lease_id),
            agent_id=AgentId(agent_id),
            requested_nanousd=requested_nanousd,
            minimum_nanousd=minimum_nanousd,
            now_us=now_us,
            policy=self.policy.within(ceiling_nanousd),
        )
        lease = opening.lease
        available_nanousd = lendable_nanousd(opening.path)
        body = {
            "account": lease.account_id,
            "above": lease.account_ids[1:],
            "granted": lease.granted_nanousd,
            "requested": opening.requested_nanousd,
            "available": available_nanousd,
            "provider": terms.provider,
            "token": terms.token_id,
            "runtime": terms.runtime_id,
            "expires_at_us": lease.expires_at_us,
            "period_ends_at_us": lease.period_ends_at_us,
        }
        entry = NewEntry("lease.opened", body, agent_id, lease.lease_id, terms.request_id)
        lsn = await append(transaction, now_us, entry)
        terms = terms._replace(opened_lsn=lsn, requested_nanousd=opening.requested_nanousd)
        await store.insert_lease(transaction, lease, terms, now_us)
        await store.save_accounts(transaction, opening.path)
        await self._limits.lease_opened(
            transaction,
            lease_id=lease_id,
            agent_id=agent_id,
            acknowledges=acknowledges,
            now_us=now_us,
        )
        return Lent(lease, terms, lease.granted_nanousd, available_nanousd, lsn)

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
            ResourceExhausted: a limit leaves nothing.
        """
        lease, _ = await store.lease(transaction, lease_id, agent_id)
        if request_id is not None:
            found = await store.written(transaction, lease_id, REFRESHED, [request_id])
            if known := found.get(request_id):
                if known.body["asked"] != requested_nanousd:
                    raise reused(request_id, str(known.body["asked"]))
                return _grown(known.body, known.lsn)
        await allocations.take_back(transaction, agent_id, now_us)
        path = await store.path_of(transaction, lease)
        ceiling_nanousd = await self._limits.ceiling(
            transaction, agent_id=agent_id, lease_id=lease_id, now_us=now_us
        )
        growth = ledger.grow(
            path,
            lease,
            requested_nanousd=requested_nanousd,
            now_us=now_us,
            policy=self.policy.within(ceiling_nanousd),
        )
        body = _growth_body(path, lease, growth, requested_nanousd)
        if isinstance(growth, Denial):
            body["denied"] = "agent_stopped" if stop_wanted else growth.reason
            if growth.scope:
                body["scope"] = growth.scope
            if request_id is None:
                return _grown(body, (await head(transaction))[0])
            # Written down although nothing changed: its repetition is to be denied as well.
            entry = NewEntry("lease.denied", body, agent_id, lease_id, request_id)
            return _grown(body, await append(transaction, now_us, entry))
        entry = NewEntry("lease.grown", body, agent_id, lease_id, request_id)
        lsn = await append(transaction, now_us, entry)
        await store.save_leases(transaction, [growth.lease])
        await store.save_accounts(transaction, growth.path)
        return _grown(body, lsn)

    async def close_lease(
        self,
        transaction: Transaction,
        *,
        lease_id: str,
        agent_id: str,
        believed_spent_nanousd: int | None,
        requests_last_minute: int | None = None,
        now_us: int,
    ) -> Returned:
        """Take a lease back on its runtime's word that nothing more will come.

        Raises:
            NotFound: the agent has no such lease.
            LeaseClosed: it has ended already.
        """
        lease, _ = await store.lease(transaction, lease_id, agent_id)
        path = await store.path_of(transaction, lease)
        closing = ledger.give_back(path, lease, now_us=now_us)
        differs = believed_spent_nanousd not in (None, lease.spent_nanousd)
        entry = entries.ended(closing.lease, closing.returned_nanousd)
        if differs:
            entry.body["believed_spent"] = believed_spent_nanousd
        lsn = await append(transaction, now_us, entry)
        await store.save_leases(transaction, [closing.lease])
        await store.save_accounts(transaction, closing.path)
        await self._limits.lease_ended(
            transaction,
            lease_id=lease_id,
            requests_last_minute=requests_last_minute,
            now_us=now_us,
        )
        available_nanousd = lendable_nanousd(closing.path)
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
            await store.save_leases(transaction, [touched])
        return touched

    # For the clock.

    async def sweep(self, transaction: Transaction, now_us: int) -> int:
        """Let leases drain and end, periods begin, and raises be taken back, when it is time.

        How many moved, at most `SWEEP_AT_ONCE` of each kind.
        """
        begun_count = await chart.roll(transaction, now_us, SWEEP_AT_ONCE)
        overdue = await store.overdue_leases(transaction, now_us, SWEEP_AT_ONCE)
        for lease in overdue:
            if lease.is_expiry_due(now_us):
                draining = ledger.begin_expiry(lease, now_us, self.policy)
                await store.save_leases(transaction, [draining])
                await append(transaction, now_us, entries.draining(draining, "expired"))
                continue
            path = await store.path_of(transaction, lease)
            closing = ledger.end_draining(path, lease, now_us)
            await append(
                transaction, now_us, entries.ended(closing.lease, closing.returned_nanousd)
            )
            await store.save_leases(transaction, [closing.lease])
            await store.save_accounts(transaction, closing.path)
            await self._limits.lease_ended(
                transaction, lease_id=lease.lease_id, requests_last_minute=None, now_us=now_us
            )
        taken_count = await allocations.take_back_overdue(transaction, now_us, SWEEP_AT_ONCE)
        return max(begun_count, len(overdue), taken_count)


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
        "available": lendable_nanousd(path),
    }


def _grown(body: dict[str, Any], lsn: int) -> Grown:
    denied_because = body.get("denied", "")
    return Grown(
        denied_because,
        body.get("scope", ""),
        body["added"],
        bool(denied_because) or body["added"] < body["requested"],
        body["lease_granted"],
        body["lease_spent"],
        body["available"],
        body["expires_at_us"],
        lsn,
    )
