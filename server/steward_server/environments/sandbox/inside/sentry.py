"""Pid 1 of a machine with gVisor: the supervisor stays outside, and has runsc do the rest.

The machine's namespaces, limits, files and ids are those of every machine. In them runs gVisor's
kernel, and in that the commands: each is started by a `runsc exec`, a child of ours that has the
command's descriptors and ends as it does. When this process dies, so does all of that.
"""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH123
from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import socket
import termios
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from steward_server.environments.sandbox.inside import command, file_work, linux, oci, packets, seen
from steward_server.environments.sandbox.inside.supervisor import Supervisor

_KILL_ROUNDS = 40
_SETTLE_S = 0.01
_FATAL = 128
_MOST_FAULT_BYTES = 32 * 1024
_MOST_TOLD_BYTES = 16 * 1024 * 1024
"""Of what runs inside; it is made of words of those who run there, and read in their memory."""
_ALL_BUT_THE_FIRST = -1
_STATE, _BUNDLE = "state", "bundle"


@dataclass(slots=True)
class _Kept:
    """A command that somebody holds."""

    name: str
    mark: str
    began_ns: int
    report_fd: int
    log_fd: int
    status_fd: int
    pid: int = 0
    """Inside; 0 until it runs."""

    def known_by(self) -> seen.Kept:
        return seen.Kept(self.pid, self.mark, self.began_ns)


