"""Settings of the events room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """How events are handed out."""

    heartbeat_s: float = setting(
        30.0, "A stream with nothing to say sends a heartbeat this often, in seconds.", minimum=0.05
    )
    queue_events: int = setting(
        1_000, "Events kept for a slow reader before the oldest are left out.", minimum=1
    )
