from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Command, Driver, Exit, Feature, Gone, Hold, Unusable
from steward_server.environments.environment import Spec
from tests.integration.environments.conformance.kinds import Opener
from tests.integration.environments.conformance.machines import Machines
from tests.integration.environments.sandbox.machines import MIB, lines


async def test_a_driver_says_what_it_can(driver: Driver) -> None:
    told = driver.capabilities()

    assert told.unusable == ""
    assert told.driver
    assert told.backend
    assert len(told.promise) > 100
    assert {Feature.ATTACH, Feature.FILES, Feature.SIGNAL} <= told.features
    assert set(told.limits) == {"cpu", "memory", "storage", "inodes", "processes", "network"}
    for name in ("cpu", "memory"):
        assert told.limits[name] is Hold.ENFORCED
    there = await driver.capacity()
    assert 0 <= there.free_millicores <= there.millicores
    assert 0 < there.free_memory_bytes <= there.memory_bytes
    assert there.node_count >= 1


async def test_a_machine_is_made_runs_and_goes(machines: Machines) -> None:
    name = await machines.make(machines.spec("sh", "-c", "echo ready; exec sleep 600"))

    assert await lines(machines.driver.logs(name, follow=True), 1) == ["ready"]
    assert (await machines.run(name, "echo", "hello")).stdout == "hello\n"

    await machines.driver.delete(name, grace_s=0)
    assert await machines.driver.list_owned() == []
    with pytest.raises(Gone):
        await machines.run(name, "echo", "hello")


@pytest.mark.parametrize(
    ("script", "ended"), [("exit 7", Exit(7)), ("kill -9 $$", Exit(137, 9)), ("true", Exit(0))]
)
async def test_it_is_told_how_the_main_command_ended(
    machines: Machines, script: str, ended: Exit
) -> None:
    name = await machines.make(machines.spec("sh", "-c", script))

    assert await asyncio.wait_for(machines.driver.wait(name), 10) == ended
    assert [each.exit for each in await machines.driver.list_owned()] == [ended]


async def test_a_deletion_asks_the_main_command_first(machines: Machines) -> None:
    script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    name = await machines.make(machines.spec("sh", "-c", script))
    await lines(machines.driver.logs(name, follow=True), 1)
    told = asyncio.create_task(lines(machines.driver.logs(name, follow=True), 2))
    await asyncio.sleep(0.1)

    await machines.driver.delete(name, grace_s=5)

    assert await told == ["up", "bye"]


async def test_a_main_command_that_will_not_stop_is_killed_after_the_grace(
    machines: Machines,
) -> None:
    script = "trap '' TERM; echo up; while :; do sleep 1; done"
    name = await machines.make(machines.spec("sh", "-c", script))
    await lines(machines.driver.logs(name, follow=True), 1)

    async with asyncio.timeout(6):
        await machines.driver.delete(name, grace_s=0.3)

    assert await machines.driver.list_owned() == []


async def test_one_that_obeys_is_gone_at_once(machines: Machines, machine: str) -> None:
    async with asyncio.timeout(9):
        await machines.driver.delete(machine, grace_s=10)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (lambda to: to.spec(memory_bytes=MIB), "LIMIT_TOO_SMALL"),
        (lambda to: to.spec(runtime_class="no-such"), "RUNTIME_CLASS"),
        (lambda to: replace(to.spec(), image=to.absent_image), "UNKNOWN_IMAGE"),
        (lambda to: replace(to.spec(), image="Not A Name"), "BAD_IMAGE_NAME"),
        (lambda to: to.secured(allow_privilege_escalation=True), "PRIVILEGE_ESCALATION"),
        (lambda to: to.secured(run_as_user=0, run_as_non_root=True), "RUN_AS_NON_ROOT"),
        (lambda to: to.secured(run_as_user=2**31), "BAD_USER"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_cannot_be_made_leaves_nothing(
    driver: Driver, machines: Machines, wanted: Callable[[Machines], Spec], reason: str
) -> None:
    with pytest.raises(Unusable) as refusal:
        await driver.create("never", wanted(machines))
    assert refusal.value.reason == reason
    assert await driver.list_owned() == []


async def test_an_unknown_image_is_refused_with_those_there_are(machines: Machines) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(replace(machines.spec(), image=machines.absent_image))

    assert machines.image in str(refusal.value)


async def test_a_main_command_that_does_not_exist_is_refused_at_the_start(
    driver: Driver, machines: Machines
) -> None:
    with pytest.raises(Unusable) as refusal:  # a cluster starts what it makes
        await machines.make(machines.spec("/no/such/program"), "wrong")

    assert refusal.value.reason == "NOT_EXECUTABLE"


async def test_a_machine_starts_once(machines: Machines) -> None:
    machine = await machines.make(machines.spec("sleep", "600"))
    with pytest.raises(Unusable) as refusal:
        await machines.driver.start(machine)

    assert refusal.value.reason == "ALREADY_STARTED"


async def test_a_name_is_taken_once(machines: Machines, machine: str) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.driver.create(machine, machines.spec())

    assert refusal.value.reason == "ALREADY_EXISTS"
    assert (await machines.run(machine, "echo", "alive")).stdout == "alive\n"


@pytest.mark.parametrize("method", ["start", "wait", "stats", "processes", "pause", "resume"])
async def test_a_machine_that_is_not_there_is_gone(driver: Driver, method: str) -> None:
    with pytest.raises(Gone):
        await getattr(driver, method)("nowhere")
    with pytest.raises(Gone):
        await driver.delete("nowhere", grace_s=0)
    with pytest.raises(Gone):
        await driver.exec("nowhere", Command(("true",)))
    with pytest.raises(Gone):
        await driver.files.stat("nowhere", "/")


async def test_machines_outlive_their_server(
    another: Opener, machines: Machines, tmp_path: Path
) -> None:
    first = another(tmp_path / "kept")
    await first.open()
    theirs = Machines(first, machines.image, "", machines.runtime_class)
    script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
    small = {"cpu_millicores": 300}  # so that a cluster's node of two cores has room for all
    for name in ("m0", "m1"):
        await theirs.make(machines.spec("sh", "-c", script, **small), name)
    ended = await theirs.make(machines.spec("sh", "-c", "exit 4", **small), "ended")
    assert await first.wait(ended) == Exit(4)
    await lines(first.logs("m1", follow=True), 5)
    await first.aclose()

    heir = another(tmp_path / "kept")
    await heir.open()
    theirs = Machines(heir, machines.image, "", machines.runtime_class)
    try:
        found = {each.environment_id: each for each in await heir.list_owned()}
        assert {name: each.is_alive for name, each in found.items() if name != ended} == {
            "m0": True, "m1": True,
        }  # fmt: skip
        assert found[ended].exit == Exit(4)
        assert (await theirs.run("m1", "echo", "still here")).stdout == "still here\n"
        assert await lines(heir.logs("m1", follow=True), 40) == [
            str(number) for number in range(1, 41)
        ]
        waiting = asyncio.create_task(heir.wait("m1"))
        main = next(each for each in await heir.processes("m1") if "i=0" in each.command)
        await heir.signal("m1", main.pid, signal.SIGKILL)
        assert await asyncio.wait_for(waiting, 10) == Exit(137, 9)
    finally:
        await theirs.clear()
        await heir.aclose()