class Runsc:
    """runsc, called for the one container of this machine."""

    def __init__(self, program: str, folder: str) -> None:
        self._program = program
        self._folder = folder
        self._mark = os.urandom(12).hex()
        """Of our own programs inside."""

    def argv(self, *arguments: str, log_fd: int = -1) -> list[str]:
        log = ["--log-fd", str(log_fd), "--log-format=json"] if log_fd >= 0 else ["--log=/dev/null"]
        # The present network namespace is the machine's own. What is changed in its files from
        # outside is to be seen inside: shared.
        return [
            self._program, f"--root={self._folder}/{_STATE}", *log, "--platform=ptrace",
            "--network=host", "--ignore-cgroups", "--file-access=shared", *arguments,
        ]  # fmt: skip

    def start(self, bundle: dict[str, Any]) -> int:
        """Start the container; the pid of its kernel, a child of pid 1.

        Raises:
            OSError: it did not start.
        """
        folder, pid_file = f"{self._folder}/{_BUNDLE}", f"{self._folder}/pid"
        os.mkdir(folder)  # noqa: PTH102
        with open(f"{folder}/config.json", "w") as file:
            json.dump(bundle, file)
        arguments = ("run", "--detach", f"--pid-file={pid_file}", f"--bundle={folder}", oci.NAME)
        code, _, log = self.call(*arguments)
        if code:
            raise OSError(0, f"gVisor does not start: {_fault_text(log)}", "runsc")
        with open(pid_file) as file:
            return int(file.read())

    def call(
        self, *arguments: str, stdin: bytes = b"", extra_fd: int = -1, most_bytes: int = 0
    ) -> tuple[int, str, str]:
        """Call it and wait for its end: exit code, output, log. It fails if it has more to say."""
        memory = [os.memfd_create("steward-runsc") for _ in range(3)]
        given, output, log = memory
        try:
            os.write(given, stdin)
            os.lseek(given, 0, os.SEEK_SET)
            pid = os.fork()
            if pid == 0:
                if most_bytes:
                    command.limit(resource.RLIMIT_FSIZE, most_bytes, most_bytes)
                stdio = [given, output, os.open("/dev/null", os.O_WRONLY)]
                self.become([*stdio, log, extra_fd if extra_fd >= 0 else given], 3, arguments)
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            return code, _content(output), _content(log)
        finally:
            packets.close_all(memory)

    def become(
        self,
        fds: Sequence[int],
        log_fd: int,
        arguments: Sequence[str],
        *,
        is_terminal: bool = False,
    ) -> NoReturn:
        """Become runsc with these descriptors, from 0; never returns."""
        try:
            os.setsid()
            command.let_memory_killer_take_this()
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            sources = [fcntl.fcntl(fd, fcntl.F_DUPFD, 64) for fd in fds]
            for number, fd in enumerate(sources):
                os.dup2(fd, number, inheritable=True)
            linux.close_from(len(sources))
            if is_terminal:
                fcntl.ioctl(0, termios.TIOCSCTTY, 0)
            for number in signal.valid_signals():
                if signal.getsignal(number) is signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            signal.set_wakeup_fd(-1)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.execve(self._program, self.argv(*arguments, log_fd=log_fd), {})  # noqa: S606
        finally:
            os._exit(127)

    def processes(self) -> list[seen.Seen]:
        """What runs inside, without its first process and what we run there ourselves.

        Raises:
            OSError: its kernel does not answer, or has too much to tell.
        """
        told = seen.parse(self._ask("trace", "procfs", oci.NAME))
        return [each for each in told if each.pid != 1 and each.mark != self._mark]

    def look(self) -> tuple[list[seen.Seen], set[int]]:
        """The same, and what its kernel counts beside those: the dead, and what looks as if it was.

        Raises:
            OSError: its kernel does not answer, or has too much to tell.
        """
        counted = json.loads(self._ask("ps", "--format=json", oci.NAME))
        there = seen.parse(self._ask("trace", "procfs", oci.NAME))
        overlooked = set(counted) - {each.pid for each in there} - {1}
        return [each for each in there if each.pid != 1], overlooked

    def ours(self) -> seen.Kept:
        """What we run inside ourselves, as if it was one command."""
        return seen.Kept(0, self._mark, 0)

    def _ask(self, *arguments: str) -> str:
        code, output, log = self.call(*arguments, most_bytes=_MOST_TOLD_BYTES)
        if code:
            raise OSError(0, _fault_text(log), "runsc")
        return output

    def send(self, pids: Collection[int], number: int) -> None:
        """Send a signal to processes inside, by their numbers there."""
        if pids:
            self.run(oci.killer(self._mark), oci.pairs(pids, number))

    def kill_everything(self) -> None:
        """End all that is inside but its first process, in one go."""
        self.send([_ALL_BUT_THE_FIRST], signal.SIGKILL)

    def try_out(self) -> tuple[int, str]:
        """Run the one program that every machine has: exit code, log."""
        return self.run(oci.trial(self._mark))

    def run(self, told: dict[str, Any], stdin: bytes = b"") -> tuple[int, str]:
        """Run a program of our own inside: exit code, log."""
        process = _memory(told)
        try:
            arguments = ("exec", "--process=/proc/self/fd/4", oci.NAME)
            code, _, log = self.call(*arguments, stdin=stdin, extra_fd=process)
            return code, log
        finally:
            os.close(process)


