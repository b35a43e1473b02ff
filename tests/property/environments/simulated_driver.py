"""A driver whose machines are entries of a dictionary, slow and faulty as chance has it.

What is done halfway when the server dies stays done halfway: only `open` of the next driver clears
it up, as a kernel would hold it until then.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from steward_server.environments.driver import (
    Capabilities,
    Command,
    Exit,
    Feature,
    Gone,
    LogRecord,
    Owned,
    Stats,
    Stream,
    Unusable,
)
from steward_server.environments.environment import Spec


@dataclass
class SimMachine:
    """One machine."""

    is_whole: bool = False
    start_count: int = 0
    is_paused: bool = False
    is_gone: bool = False
    exit: Exit | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass
class SimHost:
    """What outlives a server."""

    random: random.Random
    machines: dict[str, SimMachine] = field(default_factory=dict)
    fault_rate: float = 0.0
    made_count: int = 0

    def lose(self, name: str) -> None:
        machine = self.machines.pop(name, None)
        if machine is not None:
            machine.is_gone = True
            machine.change()

    def end(self, name: str, code: int) -> None:
        machine = self.machines.get(name)
        if machine is not None and machine.start_count and machine.exit is None:
            machine.exit = Exit(code)
            machine.change()


class SimDriver:
    """Fulfils `Driver`, until it is `dead`: then whatever is under way never goes on."""

    files: Any = None

    def __init__(self, host: SimHost, *, unusable: str = "") -> None:
        self.host = host
        self.is_dead = False
        self._unusable = unusable

    def capabilities(self) -> Capabilities:
        return Capabilities("sim", "sim", frozenset({Feature.PAUSE}), unusable=self._unusable)

    async def open(self) -> None:
        for name, machine in list(self.host.machines.items()):
            if not machine.is_whole:
                self.host.lose(name)

    async def aclose(self) -> None:
        """The machines live on."""

    async def create(self, environment_id: str, spec: Spec) -> None:
        del spec
        await self._step()
        assert environment_id not in self.host.machines, "made twice"
        machine = self.host.machines[environment_id] = SimMachine()
        self.host.made_count += 1
        try:
            await self._step()
        except BaseException:
            if not self.is_dead:  # nothing of it is left if this fails
                self.host.lose(environment_id)
            raise
        machine.is_whole = True

    async def start(self, environment_id: str) -> None:
        machine = self._machine(environment_id)
        await self._step()
        machine.start_count += 1

    async def wait(self, environment_id: str) -> Exit:
        machine = self._machine(environment_id)
        while machine.exit is None:
            if machine.is_gone:
                raise Gone(environment_id)
            await machine.changed.wait()
        await self._step()
        return machine.exit

    async def exec(self, environment_id: str, command: Command) -> Any:
        del command
        machine = self._machine(environment_id)
        await self._step()
        if machine.is_gone or machine.exit is not None:
            raise Gone(environment_id)
        if self.host.random.random() < self.host.fault_rate:
            raise Unusable("NOT_EXECUTABLE", "cannot run it")
        return SimRunning(self, machine)

    async def logs(
        self, environment_id: str, *, after: int = 0, tail: int | None = None, follow: bool = False
    ) -> AsyncIterator[LogRecord]:
        del tail, follow
        self._machine(environment_id)
        await self._step()
        if after < 1:
            yield LogRecord(1, 1, "stdout", "a line")

    async def log(self, environment_id: str, stream: str, lines: Sequence[str]) -> None:
        del stream, lines
        self._machine(environment_id)

    async def stats(self, environment_id: str) -> Stats:
        self._machine(environment_id)
        return Stats(1, 1, 1, 1)

    async def pause(self, environment_id: str) -> None:
        machine = self._machine(environment_id)
        await self._step()
        machine.is_paused = True

    async def resume(self, environment_id: str) -> None:
        machine = self._machine(environment_id)
        await self._step()
        machine.is_paused = False

    async def delete(self, environment_id: str, *, grace_s: float) -> None:
        machine = self._machine(environment_id)
        for _ in range(5 if grace_s else 1):
            await self._step()
        self.host.lose(environment_id)
        machine.change()

    async def list_owned(self) -> Sequence[Owned]:
        return [
            Owned(name, each.exit is None and each.start_count > 0, each.exit)
            for name, each in self.host.machines.items()
        ]

    def _machine(self, environment_id: str) -> SimMachine:
        machine = self.host.machines.get(environment_id)
        if machine is None:
            raise Gone(environment_id)
        return machine

    async def _step(self) -> None:
        for _ in range(self.host.random.randrange(6)):
            await asyncio.sleep(0)
        if self.is_dead:
            await asyncio.Event().wait()
        if self.host.random.random() < self.host.fault_rate:
            raise OSError("the driver has a fault")


class SimRunning:
    """A command that says one thing and ends."""

    def __init__(self, driver: SimDriver, machine: SimMachine) -> None:
        self._driver = driver
        self._machine = machine
        self._has_said = False
        self.is_closed = False

    async def read(self) -> tuple[Stream, bytes] | None:
        await self._driver._step()
        if self._has_said or self._machine.is_gone:
            return None
        self._has_said = True
        return Stream.STDOUT, b"said\n"

    async def write(self, data: bytes) -> None:
        del data

    async def close_input(self) -> None:
        """It reads nothing."""

    async def wait(self) -> Exit:
        return Exit(137, 9) if self._machine.is_gone else Exit(0)

    async def aclose(self) -> None:
        self.is_closed = True
