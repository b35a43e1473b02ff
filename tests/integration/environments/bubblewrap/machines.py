"""What is on the host of machines without root."""

from __future__ import annotations

import os
from pathlib import Path


def supervisors() -> list[int]:
    """The pids of this user's supervisors and keepers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "status").read_text()
            except OSError:
                continue
            name = status.split("\n")[0].split("\t")[1]
            user = int(status.split("Uid:\t")[1].split("\t")[0])
            if user == os.geteuid() and name in ("steward-init", "steward-keeper", "bwrap"):
                found.append(int(entry.name))
    return found