class SentrySupervisor(Supervisor):
    """The supervisor of a machine whose commands have a kernel of their own."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        logs_fd: int,
        upper_fd: int,
        plan: dict[str, Any],
        runsc: Runsc,
        kernel_pid: int,
        root_fd: int,
    ) -> None:
        super().__init__(listener, logs_fd=logs_fd, upper_fd=upper_fd, plan=plan)
        self._runsc = runsc
        self._kernel_pid = kernel_pid
        self._root_fd = root_fd
        self._tty_group = 0
        self._kept: dict[int, _Kept] = {}  # by its runsc

    def _dispatch(self, fd: int, request: dict[str, Any], fds: list[int]) -> None:
        match request["op"]:
            case "commands":
                self._answer(fd, {"commands": [each.name for each in self._kept.values()]})
            case "end":
                self._end(fd, request["name"])
            case "signal":
                self._apart(fd, lambda: self._signal(request))
            case "look":
                self._apart(fd, self._look)
            case "try":
                self._apart(fd, self._try)
            case _:
                super()._dispatch(fd, request, fds)

    def _apart(self, fd: int, work: Callable[[], dict[str, Any]]) -> None:
        """Have a child do what takes a while, and answer on the connection."""
        connection = self._connections[fd]
        if os.fork() == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.setblocking(True)
                try:
                    told = work()
                except (OSError, ValueError) as error:
                    told = {"error": str(error), "errno": 0}
                packets.send(connection, told)
            finally:
                os._exit(0)
        self._hang_up(fd)

    # Commands

    def _fork(self, request: dict[str, Any], stdio: Sequence[int], status: int, join: int) -> int:
        del join  # its processes are gVisor's, and so in the machine's group
        mark = os.urandom(12).hex()
        report_read, report_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        log = os.memfd_create("steward-log")
        process = _memory(oci.command(request, mark))
        is_terminal = bool(request.get("tty"))
        try:
            os.fchown(report_write, 0, 0)  # it is opened once more, by its name
            began_ns = time.time_ns()
            pid = os.fork()
            if pid == 0:
                self._runsc.become(
                    [*stdio, process, report_write, log],
                    5,
                    ("exec", "--process=/proc/self/fd/3", "--internal-pid-file=/proc/self/fd/4",
                     oci.NAME),
                    is_terminal=is_terminal,
                )  # fmt: skip
        except OSError:
            packets.close_all([report_read, log])
            raise
        finally:
            packets.close_all([report_write, process])
        kept = _Kept(request["name"], mark, began_ns, report_read, log, os.dup(status))
        self._kept[pid] = kept
        self._watch(report_read, lambda: self._hear(kept))
        return pid

    def _hear(self, kept: _Kept) -> None:
        """Learn the number of a command inside: then it runs."""
        told = b""
        with suppress(BlockingIOError):
            told = os.read(kept.report_fd, 64)
        self._close_report(kept)
        if told.strip().isdigit():
            kept.pid = int(told)
            packets.close_all([kept.status_fd, kept.log_fd])
            kept.status_fd = kept.log_fd = -1

    def _close_report(self, kept: _Kept) -> None:
        if kept.report_fd >= 0:
            self._forget(kept.report_fd)
            os.close(kept.report_fd)
            kept.report_fd = -1  # the number may be another's now

    def _buried(self, pid: int, status: int) -> None:
        kept = self._kept.get(pid)
        if kept is not None and kept.status_fd >= 0:
            if kept.report_fd >= 0:
                self._hear(kept)
            if kept.status_fd >= 0:  # it never ran
                _tell_fault(kept)
                del self._kept[pid]
        if pid == self._kernel_pid:
            self._kernel_ended(status)
        code = os.waitstatus_to_exitcode(status)
        if kept is not None and code == _FATAL and linux.is_ending(self._kernel_pid):
            # Without its kernel runsc ends so, and may be buried before it.
            self._kernel_ended(os.waitpid(self._kernel_pid, 0)[1])
        if kept is not None and code > _FATAL and code - _FATAL in signal.valid_signals():
            status = code - _FATAL  # runsc ends with the number that a shell would tell
        super()._buried(pid, status)

    def _kernel_ended(self, status: int) -> NoReturn:
        """Nothing of the machine is left but this process."""
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {-code}" if code < 0 else f"code {code}"
        try:
            self._log("system", [f"gVisor's kernel ended with {how}: out of memory or processes?"])
            if self._main_pid and self._main_exit is None:
                self._main_ended({"code": _FATAL + signal.SIGKILL, "signal": int(signal.SIGKILL)})
        finally:
            os._exit(1)

    def _stop(self, number: int) -> None:
        kept = self._kept.get(self._main_pid)
        if kept is not None and kept.pid and os.fork() == 0:
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                self._runsc.send([kept.pid], number)
            finally:
                os._exit(0)

    def _end(self, fd: int, name: str) -> None:
        """Kill whatever a command has started, and answer when that is gone."""
        pid, kept = self._named(name)
        if kept is None:
            self._answer(fd, {"ended": True})
            return
        others = [each.known_by() for each in self._kept.values() if each is not kept]
        others.append(self._runsc.ours())
        self._apart(fd, lambda: {"ended": self._kill(pid, kept.known_by(), others)})
        del self._kept[pid]  # not before: where nobody can be forked it is to be ended later
        self._close_report(kept)
        packets.close_all([each for each in (kept.status_fd, kept.log_fd) if each >= 0])
        kept.status_fd = kept.log_fd = -1

    def _kill(self, runsc_pid: int, kept: seen.Kept, others: list[seen.Kept]) -> bool:
        killed: set[int] = set()
        flees = True
        with suppress(OSError, ValueError):  # it may be they who keep us from being told
            for _ in range(_KILL_ROUNDS):
                there, overlooked = self._runsc.look()
                found = {*seen.of_command(there, kept, others), *(overlooked - killed)}
                if not found:
                    return True
                self._runsc.send(found, signal.SIGKILL)
                flees = not found <= killed
                killed |= found  # the dead among those overlooked may stay as they are
                time.sleep(_SETTLE_S)
        if flees:  # or cannot be told apart: then nothing may be left
            self._runsc.kill_everything()
        with suppress(ProcessLookupError):
            os.kill(runsc_pid, signal.SIGKILL)
        return flees

    def _named(self, name: str) -> tuple[int, _Kept | None]:
        return next(
            ((pid, each) for pid, each in self._kept.items() if each.name == name), (0, None)
        )

    def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a signal to a command with all its children, or to one process."""
        there = self._runsc.processes()
        if "name" in request:
            _, kept = self._named(request["name"])
            others = [self._runsc.ours()]
            others += (each.known_by() for each in self._kept.values() if each is not kept)
            pids = seen.of_command(there, kept.known_by(), others) if kept else []
        else:
            pids = [each.pid for each in there if each.pid == request["pid"]]
        self._runsc.send(pids, request["number"])
        return {"found": len(pids)}

    def _look(self) -> dict[str, Any]:
        return {"processes": [each._asdict() for each in self._runsc.processes()]}

    def _try(self) -> dict[str, Any]:
        """Have the kernel run the one program that every machine has."""
        code, log = self._runsc.try_out()
        if code == _FATAL:
            raise OSError(0, _fault_text(log), "runsc")
        self._runsc.processes()
        return {"stats_files": code == 0}

    # Files

    def _file_work(self, fd: int, request: dict[str, Any]) -> int:
        """Work in the files from outside: with the user's rights, and with them as the root."""
        pid = os.fork()
        if pid == 0:
            os.dup2(self._root_fd, 0)
            request["is_beside"] = True
            file_work.run(self._connections[fd], request, enter=_enter)
        self._hang_up(fd)
        return pid


