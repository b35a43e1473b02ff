"""Goes into containers, for the work in their files and to their ports.

A process of its own beside the server: whoever goes in hands on all it has, so this one has no
secret, no environment and no descriptor of the server's. It ends with the server.
"""

from __future__ import annotations

import os
import signal
import socket
from typing import NoReturn

from steward_server.environments.sandbox.inside import file_work, linux, packets

_NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
)


def main(door_fd: int) -> None:
    """Serve until the server hangs up."""
    linux.set_name("steward-door")
    linux.set_dumpable(yes=False)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who went in
    door = socket.socket(fileno=door_fd)
    while (received := packets.receive(door)) is not None:
        request, fds = received
        if os.fork() == 0:
            _go_in(door, has_own_users=request["own_users"], pidfd=fds[0], connection_fd=fds[1])
        packets.close_all(fds)


def _go_in(door: socket.socket, *, has_own_users: bool, pidfd: int, connection_fd: int) -> NoReturn:
    """Join a container and do there what its connection asks; never returns.

    All that is imported was imported before: in there, files are somebody else's.
    """
    try:
        door.close()
        connection = socket.socket(fileno=connection_fd)
        users = linux.CLONE_NEWUSER if has_own_users else 0
        linux.setns(pidfd, _NAMESPACES | users)
        if os.fork() == 0:  # only a child is in the other pid namespace
            received = packets.receive(connection)
            if received is not None:
                file_work.run(connection, received[0])
    finally:
        os._exit(0)
