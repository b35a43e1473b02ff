"""From a fresh process in new namespaces to pid 1 of a machine with gVisor."""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH102, PTH123
from __future__ import annotations

import os
import socket
from typing import Any

from steward_server.environments.sandbox.inside import linux, oci
from steward_server.environments.sandbox.inside.build import SUPERVISOR_ID, Descriptors
from steward_server.environments.sandbox.inside.root import Root
from steward_server.environments.sandbox.inside.sentry import Runsc, SentrySupervisor

_SCAFFOLD = "/tmp"  # noqa: S108 - hidden below a mount of its own
"""Where this machine's mounts are, for it alone: runsc's helpers, who are nobody on the host, have
to find the way there, and a server's folder lets nobody in."""
_MOST_TERMINALS = 64


def supervise(plan: dict[str, Any], descriptors: Descriptors, userns_fd: int) -> SentrySupervisor:
    """Mount everything, start its kernel, and be its supervisor.

    Raises:
        OSError: something of it failed.
    """
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    plan["scaffold"] = _SCAFFOLD
    os.chdir(_SCAFFOLD)
    upper_fd, root_fd, places = Root(plan, userns_fd).build_beside(
        descriptors.storage,
        beside=(oci.TOOL.rpartition("/")[0], "/dev/shm"),  # noqa: S108
    )
    os.mkdir("tool")
    with open("tool/init", "wb") as file:
        file.write(oci.tool())
    os.chmod("tool/init", 0o755)  # noqa: S103, PTH101
    # runsc looks for itself by the numbers that it knows.
    linux.mount("proc", "/proc", "proc", flags)
    options = f"newinstance,ptmxmode=0666,mode=0620,max={_MOST_TERMINALS}"
    linux.mount("devpts", "/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    os.umask(0o022)
    os.mkdir("runsc", 0o700)
    os.chown("runsc", plan["uid_base"], plan["uid_base"])
    linux.setns(userns_fd, linux.CLONE_NEWUSER)
    os.setgroups([])
    os.setresgid(SUPERVISOR_ID, SUPERVISOR_ID, SUPERVISOR_ID)
    os.setresuid(SUPERVISOR_ID, SUPERVISOR_ID, SUPERVISOR_ID)
    linux.set_dumpable(yes=False)
    runsc = Runsc(plan["runsc"], f"{_SCAFFOLD}/runsc")
    bundle = oci.bundle(
        root=f"{_SCAFFOLD}/root",
        tool=f"{_SCAFFOLD}/tool",
        places=places,
        plan=plan,
        keeper=SUPERVISOR_ID,
    )
    kernel_pid = runsc.start(bundle)
    os.chdir("/")
    return SentrySupervisor(
        socket.socket(fileno=descriptors.listener),
        logs_fd=descriptors.logs,
        upper_fd=upper_fd,
        plan=plan,
        runsc=runsc,
        kernel_pid=kernel_pid,
        root_fd=root_fd,
    )
