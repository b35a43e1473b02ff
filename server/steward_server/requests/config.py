"""Settings of the requests room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class RequestsConfig:
    """How larger budgets are asked for."""

    pending_per_agent: int = setting(
        10, "How many requests about one agent may wait for a decision at once.", minimum=1
    )
