"""Starts machines.

A process of its own, because whoever forks hands on all it has: this one has no secret, no
environment and no descriptor of the server's, and lives on when the server dies.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
from contextlib import suppress
from typing import Any

from steward_server.environments.sandbox.inside import build, linux, packets

_FIRST_SERVER_MS = 10_000
_REQUEST_S = 5


class Launcher:
    """Serves a listening socket while a server holds a connection, or a machine of its lives."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._machines: set[int] = set()
        self._holders: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Serve until nobody needs it any more."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        is_new = True
        while is_new or self._holders or self._machines:
            ready = poll.poll(_FIRST_SERVER_MS if is_new else None)
            is_new = is_new and bool(ready)
            for fd, _ in ready:
                if fd in self._holders:
                    poll.unregister(fd)
                    self._holders.pop(fd).close()
                elif fd == wake_read:
                    os.read(wake_read, 4096)
                    self._bury()
                elif holder := self._accept():
                    self._holders[holder.fileno()] = holder
                    poll.register(holder, select.POLLIN)
                    is_new = False

    def _bury(self) -> None:
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._machines.discard(pid)

    def _accept(self) -> socket.socket | None:
        """Serve one request; its connection, if that is to be held."""
        connection, _ = self._listener.accept()
        connection.settimeout(_REQUEST_S)
        try:
            received = packets.receive(connection)
        except OSError:
            received = None
        if received is None:
            connection.close()
            return None
        request, fds = received
        try:
            if request["op"] == "hold":
                _tell(connection, {"ok": True})
                return connection
            self._create(connection, request, fds)
        except (OSError, KeyError) as error:
            _tell(connection, {"error": str(error)})
        finally:
            packets.close_all(fds)
        connection.close()
        return None

    def _create(self, connection: socket.socket, request: dict[str, Any], fds: list[int]) -> None:
        cgroup = _cgroup_of(request, fds)
        gate_read, gate_write = os.pipe2(os.O_CLOEXEC)
        try:
            pid, pidfd = linux.fork(build.NAMESPACES, cgroup_fd=cgroup)
        except OSError:
            packets.close_all([gate_read, gate_write])
            raise
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.settimeout(None)
                os.close(gate_write)
                os.read(gate_read, 1)  # the server hears of this process before it hears from it
                build.become_machine(connection, request, fds)
            finally:
                os._exit(1)
        self._machines.add(pid)
        _tell(connection, {"pid": pid}, pidfd)
        packets.close_all([pidfd, gate_read, gate_write])


def main(listener_fd: int) -> None:
    """Serve on a listening socket, the last descriptor to keep, as long as there is need."""
    linux.close_from(listener_fd + 1)
    os.set_inheritable(listener_fd, False)
    listener = socket.socket(fileno=listener_fd)
    nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)  # where the program came from
    os.close(nothing)
    os.chdir("/")
    os.umask(0o022)
    linux.set_name("steward-launch")
    linux.set_dumpable(yes=False)
    linux.adopt_orphans()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # What exists now is shared with every machine; the collector would copy it by looking at it.
    gc.collect()
    gc.freeze()
    Launcher(listener).serve()


def _cgroup_of(request: dict[str, Any], fds: list[int]) -> int:
    """The descriptor of the control group to be born into, where the version has that."""
    if not request["cgroup_clone"]:
        return -1
    return build.Descriptors(request, fds).cgroup


def _tell(connection: socket.socket, message: dict[str, Any], *fds: int) -> None:
    with suppress(OSError):
        packets.send(connection, message, fds)
