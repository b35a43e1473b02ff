"""Version 2 of the control groups, where a host has only its core: groups that are born into,
frozen, killed and removed. Their limits are files whose content unit tests look at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.environments.driver import Command, Exit, Stream
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver, probe
from steward_server.environments.sandbox.cgroups import Version2
from steward_server.environments.sandbox.limits import Limits, version_2
from steward_server.environments.sandbox.native import Native
from tests.integration.environments.sandbox.machines import Machines, traces, until


class Core(Version2):
    """Without the controllers that this host gives to version 1."""

    def limit(self, name: str, limits: Limits) -> None:
        for file, value in version_2(limits):
            if (path := self.folder / name / file).exists():
                path.write_text(value)


@pytest.fixture
async def second(
    tmp_path: Path, images: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Machines]:
    mount = probe.mounts()[1]
    if mount is None or os.geteuid() != 0:
        pytest.skip("version 2 of the control groups is not mounted here, or not for this user")
    folder = mount / f"steward-test-{os.getpid()}"
    folder.mkdir()
    monkeypatch.setattr(probe, "find_cgroups", lambda prefix: Core(folder))
    driver = SandboxDriver(tmp_path, images)
    await driver.open()
    try:
        assert driver.capabilities().unusable == ""
        yield Machines(driver)
    finally:
        await Machines(driver).clear()
        await driver.aclose()
        await until(lambda: not traces(tmp_path))
        assert not folder.exists()


async def test_a_machine_is_born_into_its_group(second: Machines) -> None:
    name = await second.make()

    assert (await second.sh(name, "echo hello; exit 3")).code == 3
    assert (
        (await second.run(name, "cat", "/proc/self/cgroup"))
        .stdout.splitlines()[-1]
        .startswith("0::/x")
    )


async def test_whatever_a_command_started_ends_with_it(second: Machines) -> None:
    name = await second.make()
    script = "for i in 1 2 3; do setsid env -i /bin/sleep 777 & done; echo up; wait"
    running = await second.driver.exec(name, Command(("sh", "-c", script)))
    assert await running.read() == (Stream.STDOUT, b"up\n")
    await asyncio.sleep(0.2)
    backend = second.driver._backend
    assert isinstance(backend, Native)
    group = backend.groups
    (command,) = [each for each in group.commands(name) if each != "main"]
    assert len(group.pids(name, command)) == 4

    await running.aclose()

    assert command not in group.commands(name)
    assert (await second.run(name, "echo", "fine")).stdout == "fine\n"


async def test_a_machine_stands_still_and_goes_on(second: Machines) -> None:
    name = await second.make()
    running = await second.driver.exec(
        name, Command(("sh", "-c", "while :; do echo x; sleep 0.01; done"))
    )
    await second.driver.pause(name)
    while True:
        try:
            await asyncio.wait_for(running.read(), 0.2)
        except TimeoutError:
            break
    await second.driver.resume(name)

    assert await asyncio.wait_for(running.read(), 30)
    await running.aclose()
    assert await running.wait() == Exit(137, 9)


async def test_a_machine_that_stands_still_is_deleted(second: Machines) -> None:
    name = await second.make()
    await second.driver.pause(name)

    await second.driver.delete(name, grace_s=0)

    assert await second.driver.list_owned() == []
