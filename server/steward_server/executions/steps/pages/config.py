"""Settings of the browser."""

from __future__ import annotations

from dataclasses import dataclass

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class BrowserConfig:
    """The browser in which playbooks open pages."""

    executable: str | None = setting(
        None,
        "Chromium's program: its path, or its name along the server's `PATH`; unset: the first of "
        "the usual names that is there.",
    )
    sandbox: bool = setting(
        True,
        "Chromium's own sandbox around pages. As root it has none; off is for containers that "
        "forbid it.",
    )
    any_certificate: bool = setting(
        False, "Open pages whose certificates nobody vouches for, such as those gateways make."
    )
    frames_per_s: float = setting(
        2.0,
        "Pictures of a run's page a second at most, for those who watch.",
        minimum=0.1,
        maximum=10,
    )
    idle_s: float = setting(
        300.0, "How long the browser stays when no run uses it, in seconds.", minimum=0
    )
    max_download_bytes: int = setting(
        268_435_456,
        "What the pages of a run may download in one step, in bytes; a download that goes beyond "
        "is cut off.",
        minimum=1,
    )
