"""Settings of the playbooks room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from steward_server.config import setting
from steward_server.playbooks.files import MAX_FILES


@dataclass(frozen=True, slots=True)
class PlaybooksConfig:
    """Where the playbooks are, and what reading them may cost."""

    folder: Path | None = setting(
        None,
        "Folder of your own playbooks, for all people of the server; they hide the built-in ones "
        "at the same path. Unset: `playbooks` in the data folder.",
    )
    max_playbooks: int = setting(
        1_000,
        "Playbooks that people may have made before more are refused.",
        minimum=1,
        maximum=MAX_FILES,
    )
    threads: int = setting(
        1,
        "Threads that read playbooks, and as many that check what callers send.",
        minimum=1,
        maximum=16,
    )
