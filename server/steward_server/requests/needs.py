"""What the requests room needs of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steward_server.balance import Balance
from steward_server.budget_change import BudgetChange, BudgetSummary, Why
from steward_server.db import Reader, Transaction


class AgentRecord(Protocol):
    """What is known of an agent."""

    @property
    def name(self) -> str: ...
    @property
    def owner_id(self) -> str: ...


class Agents(Protocol):
    """The part of the agents room that tells who an agent is."""

    async def record(self, reader: Reader, agent_id: str) -> AgentRecord:
        """The agent.

        Raises:
            NotFound: no such agent.
        """
        ...

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent, or none any more."""
        ...


class People(Protocol):
    """The part of the auth room that knows people."""

    async def name_of(self, reader: Reader, user_id: str) -> str:
        """The name a user signs in by; empty if there is no such user."""
        ...

    async def is_sole_administrator(self, reader: Reader, user_id: str) -> bool:
        """Whether no administrator but this user may sign in."""
        ...


class Purse(Protocol):
    """The part of the budget room that knows agents' money."""

    async def balances(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, Balance]:
        """The money of each of these agents."""
        ...


class Allocations(Protocol):
    """The part of the budget room that changes what agents may spend in all."""

    async def take_back(self, transaction: Transaction, agent_id: str, now_us: int) -> bool:
        """Take back what the agent's raises owe whose time is over."""
        ...

    async def raise_to(
        self,
        transaction: Transaction,
        agent_id: str,
        allocated_nanousd: int,
        why: Why,
        *,
        ends_at_us: int | None,
        now_us: int,
    ) -> None:
        """Raise the allocation, until `ends_at_us` or for good."""
        ...

    async def changes(
        self, reader: Reader, agent_id: str, *, before_lsn: int | None, limit: int
    ) -> list[BudgetChange]:
        """Changes of the allocation, the newest first, from before one of them."""
        ...

    async def summary(self, reader: Reader, agent_id: str) -> BudgetSummary:
        """What all its changes add up to."""
        ...
