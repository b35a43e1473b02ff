"""What bwrap starts in fresh namespaces: it builds the machine around itself and becomes its pid 1.

It runs while everything of the host can still be seen, with the rights of the server's user there,
and all rights over its own namespaces. When it begins to serve it has neither.
"""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH123
from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import Any

from steward_server.environments.sandbox.bubblewrap.warden import Warden
from steward_server.environments.sandbox.inside import command, linux, packets
from steward_server.environments.sandbox.inside.root import Root

_LAST_STANDARD = 2


def main(connection_fd: int) -> None:
    """Ask on a connection what to become; returns only if that failed."""
    linux.close_from(_LAST_STANDARD + 1)
    connection = socket.socket(fileno=os.dup(connection_fd))
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)  # where the program came from
    os.dup2(nothing, 1)
    os.close(nothing)
    pidfd = os.pidfd_open(os.getpid())
    packets.send(connection, {"started": True}, [pidfd])  # that tells our number out there
    os.close(pidfd)
    received = packets.receive(connection)
    if received is None:  # it was given up
        return
    plan, fds = received
    try:
        supervisor = _build(plan, fds)
        packets.send(connection, {"ok": True})
    except OSError as error:
        packets.send(connection, {"error": error.strerror, "what": error.filename})
        return
    connection.close()
    supervisor.serve()


def _build(plan: dict[str, Any], fds: list[int]) -> Warden:
    listener, logs = fds
    os.umask(0)
    linux.set_name("steward-init")
    linux.new_session_keyring()
    _take_cores(plan["cores"])
    # For this user namespace, which then has none below it.
    with suppress(OSError), open("/proc/sys/user/max_user_namespaces", "w") as file:
        file.write("0")
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    os.chdir(plan["scaffold"])
    upper_fd = Root(plan, -1).build(-1)
    os.umask(0o022)
    linux.drop_bounding_set()
    linux.forbid_new_privileges()
    linux.drop_capabilities()
    linux.set_dumpable(yes=False)
    command.leave_no_core()
    linux.filter_calls(command.FILTER)
    return Warden(socket.socket(fileno=listener), logs_fd=logs, upper_fd=upper_fd, plan=plan)


def _take_cores(count: int) -> None:
    """Stay on as many cores as the machine may use; which, is left to chance."""
    there = sorted(os.sched_getaffinity(0))
    if count < len(there):
        first = int.from_bytes(os.urandom(4), "big") % len(there)
        with suppress(OSError):
            os.sched_setaffinity(0, [there[(first + each) % len(there)] for each in range(count)])
