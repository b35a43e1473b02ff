"""Finds runsc, as far as that can be done without a machine; the driver then makes one."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from steward_server.environments.sandbox.inside.oci import MACHINE
from steward_server.environments.sandbox.probe import NotHere

_SETTING = "STEWARD_ENVIRONMENTS_RUNSC"


def find(named: str | None) -> str:
    """The path of runsc, by its path or its name.

    Raises:
        NotHere: there is none that can be used.
    """
    if platform.machine() != MACHINE:
        raise NotHere(f"it is for {MACHINE}, and this host is {platform.machine()}")
    if named is None:
        raise NotHere(f"{_SETTING} is empty; give it the path of runsc, and start the server again")
    found = shutil.which(named)
    if found is None:
        raise NotHere(
            f"there is no {named!r}; install it on this host, on Debian with apt-get install "
            f"runsc, or set {_SETTING} to its path, and start the server again"
        )
    program = Path(found).resolve()
    if program.is_relative_to("/tmp"):  # noqa: S108 - hidden in the namespaces of machines
        raise NotHere(
            f"{str(program)!r} is where machines have a folder of their own; put it where it stays "
            "for them too, such as /usr/local/bin"
        )
    return str(program)
