"""Pid 1 of a machine that has no control groups to hold its commands together.

Each command gets a keeper, a process of ours that inherits whatever the command leaves behind:
then all it has started is below its keeper, wherever it went, and can be found in /proc. Everything
in such a machine has the same user, so a command can kill keepers. What it sets free by that falls
to pid 1, which nobody inside can kill, and is hunted down.
"""

# pathlib would be a megabyte in every machine's pid 1.
# ruff: noqa: PTH123, PTH208
from __future__ import annotations

import errno
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, NoReturn

from steward_server.environments.sandbox.inside import command, linux, packets
from steward_server.environments.sandbox.inside.supervisor import Supervisor

_WORD = struct.Struct("=i")
_REPORT = 3
_KILLED = signal.SIGKILL
_STOP_ROUNDS = 100
_HUNT_S, _HUNT_LOOKS = 0.002, 50
_STOPPED_STATES = b"TtD"
"""One that waits in the kernel, as for its vforked child, was sent its signal too."""
_DEAD_STATES = b"ZX"


class Seen(NamedTuple):
    """A process, as /proc shows it."""

    pid: int
    parent: int
    state: bytes
    cpu_ticks: int
    """Its own, and of those children that it has buried."""
    started_ticks: int
    memory_pages: int


@dataclass(slots=True)
class _Kept:
    """A command with its keeper."""

    name: str
    keeper: int
    report_fd: int
    pid: int = 0
    """Of the command itself."""
    has_ended: bool = False
    waiters: list[int] = field(default_factory=list)
    """Connections that want to hear when nothing of it is left."""


