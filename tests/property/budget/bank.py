"""The ledger's rules over dictionaries, with a journal: the smallest store that keeps the laws."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from steward_server.budget import allocation, ledger, raises
from steward_server.budget.audit import Balances
from steward_server.budget.ledger import Booking, Closing, Denial, Growth, Opening
from steward_server.budget.ledger_errors import LedgerError
from steward_server.budget.period import Period
from steward_server.budget.raises import Raise, Taken
from steward_server.budget.scopes import Scope, current, start_and_end
from steward_server.budget.values import (
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeasePolicy,
    LeaseState,
    Mode,
    Path,
    ScopeId,
    scope_of_agent,
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
    cut_short: Callable[..., Lease] = ledger.cut_short
    revoke: Callable[..., Lease] = ledger.revoke
    end_draining: Callable[..., Closing] = ledger.end_draining
    reallocate: Callable[..., Account] = allocation.reallocate
    current: Callable[..., Account] = current
    lasting: Callable[..., int] = raises.lasting
    grant: Callable[..., list[Raise]] = raises.grant
    take_back: Callable[..., list[Taken]] = raises.take_back


LEDGER = Rules()


class Bank:
    """Answers operations as a server would, one after the other; `lsn` is the last commit."""

    def __init__(self, policy: LeasePolicy, rules: Rules = LEDGER) -> None:
        self.policy = policy
        self.scopes: dict[str, Scope] = {}
        self.account_ids: dict[str, AccountId] = {}
        """The account each scope has."""
        self.accounts: dict[AccountId, Account] = {}
        self.leases: dict[LeaseId, Lease] = {}
        self.raises: dict[str, Raise] = {}
        """Those that owe something, or will."""
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

    def path(self, account_ids: Iterable[AccountId]) -> Path:
        return tuple(self.accounts[account_id] for account_id in account_ids)

    def path_at(self, scope: str, at_us: int) -> Path:
        """The accounts of a scope and those above it at a time; new ones are not opened yet."""
        accounts = []
        at: str | None = scope
        while at is not None:
            accounts.append(self.present(at, at_us))
            at = self._parent(at)
        return tuple(accounts)

    def present(self, scope: str, at_us: int) -> Account:
        account_id = self.account_ids.get(scope)
        account = None if account_id is None else self.accounts[account_id]
        found = self._rules.current(self.scopes[scope], account, at_us)
        return self.accounts.get(found.account_id, found)

    def was_followed(self, account: Account) -> bool:
        """Its scope has gone on to a period that began at its end or later."""
        since_us = self.scopes[_name(account.scope_id)].since_us
        return account.ends_at_us is not None and since_us >= account.ends_at_us

    def forget_answers(self, lease: LeaseId) -> None:
        self._answers.pop(lease, None)

    def open_account(
        self,
        account: str,
        parent: str | None,
        allocated: int | None,
        at_us: int,
        mode: str = "restrictive",
        period: str = "none",
    ) -> Answer:
        parent_id = None if parent is None else scope_of_agent(parent)
        self.scopes[account] = Scope(
            scope_of_agent(account), parent_id, allocated, Mode(mode), Period(period)
        )
        self._enter(account, self.present(account, at_us), at_us)
        return {"outcome": "opened"}

    def roll(self, account: str, at_us: int) -> Answer:
        entered = self._enter(account, self.present(account, at_us), at_us)
        return {"outcome": "opened" if entered else "unchanged"}

    def move(self, account: str, parent: str | None, at_us: int) -> Answer:
        parent_id = None if parent is None else scope_of_agent(parent)
        self.scopes[account] = self.scopes[account]._replace(parent_id=parent_id)
        return {"outcome": "moved"}

    def raise_to(
        self, account: str, request: str, allocated: int, holds_us: int | None, at_us: int
    ) -> Answer:
        """What an approval does: take back what is over, then raise to this much or refuse."""
        self.take_back(account, at_us)
        present = self.present(account, at_us)
        if allocated <= (present.allocated_nanousd or 0):
            return refused("APPROVAL_DECREASES_BUDGET")
        scope = self.scopes[account]
        granted = self._rules.grant(
            scope.budget_nanousd,
            self._owing(account),
            agent_id=account,
            request_id=request,
            allocated_nanousd=allocated,
            ends_at_us=None if holds_us is None else at_us + holds_us,
            now_us=at_us,
            repeats=scope.period is not Period.NONE,
        )
        self._want(account, allocated)
        self._enter(account, present, at_us)
        self._allocate(account, allocated, scope.mode, at_us)
        self._keep(granted)
        return {"outcome": "raised", "available": self.present(account, at_us).available_nanousd}

    def take_back(self, account: str, at_us: int) -> Answer:
        repeats = self.scopes[account].period is not Period.NONE
        taken = self._rules.take_back(
            self.present(account, at_us), self._owing(account), at_us, repeats=repeats
        )
        for each in taken:
            self._keep([each.raised])
            if not (each.taken_nanousd or each.reduction_nanousd):
                continue
            self._enter(account, self.present(account, at_us), at_us)
            scope, before = self.scopes[account], self.present(account, at_us)
            self._want(account, (scope.budget_nanousd or 0) - each.reduction_nanousd)
            left_nanousd = (before.allocated_nanousd or 0) - each.taken_nanousd
            self._allocate(account, left_nanousd, scope.mode, at_us)
        return {
            "outcome": "settled",
            "allocated": self.present(account, at_us).allocated_nanousd,
            "wanted": self.scopes[account].budget_nanousd,
        }

    def _owing(self, account: str) -> list[Raise]:
        return [each for each in self.raises.values() if each.agent_id == account]

    def _keep(self, changed: Iterable[Raise]) -> None:
        for each in changed:
            self.raises.pop(each.request_id, None)
            if each.owed_nanousd:
                self.raises[each.request_id] = each

    def _owe_nothing(self, raised: Iterable[Raise]) -> None:
        self._keep(each._replace(owed_nanousd=0) for each in raised)

    def _want(self, account: str, allocated: int | None) -> None:
        self.scopes[account] = self.scopes[account]._replace(budget_nanousd=allocated)

    def change_period(self, account: str, period: str, at_us: int) -> Answer:
        """Raises that are to end stay; what ended ones have lent is of the period before."""
        if self.scopes[account].period == period:
            return {"outcome": "unchanged"}
        self.take_back(account, at_us)
        scope, held = self.scopes[account], self._owing(account)
        if scope.budget_nanousd is not None:
            repeats = scope.period is not Period.NONE
            budget_nanousd = self._rules.lasting(scope.budget_nanousd, held, at_us, repeats=repeats)
            scope = scope._replace(budget_nanousd=budget_nanousd)
        before = self.present(account, at_us)
        starts_at_us, _ = start_and_end(scope, at_us)
        since_us = max(scope.since_us, starts_at_us)
        wanted = scope._replace(period=Period(period), since_us=since_us)
        begun = self._rules.current(wanted, None, at_us)
        begun = self.accounts.get(begun.account_id, begun)
        self._rules.reallocate(begun, scope.budget_nanousd, scope.mode)  # or nothing changes
        self._owe_nothing([each for each in held if each.has_ended(at_us)])
        self._enter(account, before, at_us)
        drained = []
        for lease in list(self.leases.values()):
            if before.account_id not in lease.account_ids:
                continue
            after = self._rules.cut_short(lease, at_us, self.policy)
            if after is not lease:
                self._write_draining(at_us, lease, after, "period_changed")
                self.leases[lease.lease_id] = after
                drained.append(lease.lease_id)
        self.scopes[account] = wanted
        self._enter(account, begun, at_us)
        self._allocate(account, scope.budget_nanousd, scope.mode, at_us)
        return {"outcome": "begun", "drained": drained}

    def reallocate(
        self, account: str, allocated: int | None, at_us: int, mode: str = "restrictive"
    ) -> Answer:
        self._rules.reallocate(self.present(account, at_us), allocated, Mode(mode))
        self._enter(account, self.present(account, at_us), at_us)
        after = self._allocate(account, allocated, Mode(mode), at_us)
        self.scopes[account] = self.scopes[account]._replace(
            budget_nanousd=allocated, mode=Mode(mode)
        )
        self._owe_nothing(self._owing(account))
        return {"outcome": "reallocated", "available": after.available_nanousd}

    def _allocate(self, scope: str, allocated: int | None, mode: Mode, at_us: int) -> Account:
        before = self.present(scope, at_us)
        after = self._rules.reallocate(before, allocated, mode)
        if after != before:
            body = {
                "allocated": allocated,
                "previous": before.allocated_nanousd,
                "mode": mode,
            }
            self._write(at_us, "account.reallocated", scope, after.account_id, None, body)
            self._save((after,))
        return after

    def _enter(self, scope: str, account: Account, at_us: int) -> bool:
        """Have a scope spend from this account; whether it did not before."""
        if self.account_ids.get(scope) == account.account_id:
            return False
        wanted = self.scopes[scope]
        starts_at_us, _ = start_and_end(wanted, at_us)
        self.scopes[scope] = wanted._replace(since_us=max(wanted.since_us, starts_at_us))
        self.account_ids[scope] = account.account_id
        if account.account_id in self.accounts:
            return True
        body = {
            "scope": account.scope_id,
            "allocated": account.allocated_nanousd,
            "mode": account.mode,
            "ends_at_us": account.ends_at_us,
        }
        self._write(at_us, "account.opened", scope, account.account_id, None, body)
        self._save((account,))
        return True

    def _parent(self, scope: str) -> str | None:
        parent_id = self.scopes[scope].parent_id
        return None if parent_id is None else _name(parent_id)

    def handshake(
        self, lease: LeaseId, agent: AgentId, requested: int | None, minimum: int, at_us: int
    ) -> Answer:
        self.take_back(agent, at_us)
        opening = self._rules.open_lease(
            self.path_at(agent, at_us),
            lease_id=lease,
            agent_id=agent,
            requested_nanousd=requested,
            minimum_nanousd=minimum,
            now_us=at_us,
            policy=self.policy,
        )
        for account in opening.path:
            self._enter(
                _name(account.scope_id), self.present(_name(account.scope_id), at_us), at_us
            )
        body = {
            "account": opening.lease.account_id,
            "above": opening.lease.account_ids[1:],
            "granted": opening.lease.granted_nanousd,
            "requested": opening.requested_nanousd,
            "provider": "openai",
            "token": "token_1",
            "expires_at_us": opening.lease.expires_at_us,
            "period_ends_at_us": opening.lease.period_ends_at_us,
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
            self.path(before.account_ids),
            before,
            sequence=sequence,
            cost_nanousd=cost,
            now_us=at_us,
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
        self.take_back(before.agent_id, at_us)
        growth = self._rules.grow(
            self.path(before.account_ids),
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
        path = self.path(before.account_ids)
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
        path = self.path(before.account_ids)
        return self._close(self._rules.end_draining(path, before, at_us))

    def balance(self, account: str, at_us: int) -> Answer:
        path = self.path_at(account, at_us)
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
    return allocation.lendable_nanousd(path)


def _name(scope_id: ScopeId) -> str:
    return scope_id.partition(":")[2]