def _enter() -> None:
    """Let the machine's root be this process's own."""
    os.fchdir(0)
    os.chroot(".")
    os.close(0)


def _memory(content: dict[str, Any]) -> int:
    fd = os.memfd_create("steward-process")
    payload = memoryview(json.dumps(content).encode())
    while payload:
        payload = payload[os.write(fd, payload) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _content(fd: int) -> str:
    parts = []
    offset = 0
    while part := os.pread(fd, 1 << 20, offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts).decode(errors="replace")


def _fault_text(log: str) -> str:
    """The last thing that runsc had to say."""
    for line in reversed(log.splitlines()):
        with suppress(ValueError):
            text: str = json.loads(line)["msg"]
            return text.rpartition("err: ")[2]
    return "it did not say why"


def _tell_fault(kept: _Kept) -> None:
    """Say why a command does not run, in the words of the supervisor of other machines."""
    text = _fault_text(os.pread(kept.log_fd, _MOST_FAULT_BYTES, 0).decode(errors="replace"))
    stage = "working directory" if "working directory" in text else "program"
    fault = {"stage": stage, "errno": 0, "text": text[:1024]}
    with suppress(OSError):
        os.write(kept.status_fd, json.dumps(fault).encode())
    packets.close_all([kept.status_fd, kept.log_fd])
    kept.status_fd = kept.log_fd = -1
