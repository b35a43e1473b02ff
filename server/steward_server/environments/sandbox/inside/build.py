"""From a fresh process in new namespaces to pid 1 of a machine."""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import errno
import os
import socket
from contextlib import suppress
from typing import Any

from steward_server.environments.sandbox.inside import linux, packets
from steward_server.environments.sandbox.inside.root import Root
from steward_server.environments.sandbox.inside.supervisor import Supervisor

NAMESPACES = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWNET
)
"""The user namespace is joined last: these then belong to the host's, and nobody inside, not even
its user 0, has any power over its own mounts and network."""

RANGE = 65_536
"""How many ids of the host a machine has."""
SUPERVISOR_ID = RANGE - 1
"""Nobody else's inside: even a command that runs as user 0 is a stranger to its pid 1."""
UID_COUNT = RANGE - 1
"""The ids that commands may have, from 0."""


class Descriptors:
    """What a machine is made from, in the order in which it comes with a request."""

    def __init__(self, plan: dict[str, Any], fds: list[int]) -> None:
        rest = list(fds)
        self.listener = rest.pop(0)
        self.logs = rest.pop(0)
        self.claim = rest.pop(0)
        """A lock that nobody else on this host can take: who holds it owns the user range."""
        self.storage = rest.pop(0) if plan["storage"]["kind"] == "file" else -1
        self.cgroup = rest.pop(0) if plan["cgroup_clone"] else -1
        self.joins = rest


def become_machine(connection: socket.socket, plan: dict[str, Any], fds: list[int]) -> None:
    """Build the machine around this process and serve it; returns only if that failed."""
    try:
        _close_all_but({0, 1, 2, connection.fileno(), *fds})
        descriptors = Descriptors(plan, fds)
        supervisor = _build(connection, plan, descriptors)
    except OSError as error:
        packets.send(connection, {"error": error.strerror, "what": error.filename})
        return
    connection.close()
    supervisor.serve()


def _build(connection: socket.socket, plan: dict[str, Any], descriptors: Descriptors) -> Supervisor:
    os.setsid()
    os.umask(0)
    linux.new_session_keyring()
    for fd in descriptors.joins:
        os.write(fd, b"0")  # this thread alone: no lock of all processes, 20 us instead of 10 ms
        os.close(fd)
    linux.unshare(linux.CLONE_NEWCGROUP)
    linux.mount("", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    os.chdir(plan["scaffold"])
    linux.set_name("steward-init")
    _hide_from_memory_killer()
    userns_fd = _user_namespace(plan["uid_base"])
    linux.loopback_up()
    if plan["wants_network"]:
        _wait_for_network(connection, plan)
    socket.sethostname(plan["hostname"])
    if plan["runsc"]:
        # Its kernel needs a process outside to start it: this one then stays who it is.
        from steward_server.environments.sandbox.inside import beside

        supervisor: Supervisor = beside.supervise(plan, descriptors, userns_fd)
        packets.send(connection, {"ok": True})
        packets.close_all([userns_fd, descriptors.storage, descriptors.cgroup])
        return supervisor
    upper_fd = Root(plan, userns_fd).build(descriptors.storage)
    linux.setns(userns_fd, linux.CLONE_NEWUSER)
    os.setgroups([])
    # From a user that this namespace does not know to one that is not its root: rights stay.
    os.setresgid(SUPERVISOR_ID, SUPERVISOR_ID, SUPERVISOR_ID)
    os.setresuid(SUPERVISOR_ID, SUPERVISOR_ID, SUPERVISOR_ID)
    linux.drop_bounding_set()
    linux.set_dumpable(yes=False)
    os.umask(0o022)
    supervisor = Supervisor(
        socket.socket(fileno=descriptors.listener),
        logs_fd=descriptors.logs,
        upper_fd=upper_fd,
        plan=plan,
    )
    packets.send(connection, {"ok": True})
    packets.close_all([userns_fd, descriptors.storage, descriptors.cgroup])
    return supervisor


def _close_all_but(kept: set[int]) -> None:
    """What is the launcher's own is not for its machines."""
    packets.close_all([fd for fd in map(int, os.listdir("/proc/self/fd")) if fd not in kept])


def _wait_for_network(connection: socket.socket, plan: dict[str, Any]) -> None:
    """Hand out the network namespace, and learn what the files of the machine say about it."""
    fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    packets.send(connection, {"network": True}, [fd])
    os.close(fd)
    received = packets.receive(connection)
    if received is None:
        raise ConnectionAbortedError(errno.ECONNABORTED, "it was given up", "network")
    plan["files"].update(received[0]["files"])


def _hide_from_memory_killer() -> None:
    """Let the machine's commands be killed and never this process, if that may be asked for.

    It takes CAP_SYS_RESOURCE. Without it commands are still killed first: see command.py.
    """
    fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        with suppress(PermissionError):
            os.write(fd, b"-1000")
    finally:
        os.close(fd)


def _user_namespace(base: int) -> int:
    """A descriptor of a user namespace with a range of ids of its own."""
    # The child tells when it has its namespace; it ends when it is told.
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            here.close()
            linux.unshare(linux.CLONE_NEWUSER)
            there.send(b"1")
            there.recv(1)
        finally:
            os._exit(0)
    there.close()
    try:
        if not here.recv(1):
            raise OSError(1, "a user namespace could not be made", "unshare")
        # /proc is still the host's, where the child has another number.
        own = _host_number_of_child(child)
        for name in ("uid_map", "gid_map"):
            fd = os.open(f"/proc/{own}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, f"0 {base} {RANGE}".encode())
            finally:
                os.close(fd)
        return os.open(f"/proc/{own}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        here.close()
        os.waitpid(child, 0)


def _host_number_of_child(child: int) -> int:
    """The number that the host's /proc has for a child of this process."""
    pidfd = os.pidfd_open(child)
    try:
        with open(f"/proc/self/fdinfo/{pidfd}") as file:
            for line in file:
                if line.startswith("Pid:"):
                    return int(line.split()[1])
    finally:
        os.close(pidfd)
    raise OSError(3, os.strerror(3), "pidfd")
