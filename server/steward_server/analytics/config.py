"""Settings of the analytics room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.analytics.periods import DAY_US
from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class AnalyticsConfig:
    """What is kept of LLM calls."""

    trace_retention_days: int = setting(
        30, "How long single calls are shown, in days; sums are kept for ever.", minimum=1
    )
    tidy_interval_s: float = setting(
        30.0,
        "How often sums are moved to where they are read fast, and what is over its retention is "
        "forgotten, in seconds.",
        minimum=0.01,
    )

    @property
    def trace_retention_us(self) -> int:
        return self.trace_retention_days * DAY_US
