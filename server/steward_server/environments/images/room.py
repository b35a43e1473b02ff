"""What an image may take up, and what the disk must keep for everything else."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from steward_server.environments.driver import Unusable
from steward_server.environments.images.tree import bad

LEFT_FREE_BYTES = 512 * 1024**2
"""What an image on its way leaves to everything else."""
_LEFT_FREE_FILES = 10_000


def must_fit(place: Path | int, size_bytes: int = 0, what: str = "the image") -> None:
    """Refuse to write so much to the disk of a folder or a descriptor if too little is left then.

    Raises:
        Unusable: reason DISK_FULL.
    """
    disk = os.statvfs(place)
    # A file system without a fixed number of files tells 0 of all of them.
    has_files = disk.f_files == 0 or disk.f_favail >= _LEFT_FREE_FILES
    if not has_files or disk.f_bavail * disk.f_frsize < LEFT_FREE_BYTES + size_bytes:
        raise disk_full(what)


def disk_full(what: str = "the image") -> Unusable:
    """The refusal of what the disk has no room for."""
    return Unusable("DISK_FULL", f"the server's disk has too little room left for {what}")


@dataclass(slots=True)
class Room:
    """What an image may still take up."""

    left_bytes: int
    left_files: int
    place: Path
    """Where it is written."""
    limit_bytes: int = field(init=False)
    used_bytes: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.limit_bytes = self.left_bytes

    def take(self, size_bytes: int, file_count: int = 1) -> None:
        """Use some of it.

        Raises:
            Unusable: reason BAD_IMAGE; there is not so much. Or DISK_FULL.
        """
        self.left_bytes -= size_bytes
        self.left_files -= file_count
        self.used_bytes += size_bytes
        if self.left_bytes < 0:
            raise bad(
                f"the image is larger than {self.limit_bytes} bytes unpacked; raise the limit if "
                "you trust it"
            )
        if self.left_files < 0:
            raise bad("the image has too many files")
        self.must_fit()

    def must_fit(self, size_bytes: int = 0) -> None:
        """Refuse to write so much of it if the disk is full then.

        Raises:
            Unusable: reason DISK_FULL.
        """
        must_fit(self.place, size_bytes)
