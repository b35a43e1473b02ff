"""Pid 1 of a machine.

It runs commands with descriptors it is handed, records what the main one writes, and buries the
dead. It is asked over its own named socket, so it outlives the server.

Whatever a command does, this process must go on: no request may end it, and nothing here waits
for a command.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import socket
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from steward_server.environments.sandbox.inside import command, file_work, linux, packets
from steward_server.environments.sandbox.inside.log_ring import Lines, Ring
from steward_server.environments.sandbox.inside.root import TTY_GROUP

_READ_BYTES = 64 * 1024
_PIPE_READS = 2
"""That empty a full pipe; children left behind may go on writing for ever."""
_OPEN_LINE_S = 1.0
"""How long a line without an end, such as a question, is waited for before it is recorded."""


class Supervisor:
    """The state of one machine, as its pid 1 knows it."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        logs_fd: int,
        upper_fd: int,
        plan: dict[str, Any],
    ) -> None:
        self._listener = listener
        self._logs_fd = logs_fd
        self._upper_fd = upper_fd
        self._clones_into_cgroup: bool = plan["cgroup_clone"]
        self._tty_group: int = plan["group"] if plan["is_alone"] else TTY_GROUP
        self._ring = Ring(
            logs_fd,
            segment_bytes=plan["log_segment_bytes"],
            segment_count=plan["log_segment_count"],
        )
        self._poll = select.epoll()
        self._ready: dict[int, Callable[[], object]] = {}
        self._connections: dict[int, socket.socket] = {}
        self._commands: dict[int, int] = {}  # pid: the connection that waits for its end
        self._main_pid = 0
        self._main_exit: dict[str, Any] | None = None
        self._main_waiters: list[int] = []
        self._lines: dict[int, tuple[str, Lines]] = {}  # by the pipe of the main command

    def serve(self) -> None:
        """Serve until the machine is ended from outside."""
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in command.IGNORED_BY_OURS:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._listener.setblocking(False)
        self._watch(self._listener.fileno(), self._accept)
        self._watch(wake_read, lambda: self._reap(wake_read))
        while True:
            timeout_s = (
                _OPEN_LINE_S if any(line.is_open for _, line in self._lines.values()) else -1
            )
            try:
                events = self._poll.poll(timeout_s)
            except InterruptedError:
                continue
            if not events:
                self._record_open_lines()
            for fd, _ in events:
                handler = self._ready.get(fd)
                if handler is not None:
                    self._run(handler)

    @staticmethod
    def _run(handler: Callable[[], object]) -> None:
        try:
            handler()
        except Exception as error:  # noqa: BLE001 - pid 1 goes on
            os.write(2, f"steward-init: {error!r}\n".encode())

    def _watch(self, fd: int, handler: Callable[[], object]) -> None:
        self._ready[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def _forget(self, fd: int) -> None:
        if self._ready.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.setblocking(False)
        fd = connection.fileno()
        self._connections[fd] = connection
        self._watch(fd, lambda: self._serve_request(fd))

    def _hang_up(self, fd: int) -> None:
        self._forget(fd)
        connection = self._connections.pop(fd, None)
        if connection is not None:
            connection.close()
        # The number may soon be another's, who is not to get these answers.
        self._main_waiters = [waiter for waiter in self._main_waiters if waiter != fd]
        for pid in [pid for pid, waiter in self._commands.items() if waiter == fd]:
            del self._commands[pid]

    def _serve_request(self, fd: int) -> None:
        try:
            received = packets.receive(self._connections[fd])
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._hang_up(fd)
            return
        request, fds = received
        try:
            self._dispatch(fd, request, fds)
        except OSError as error:
            self._answer(fd, {"error": error.strerror or str(error), "errno": error.errno})
        except Exception as error:  # noqa: BLE001 - a bad request is not the end of the machine
            self._answer(fd, {"error": repr(error), "errno": 0})
        finally:
            packets.close_all(fds)

    def _answer(self, fd: int, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        connection = self._connections.get(fd)
        if connection is None:
            return
        try:
            packets.send(connection, message, fds)
        except OSError:  # gone, or it does not listen to its answers
            self._hang_up(fd)

    def _dispatch(self, fd: int, request: dict[str, Any], fds: list[int]) -> None:
        match request["op"]:
            case "hello":
                self._answer(fd, {"started": self._main_pid > 0, "exit": self._main_exit})
            case "exec":
                self._exec(fd, request, fds)
            case "start":
                self._start(fd, request, fds)
            case "wait":
                if self._main_exit is None:
                    self._main_waiters.append(fd)
                else:
                    self._answer(fd, {"exit": self._main_exit})
            case "stop":
                if self._main_pid and self._main_exit is None:
                    self._stop(request["signal"])
                self._answer(fd, {"ok": True})
            case "log":
                self._log(request["stream"], request["lines"])
                self._answer(fd, {"ok": True, "next": self._ring.next_sequence})
            case "name":
                self._write_files(request["files"])
                self._answer(fd, {"ok": True})
            case "upper":
                self._answer(fd, {"ok": True}, [self._upper_fd])
            case "files":
                self._file_work(fd, request)
            case other:
                self._answer(fd, {"error": f"unknown operation {other!r}", "errno": errno.EINVAL})

    # Commands

    def _exec(self, fd: int, request: dict[str, Any], fds: list[int]) -> None:
        status, join = fds[0], fds[1]
        if not request.get("tty"):
            self._commands[self._fork(request, fds[2:5], status, join)] = fd
            self._answer(fd, {"ok": True})
            return
        # Opened here: a terminal of another devpts has no name inside.
        master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        slave = -1
        try:
            fcntl.ioctl(master, 0x40045431, b"\0\0\0\0")  # TIOCSPTLCK: unlock
            slave = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)  # TIOCGPTPEER
            termios.tcsetwinsize(slave, (request["tty"][1], request["tty"][0]))
            os.fchown(slave, request["user"], self._tty_group)
            self._commands[self._fork(request, [slave] * 3, status, join)] = fd
            self._answer(fd, {"ok": True}, [master])
        finally:
            packets.close_all([master] if slave < 0 else [master, slave])

    def _fork(self, request: dict[str, Any], stdio: Sequence[int], status: int, join: int) -> int:
        if self._clones_into_cgroup:
            pid, pidfd = linux.fork(cgroup_fd=join)
            join = -1
            if pid:
                os.close(pidfd)
        else:
            pid = os.fork()
        if pid == 0:
            command.run(request, stdio, status, join)
        return pid

    def _start(self, fd: int, request: dict[str, Any], fds: list[int]) -> None:
        if self._main_pid:
            self._answer(fd, {"error": "it was started before", "errno": errno.EALREADY})
            return
        status, join = fds[0], fds[1]
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        nothing = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._main_pid = self._fork(request, [nothing, out_write, err_write], status, join)
        except OSError:
            packets.close_all([out_read, err_read])
            raise
        finally:
            packets.close_all([nothing, out_write, err_write])
        for pipe, stream in ((out_read, "stdout"), (err_read, "stderr")):
            os.set_blocking(pipe, False)
            self._lines[pipe] = (stream, Lines())
            self._watch(pipe, partial(self._record, pipe))
        self._answer(fd, {"ok": True})

    def _stop(self, number: int) -> None:
        """Send a signal to the main command."""
        os.kill(self._main_pid, number)

    def _reap(self, wake_fd: int) -> None:
        with suppress(BlockingIOError):
            os.read(wake_fd, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._buried(pid, status)

    def _buried(self, pid: int, status: int) -> None:
        """Tell how a command has ended."""
        code = os.waitstatus_to_exitcode(status)
        ended = {"code": code if code >= 0 else 128 - code, "signal": max(0, -code)}
        if pid == self._main_pid:
            self._main_ended(ended)
        elif pid in self._commands:
            self._answer(self._commands.pop(pid), {"exit": ended})

    # The log

    def _main_ended(self, ended: dict[str, Any]) -> None:
        for pipe in list(self._lines):
            for _ in range(_PIPE_READS):  # what it wrote before it ended
                if not self._record(pipe):
                    break
        self._record_open_lines()
        how = f"signal {ended['signal']}" if ended["signal"] else f"code {ended['code']}"
        self._log("system", [f"the main command ended with {how}"])
        self._main_exit = ended
        self._keep_exit(ended)
        for waiter in list(self._main_waiters):
            self._answer(waiter, {"exit": ended})
        self._main_waiters = []

    def _keep_exit(self, ended: dict[str, Any]) -> None:
        """For a server that comes when this process is no more."""
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            file = os.open("exit", flags, 0o600, dir_fd=self._logs_fd)
            os.write(file, f"{ended['code']} {ended['signal']}\n".encode())
            os.close(file)
        except OSError:
            return

    def _record(self, pipe: int) -> bool:
        """Record what the main command wrote; whether there may be more."""
        stream, lines = self._lines[pipe]
        try:
            data = os.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return False
        now_us = time.time_ns() // 1_000
        for count, payload in lines.add(data) if data else lines.flush():
            self._ring.write(stream, count, payload, now_us)
        if not data:
            self._forget(pipe)
            os.close(pipe)
            del self._lines[pipe]
        return bool(data)

    def _record_open_lines(self) -> None:
        now_us = time.time_ns() // 1_000
        for stream, lines in self._lines.values():
            for count, payload in lines.flush():
                self._ring.write(stream, count, payload, now_us)

    def _log(self, stream: str, texts: Sequence[str]) -> None:
        lines = Lines()
        now_us = time.time_ns() // 1_000
        payload = "".join(f"{text}\n" for text in texts).encode(errors="replace")
        for count, part in lines.add(payload):
            self._ring.write(stream, count, part, now_us)

    # Files

    @staticmethod
    def _write_files(files: dict[str, str]) -> None:
        """Replace small files of the image, which nobody in the machine has touched yet."""
        for path, content in files.items():
            with suppress(OSError):  # as when the machine was made: the image has its own way
                flags = os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                file = os.open(path, flags)
                os.write(file, content.encode())
                os.close(file)

    def _file_work(self, fd: int, request: dict[str, Any]) -> int:
        """Hand a connection to a child that works in the files as the machine's user; its pid."""
        pid = os.fork()
        if pid == 0:
            file_work.run(self._connections[fd], request)
        self._hang_up(fd)
        return pid