class Warden(Supervisor):
    """The supervisor, without control groups."""

    def __init__(
        self, listener: socket.socket, *, logs_fd: int, upper_fd: int, plan: dict[str, Any]
    ) -> None:
        super().__init__(listener, logs_fd=logs_fd, upper_fd=upper_fd, plan=plan)
        self._limits: dict[str, int] = plan["rlimits"]
        self._kept: dict[int, _Kept] = {}  # by the keeper
        self._workers: set[int] = set()
        self._hunters: dict[int, int] = {}  # the keeper whose children each hunts; 0: what fled

    def _dispatch(self, fd: int, request: dict[str, Any], fds: list[int]) -> None:
        request["is_alone"] = True
        match request["op"]:
            case "commands":
                self._answer(fd, {"commands": [each.name for each in self._kept.values()]})
            case "end":
                self._end(fd, request["name"])
            case "signal":
                self._signal(fd, request)
            case "pause":
                stop_all(self._subjects)
                self._answer(fd, {"ok": self._stands_still()})
            case "resume":
                _send(signal.SIGCONT, self._subjects())
                self._answer(fd, {"ok": True})
            case "look":
                self._look(fd)
            case _:
                super()._dispatch(fd, request, fds)

    # Commands

    def _fork(self, request: dict[str, Any], stdio: Sequence[int], status: int, join: int) -> int:
        report_read, report_write = os.pipe2(os.O_CLOEXEC)
        try:
            keeper = os.fork()
        except OSError:
            packets.close_all([report_read, report_write])
            raise
        if keeper == 0:
            _keep(report_write, partial(self._run_command, request, stdio, status, join))
        os.close(report_write)
        os.set_blocking(report_read, False)
        self._kept[keeper] = _Kept(request["name"], keeper, report_read)
        self._watch(report_read, lambda: self._hear(keeper))
        return keeper

    def _run_command(
        self, request: dict[str, Any], stdio: Sequence[int], status: int, join: int
    ) -> NoReturn:
        for name, most in self._limits.items():
            command.limit(getattr(resource, name), most, most)
        command.run(request, stdio, status, join)

    def _hear(self, keeper: int) -> bool:
        """Learn from a keeper which process its command is, and then how that ended.

        Whether there was anything.
        """
        kept = self._kept.get(keeper)
        if kept is None or kept.report_fd < 0:
            return False
        try:
            told = os.read(kept.report_fd, 2 * _WORD.size)
        except BlockingIOError:
            return False
        if not told:
            self._close_report(kept)
        for (word,) in _WORD.iter_unpack(told):
            if not kept.pid:
                kept.pid = word
            elif not kept.has_ended:
                kept.has_ended = True
                super()._buried(keeper, word)
        return bool(told)

    def _close_report(self, kept: _Kept) -> None:
        if kept.report_fd >= 0:
            self._forget(kept.report_fd)
            os.close(kept.report_fd)
            kept.report_fd = -1

    def _buried(self, pid: int, status: int) -> None:  # noqa: ARG002 - a keeper tells its own
        kept = self._kept.get(pid)
        if kept is not None:
            self._keeper_died(kept)
        elif pid in self._hunters:
            prey = self._hunters.pop(pid)
            if prey in self._kept:
                self._hunt(prey, [prey])
            self._hunt_fugitives()
        self._workers.discard(pid)

    def _keeper_died(self, kept: _Kept) -> None:
        while self._hear(kept.keeper):
            pass
        self._close_report(kept)
        del self._kept[kept.keeper]
        if not kept.has_ended:  # somebody has killed it; what it kept is our child now
            super()._buried(kept.keeper, _KILLED)
        self._hunt_fugitives()
        for waiter in kept.waiters:
            self._answer(waiter, {"ended": True})

    def _hunt_fugitives(self) -> None:
        """Hunt what has come to be our child without being one of our own."""
        ours = self._ours()
        fled = [each.pid for each in look() if each.parent == 1 and each.pid not in ours]
        if fled and 0 not in self._hunters.values():
            self._hunt(0, fled)

    def _ours(self) -> set[int]:
        return {os.getpid(), *self._kept, *self._workers, *self._hunters}

    def _stop(self, number: int) -> None:
        kept = self._kept.get(self._main_pid)
        if kept is not None and kept.pid:
            with suppress(ProcessLookupError):
                os.kill(kept.pid, number)

    def _hang_up(self, fd: int) -> None:
        super()._hang_up(fd)
        for kept in self._kept.values():
            kept.waiters = [waiter for waiter in kept.waiters if waiter != fd]

    def _file_work(self, fd: int, request: dict[str, Any]) -> int:
        worker = super()._file_work(fd, request)
        self._workers.add(worker)
        return worker

    def _named(self, name: str) -> _Kept | None:
        return next((kept for kept in self._kept.values() if kept.name == name), None)

    def _end(self, fd: int, name: str) -> None:
        """Kill whatever a command has started, and answer when it is gone."""
        kept = self._named(name)
        if kept is None:
            self._answer(fd, {"ended": True})
            return
        kept.waiters.append(fd)
        if kept.keeper not in self._hunters.values():
            self._hunt(kept.keeper, [kept.keeper])

    def _hunt(self, prey: int, roots: Sequence[int]) -> None:
        """Have the descendants of a keeper killed, or with 0 what fled from one, itself and all.

        By a process of its own: here nothing waits. When it ends it is looked what is left.
        """
        hunter = os.fork()
        if hunter == 0:
            try:
                _become_ours()
                find = partial(_trees, roots, with_roots=not prey)
                stop_all(find)
                _send(signal.SIGKILL, find())
                for _ in range(_HUNT_LOOKS):
                    if not find():
                        # Somebody may have stopped it, and it has nothing left to keep.
                        _send(signal.SIGKILL, [prey] if prey else [])
                        break
                    time.sleep(_HUNT_S)
            finally:
                os._exit(0)
        self._hunters[hunter] = prey

    def _signal(self, fd: int, request: dict[str, Any]) -> None:
        """Send a signal to a command with all its children, or to one process."""
        if "name" in request:
            kept = self._named(request["name"])
            pids: Collection[int] = descendants(kept.keeper) if kept else ()
        else:
            pids = [pid for pid in self._subjects() if pid == request["pid"]]
        _send(request["number"], pids)
        self._answer(fd, {"found": len(pids)})

    # Everything in the machine

    def _subjects(self) -> list[int]:
        """All processes but those that are part of the machine."""
        ours = self._ours()
        return [each.pid for each in look() if each.pid not in ours]

    def _stands_still(self) -> bool:
        ours = self._ours()
        still = _STOPPED_STATES + _DEAD_STATES
        return all(each.state in still for each in look() if each.pid not in ours)

    def _look(self, fd: int) -> None:
        seen = look()
        ours = self._ours()
        theirs = [each for each in seen if each.pid not in ours and each.state not in _DEAD_STATES]
        space = os.statvfs("/workspace")
        self._answer(
            fd,
            {
                "cpu_ticks": sum(each.cpu_ticks for each in seen),
                "storage_bytes": (space.f_blocks - space.f_bfree) * space.f_frsize,
                "processes": [
                    {
                        "pid": each.pid,
                        "parent": os.getpid() if each.parent in self._kept else each.parent,
                        "command": _command(each.pid),
                        "started_ticks": each.started_ticks,
                        "memory_pages": each.memory_pages,
                    }
                    for each in theirs
                ],
            },
        )


