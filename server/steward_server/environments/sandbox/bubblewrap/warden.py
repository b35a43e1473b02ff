"""Pid 1 of a machine that has no control groups to hold its commands together.

Each command gets a keeper, a process of ours that inherits whatever the command leaves behind:
then all it has started is below its keeper, wherever it went, and can be found in /proc. Everything
in such a machine has the same user, so a command can kill keepers. What it sets free by that falls
to pid 1, which nobody inside can kill or stop. It alone hunts: without a fork, for which there may
be no room, and with a last resort that no process can flee from, the end of everything inside.
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
_STOP_ROUNDS = 16
_ROUND_S = 0.002
_HUNT_S = 3.0
"""How long single processes are hunted before everything inside is killed."""
_QUIET_ROUNDS = 3
_FLED = 0
"""In the place of a keeper: what has lost its own."""
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
class _Hunt:
    """Somebody's children, who are to die."""

    since: float
    killed: set[int] = field(default_factory=set)
    quiet_rounds: int = 0
    """In a row, in which none of them was seen."""
    waiters: list[int] = field(default_factory=list)
    """Connections that want to hear when nothing is left."""


@dataclass(slots=True)
class _Kept:
    """A command with its keeper."""

    name: str
    keeper: int
    report_fd: int
    pid: int = 0
    """Of the command itself."""
    has_ended: bool = False


class Warden(Supervisor):
    """The supervisor, without control groups."""

    def __init__(
        self, listener: socket.socket, *, logs_fd: int, upper_fd: int, plan: dict[str, Any]
    ) -> None:
        super().__init__(listener, logs_fd=logs_fd, upper_fd=upper_fd, plan=plan)
        self._limits: dict[str, int] = plan["rlimits"]
        self._kept: dict[int, _Kept] = {}  # by the keeper
        self._workers: set[int] = set()
        self._hunts: dict[int, _Hunt] = {}  # by the keeper whose children are hunted, or _FLED
        self._next_round = linux.timer()
        self._watch(self._next_round, self._hunt)

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

    def _buried(self, pid: int, status: int) -> None:
        kept = self._kept.get(pid)
        if kept is not None:
            self._keeper_died(kept, status)
        elif pid in self._workers:
            self._workers.discard(pid)
        else:  # an orphan, whose keeper was killed: there may be more
            self._hunt_for(_FLED).quiet_rounds = 0

    def _keeper_died(self, kept: _Kept, status: int) -> None:
        while self._hear(kept.keeper):
            pass
        self._close_report(kept)
        del self._kept[kept.keeper]
        if not kept.has_ended:  # somebody has killed it; what it kept is our child now
            super()._buried(kept.keeper, _KILLED)
        hunt = self._hunts.pop(kept.keeper, None)
        waiters = hunt.waiters if hunt is not None else []
        if status:  # it did not see its last child die
            self._hunt_for(_FLED).waiters += waiters
        else:
            self._tell_ended(waiters)

    def _tell_ended(self, waiters: Iterable[int]) -> None:
        for waiter in waiters:
            self._answer(waiter, {"ended": True})

    def _ours(self) -> set[int]:
        return {os.getpid(), *self._kept, *self._workers}

    def _stop(self, number: int) -> None:
        kept = self._kept.get(self._main_pid)
        if kept is not None and kept.pid:
            with suppress(ProcessLookupError):
                os.kill(kept.pid, number)

    def _hang_up(self, fd: int) -> None:
        super()._hang_up(fd)
        for hunt in self._hunts.values():
            hunt.waiters = [waiter for waiter in hunt.waiters if waiter != fd]

    def _file_work(self, fd: int, request: dict[str, Any]) -> int:
        worker = super()._file_work(fd, request)
        self._workers.add(worker)
        return worker

    def _named(self, name: str) -> _Kept | None:
        return next((kept for kept in self._kept.values() if kept.name == name), None)

    def _end(self, fd: int, name: str) -> None:
        """Kill whatever a command has started, and answer when it is gone."""
        kept = self._named(name)
        if kept is not None:
            self._hunt_for(kept.keeper).waiters.append(fd)
        elif _FLED in self._hunts:  # some of it may be among those
            self._hunts[_FLED].waiters.append(fd)
        else:
            self._answer(fd, {"ended": True})

    def _hunt_for(self, keeper: int) -> _Hunt:
        """Have a keeper's children killed, from the next round on until none is left."""
        hunt = self._hunts.get(keeper)
        if hunt is None:
            hunt = self._hunts[keeper] = _Hunt(time.monotonic())
            linux.ring_in(self._next_round, _ROUND_S / 1_000)
        return hunt

    def _hunt(self) -> None:
        """One round. Nothing here waits: the dead are buried between two of them."""
        with suppress(BlockingIOError):
            os.read(self._next_round, 8)
        if not self._hunts:
            return
        linux.ring_in(self._next_round, _ROUND_S)  # whatever becomes of this one
        if any(time.monotonic() - hunt.since > _HUNT_S for hunt in self._hunts.values()):
            self._kill_everything()
        stop_all(lambda: [pid for found in self._prey().values() for pid in found])
        for keeper, alive in self._prey().items():
            hunt = self._hunts[keeper]
            hunt.quiet_rounds = 0 if alive else hunt.quiet_rounds + 1
            is_over = hunt.quiet_rounds >= _QUIET_ROUNDS
            _send(signal.SIGKILL, alive)
            if alive and hunt.killed.issuperset(alive):
                hunt.since = time.monotonic()  # none flees: they wait for a disk, and then die
            hunt.killed.update(alive)
            if keeper != _FLED:
                # Somebody may have stopped it. If it stands when all it kept is dead, it is not
                # needed: we are told of what it did not see.
                _send(signal.SIGKILL if is_over else signal.SIGCONT, [keeper])
            elif is_over:
                del self._hunts[_FLED]
                self._tell_ended(hunt.waiters)

    def _prey(self) -> dict[int, list[int]]:
        """Who is to die, by the hunt."""
        seen = look()
        return {
            keeper: descendants(os.getpid(), seen, spared=self._ours())
            if keeper == _FLED
            else descendants(keeper, seen)
            for keeper in self._hunts
        }

    def _kill_everything(self) -> None:
        """End all that is inside but this process, in one go: there is no fork that escapes it."""
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        for hunt in self._hunts.values():
            hunt.since = time.monotonic()
        self._log("system", ["everything was killed: what a command had left could not be caught"])

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
    for number in command.IGNORED_BY_OURS:
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


def descendants(
    pid: int, seen: Sequence[Seen] | None = None, *, spared: Collection[int] = ()
) -> list[int]:
    """The living ones among the children of a process and theirs, as deep as it goes.

    Without those that are spared, and their children.
    """
    below: dict[int, list[Seen]] = {}
    for each in look() if seen is None else seen:
        below.setdefault(each.parent, []).append(each)
    found, rest = [], [pid]
    while rest:
        children = [each for each in below.get(rest.pop(), []) if each.pid not in spared]
        rest += [each.pid for each in children]
        found += [each.pid for each in children if each.state not in _DEAD_STATES]
    return found


def stop_all(find: Callable[[], Collection[int]]) -> None:
    """Stop what is found, until nothing new is: standing still, none can fork away."""
    stopped: set[int] = set()
    for _ in range(_STOP_ROUNDS):
        new = set(find()) - stopped
        if not new:
            return
        _send(signal.SIGSTOP, new)
        stopped |= new


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
