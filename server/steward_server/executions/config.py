"""Settings of the executions room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steward_server.config import setting


@dataclass(frozen=True, slots=True)
class ExecutionsConfig:
    """Runs of playbooks."""

    max_running: int = setting(
        20,
        "Runs that go on at a time, at most half of them of agents; of more, those come first "
        "whose owners have the fewest going on. Paused ones count.",
        minimum=1,
    )
    max_queued: int = setting(1_000, "Runs that may wait; more are refused.", minimum=0)
    kept_days: int = setting(
        90,
        "How long a run that is over is kept, with what it made; 0: until it is deleted.",
        minimum=0,
    )
    max_artifact_bytes: int = setting(
        104_857_600, "The largest file that a run may make, in bytes.", minimum=1
    )
    max_artifacts: int = setting(1_000, "Files that one run may make.", minimum=0)
    max_artifacts_bytes: int = setting(
        1_073_741_824, "All files that one run may make together, in bytes.", minimum=0
    )
    python: bool = setting(
        False,
        "Whether playbooks may run Python, each script in an environment of its own.",
    )
    python_image: str = setting(
        "python:3.11-slim",
        "The image of those environments; it has a `python3`, 3.8 or later.",
    )
    files_dir: Path | None = setting(
        None,
        "The folder of files that steps may read, such as modules to upload; unset: `files` in "
        "the data folder.",
    )
