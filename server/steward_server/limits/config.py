"""Settings of the limits room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class LimitsConfig:
    """How limits are kept."""

    sweep_interval_s: float = setting(
        1.0,
        "How often what ended leases held is divided among the others, in seconds.",
        minimum=0.01,
    )
