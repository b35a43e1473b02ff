"""What the agents room needs of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steward_server.balance import Balance
from steward_server.db import Reader, Transaction
from steward_server.principals import Principal


class Purse(Protocol):
    """The part of the budget room that keeps agents' money."""

    async def open_account(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        allocated_nanousd: int,
        now_us: int,
        project_id: str,
        period: str,
    ) -> None:
        """Give a new agent its budget: right below the organisation, or in a project."""
        ...

    async def move(self, transaction: Transaction, *, agent_id: str, project_id: str) -> None:
        """Have an agent spend from a project from now on, or from none."""
        ...

    async def retire(self, transaction: Transaction, *, scope: str) -> None:
        """Open no more periods for an agent that is gone."""
        ...

    async def reallocate(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        allocated_nanousd: int,
        now_us: int,
        by: str,
        reason: str,
    ) -> None:
        """Set what an agent may spend in all, or in each of its periods from this one on.

        Who does, and why, goes into its history.

        Raises:
            FailedPrecondition: BUDGET_BELOW_COMMITTED, less than is spent and leased.
        """
        ...

    async def set_period(
        self,
        transaction: Transaction,
        *,
        agent_id: str,
        period: str,
        allocated_nanousd: int | None,
        now_us: int,
        by: str,
        reason: str,
    ) -> None:
        """Have an agent's budget begin anew with each period; what is lent to it drains.

        None leaves how much it may spend.

        Raises:
            FailedPrecondition: BUDGET_BELOW_COMMITTED, less than is spent and leased.
        """
        ...

    async def balances(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, Balance]:
        """The money of each of these agents."""
        ...

    async def drain(self, transaction: Transaction, *, agent_id: str, why: str, now_us: int) -> int:
        """Let the agent's leases end: calls under way settle, none starts. How many leases."""
        ...


class Tokens(Protocol):
    """The part of the tokens room that ends an agent's credential."""

    async def revoke_of(
        self, transaction: Transaction, *, agent_id: str, why: str, now_us: int
    ) -> list[str]:
        """Revoke the agent's token; the ids of what was revoked, to `drop` after the commit."""
        ...

    def drop(self, token_ids: Sequence[str]) -> None:
        """Refuse these from now on and end the streams that were opened with them."""
        ...


class Providers(Protocol):
    """The part of the providers room that assigning needs."""

    async def exists(self, reader: Reader, name: str) -> bool:
        """Whether there is a provider of this name."""
        ...


class People(Protocol):
    """The part of the auth room that owning needs."""

    async def exists(self, reader: Reader, user_id: str) -> bool:
        """Whether there is a user with this id."""
        ...


class Projects(Protocol):
    """The part of the projects room that belonging needs."""

    async def exists(self, reader: Reader, project_id: str) -> bool:
        """Whether there is a project with this id."""
        ...


class Requests(Protocol):
    """The part of the requests room that ends with an agent."""

    async def cancel_of(
        self, transaction: Transaction, *, agent_id: str, caller: Principal, why: str, now_us: int
    ) -> None:
        """Cancel the requests about an agent that are pending."""
        ...
