"""What is the container driver's own: how it asks its engine, and how it finds things again."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import textwrap
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiodocker
import pytest

from steward_server.environments.container import ContainerDriver, EngineImages
from steward_server.environments.container.engine import Engine
from steward_server.environments.driver import Away, Command, Exit, Gone, Hold, Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.images import room
from tests.integration.environments.conformance.machines import Machines
from tests.integration.environments.container.podman import IMAGE, Podman
from tests.integration.environments.sandbox.machines import MIB, lines, until


async def _told(driver: ContainerDriver, machine: str) -> dict[str, Any]:
    """What the engine says of a machine's container."""
    async with aiodocker.Docker(driver._engine.url) as docker:
        container = docker.containers.container(driver._machines[machine].container.id)
        told: dict[str, Any] = await container.show()
        return told


async def test_nothing_is_left_to_the_defaults_of_the_engine(
    driver: ContainerDriver, machine: str
) -> None:
    told = await _told(driver, machine)
    host = told["HostConfig"]

    assert told["Name"].lstrip("/") == f"{driver._owner}-{machine}"
    assert told["Config"]["Labels"]["steward.owner"] == driver._owner
    assert told["Config"]["Labels"]["steward.environment"] == machine
    assert host["NetworkMode"] == "none"
    assert host["Memory"] == host["MemorySwap"] == 256 * MIB
    assert (host["CpuQuota"], host["CpuPeriod"]) == (100_000, 100_000)
    assert host["PidsLimit"] == 257
    assert not host["Privileged"]
    dropped = {each.removeprefix("CAP_") for each in host["CapDrop"]}
    assert dropped == {"ALL"} or dropped >= {"NET_RAW", "MKNOD", "SETUID", "CHOWN", "KILL"}
    limits = {each["Name"].lower().removeprefix("rlimit_"): each for each in host["Ulimits"]}
    assert limits["nofile"]["Hard"] <= 16_384
    assert limits["nproc"]["Hard"] <= 32_768
    assert (limits["core"]["Soft"], limits["core"]["Hard"]) == (1, 1)
    assert any("seccomp=" in each for each in host["SecurityOpt"])
    assert "no-new-privileges" in host["SecurityOpt"]


