"""Settings of the agents room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class AgentsConfig:
    """How agents are watched."""

    vanished_after_s: float = setting(
        120.0,
        "A runtime without a lease that was silent for so long counts as gone, in seconds.",
        minimum=1,
    )

    @property
    def vanished_after_us(self) -> int:
        return round(self.vanished_after_s * 1e6)
