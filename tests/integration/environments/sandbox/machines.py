"""What tests of machines need: one to work in, and a way to run things in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from steward_server.environments.driver import Command, LogRecord, Running, Stream
from steward_server.environments.environment import Resources, SecurityContext, Spec
from steward_server.environments.sandbox import SandboxDriver

MIB = 1024 * 1024


def spec(
    *command: str,
    memory_bytes: int = 256 * MIB,
    storage_bytes: int = 64 * MIB,
    cpu_millicores: int = 1000,
    **more: Any,
) -> Spec:
    resources = Resources(cpu_millicores, memory_bytes, storage_bytes)
    return Spec("host", resources, command=command, **more)


def secured(**context: Any) -> Spec:
    return replace(spec(), security=SecurityContext(**context))


@dataclass(frozen=True)
class Ran:
    stdout: str
    stderr: str
    code: int


class Machines:
    """A driver with machines made in a test; all are deleted behind it."""

    def __init__(self, driver: SandboxDriver) -> None:
        self.driver = driver
        self._count = 0

    async def make(self, wanted: Spec | None = None, name: str = "") -> str:
        """One that runs."""
        self._count += 1
        name = name or f"m{self._count}"
        await self.driver.create(name, wanted or spec())
        await self.driver.start(name)
        return name

    async def run(
        self, machine: str, *argv: str, stdin: bytes = b"", time_limit_s: float = 30, **more: Any
    ) -> Ran:
        """What a command wrote, and its exit code."""
        running = await self.driver.exec(machine, Command(argv, **more))
        outputs = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
        try:
            async with asyncio.timeout(time_limit_s):
                await running.write(stdin)
                await running.close_input()
                while (found := await running.read()) is not None:
                    outputs[found[0]] += found[1]
                ended = await running.wait()
        finally:
            await running.aclose()
        out, err = (bytes(outputs[each]).decode(errors="replace") for each in outputs)
        return Ran(out, err, ended.code)

    async def sh(self, machine: str, script: str, **more: Any) -> Ran:
        return await self.run(machine, "sh", "-c", script, **more)

    async def python(self, machine: str, program: str, **more: Any) -> Ran:
        return await self.run(machine, "python3", "-c", program, **more)

    async def clear(self) -> None:
        for owned in await self.driver.list_owned():
            await self.driver.delete(owned.environment_id, grace_s=0)


async def lines(records: AsyncIterator[LogRecord], count: int, limit_s: float = 10) -> list[str]:
    """The first lines of a log."""
    found = []
    async with asyncio.timeout(limit_s):
        async for each in records:
            found.append(each.message)
            if len(found) == count:
                break
    return found


async def until(holds: Callable[[], object], limit_s: float = 30) -> None:
    """Wait for something that happens by itself soon."""
    async with asyncio.timeout(limit_s):
        while not holds():
            await asyncio.sleep(0.01)


async def read_until(running: Running, text: str, limit_s: float = 30) -> str:
    """What a terminal shows, up to a text."""
    shown = ""
    async with asyncio.timeout(limit_s):
        while text not in shown:
            found = await running.read()
            assert found is not None, shown
            shown += found[1].decode()
    return shown


def traces(folder: Path) -> list[str]:
    """What a driver's folder has put on this host: processes, groups, mounts, loop devices."""
    prefix = os.fsencode(folder)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                mounts = (entry / "mountinfo").read_bytes()
                log = os.fsencode((entry / "fd/2").readlink())
            except OSError:
                continue
            if (prefix in log and b"python" not in log) or prefix in mounts:
                found.append(f"process {entry.name} {(entry / 'comm').read_text().strip()}")
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if prefix in device.read_bytes():
                found.append(f"loop {device}")
        except OSError:
            continue
    return found


def groups(driver: SandboxDriver) -> list[Path]:
    """The control groups of a driver's machines."""
    from steward_server.environments.sandbox.driver import _hash

    top = Path("/sys/fs/cgroup")
    name = f"steward-{_hash(driver._folder)}"
    places = [*top.glob(f"*/{name}"), *top.glob(name)]
    return [path for place in places for path in place.iterdir() if path.is_dir()]
