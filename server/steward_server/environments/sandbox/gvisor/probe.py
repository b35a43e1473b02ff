"""Finds runsc, as far as that can be done without a machine; the driver then makes one."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

from steward_server.environments.sandbox.inside.oci import MACHINE
from steward_server.environments.sandbox.probe import NotHere

HOW = (
    "install it on this host, on Debian with apt-get install runsc, so that the server finds it "
    "along its PATH, and start the server again"
)


def find() -> str:
    """The path of runsc.

    Raises:
        NotHere: there is none that can be used.
    """
    if platform.machine() != MACHINE:
        raise NotHere(f"it is for {MACHINE}, and this host is {platform.machine()}")
    found = shutil.which("runsc")
    if found is None:
        raise NotHere(f"there is no runsc; {HOW}")
    program = Path(found).resolve()
    if program.is_relative_to("/tmp"):  # noqa: S108 - hidden in the namespaces of machines
        raise NotHere(f"runsc is {program}; put it where it stays, such as /usr/local/bin")
    return str(program)
