"""Settings of what is remembered of answers."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class IdempotencyConfig:
    """How long repeats are known."""

    kept_s: float = setting(
        86_400.0,
        "How long an answer is given again for the same request id, in seconds.",
        minimum=1,
    )
    sweep_interval_s: float = setting(
        3_600.0, "How often older answers are deleted, in seconds.", minimum=1
    )