async def test_files_and_secrets_of_the_host_are_not_there(
    machines: Machines, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the host")
    name = await machines.make(machines.secured(run_as_user=0))

    ran = await machines.sh(
        name,
        f"cat {tmp_path}/secret /proc/cmdline /proc/partitions /proc/modules; ls /sys/kernel; "
        "ls /sys/class; ls /sys/devices; cat /proc/kcore | head -c 10; ls /dev",
    )

    assert set(ran.stdout.split()) <= {
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm",
        "stderr", "stdin", "stdout", "tty", "urandom", "zero",
    }  # fmt: skip


async def test_killing_everything_ends_the_machine_and_nothing_else(
    machines: Machines, machine: str
) -> None:
    neighbour = await machines.make()
    outside = await asyncio.create_subprocess_exec("sleep", "600")

    with suppress(Gone):  # it may be over before the engine has told of its beginning
        await machines.sh(machine, f"kill -9 {outside.pid} {os.getpid()}; kill -9 -1")

    assert (await machines.driver.wait(machine)).code == 137
    assert (await machines.run(neighbour, "echo", "alive")).stdout == "alive\n"
    assert outside.returncode is None
    outside.kill()
    await outside.wait()
    with pytest.raises(Gone):
        await machines.run(machine, "true")


async def test_a_memory_bomb_is_killed_and_the_machine_goes_on(machines: Machines) -> None:
    name = await machines.make(machines.spec(memory_bytes=128 * MIB))

    ran = await machines.python(name, "x = [bytearray(1 << 20) for _ in range(1 << 20)]")

    assert ran.code == 137
    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"


async def test_a_fork_bomb_stays_within_its_number_and_ends_with_its_command(
    machines: Machines, machine: str
) -> None:
    program = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    bomb = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    most = 0
    async with asyncio.timeout(30):
        while most < 200:
            await asyncio.sleep(0.1)
            most = (await machines.driver.stats(machine)).process_count
        await asyncio.sleep(0.5)
    assert (await machines.driver.stats(machine)).process_count <= 256
    async with asyncio.timeout(20):
        await bomb.aclose()
        while (await machines.driver.stats(machine)).process_count > 2:
            await asyncio.sleep(0.1)  # what was killed is still on its way out

    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"


async def test_a_hog_has_its_share_of_the_cpu(machines: Machines) -> None:
    name = await machines.make(machines.spec(cpu_millicores=300))
    burn = await machines.driver.exec(
        name, Command(("sh", "-c", "for i in 1 2 3 4; do (while :; do :; done) & done; wait"))
    )
    await machines.driver.stats(name)
    await asyncio.sleep(2)

    stats = await machines.driver.stats(name)
    await burn.aclose()

    # No more than its share; how much of that it gets is the host's to say.
    assert 50 <= stats.cpu_millicores <= 400


async def test_what_a_machine_uses_is_measured(machines: Machines, machine: str) -> None:
    program = "x = bytearray(64 << 20)\nprint(1, flush=True)\nwhile 1: pass"
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    assert await running.read()
    await machines.sh(machine, "head -c 5000000 /dev/zero > f")
    await machines.driver.stats(machine)
    await asyncio.sleep(1.2)

    stats = await machines.driver.stats(machine)
    await running.aclose()

    assert 50 < stats.cpu_millicores < 1300
    assert 64 * MIB < stats.memory_bytes < 128 * MIB
    assert stats.storage_bytes is not None
    assert 5_000_000 < stats.storage_bytes < 6_000_000
    assert stats.process_count >= 2


async def test_a_disk_that_the_engine_does_not_hold_ends_its_machine(
    driver: ContainerDriver, machines: Machines
) -> None:
    assert driver.capabilities().limits["storage"] is Hold.ADVISORY
    assert "looked at every five seconds" in driver.capabilities().promise
    name = await machines.make(machines.spec(storage_bytes=8 * MIB))

    await machines.sh(name, "head -c 20M /dev/zero > /workspace/f")

    assert await asyncio.wait_for(driver.wait(name), 20) == Exit(137, 9)
    told = [record.message async for record in driver.logs(name)]
    assert any("its disk has" in line for line in told)
    tmpfs = await machines.make(machines.spec(storage_bytes=8 * MIB))
    ran = await machines.sh(tmpfs, "head -c 20M /dev/zero > /tmp/f; stat -c %s /tmp/f")
    assert "No space left" in ran.stderr
    assert int(ran.stdout) <= 8 * MIB


async def test_variables_and_a_home_reach_every_command(machines: Machines) -> None:
    name = await machines.make(
        replace(machines.spec("sh", "-c", "echo $TOKEN; sleep 600"), env={"TOKEN": "t"})
    )

    assert (await machines.sh(name, "echo $TOKEN$HOME")).stdout == "t/workspace\n"
    assert await lines(machines.driver.logs(name, follow=True), 1) == ["t"]


async def test_a_line_has_its_stream_and_a_time_that_is_true(machines: Machines) -> None:
    script = "echo one; sleep 1; echo two >&2; exit 3"
    name = await machines.make(machines.spec("sh", "-c", script))
    await machines.driver.wait(name)

    records = [record async for record in machines.driver.logs(name)]

    assert [(each.sequence, each.stream, each.message) for each in records] == [
        (1, "stdout", "one"),
        (2, "stderr", "two"),
        (3, "system", "the main command ended with code 3"),
    ]
    assert 400_000 < records[1].at_us - records[0].at_us < 3_000_000


async def test_a_flood_keeps_its_end_within_the_ring(podman: Podman, tmp_path: Path) -> None:
    driver = ContainerDriver(tmp_path / "small", Engine(podman.url), log_bytes=MIB)
    await driver.open()
    machines = Machines(driver, IMAGE, "")
    try:
        name = await machines.make(machines.spec("sh", "-c", "seq 1 300000"))
        await asyncio.wait_for(driver.wait(name), 60)
        records = [record async for record in driver.logs(name)]

        assert records[-2].message == "300000"
        numbers = [each.sequence for each in records]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        folder = driver._machines[name].folder
        assert sum(path.stat().st_size for path in folder.iterdir()) <= MIB + 4096
    finally:
        await machines.clear()
        await driver.aclose()


async def test_what_a_machine_wrote_becomes_an_image(
    driver: ContainerDriver, machines: Machines
) -> None:
    name = await machines.make(machines.secured(run_as_user=0))
    await machines.sh(name, "mkdir /var/data; echo kept > /var/data/f")

    assert await driver.snapshot(name, "mine:2") > 0

    images = EngineImages(driver._engine)
    assert "mine:2" in [each.name for each in await images.list()]
    again = await machines.make(replace(machines.spec(), image="mine:2"))
    assert (await machines.run(again, "cat", "/var/data/f")).stdout == "kept\n"
    with pytest.raises(Unusable) as refusal:
        await images.remove("mine:2")
    assert refusal.value.reason == "IMAGE_IN_USE"
    await driver.delete(again, grace_s=0)
    await images.remove("mine:2")
    with pytest.raises(Unusable) as refusal:
        await images.find("mine:2")
    assert refusal.value.reason == "UNKNOWN_IMAGE"


async def test_a_snapshot_holds_no_variable_of_its_environment(
    driver: ContainerDriver, machines: Machines
) -> None:
    name = await machines.make(replace(machines.spec(), env={"SECRET": "of-one"}))
    await driver.snapshot(name, "mine:3")

    images = EngineImages(driver._engine)
    kept = (await images.find("mine:3")).env
    again = await machines.make(replace(machines.spec(), image="mine:3"))
    plain = await machines.make()

    assert kept.get("SECRET", "") == ""
    for program in ('echo "[$SECRET]"', 'echo "[$PATH]"'):
        ran = [await machines.run(each, "sh", "-c", program) for each in (again, plain)]
        assert ran[0].stdout == ran[1].stdout
    odd = await machines.make(replace(machines.spec(), env={"A-B": "x"}))
    with pytest.raises(Unusable, match="A-B"):
        await driver.snapshot(odd, "mine:4")
    await driver.delete(again, grace_s=0)
    await images.remove("mine:3")


async def test_the_beginning_of_an_id_is_no_name(driver: ContainerDriver) -> None:
    images = EngineImages(driver._engine)
    image_id = (await images.find(IMAGE)).digest.removeprefix("sha256:")
    for name in (image_id, image_id[:12], image_id[:4]):
        with pytest.raises(Unusable) as refusal:
            await images.find(name)
        assert refusal.value.reason == "UNKNOWN_IMAGE"


async def test_registered_runtimes_are_runtime_classes(
    driver: ContainerDriver, machines: Machines, podman: Podman
) -> None:
    assert podman.runtime in driver.capabilities().runtime_classes
    assert "kata" not in driver.capabilities().runtime_classes

    name = await machines.make(machines.spec(runtime_class=podman.runtime))

    assert (await machines.run(name, "echo", "runs")).stdout == "runs\n"


async def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    driver = ContainerDriver(tmp_path / "c", Engine(f"unix://{tmp_path}/none.sock"))
    await driver.open()

    assert "none.sock" in driver.capabilities().unusable
    assert "DOCKER_HOST" in driver.capabilities().unusable
    assert driver.capabilities().may_come
    with pytest.raises(Unusable):
        await driver.create("m", Machines(driver, IMAGE, "").spec())
    with pytest.raises(Away):  # it may well be there
        await driver.delete("m", grace_s=0)
    await driver.aclose()


async def test_an_engine_that_comes_back_is_used_again(
    driver: ContainerDriver, machines: Machines, podman: Podman
) -> None:
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    name = await machines.make(machines.spec("sh", "-c", script))
    await lines(driver.logs(name, follow=True), 5)
    await asyncio.to_thread(podman.stop)
    with pytest.raises(Unusable) as refusal:
        await machines.run(name, "true")
    assert refusal.value.reason == "NO_ENGINE"
    with pytest.raises(Away):
        await driver.capacity()
    assert [each.is_alive for each in await driver.list_owned()] == [True]

    await asyncio.to_thread(podman.start)

    assert (await machines.run(name, "echo", "still here")).stdout == "still here\n"
    seen = await lines(driver.logs(name, follow=True), 120, limit_s=20)
    assert seen == [str(number) for number in range(1, 121)]


_SERVER = """
    import asyncio, sys
    from pathlib import Path
    from steward_server.environments.container import ContainerDriver
    from steward_server.environments.container.engine import Engine
    from steward_server.environments.driver import Command
    from tests.integration.environments.conformance.machines import Machines

    async def main():
        driver = ContainerDriver(Path(sys.argv[1]), Engine(sys.argv[2]))
        await driver.open()
        machines = Machines(driver, sys.argv[3], "")
        name = await machines.make(machines.spec("sh", "-c", "i=0; while :; do i=$((i+1)); "
                                                 "echo $i; sleep 0.01; done"), "m0")
        left = await driver.exec(name, Command(("setsid", "sleep", "4321")))
        await asyncio.sleep(float(sys.argv[4]))
        print("ready", flush=True)
        await asyncio.sleep(600)

    asyncio.run(main())
"""


@pytest.mark.parametrize("after_s", [0.0, 0.7])
async def test_a_killed_server_loses_no_line_and_leaves_no_command(
    podman: Podman, tmp_path: Path, after_s: float
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(_SERVER),
        str(tmp_path / "c"), podman.url, IMAGE, str(after_s), stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 60) == b"ready\n"
    process.kill()
    await process.wait()
    (tmp_path / "c/machines/m0/ports.json").touch()  # of a change that was cut short

    heir = ContainerDriver(tmp_path / "c", Engine(podman.url))
    await heir.open()
    machines = Machines(heir, IMAGE, "")
    try:
        assert [each.is_alive for each in await heir.list_owned()] == [True]
        assert "sleep 4321" not in [each.command for each in await heir.processes("m0")]
        seen = await lines(heir.logs("m0", follow=True), 300, limit_s=30)
        assert seen == [str(number) for number in range(1, 301)]
    finally:
        await machines.clear()
        await heir.aclose()
    assert not (tmp_path / "c/machines/m0").exists()


async def test_two_servers_at_one_engine_do_not_meet(
    driver: ContainerDriver, machine: str, podman: Podman, tmp_path: Path
) -> None:
    other = ContainerDriver(tmp_path / "other", Engine(podman.url))
    await other.open()
    try:
        assert await other.list_owned() == []
        await other.create(machine, Machines(other, IMAGE, "").spec())
        await other.delete(machine, grace_s=0)
        assert [each.environment_id for each in await driver.list_owned()] == [machine]
    finally:
        await other.aclose()


async def test_a_deletion_leaves_no_container_group_or_process(
    driver: ContainerDriver, machines: Machines, machine: str
) -> None:
    reach = driver._machines[machine].reach
    await machines.sh(machine, "setsid nohup sleep 600 >/dev/null 2>&1 & true")
    container_id = driver._machines[machine].container.id
    pids = list(reach._groups.pids(reach._name))
    assert len(pids) >= 2

    await driver.delete(machine, grace_s=0)

    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    await until(lambda: not reach._folder.exists())
    async with aiodocker.Docker(driver._engine.url) as docker:
        with pytest.raises(aiodocker.DockerError):
            await docker.containers.get(container_id)


async def test_ports_are_reached_without_a_network(machines: Machines) -> None:
    name = await machines.make(
        replace(machines.spec(), network=NetworkPolicy(allowed_ingress_ports=(8080,)))
    )
    with socket.create_server(("127.0.0.1", 0)) as ours:
        with pytest.raises(Unusable) as refusal:
            await machines.driver.connect(name, ours.getsockname()[1])
        assert refusal.value.reason == "PORT_CLOSED"
    with pytest.raises(Unusable) as refusal:
        await machines.driver.connect(name, 8080)
    assert refusal.value.reason == "PORT_REFUSED"


async def test_a_snapshot_leaves_room_on_the_engines_disk(
    driver: ContainerDriver, machines: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await machines.make()
    monkeypatch.setattr(room, "LEFT_FREE_BYTES", 1 << 60)
    with pytest.raises(Unusable) as refusal:
        await driver.snapshot(name, "mine:5")
    assert refusal.value.reason == "DISK_FULL"
    with pytest.raises(Unusable):
        await EngineImages(driver._engine).find("mine:5")
