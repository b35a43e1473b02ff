"""Machines that are made ahead: at hand at once, and in nothing different from others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Feature, Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import (
    MIB,
    Machines,
    groups,
    secured,
    spec,
    traces,
    until,
)
from tests.missing import missing


@pytest.fixture
async def stocked(tmp_path: Path, images: Catalogue) -> AsyncIterator[Machines]:
    driver = SandboxDriver(tmp_path / "stocked", images, spare_machines=2)
    await driver.open()
    if driver.capabilities().unusable:
        missing(f"machines cannot be made here: {driver.capabilities().unusable}")
    try:
        yield Machines(driver)
    finally:
        await Machines(driver).clear()
        await driver.aclose()
        assert groups(driver) == []
        await until(lambda: not traces(tmp_path / "stocked"))


def _spares(machines: Machines) -> list[Path]:
    return list((machines.driver._folder / "machines").glob("spare-*/socket"))


async def _stocked(machines: Machines, count: int = 2) -> None:
    pool = machines.driver._pool
    assert pool is not None
    await until(
        lambda: pool._refilling and pool._refilling.done() and len(_spares(machines)) == count
    )


async def test_a_spare_machine_is_in_nothing_different(stocked: Machines) -> None:
    assert Feature.WARM_POOL in stocked.driver.capabilities().features
    first = await stocked.make()
    await _stocked(stocked)
    assert [each.environment_id for each in await stocked.driver.list_owned()] == [first]

    wanted = spec("sh", "-c", "echo $WHO; exec sleep 600", memory_bytes=512 * MIB,
                  cpu_millicores=500)  # fmt: skip
    name = await stocked.make(replace(wanted, env={"WHO": "me"}), name="env-second")

    ran = await stocked.sh(name, "hostname; cat /etc/hostname; grep 127.0.1.1 /etc/hosts; "
                                 "echo $HOSTNAME $WHO; ls -A /workspace /tmp")  # fmt: skip
    assert ran.stdout == (
        "env-second\nenv-second\n127.0.1.1\tenv-second\nenv-second me\n/tmp:\n\n/workspace:\n"
    )
    cgroup = stocked.driver._machines[name].record.cgroup
    limit = [path.read_text().strip() for group in groups(stocked.driver) if group.name == cgroup
             for path in group.glob("memory.[lm][ia][mx]*")
             if path.name in ("memory.limit_in_bytes", "memory.max")]  # fmt: skip
    assert limit == [str(512 * MIB)]
    assert sorted(each.environment_id for each in await stocked.driver.list_owned()) == [
        "env-second", first,
    ]  # fmt: skip


async def test_it_is_at_hand_while_none_can_be_made(
    stocked: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stocked.make()
    await _stocked(stocked)
    backend = stocked.driver._backend
    assert backend is not None
    monkeypatch.setattr(backend.maker, "make", lambda *_: asyncio.Future())

    names = [await asyncio.wait_for(stocked.make(), 10) for _ in range(2)]

    assert [(await stocked.run(each, "echo", "fine")).stdout for each in names] == ["fine\n"] * 2


async def test_other_shapes_are_made_when_they_are_wanted(stocked: Machines) -> None:
    await stocked.make()
    await _stocked(stocked)

    name = await stocked.make(secured(run_as_user=4321, read_only_root_filesystem=True))

    assert (await stocked.sh(name, "id -u; touch /x")).stdout == "4321\n"
    await _stocked(stocked, 4)


async def test_a_shape_that_cannot_be_made_any_more_is_forgotten(
    stocked: Machines, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stocked.make()
    await _stocked(stocked)
    pool, backend = stocked.driver._pool, stocked.driver._backend
    assert pool is not None
    assert backend is not None

    async def fails(*_: object) -> None:
        raise Unusable("NO_ISOLATION", "the image has gone")

    with monkeypatch.context() as patch:
        patch.setattr(backend.maker, "make", fails)
        await stocked.make()
        await until(lambda: pool._refilling and pool._refilling.done() and not pool._shelves)
    await until(lambda: not _spares(stocked))

    await stocked.make()
    await _stocked(stocked)


async def test_a_spare_machine_that_has_ended_is_given_to_nobody(stocked: Machines) -> None:
    await stocked.make()
    await _stocked(stocked)
    pool = stocked.driver._pool
    assert pool is not None
    for shelf in pool._shelves.values():
        for body in shelf.bodies:
            os.kill(body.pid, signal.SIGKILL)
    await until(lambda: not any(Path(f"/proc/{body.pid}").exists() for body in shelf.bodies))

    name = await stocked.make()

    assert (await stocked.run(name, "echo", "fine")).stdout == "fine\n"
    await _stocked(stocked)


async def test_a_taken_name_is_refused_from_the_pool_too(stocked: Machines) -> None:
    name = await stocked.make()
    await _stocked(stocked)

    with pytest.raises(Unusable) as refusal:
        await stocked.driver.create(name, spec())

    assert refusal.value.reason == "ALREADY_EXISTS"
    assert (await stocked.run(name, "echo", "fine")).stdout == "fine\n"


async def test_a_restarted_server_clears_spares_and_keeps_what_was_one(
    stocked: Machines, images: Catalogue, tmp_path: Path
) -> None:
    await stocked.make()
    await _stocked(stocked)
    name = await stocked.make()
    await _stocked(stocked)

    heir = SandboxDriver(tmp_path / "stocked", images)
    await heir.open()
    try:
        assert _spares(stocked) == []
        assert (await Machines(heir).run(name, "echo", "fine")).stdout == "fine\n"
        assert len({group.name for group in groups(heir)}) == 2
    finally:
        await heir.aclose()
    await asyncio.sleep(0)
