"""The control groups that somebody has delegated to this server, where it does not run as root."""

from __future__ import annotations

from pathlib import Path

from steward_server.environments.sandbox.cgroups import Version2
from steward_server.environments.sandbox.probe import ASIDE, NotHere, mounts, open_version_2

HOW = (
    "for limits that hold, start it with systemd-run --user -p Delegate=yes, or as a service with "
    "Delegate=yes"
)


def find(prefix: str, process: Path = Path("/proc/self")) -> tuple[Undivided | None, str]:
    """Our place in the control groups of version 2; or None, and why there is none."""
    _, mount = mounts()
    if mount is None:
        return None, "version 2 of the control groups is not mounted"
    lines = (process / "cgroup").read_text().splitlines()
    inner = next((line[3:] for line in lines if line.startswith("0::")), "/")
    own = mount / inner.lstrip("/")
    if own.name == ASIDE:
        own = own.parent
    try:
        return Undivided(open_version_2(own, prefix)), ""
    except NotHere as error:
        return None, f"no control group is delegated to this server ({error})"
    except OSError as error:
        return None, f"no control group is delegated to this server ({error.strerror}: {own})"


class Undivided(Version2):
    """Groups of machines, without others below them for commands: the warden tells those apart."""

    clones = False

    def __init__(self, found: Version2) -> None:
        super().__init__(found.folder)

    def give(self, name: str, owner: int) -> None:
        pass  # it is the same user

    def join(self, name: str, pid: int) -> None:
        """Put a process into a machine's group."""
        (self.folder / name / "cgroup.procs").write_text(str(pid))
