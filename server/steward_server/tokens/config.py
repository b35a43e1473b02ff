"""Settings of the tokens room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class TokensConfig:
    """How IC tokens are kept."""

    last_use_interval_s: float = setting(
        60.0, "How often it is written down when tokens were used last, in seconds.", minimum=0.01
    )
