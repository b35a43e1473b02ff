"""What the limits room needs of others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from steward_server.db import Reader, Transaction

Leased = Callable[[Reader], Awaitable[dict[str, int]]]
"""Gives the money that open leases hold, by agent."""


class Agents(Protocol):
    """The part of the agents room that limits need."""

    def owner_of(self, agent_id: str) -> str | None:
        """Who owns the agent; None if there is no such agent."""
        ...

    def project_of(self, agent_id: str) -> str:
        """The project the agent belongs to; empty for none."""
        ...

    async def projects_of(self, reader: Reader, owner_id: str) -> set[str]:
        """The projects that agents of this owner belong to."""
        ...


class People(Protocol):
    """The part of the auth room that a user's limit needs."""

    async def exists(self, reader: Reader, user_id: str) -> bool:
        """Whether there is a user with this id."""
        ...


class Projects(Protocol):
    """The part of the projects room that a project's limit needs."""

    async def exists(self, reader: Reader, project_id: str) -> bool:
        """Whether there is a project with this id."""
        ...


class Purse(Protocol):
    """The part of the budget room that takes back what a lowered limit does not allow."""

    async def drain(self, transaction: Transaction, *, agent_id: str, why: str, now_us: int) -> int:
        """Let the agent's leases end: calls under way settle, none starts. How many leases."""
        ...
