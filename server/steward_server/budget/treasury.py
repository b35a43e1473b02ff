"""The treasury: gives scopes their budgets, and says how they stand.

Other rooms are handed it where the money of an agent or a project moves together with something of
theirs. Each function is one piece of work in a transaction; what follows from a scope and a time
stands in `scopes.py`, what an account allows in `ledger.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from steward_server.balance import Balance, BudgetTerms, ScopeBalance
from steward_server.budget import allocations, chart, entries, ledger, store
from steward_server.budget.allocation import (
    lendable_nanousd,
    lendable_together,
    most_used,
)
from steward_server.budget.chart import Found
from steward_server.budget.needs import Limits, NoLimits
from steward_server.budget.period import Period
from steward_server.budget.scopes import Scope, current, start_and_end
from steward_server.budget.values import (
    ORGANISATION,
    Account,
    LeasePolicy,
    Mode,
    ScopeId,
    agent_of,
    scope_of_agent,
    scope_of_project,
)
from steward_server.budget_change import Cause, Why
from steward_server.db import Reader, Transaction
from steward_server.events.store import append

SCOPES_AT_ONCE = 500
"""Named in one statement."""


class Treasury:
    """Keeps the budgets of the organisation, of projects and of agents."""

    def __init__(self, policy: LeasePolicy, limits: Limits | None = None) -> None:
        self.policy = policy
        self._limits: Limits = limits or NoLimits()

    # What there is.

    async def open_account(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        allocated_nanousd: int,
        now_us: int,
        project_id: str = "",
        period: str = Period.NONE,
    ) -> None:
        """Give a new agent its budget: right below the organisation, or in a project."""
        parent_id = scope_of_project(project_id) if project_id else ORGANISATION
        scope = Scope(
            scope_of_agent(agent_id),
            parent_id,
            allocated_nanousd,
            Mode.RESTRICTIVE,
            Period(period),
        )
        await chart.insert(transaction, scope)
        await chart.open_next(transaction, scope, None, now_us)

    async def open_project(
        self, transaction: Transaction, *, project_id: str, terms: BudgetTerms, now_us: int
    ) -> None:
        """Give a new project its budget."""
        scope = Scope(
            scope_of_project(project_id),
            ORGANISATION,
            terms.budget_nanousd,
            Mode(terms.mode),
            Period(terms.period),
        )
        await chart.insert(transaction, scope)
        await chart.open_next(transaction, scope, None, now_us)

    async def move(self, transaction: Transaction, *, agent_id: str, project_id: str) -> None:
        """Have an agent spend from a project from now on, or from none.

        What it spent stays where it was spent, and so does a lease that is open still.
        """
        scope, _ = await chart.load(transaction, scope_of_agent(agent_id))
        parent_id = scope_of_project(project_id) if project_id else ORGANISATION
        await chart.save(transaction, scope._replace(parent_id=parent_id))

    async def retire(self, transaction: Transaction, *, scope: str) -> None:
        """Open no more periods for an agent or a project that is gone."""
        await chart.retire(transaction, ScopeId(scope))
        if agent_id := agent_of(ScopeId(scope)):
            await allocations.end_raises(transaction, agent_id)

    # What it may spend.

    async def reallocate(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        allocated_nanousd: int,
        now_us: int,
        by: str = "",
        reason: str = "",
    ) -> None:
        """Set what an agent may spend in all, or in each of its periods from this one on.

        That is for good: raises that were to end are over with it.

        Raises:
            FailedPrecondition: BUDGET_BELOW_COMMITTED, less than is spent and leased already.
        """
        why = Why(Cause.SET, by, reason)
        await allocations.set_to(transaction, agent_id, allocated_nanousd, why, now_us)

    async def set_period(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        period: str,
        allocated_nanousd: int | None,
        now_us: int,
        by: str = "",
        reason: str = "",
    ) -> None:
        """Have an agent's budget begin anew with each period, as `set_budget`.

        An amount is for good, as `reallocate` sets it. None leaves it, and raises that are to end.
        """
        scope, _ = await chart.load(transaction, scope_of_agent(agent_id))
        if allocated_nanousd is None:
            if period == scope.period:
                return
            budget_nanousd = await allocations.write_off(transaction, agent_id, now_us)
        else:
            budget_nanousd = allocated_nanousd
            await allocations.end_raises(transaction, agent_id)
        wanted = scope._replace(period=Period(period), budget_nanousd=budget_nanousd)
        await self._set(transaction, wanted, Why(Cause.SET, by, reason), now_us)

    async def set_budget(
        self, transaction: Transaction, *, scope: str, terms: BudgetTerms, now_us: int
    ) -> None:
        """Set what a project or the organisation may spend.

        With another period another account begins, as at the end of a period: what is lent drains,
        and what was spent stays in the account it was spent from.

        Raises:
            FailedPrecondition: BUDGET_BELOW_COMMITTED, less than is spent and leased already.
        """
        before, _ = await chart.load(transaction, ScopeId(scope))
        wanted = before._replace(
            budget_nanousd=terms.budget_nanousd, mode=Mode(terms.mode), period=Period(terms.period)
        )
        await self._set(transaction, wanted, Why(Cause.SET), now_us)

    async def _set(self, transaction: Transaction, wanted: Scope, why: Why, now_us: int) -> None:
        before, account = await chart.load(transaction, wanted.scope_id)
        if account is None or account.is_over(now_us):
            account = await chart.open_next(transaction, before, account, now_us)
        if wanted.period is before.period:
            await allocations.apply(transaction, account, wanted, why, now_us)
            return
        await self._cut_short(transaction, account, now_us)
        # As it stands by now: what it had may have begun in this very call.
        since_us = (await chart.load(transaction, wanted.scope_id))[0].since_us
        wanted = wanted._replace(since_us=since_us)
        begun = await chart.enter(transaction, wanted, account, now_us)
        await allocations.apply(transaction, begun, wanted, why, now_us, follows=account)

    async def _cut_short(self, transaction: Transaction, account: Account, now_us: int) -> None:
        for lease in await store.open_leases_on(transaction, account.account_id):
            draining = ledger.cut_short(lease, now_us, self.policy)
            if draining is not lease:
                await store.save_leases(transaction, [draining])
                await append(transaction, now_us, entries.draining(draining, "period_changed"))

    async def drain(self, transaction: Transaction, *, agent_id: str, why: str, now_us: int) -> int:
        """Revoke what is lent to an agent: calls under way settle, none starts. How many leases."""
        count = 0
        for lease in await store.open_leases(transaction, agent_id):
            revoked = ledger.revoke(lease, now_us, self.policy)
            if revoked is not lease:
                await store.save_leases(transaction, [revoked])
                await append(transaction, now_us, entries.draining(revoked, why))
                count += 1
        return count

    # How it stands.

    async def balances(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, Balance]:
        """The money of each of these agents."""
        found = await chart.load_all(reader, [scope_of_agent(each) for each in agent_ids])
        lease_counts = await store.open_lease_counts(reader, agent_ids)
        balances = {}
        for agent_id in agent_ids:
            scope_id = scope_of_agent(agent_id)
            if scope_id not in found:
                continue
            scope, _ = found[scope_id]
            path = chart.path_in(found, scope_id, now_us)
            own = path[0]
            starts_at_us, ends_at_us = _bounds(scope, own, now_us)
            tightest = most_used(path)
            balances[agent_id] = Balance(
                allocated_nanousd=own.allocated_nanousd or 0,
                spent_nanousd=own.spent_nanousd,
                leased_nanousd=own.leased_nanousd,
                overrun_nanousd=own.overrun_nanousd,
                available_nanousd=lendable_nanousd(path),
                open_leases=lease_counts.get(agent_id, 0),
                period=scope.period,
                starts_at_us=starts_at_us,
                ends_at_us=ends_at_us,
                tightest_percent=tightest.percent_used,
                tightest_scope=tightest.scope_id,
            )
        return balances

    async def lendable_together(self, reader: Reader, agent_ids: Sequence[str], now_us: int) -> int:
        """What could be lent to all of these agents: what they share is counted once."""
        found: dict[ScopeId, Found] = {}
        for first in range(0, len(agent_ids), SCOPES_AT_ONCE):
            some = agent_ids[first : first + SCOPES_AT_ONCE]
            found |= await chart.load_all(reader, [scope_of_agent(each) for each in some])
        return lendable_together(
            {
                scope_id: (scope.parent_id, current(scope, account, now_us))
                for scope_id, (scope, account) in found.items()
            }
        )

    async def allocations(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, int]:
        """What each of these agents may spend in its present period; for many of them."""
        found = await chart.load_some(reader, [scope_of_agent(each) for each in agent_ids])
        return {
            agent_of(scope_id): current(scope, account, now_us).allocated_nanousd or 0
            for scope_id, (scope, account) in found.items()
        }

    async def scope_balances(
        self, reader: Reader, scopes: Iterable[str], now_us: int
    ) -> dict[str, ScopeBalance]:
        """The money of these scopes, and of those above them."""
        found = await chart.load_all(reader, [ScopeId(each) for each in scopes])
        return {str(name): _balance(each, now_us) for name, each in found.items()}

    async def child_balances(
        self, reader: Reader, scope: str, *, after: str, limit: int, now_us: int
    ) -> list[ScopeBalance]:
        """The money of scopes right below one, in the order of their ids, from after one on."""
        found = await chart.children(reader, ScopeId(scope), after=after, limit=limit)
        return [_balance(each, now_us) for each in found]


def _balance(found: Found, now_us: int) -> ScopeBalance:
    scope, account = found
    account = current(scope, account, now_us)
    starts_at_us, ends_at_us = _bounds(scope, account, now_us)
    return ScopeBalance(
        scope=scope.scope_id,
        parent=scope.parent_id,
        terms=BudgetTerms(account.allocated_nanousd, account.mode, scope.period),
        spent_nanousd=account.spent_nanousd,
        leased_nanousd=account.leased_nanousd,
        overrun_nanousd=account.overrun_nanousd,
        available_nanousd=account.available_nanousd,
        starts_at_us=starts_at_us,
        ends_at_us=ends_at_us,
    )


def _bounds(scope: Scope, account: Account, now_us: int) -> tuple[int | None, int | None]:
    """When the period of an account starts and ends; None for one that is for ever."""
    if account.ends_at_us is None:
        return None, None
    return start_and_end(scope, min(now_us, account.ends_at_us - 1))