def _keep(report_fd: int, run: Callable[[], NoReturn]) -> NoReturn:
    """Run a command and inherit what it leaves behind, until nothing of it is left."""
    try:
        _become_ours()
        linux.set_name("steward-keeper")
        linux.adopt_orphans()
        child = os.fork()
        if child == 0:
            os.write(report_fd, _WORD.pack(os.getpid()))
            run()
        os.dup2(report_fd, _REPORT, inheritable=False)
        for number in range(3):
            with suppress(OSError):
                os.close(number)
        linux.close_from(_REPORT + 1)
        while True:
            pid, status = os.wait()
            if pid == child:
                os.write(_REPORT, _WORD.pack(status))
    except ChildProcessError:
        os._exit(0)
    finally:
        os._exit(1)


def _become_ours() -> None:
    """Be none that a terminal or a careless command ends."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
                   signal.SIGUSR2, signal.SIGPIPE, signal.SIGALRM, signal.SIGTSTP):  # fmt: skip
        signal.signal(number, signal.SIG_IGN)


def look() -> list[Seen]:
    """Every process of the machine."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(FileNotFoundError, ProcessLookupError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    rest = file.read().rpartition(b")")[2].split()
                found.append(
                    Seen(
                        int(name), int(rest[1]), rest[0], sum(map(int, rest[11:15])),
                        int(rest[19]), int(rest[21]),
                    )
                )  # fmt: skip
    return found


def descendants(pid: int, seen: Sequence[Seen] | None = None) -> list[int]:
    """The living ones among the children of a process and theirs, as deep as it goes."""
    below: dict[int, list[Seen]] = {}
    for each in look() if seen is None else seen:
        below.setdefault(each.parent, []).append(each)
    found, rest = [], [pid]
    while rest:
        children = below.get(rest.pop(), [])
        rest += [each.pid for each in children]
        found += [each.pid for each in children if each.state not in _DEAD_STATES]
    return found


def _trees(roots: Sequence[int], *, with_roots: bool) -> list[int]:
    """The living descendants of some processes, and themselves."""
    seen = look()
    below = [pid for root in roots for pid in descendants(root, seen)]
    if not with_roots:
        return below
    alive = {each.pid for each in seen if each.state not in _DEAD_STATES}
    return below + [root for root in roots if root in alive]


def stop_all(find: Callable[[], Collection[int]]) -> bool:
    """Stop what is found, until nothing new is: standing still, none can fork away."""
    stopped: set[int] = set()
    for _ in range(_STOP_ROUNDS):
        new = set(find()) - stopped
        if not new:
            return True
        _send(signal.SIGSTOP, new)
        stopped |= new
    return False


def _send(number: int, pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.EPERM):
                raise


def _command(pid: int) -> str:
    with suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).rstrip(b"\0")
        with open(f"/proc/{pid}/comm", "rb") as file:
            name = file.read().strip()
        return (words.replace(b"\0", b" ") or b"[%s]" % name).decode(errors="replace")
    return ""
