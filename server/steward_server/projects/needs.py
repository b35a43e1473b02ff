"""What the projects room needs of others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from steward_server.balance import Balance, BudgetTerms, ScopeBalance
from steward_server.db import Reader, Transaction


class Purse(Protocol):
    """The part of the budget room that keeps the money of projects and the organisation."""

    async def open_project(
        self, transaction: Transaction, *, project_id: str, terms: BudgetTerms, now_us: int
    ) -> None:
        """Give a new project its budget."""
        ...

    async def set_budget(
        self, transaction: Transaction, *, scope: str, terms: BudgetTerms, now_us: int
    ) -> None:
        """Set what a project or the organisation may spend.

        Raises:
            FailedPrecondition: BUDGET_BELOW_COMMITTED, less than is spent and leased.
        """
        ...

    async def retire(self, transaction: Transaction, *, scope: str) -> None:
        """Open no more periods for a project that is gone."""
        ...

    async def balances(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, Balance]:
        """The money of each of these agents."""
        ...

    async def scope_balances(
        self, reader: Reader, scopes: Iterable[str], now_us: int
    ) -> dict[str, ScopeBalance]:
        """The money of these scopes, and of those above them."""
        ...

    async def child_balances(
        self, reader: Reader, scope: str, *, after: str, limit: int, now_us: int
    ) -> list[ScopeBalance]:
        """The money of scopes right below one, in the order of their ids, from after one on."""
        ...


class Agents(Protocol):
    """The part of the agents room that knows who belongs where."""

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        ...

    async def count_in_project(self, reader: Reader, project_id: str) -> int:
        """How many agents belong to a project."""
        ...

    async def projects_of(self, reader: Reader, owner_id: str) -> set[str]:
        """The projects that agents of this owner belong to."""
        ...

    async def names(self, reader: Reader, agent_ids: Sequence[str]) -> dict[str, str]:
        """The names of these agents, of deleted ones too."""
        ...
