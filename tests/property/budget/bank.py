"""The ledger's rules over dictionaries, with a journal: the smallest store that keeps the laws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steward_server.budget import ledger
from steward_server.budget.audit import Balances
from steward_server.budget.ledger import Booking, Closing, Denial, Growth, Opening
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.values import (
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeasePolicy,
    LeaseState,
    Path,
)
from steward_server.events.journal import JournalEntry
from tests.property.budget.model import Answer, refused


@dataclass(frozen=True)
class Rules:
    """The rules a bank decides by; a test may plant a bug in one."""

    open_lease: Callable[..., Opening] = ledger.open_lease
    book: Callable[..., Booking] = ledger.book
    grow: Callable[..., Growth | Denial] = ledger.grow
    touch: Callable[..., Lease] = ledger.touch
    give_back: Callable[..., Closing] = ledger.give_back
    begin_expiry: Callable[..., Lease] = ledger.begin_expiry
    revoke: Callable[..., Lease] = ledger.revoke
    end_draining: Callable[..., Closing] = ledger.end_draining
    reallocate: Callable[..., Path] = ledger.reallocate


LEDGER = Rules()


class Bank:
    """Answers operations as a server would, one after the other; `lsn` is the last commit."""

    def __init__(self, policy: LeasePolicy, rules: Rules = LEDGER) -> None:
        self.policy = policy
        self.accounts: dict[AccountId, Account] = {}
        self.leases: dict[LeaseId, Lease] = {}
        self.journal: list[JournalEntry] = []
        self.lsn = 0
        self._rules = rules
        self._answers: dict[LeaseId, dict[str, tuple[int, Answer]]] = {}

    def do(self, operation: str, arguments: dict[str, Any], at_us: int) -> Answer:
        try:
            answer: Answer = getattr(self, operation)(at_us=at_us, **arguments)
        except LedgerError as error:
            return refused(error.reason)
        return answer

    def balances(self) -> Balances:
        return Balances(self.lsn, dict(self.accounts), dict(self.leases))

    def path(self, account_id: AccountId) -> Path:
        accounts = []
        at: AccountId | None = account_id
        while at is not None:
            accounts.append(self.accounts[at])
            at = accounts[-1].parent_id
        return tuple(accounts)

    def forget_answers(self, lease: LeaseId) -> None:
        self._answers.pop(lease, None)

    def open_account(
        self, account: AccountId, parent: AccountId | None, allocated: int, at_us: int
    ) -> Answer:
        self.accounts[account] = Account(account, parent, allocated, 0, 0, 0)
        body = {"parent": parent, "allocated": allocated}
        self._write(at_us, "account.opened", "", account, None, body)
        return {"outcome": "opened"}

    def reallocate(self, account: AccountId, allocated: int, at_us: int) -> Answer:
        before = self.path(account)
        after = self._rules.reallocate(before, allocated)
        body = {"allocated": allocated, "previous": before[0].allocated_nanousd}
        self._write(at_us, "account.reallocated", account, account, None, body)
        self._save(after)
        return {"outcome": "reallocated", "available": _available(after)}

    def handshake(
        self, lease: LeaseId, agent: AgentId, requested: int | None, minimum: int, at_us: int
    ) -> Answer:
        opening = self._rules.open_lease(
            self.path(AccountId(agent)),
            lease_id=lease,
            agent_id=agent,
            requested_nanousd=requested,
            minimum_nanousd=minimum,
            now_us=at_us,
            policy=self.policy,
        )
        body = {
            "account": opening.lease.account_id,
            "granted": opening.lease.granted_nanousd,
            "requested": opening.requested_nanousd,
            "provider": "openai",
            "token": "token_1",
            "expires_at_us": opening.lease.expires_at_us,
        }
        self._write(at_us, "lease.opened", agent, lease, None, body)
        self._save(opening.path, opening.lease)
        self._answers[lease] = {}
        return {
            "outcome": "granted",
            "granted": opening.lease.granted_nanousd,
            "partial": opening.partial,
            "expires_at_us": opening.lease.expires_at_us,
            "available": _available(opening.path),
        }

    def report(self, lease: LeaseId, request: str, sequence: int, cost: int, at_us: int) -> Answer:
        answers = self._answers[lease]
        if request in answers:
            known_cost, known = answers[request]
            return known if known_cost == cost else refused("REQUEST_ID_REUSED")
        before = self.leases[lease]
        booking = self._rules.book(
            self.path(before.account_id), before, sequence=sequence, cost_nanousd=cost, now_us=at_us
        )
        after = booking.lease
        body = {"seq": booking.sequence, "cost": cost, "over": booking.overrun_nanousd}
        self._write(at_us, "usage", after.agent_id, lease, request, body)
        self._write_draining(at_us, before, after, "overrun")
        self._save(booking.path, after)
        answer = {
            "outcome": "booked",
            "sequence": booking.sequence,
            "cost": booking.cost_nanousd,
            "overrun": booking.overrun_nanousd,
            "lease_spent": after.spent_nanousd,
            "lease_remaining": after.remaining_nanousd,
            "state": after.state,
            "available": _available(booking.path),
        }
        answers[request] = (cost, answer)
        return answer

    def refresh(self, lease: LeaseId, requested: int | None, at_us: int) -> Answer:
        before = self.leases[lease]
        growth = self._rules.grow(
            self.path(before.account_id),
            before,
            requested_nanousd=requested,
            now_us=at_us,
            policy=self.policy,
        )
        if isinstance(growth, Denial):
            return {"outcome": "denied", "reason": growth.reason}
        after = growth.lease
        body = {"added": growth.added_nanousd, "expires_at_us": after.expires_at_us}
        self._write(at_us, "lease.grown", after.agent_id, lease, None, body)
        self._save(growth.path, after)
        return {
            "outcome": "grown",
            "added": growth.added_nanousd,
            "partial": growth.partial,
            "lease_granted": after.granted_nanousd,
            "expires_at_us": after.expires_at_us,
            "available": _available(growth.path),
        }

    def heartbeat(self, lease: LeaseId, at_us: int) -> Answer:
        after = self._rules.touch(self.leases[lease], now_us=at_us, policy=self.policy)
        self.leases[lease] = after
        return {"outcome": "heard", "state": after.state, "expires_at_us": after.expires_at_us}

    def give_back(self, lease: LeaseId, at_us: int) -> Answer:
        before = self.leases[lease]
        path = self.path(before.account_id)
        return self._close(self._rules.give_back(path, before, now_us=at_us))

    def expire(self, lease: LeaseId, at_us: int) -> Answer:
        before = self.leases[lease]
        after = self._rules.begin_expiry(before, at_us, self.policy)
        self._write_draining(at_us, before, after, "expired")
        self.leases[lease] = after
        return _drained(before, after)

    def revoke(self, lease: LeaseId, at_us: int) -> Answer:
        before = self.leases[lease]
        after = self._rules.revoke(before, at_us, self.policy)
        self._write_draining(at_us, before, after, "revoked")
        self.leases[lease] = after
        return _drained(before, after)

    def end(self, lease: LeaseId, at_us: int) -> Answer:
        before = self.leases[lease]
        path = self.path(before.account_id)
        return self._close(self._rules.end_draining(path, before, at_us))

    def balance(self, account: AccountId, at_us: int) -> Answer:
        path = self.path(account)
        leaf = path[0]
        return {
            "outcome": "read",
            "allocated": leaf.allocated_nanousd,
            "spent": leaf.spent_nanousd,
            "leased": leaf.leased_nanousd,
            "overrun": leaf.overrun_nanousd,
            "available": _available(path),
        }

    def _close(self, closing: Closing) -> Answer:
        lease = closing.lease
        body = {"state": lease.state, "returned": closing.returned_nanousd}
        self._write(closing.ended_at_us, "lease.ended", lease.agent_id, lease.lease_id, None, body)
        self._save(closing.path, lease)
        return {
            "outcome": "ended",
            "returned": closing.returned_nanousd,
            "state": lease.state,
            "available": _available(closing.path),
        }

    def _save(self, path: Path, lease: Lease | None = None) -> None:
        for account in path:
            self.accounts[account.account_id] = account
        if lease is not None:
            self.leases[lease.lease_id] = lease

    def _write_draining(self, at_us: int, before: Lease, after: Lease, why: str) -> None:
        unchanged = (before.ending, before.settle_until_us) == (after.ending, after.settle_until_us)
        if unchanged or after.state is not LeaseState.DRAINING:
            return
        body = {"ending": after.ending, "settle_until_us": after.settle_until_us, "why": why}
        self._write(at_us, "lease.draining", after.agent_id, after.lease_id, None, body)

    def _write(
        self,
        at_us: int,
        kind: str,
        agent_id: str,
        subject: str,
        key: str | None,
        body: dict[str, Any],
    ) -> None:
        self.lsn += 1
        self.journal.append(JournalEntry(self.lsn, at_us, kind, agent_id, subject, key, body))


def _drained(before: Lease, after: Lease) -> Answer:
    return {"outcome": "unchanged" if after is before else "draining", "state": after.state}


def _available(path: Path) -> int:
    return ledger.tightest(path).available_nanousd
