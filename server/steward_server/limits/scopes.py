"""Scopes and the limits on them; days and months of UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

EVERYONE = "everyone"
USER = "user:"
PROJECT = "project:"
AGENT = "agent:"

MAX_REQUESTS = 1_000_000_000
MAX_TOKENS = 1_000_000_000_000_000
WINDOW_US = 60_000_000
"""What "a minute" is: any 60 seconds."""


class Limit(NamedTuple):
    """The limits of one scope; None is no limit."""

    scope: str
    max_requests_per_minute: int | None
    max_tokens_per_day: int | None
    max_cost_per_month_nanousd: int | None
    created_at_us: int
    updated_at_us: int
    version: int = 1


class Use(NamedTuple):
    """What one agent used in a period."""

    agent_id: str
    owner_id: str
    project_id: str
    """It belonged to; empty for none."""
    requests: int
    tokens: int
    cost_nanousd: int


def scopes_of(agent_id: str, owner_id: str, project_id: str) -> tuple[str, ...]:
    """The scopes that hold an agent."""
    of_project = (f"{PROJECT}{project_id}",) if project_id else ()
    return (EVERYONE, f"{USER}{owner_id}", *of_project, f"{AGENT}{agent_id}")


class Held(Protocol):
    """Something of an agent."""

    @property
    def agent_id(self) -> str: ...
    @property
    def owner_id(self) -> str: ...
    @property
    def project_id(self) -> str: ...


def scopes_with(one: Held) -> tuple[str, ...]:
    """The scopes that hold whose it is."""
    return scopes_of(one.agent_id, one.owner_id, one.project_id)


def day_of(now_us: int) -> str:
    """As "2026-11-26"."""
    return _time(now_us).strftime("%Y-%m-%d")


def month_of(now_us: int) -> str:
    """As "2026-11"."""
    return _time(now_us).strftime("%Y-%m")


def next_day_us(now_us: int) -> int:
    """When the next day begins."""
    return _micros(_midnight(now_us) + timedelta(days=1))


def next_month_us(now_us: int) -> int:
    """When the next month begins."""
    return _micros((_midnight(now_us).replace(day=1) + timedelta(days=32)).replace(day=1))


def _time(now_us: int) -> datetime:
    return datetime.fromtimestamp(now_us // 1_000_000, UTC)


def _midnight(now_us: int) -> datetime:
    return _time(now_us).replace(hour=0, minute=0, second=0)


def _micros(at: datetime) -> int:
    return int(at.timestamp()) * 1_000_000
