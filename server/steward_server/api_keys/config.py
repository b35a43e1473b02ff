"""Settings of the API keys room."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class ApiKeysConfig:
    """The keys of people's programs."""

    max_per_user: int = setting(
        50, "Keys a person may have that are neither revoked nor expired.", minimum=1
    )
