from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from steward_server.environments.driver import Exit, Gone, Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver, record
from steward_server.environments.sandbox import driver as sandbox_driver
from steward_server.environments.sandbox.making import Body
from tests.integration.environments.sandbox.machines import (
    MIB,
    Machines,
    groups,
    lines,
    spec,
    traces,
    until,
)


async def test_a_machine_is_made_runs_and_goes(machines: Machines) -> None:
    name = await machines.make(spec("sh", "-c", "echo ready; exec sleep 600"))

    assert await lines(machines.driver.logs(name, follow=True), 1) == ["ready"]
    assert (await machines.run(name, "echo", "hello")).stdout == "hello\n"

    await machines.driver.delete(name, grace_s=0)
    assert await machines.driver.list_owned() == []
    with pytest.raises(Gone):
        await machines.run(name, "echo", "hello")


async def test_nothing_of_a_machine_is_left_after_its_deletion(
    driver: SandboxDriver, machines: Machines, tmp_path: Path
) -> None:
    before = traces(tmp_path)
    name = await machines.make(spec(storage_bytes=200 * MIB))
    await machines.sh(name, "for i in 1 2 3; do setsid nohup sleep 600 >/dev/null 2>&1 & done")
    assert groups(driver)

    await driver.delete(name, grace_s=0)

    assert groups(driver) == []
    assert list((tmp_path / "sandbox/machines").iterdir()) == []
    await until(lambda: traces(tmp_path) == before)


async def test_it_is_told_how_the_main_command_ended(machines: Machines) -> None:
    ended = await machines.make(spec("sh", "-c", "exit 7"))
    killed = await machines.make(spec("sh", "-c", "kill -9 $$"))

    assert await machines.driver.wait(ended) == Exit(7)
    assert await machines.driver.wait(killed) == Exit(137, 9)
    told = {each.environment_id: each.exit for each in await machines.driver.list_owned()}
    assert told == {ended: Exit(7), killed: Exit(137, 9)}


async def test_a_deletion_asks_the_main_command_first(machines: Machines, tmp_path: Path) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    name = await machines.make(spec("sh", "-c", script))
    await lines(machines.driver.logs(name, follow=True), 1)
    told = asyncio.create_task(lines(machines.driver.logs(name, follow=True), 2))
    await asyncio.sleep(0.1)

    await machines.driver.delete(name, grace_s=5)

    assert await told == ["up", "bye"]


@pytest.mark.attack
async def test_a_main_command_that_will_not_stop_is_killed_after_the_grace(
    machines: Machines,
) -> None:
    name = await machines.make(spec("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"))
    await lines(machines.driver.logs(name, follow=True), 1)

    async with asyncio.timeout(8):
        await machines.driver.delete(name, grace_s=0.3)

    assert await machines.driver.list_owned() == []


async def test_what_cannot_be_made_leaves_nothing(driver: SandboxDriver, tmp_path: Path) -> None:
    for wanted, reason in (
        (spec(memory_bytes=MIB), "LIMIT_TOO_SMALL"),
        (spec(runtime_class="kata"), "RUNTIME_CLASS"),
    ):
        with pytest.raises(Unusable) as refusal:
            await driver.create("never", wanted)
        assert refusal.value.reason == reason
    assert groups(driver) == []
    assert list((tmp_path / "sandbox/machines").iterdir()) == []


async def test_a_main_command_that_does_not_exist_is_refused_at_the_start(
    driver: SandboxDriver,
) -> None:
    await driver.create("wrong", spec("/no/such/program"))

    with pytest.raises(Unusable) as refusal:
        await driver.start("wrong")

    assert refusal.value.reason == "NOT_EXECUTABLE"


async def test_a_machine_starts_once(machines: Machines) -> None:
    machine = await machines.make(spec("sleep", "600"))
    with pytest.raises(Unusable) as refusal:
        await machines.driver.start(machine)

    assert refusal.value.reason == "ALREADY_STARTED"


async def test_a_name_is_taken_once(machines: Machines, machine: str) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.driver.create(machine, spec())

    assert refusal.value.reason == "ALREADY_EXISTS"
    assert (await machines.run(machine, "echo", "alive")).stdout == "alive\n"


_SERVER = """
    import asyncio, sys
    from pathlib import Path
    from steward_server.environments.images.catalogue import Catalogue
    from steward_server.environments.sandbox import SandboxDriver
    from steward_server.environments.driver import Command
    from tests.integration.environments.sandbox.machines import spec

    async def main():
        driver = SandboxDriver(Path(sys.argv[1]), Catalogue(Path(sys.argv[2])))
        await driver.open()
        for number in range(int(sys.argv[3])):
            await driver.create(f"m{number}", spec("sh", "-c", "i=0; while :; do i=$((i+1)); "
                                "echo $i; sleep 0.05; done"))
            await driver.start(f"m{number}")
        left = await driver.exec("m0", Command(("sleep", "600")))
        print("ready", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""


async def _kill_a_server(folder: Path, images: Catalogue, count: int) -> None:
    """Have a server make machines, and kill it in the middle of its work."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(_SERVER),
        str(folder),
        str(images._folder),
        str(count),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SECRET": "only the server may know"},
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    process.kill()
    await process.wait()


