"""What the analytics room needs of others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from steward_server.balance import Balance
from steward_server.db import Reader


class KnownAgent(Protocol):
    """What is known of an agent, of one that was deleted too."""

    @property
    def agent_id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def owner_id(self) -> str: ...
    @property
    def project_id(self) -> str: ...
    @property
    def created_at_us(self) -> int: ...
    @property
    def stop_wanted(self) -> bool: ...


class Agents(Protocol):
    """The part of the agents room that figures need."""

    async def record(self, reader: Reader, agent_id: str) -> KnownAgent:
        """The agent.

        Raises:
            NotFound: no such agent, or none any more.
        """
        ...

    async def of_owner(
        self, reader: Reader, owner_id: str | None, *, deleted_too: bool
    ) -> Sequence[KnownAgent]:
        """The agents of one owner, or all; newest first."""
        ...


class Projects(Protocol):
    """The part of the projects room that filters need."""

    async def exists(self, reader: Reader, project_id: str) -> bool:
        """Whether there is a project with this id."""
        ...


class Purse(Protocol):
    """The part of the budget room that keeps agents' money."""

    async def balances(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, Balance]:
        """The money of each of these agents."""
        ...

    async def allocations(
        self, reader: Reader, agent_ids: Sequence[str], now_us: int
    ) -> dict[str, int]:
        """What each of these agents may spend in its present period."""
        ...

    async def lendable_together(self, reader: Reader, agent_ids: Sequence[str], now_us: int) -> int:
        """What could be lent to all of these agents, what they share counted once."""
        ...


class Ledger(Protocol):
    """The part of the budget room that knows what was booked."""

    async def booked(
        self, reader: Reader, agent_id: str, calls: Sequence[tuple[str, int]]
    ) -> set[str]:
        """Those of these calls, by their id and when they ended, whose usage is booked."""
        ...


class Providers(Protocol):
    """The part of the providers room that filters need."""

    async def names(self, reader: Reader) -> dict[str, str]:
        """The name of each provider, by its id."""
        ...
