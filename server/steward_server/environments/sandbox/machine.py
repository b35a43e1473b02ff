"""One machine that lives, seen from the server: what both back ends have in common.

They differ in how a command is held together, measured, made to stand still and ended: see
native.py and bubblewrap/machine.py.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import select
import signal
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from steward_server.environments.driver import (
    Command,
    Exit,
    Gone,
    Process,
    Running,
    Stats,
    Unusable,
)
from steward_server.environments.metering import Meter
from steward_server.environments.sandbox import making
from steward_server.environments.sandbox.channel import Channel, readable
from steward_server.environments.sandbox.inside.packets import close_all
from steward_server.environments.sandbox.invocation import invocation, refuse
from steward_server.environments.sandbox.logs import exit_of
from steward_server.environments.sandbox.record import Record
from steward_server.environments.sandbox.running import Ends, RunningCommand, pipes, terminal

MAIN = "main"
"""The name of the main command among the commands of a machine."""
_HOLDS = {
    "CapEff": "0000000000000000",
    "CapBnd": "0000000000000000",
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "vsock": "EAFNOSUPPORT",
    "namespaces": "EPERM",
    "mounts": "EPERM",
    "interfaces": "lo",
}
"""What a command in a machine without a network has to find."""
_TELL_S = 5.0
_ASK_AGAIN_S = 0.5
_MOST_UNWRITTEN = 64
"""Portions of lines that come while a machine stands still."""
_LOG_CHARACTERS = 64 * 1024
"""In one request. The supervisor that reads them lives on its machine's memory."""