async def test_machines_outlive_a_server_that_is_killed(
    images: Catalogue, driver: SandboxDriver, tmp_path: Path
) -> None:
    await _kill_a_server(tmp_path / "other", images, 3)

    heir = SandboxDriver(tmp_path / "other", images)
    await heir.open()
    try:
        machines = Machines(heir)
        assert {each.environment_id for each in await heir.list_owned() if each.is_alive} == {
            "m0",
            "m1",
            "m2",
        }
        assert (await machines.run("m1", "echo", "still here")).stdout == "still here\n"
        counted = await lines(heir.logs("m2", follow=True), 20)
        assert counted == [str(number) for number in range(1, 21)]
        # The command that the dead server had open is not left behind.
        assert "sleep 600" not in [each.command for each in await heir.processes("m0")]
        waiting = asyncio.create_task(heir.wait("m1"))
        main = next(each for each in await heir.processes("m1") if each.parent_pid == 1)
        await heir.signal("m1", main.pid, signal.SIGKILL)
        assert await waiting == Exit(137, 9)
    finally:
        await Machines(heir).clear()
        await heir.aclose()
    await until(lambda: not traces(tmp_path / "other"))


async def test_machines_outlive_their_launcher_too(
    tmp_path: Path, machines: Machines, machine: str
) -> None:
    launcher = next(trace for trace in traces(tmp_path) if trace.endswith("steward-launch"))
    os.kill(int(launcher.split()[1]), signal.SIGKILL)
    await until(lambda: launcher not in traces(tmp_path))

    assert (await machines.run(machine, "echo", "still here")).stdout == "still here\n"
    another = await machines.make()
    assert (await machines.run(another, "echo", "new")).stdout == "new\n"


async def test_a_dead_machine_is_found_and_can_be_deleted(
    driver: SandboxDriver, machines: Machines
) -> None:
    machine = await machines.make(spec("sleep", "600"))
    os.kill(driver._machines[machine].record.pid, signal.SIGKILL)
    assert await driver.wait(machine) == Exit(137, 9)

    (found,) = await driver.list_owned()
    assert not found.is_alive
    with pytest.raises(Gone):
        await machines.run(machine, "true")
    await driver.delete(machine, grace_s=1)
    assert await driver.list_owned() == []


async def test_a_dead_machine_that_ran_nothing_has_no_exit(
    driver: SandboxDriver, machine: str
) -> None:
    os.kill(driver._machines[machine].record.pid, signal.SIGKILL)
    with pytest.raises(Gone):
        await driver.wait(machine)


@pytest.mark.attack
async def test_the_launcher_and_the_supervisors_hold_nothing_of_the_server(
    images: Catalogue, driver: SandboxDriver, tmp_path: Path
) -> None:
    await _kill_a_server(tmp_path / "other", images, 1)
    try:
        found = [Path("/proc", trace.split()[1]) for trace in traces(tmp_path / "other")
                 if "steward-" in trace]  # fmt: skip
        assert len(found) == 2
        for entry in found:
            assert (entry / "environ").read_bytes() == b""
            assert len(list((entry / "fd").iterdir())) <= 16
    finally:
        heir = SandboxDriver(tmp_path / "other", images)
        await heir.open()
        await Machines(heir).clear()
        await heir.aclose()


_BUSY_SERVER = """
    import asyncio, sys
    from pathlib import Path
    from steward_server.environments.images.catalogue import Catalogue
    from steward_server.environments.sandbox import SandboxDriver
    from tests.integration.environments.sandbox.machines import Machines, spec

    async def main():
        driver = SandboxDriver(Path(sys.argv[1]), Catalogue(Path(sys.argv[2])), spare_machines=2)
        await driver.open()
        machines = Machines(driver)

        async def work(number):
            for turn in range(1000):
                name = await machines.make(spec(), name=f"w{number}-{turn}")
                await machines.run(name, "echo", "x")
                if turn % 2:
                    await driver.delete(name, grace_s=0)

        print("ready", flush=True)
        await asyncio.gather(*(work(number) for number in range(3)))

    asyncio.run(main())
"""


@pytest.mark.parametrize("after_s", [0.05, 0.12, 0.31, 0.5])
async def test_a_server_that_is_killed_in_the_middle_leaves_nothing_half_made(
    images: Catalogue, driver: SandboxDriver, tmp_path: Path, after_s: float
) -> None:
    await images.find("host")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(_BUSY_SERVER), str(tmp_path / "busy"),
        str(images._folder), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    await asyncio.sleep(after_s)
    process.kill()
    await process.wait()

    heir = SandboxDriver(tmp_path / "busy", images)
    await heir.open()
    try:
        found = await heir.list_owned()
        alive = {each.environment_id for each in found if each.is_alive}
        # Those that were being deleted are dead and told of, for whoever deletes them once more.
        records = [record.read(tmp_path / "busy/machines" / each.environment_id) for each in found]
        kept = {each.cgroup for each in records if each}
        assert {group.name for group in groups(heir)} - kept == set()
        supervisors = [trace for trace in traces(tmp_path / "busy") if "steward-init" in trace]
        assert len(supervisors) == len(alive)
        for name in alive:
            assert (await Machines(heir).run(name, "echo", "fine")).stdout == "fine\n"
    finally:
        await Machines(heir).clear()
        await heir.aclose()
    await until(lambda: not traces(tmp_path / "busy"))


