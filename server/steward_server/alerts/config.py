"""Settings of the alerts room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class AlertsConfig:
    """How webhooks are called."""

    allow_private: bool = setting(
        False,
        "Allow webhooks on this machine and in private networks, and plain http; for networks "
        "where every administrator may reach every service anyway.",
    )
    timeout_s: float = setting(
        10.0, "How long a receiver may take to answer, in seconds.", minimum=0.05, maximum=60
    )
    max_attempts: int = setting(
        10, "How often a delivery is tried before it is given up.", minimum=1, maximum=100
    )
    backoff_s: float = setting(
        1.0,
        "How long to wait after the first failure, in seconds; doubled after each.",
        minimum=0.01,
    )
    backoff_limit_s: float = setting(
        600.0, "How long to wait at most between two attempts, in seconds.", minimum=0.01
    )
    repeat_window_s: float = setting(
        3_600.0,
        "An alert is not sent again for the same agent and cause within this, in seconds.",
        minimum=0,
    )
    kept_s: float = setting(
        604_800.0, "How long deliveries that are over can be looked up, in seconds.", minimum=1
    )
    max_pending: int = setting(
        10_000,
        "How many deliveries may wait for one webhook; alerts beyond are only counted and logged.",
        minimum=1,
    )
    max_webhooks: int = setting(50, "How many webhooks there may be.", minimum=1, maximum=1_000)