class Machine(ABC):
    """What can be done with it while it lives."""

    def __init__(self, folder: Path, record: Record, pidfd: int) -> None:
        self.record = record
        self.folder = folder
        self.name = record.environment_id
        self._pidfd = pidfd
        self._death = select.poll()
        self._death.register(pidfd, select.POLLIN)
        self._open_commands: set[str] = set()
        self._count = time.time_ns() // 1_000_000
        self._unwritten: deque[tuple[str, list[str]]] = deque(maxlen=_MOST_UNWRITTEN)
        age_s = time.time() - record.created_at_us / 1e6
        self._meter = Meter(time.monotonic() - age_s)

    @property
    def is_alive(self) -> bool:
        """Whether its pid 1, and with it anything in it, may still be there."""
        return self._pidfd >= 0 and not self._death.poll(0)

    @property
    @abstractmethod
    def is_paused(self) -> bool: ...

    async def connect(self) -> Channel:
        """A connection to its supervisor.

        Raises:
            Gone: it has ended.
            Unusable: reason PAUSED; it would not answer.
        """
        if self.is_paused:
            raise Unusable("PAUSED", f"environment {self.name!r} is paused; resume it first")
        return await Channel.connect(self.folder / making.SOCKET)

    # The main command

    async def start(self) -> None:
        """Run the main command, if there is one.

        Raises:
            Unusable: reason NOT_EXECUTABLE, NO_SUCH_DIRECTORY or ALREADY_STARTED.
        """
        if not self.record.command:
            return
        command = Command(self.record.command)
        channel = await self.connect()
        try:
            await self._run(channel, "start", command, MAIN, [])
        except FileExistsError:
            raise Unusable("ALREADY_STARTED", f"{self.name!r} was started before") from None
        finally:
            channel.close()

    async def wait(self) -> Exit:
        """How the main command ended, once it has; killed, if the machine ends before."""
        while True:
            try:
                channel = await Channel.connect(self.folder / making.SOCKET)
            except Gone:
                await self.ended()
                if not self.record.command:
                    raise  # it had none that could have ended
                return exit_of(self.folder / making.LOGS) or Exit(137, 9)
            try:
                told, _ = await channel.ask({"op": "wait"})
                return Exit(told["exit"]["code"], told["exit"]["signal"] or None)
            except Gone:  # it dies, or it hangs up on everybody and is not asked at once again
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ASK_AGAIN_S):
                        await self.ended()
            finally:
                channel.close()

    async def ask_to_stop(self, grace_s: float) -> None:
        """Send SIGTERM to the main command and give it some time."""
        with suppress(Gone, Unusable, OSError):  # such as a TimeoutError
            async with asyncio.timeout(grace_s):
                await self._let_go_on()
                channel = await Channel.connect(self.folder / making.SOCKET)
                try:
                    told, _ = await channel.ask({"op": "hello"})
                    if told["started"] and told["exit"] is None:
                        await channel.ask({"op": "stop", "signal": signal.SIGTERM})
                        await channel.ask({"op": "wait"})
                finally:
                    channel.close()

    # Commands

    async def exec(self, command: Command) -> Running:
        """Run a command beside the main one."""
        channel = await self.connect()
        self._count += 1
        group = f"x{self._count:x}"
        ends, theirs = (Ends(-1, {}), []) if command.tty else pipes()
        try:
            self._open_commands.add(group)
            master = await self._run(channel, "exec", command, group, theirs)
            if command.tty:
                ends = terminal(master[0])
        except BaseException:
            ends.close()
            channel.close()
            await asyncio.shield(self._end_command(group))
            raise
        finally:
            close_all(theirs)
        return RunningCommand(
            channel,
            ends,
            send=lambda number: self._signal_command(group, number),
            end=lambda: self._end_command(group),
        )

    @abstractmethod
    def _join(self, group: str) -> int:
        """Make what holds a command's processes together; a descriptor it joins that by.

        Raises:
            FileExistsError: there is such a command.
            Gone: the machine is.
        """
        ...

    @abstractmethod
    async def _signal_command(self, group: str, number: int) -> None:
        """Send a signal to every process of a command."""
        ...

    async def _end_command(self, group: str) -> bool:
        """Kill whatever a command has started; whether that is done by now."""
        self._open_commands.discard(group)
        return await self._end(group)

    @abstractmethod
    async def _end(self, group: str) -> bool: ...

    async def _run(
        self,
        channel: Channel,
        operation: str,
        command: Command,
        group: str,
        stdio: list[int],
    ) -> list[int]:
        """Have the supervisor run it, and wait until it does."""
        read, write = os.pipe2(os.O_CLOEXEC)
        join = -1
        try:
            try:
                join = self._join(group)
                request = {"op": operation, "name": group, **self._invocation(command)}
                told, given = await channel.ask(request, [write, join, *stdio])
            finally:
                close_all([write, join])
            if told.get("errno") == errno.EALREADY:
                raise FileExistsError
            if "error" in told:
                raise Unusable(
                    "TOO_MANY_PROCESSES",
                    f"environment {self.name!r} can start no more processes: {told['error']}",
                )
            try:
                os.set_blocking(read, False)
                await readable(read)
                fault = os.read(read, 4096)
            except BaseException:
                close_all(given)
                raise
            if fault:
                close_all(given)
                refuse(command, json.loads(fault), request["cwd"])
            return given
        finally:
            os.close(read)

    def _invocation(self, command: Command) -> dict[str, Any]:
        return invocation(self.record, command)

    async def check(self) -> str:
        """Have a process in it try what it may not; what is to be warned of, if anything.

        Raises:
            Unusable: reason NO_ISOLATION; something does not hold here.
        """
        channel = await self.connect()
        try:
            user = {"user": self.record.user, "group": self.record.group}
            told, _ = await channel.ask({"op": "files", "work": "check", "path": "/", **user})
        finally:
            channel.close()
        found = told.get("holds", told)
        wrong = [
            f"{key} is {found.get(key)}" for key, value in _HOLDS.items() if found.get(key) != value
        ]
        if wrong:
            raise Unusable(
                "NO_ISOLATION", f"a machine does not hold on this host: {', '.join(wrong)}"
            )
        return ""

    # What goes on in it

    @abstractmethod
    async def stats(self) -> Stats:
        """What it uses now; its CPU over the time since it was last asked."""
        ...

    @abstractmethod
    async def processes(self) -> Sequence[Process]:
        """Its processes, without the supervisor."""
        ...

    @abstractmethod
    async def signal(self, pid: int, number: int) -> None:
        """Send a signal to one of its processes, by its number inside.

        Raises:
            Gone: it has no such process.
        """
        ...

    @abstractmethod
    async def pause(self) -> None:
        """Let everything in it stand still.

        Raises:
            Unusable: reason CANNOT_PAUSE; something in it waits for the kernel.
        """
        ...

    @abstractmethod
    async def _let_go_on(self) -> None: ...

    async def resume(self) -> None:
        """Let it go on, and end what was to end meanwhile."""
        await self._let_go_on()
        await self.end_left_commands()
        while self._unwritten and not self.is_paused:
            await self.log(*self._unwritten.popleft())

    @abstractmethod
    async def _commands(self) -> Sequence[str]:
        """The names of the commands in it."""
        ...

    async def end_left_commands(self) -> None:
        """End commands that nobody holds any more: their server or their caller is gone."""
        for group in await self._commands():
            if group != MAIN and group not in self._open_commands:
                await self._end(group)

    async def log(self, stream: str, lines: Sequence[str]) -> None:
        """Add lines to its log; while it stands still they are kept here, the last of them."""
        if self.is_paused:
            self._unwritten.extend((stream, part) for part in _portions(lines))
            return
        channel = await self.connect()
        try:
            for part in _portions(lines):
                await channel.ask({"op": "log", "stream": stream, "lines": part})
        finally:
            channel.close()

    async def tell_nameservers(self, resolv_conf: str) -> None:
        """Let programs find whom to ask for names, where its root can be written to."""
        script = 'printf %s "$1" > /etc/resolv.conf'
        command = Command(("/bin/sh", "-c", script, "sh", resolv_conf), working_dir="/", user=0)
        with suppress(Unusable, TimeoutError):  # it reaches them all the same
            async with asyncio.timeout(_TELL_S):
                running = await self.exec(command)
                try:
                    await running.wait()
                finally:
                    await running.aclose()

    def network_namespace(self) -> int:
        """A descriptor of the namespace of its network."""
        try:
            found = os.open(f"/proc/{self.record.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise Gone(f"there is no machine {self.name!r}") from None
        if not self.is_alive:  # the number was another's already
            os.close(found)
            raise Gone(f"there is no machine {self.name!r}")
        return found

    async def upper(self) -> int:
        """A descriptor of the folder that holds what it has written."""
        channel = await self.connect()
        try:
            _, given = await channel.ask({"op": "upper"})
            return given[0]
        finally:
            channel.close()

    async def kill(self) -> None:
        """Kill everything in it, by killing its pid 1, and wait for that."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        await self.ended()

    async def ended(self) -> None:
        """Wait until its pid 1, and all in it, are dead."""
        if self._pidfd < 0:
            return
        fd = os.dup(self._pidfd)  # a descriptor is watched for one at a time
        try:
            await readable(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Let go of it; it lives on."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _portions(lines: Sequence[str]) -> Iterator[list[str]]:
    """Lines, as many at a time as one request may hold; at least one."""
    part: list[str] = []
    length = 0
    for line in lines:
        if part and length + len(line) > _LOG_CHARACTERS:
            yield part
            part, length = [], 0
        part.append(line)
        length += len(line) + 1
    if part:
        yield part