async def test_who_looks_while_a_machine_goes_is_told_that_it_is_gone(
    driver: SandboxDriver, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = driver._machine(machine)
    folders = groups(driver)
    await found.kill()
    read = os.read

    def goes(fd: int, count: int) -> bytes:
        for folder in folders:  # after it was opened, and before it is read
            with suppress(OSError):
                folder.rmdir()
        return read(fd, count)

    await until(lambda: not any((each / "cgroup.procs").read_text() for each in folders))
    monkeypatch.setattr(os, "read", goes)
    with pytest.raises(Gone):
        await found.stats()


async def test_a_server_that_was_killed_at_its_trial_keeps_none_from_starting(
    driver: SandboxDriver, images: Catalogue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def is_killed_before(environment_id: str, *, grace_s: float) -> None: ...

    killed = SandboxDriver(tmp_path / "killed", images)
    monkeypatch.setattr(killed, "delete", is_killed_before)
    await killed.open()
    assert len(await killed.list_owned()) == 1
    await killed.aclose()

    heir = SandboxDriver(tmp_path / "killed", images)
    await heir.open()
    try:
        assert heir.capabilities().unusable == ""
        assert await heir.list_owned() == []
    finally:
        await heir.aclose()


async def test_what_resists_keeps_no_server_from_starting_and_is_cleared_later(
    driver: SandboxDriver, images: Catalogue, machine: str, tmp_path: Path
) -> None:
    """A group with another in it, which no server of ours makes, cannot be removed."""
    hierarchies = {group.parent for group in groups(driver)}
    (tmp_path / "sandbox/machines/half").mkdir()
    for each in hierarchies:
        (each / "half/x/y").mkdir(parents=True)

    heir = SandboxDriver(tmp_path / "sandbox", images)
    await heir.open()
    try:
        assert heir.capabilities().unusable == ""
        assert [each.environment_id for each in await heir.list_owned()] == [machine]
        assert all((each / "half/x/y").exists() for each in hierarchies)
        for each in hierarchies:
            (each / "half/x/y").rmdir()
            if "freezer" not in each.parts and not (each / "cgroup.controllers").exists():
                (each / "half/x").rmdir()  # of version 1 that hierarchy alone has such groups
        await heir.delete(machine, grace_s=0)
    finally:
        await heir.aclose()

    last = SandboxDriver(tmp_path / "sandbox", images)
    await last.open()
    await last.aclose()
    assert not any((each / "half").exists() for each in hierarchies)
    assert not (tmp_path / "sandbox/machines/half").exists()


async def test_what_a_failed_making_leaves_is_told_as_that_and_cleared_while_the_server_runs(
    driver: SandboxDriver, machines: Machines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend = driver._backend_now
    clear, resists = backend.clear, True

    async def made(folder: Path, *_: Any) -> Body:
        (folder / "half").mkdir()
        raise Unusable("NO_ISOLATION", "this host refused")

    async def cleared(folder: Path, cgroup: str) -> None:
        if resists:
            raise OSError(errno.EBUSY, "Device or resource busy")
        await clear(folder, cgroup)

    monkeypatch.setattr(sandbox_driver, "_CLEAR_AGAIN_S", 0.02)
    monkeypatch.setattr(backend, "clear", cleared)
    with monkeypatch.context() as patched:
        patched.setattr(backend.maker, "make", made)
        with pytest.raises(Unusable, match="this host refused"):
            await driver.create("never", spec())
    folder = tmp_path / "sandbox/machines/never"
    assert folder.exists()
    with pytest.raises(Unusable) as refusal:
        await driver.create("never", spec())
    assert refusal.value.reason == "ALREADY_EXISTS"
    resists = False
    await until(lambda: not folder.exists())
    await machines.make(name="never")


async def test_a_server_keeps_no_descriptor_of_what_is_over(
    driver: SandboxDriver, machines: Machines
) -> None:
    def open_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def turn() -> None:
        name = await machines.make(spec(storage_bytes=100 * MIB))
        await asyncio.gather(*(machines.run(name, "echo", "x") for _ in range(5)))
        with pytest.raises(Unusable):
            await machines.run(name, "/no/such")
        await machines.driver.files.stat(name, "/tmp")
        await machines.driver.log(name, "stdout", ["x"])
        await lines(driver.logs(name, follow=True), 1)
        await driver.delete(name, grace_s=0)

    await turn()
    before = open_descriptors()
    for _ in range(5):
        await turn()

    assert open_descriptors() <= before
