"""SQLite's write-ahead log as a file."""

from __future__ import annotations

import os
from pathlib import Path


def lengthen(log: Path, length_bytes: int) -> None:
    """Give the log of an open database a length at once.

    To sync a file that has grown, the filesystem commits its own journal, too, which doubles the
    time. SQLite ends the log at the first page whose checksum is wrong, as it is for zeros, and
    overwrites it from there; it never shortens it while the file is open.
    """
    with log.open("r+b", buffering=0) as file:
        missing = length_bytes - file.seek(0, os.SEEK_END)
        if missing > 0:
            file.write(bytes(missing))
            os.fsync(file.fileno())
