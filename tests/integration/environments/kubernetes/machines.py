"""What the tests of the cluster's driver say over and over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from steward_server.environments.driver import Command, Exit, Running, Stream
from steward_server.environments.environment import Resources, Spec
from steward_server.environments.kubernetes import KubernetesDriver

SIZE = Resources(cpu_millicores=500, memory_bytes=512 << 20, storage_bytes=1 << 30)
_NUMBERS = count(1)


def spec(*command: str, **more: Any) -> Spec:
    if command:
        more["command"] = command
    return Spec("python:3.11-slim", SIZE, **more)


def shell(script: str, **more: Any) -> Command:
    return Command(("/bin/sh", "-c", script), **more)


@dataclass(frozen=True)
class Machines:
    """Makes machines of a driver."""

    driver: KubernetesDriver

    async def make(self, *command: str, **more: Any) -> str:
        name = f"env-{next(_NUMBERS):032x}"
        await self.driver.create(name, spec(*command, **more))
        await self.driver.start(name)
        return name

    async def run(self, name: str, command: Command, stdin: bytes = b"") -> Said:
        running = await self.driver.exec(name, command)
        try:
            if stdin:
                await running.write(stdin)
            await running.close_input()
            return await said(running)
        finally:
            await running.aclose()


@dataclass
class Said:
    """What a command wrote, and how it ended."""

    exit: Exit = Exit(-1)
    parts: Mapping[Stream, bytearray] = field(
        default_factory=lambda: {stream: bytearray() for stream in Stream}
    )

    @property
    def stdout(self) -> str:
        return self.parts[Stream.STDOUT].decode()

    @property
    def stderr(self) -> str:
        return self.parts[Stream.STDERR].decode()


async def said(running: Running) -> Said:
    found = Said()
    while (item := await running.read()) is not None:
        found.parts[item[0]].extend(item[1])
    found.exit = await running.wait()
    return found


async def until(holds: Callable[[], bool | Awaitable[bool]], limit_s: float = 30) -> None:
    async with asyncio.timeout(limit_s):
        while True:
            held = holds()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.01)
