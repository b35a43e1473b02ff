from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any, cast

import pytest

from steward_server.environments.driver import Feature, Gone, LogRecord, Unusable
from steward_server.environments.environment import NetworkPolicy
from steward_server.environments.kubernetes import Cluster, KubernetesDriver
from tests.integration.environments.kubernetes.machines import Machines, shell, until
from tests.integration.environments.kubernetes.standin import StandIn


async def lines(
    machines: Machines, name: str, *, after: int = 0, tail: int | None = None
) -> list[LogRecord]:
    return [each async for each in machines.driver.logs(name, after=after, tail=tail)]


async def test_a_log_has_numbers_and_the_times_at_which_its_lines_were_written(
    machines: Machines,
) -> None:
    name = await machines.make("/bin/sh", "-c", "echo one; sleep 0.3; echo two; sleep 600")
    await asyncio.sleep(0.6)
    found = await lines(machines, name)
    assert [(each.sequence, each.stream, each.message) for each in found] == [
        (1, "stdout", "one"),
        (2, "stdout", "two"),
    ]
    assert 250_000 < found[1].at_us - found[0].at_us < 550_000


async def test_lines_of_commands_stand_beside_those_of_the_main_one(machines: Machines) -> None:
    name = await machines.make("/bin/sh", "-c", "echo main; sleep 600")
    await until(lambda: _has(machines, name, 1))
    await machines.driver.log(name, "stderr", ["from a command", "ünï"])
    found = await lines(machines, name)
    assert [(each.sequence, each.stream, each.message) for each in found] == [
        (1, "stdout", "main"),
        (2, "stderr", "from a command"),
        (3, "stderr", "ünï"),
    ]
    assert [each.sequence for each in await lines(machines, name, after=1)] == [2, 3]
    assert [each.sequence for each in await lines(machines, name, tail=1)] == [3]


async def test_no_line_is_lost_or_doubled_however_often_a_log_is_read(machines: Machines) -> None:
    script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; done; sleep 600"
    name = await machines.make("/bin/sh", "-c", script)
    for _ in range(5):
        await lines(machines, name)
    await until(lambda: _has(machines, name, 400))
    found = await lines(machines, name)
    assert [each.message for each in found] == [f"line {at}" for at in range(1, 401)]
    assert [each.sequence for each in found] == list(range(1, 401))


async def test_a_log_is_followed_by_many_until_the_main_command_ends(machines: Machines) -> None:
    script = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo $i; sleep 0.01; done; exit 3"
    name = await machines.make("/bin/sh", "-c", script)

    async def follow() -> list[str]:
        return [each.message async for each in machines.driver.logs(name, follow=True)]

    async with asyncio.timeout(10):
        found = await asyncio.gather(*(follow() for _ in range(5)))
    assert found == [[str(at) for at in range(1, 31)]] * 5


async def test_a_follower_hears_of_lines_while_they_are_written(machines: Machines) -> None:
    name = await machines.make("/bin/sh", "-c", "echo ready; sleep 600")
    following = machines.driver.logs(name, follow=True)
    async with asyncio.timeout(30):
        assert (await anext(following)).message == "ready"
        await machines.driver.log(name, "system", ["more"])
        assert (await anext(following)).message == "more"
        waiting = asyncio.ensure_future(anext(following))
        await machines.driver.delete(name, grace_s=0)
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_a_log_keeps_its_numbers_when_the_server_starts_again(
    machines: Machines, kubeconfig: Path, tmp_path: Path
) -> None:
    script = "echo one; echo two; sleep 1; echo three; sleep 600"
    name = await machines.make("/bin/sh", "-c", script)
    await until(lambda: _has(machines, name, 2))
    await machines.driver.log(name, "stdout", ["a command"])
    before = await lines(machines, name)
    again = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig))
    await again.open()
    try:
        after: list[LogRecord] = []
        async with asyncio.timeout(10):
            while len(after) < 4:
                after = [each async for each in again.logs(name)]
                await asyncio.sleep(0.05)
    finally:
        await again.aclose()
    assert after[:3] == before
    assert (after[3].sequence, after[3].message) == (4, "three")


async def test_a_log_is_bounded_and_what_is_lost_is_lost_in_front(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path
) -> None:
    driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig), log_bytes=1)
    await driver.open()
    try:
        machines = Machines(driver)
        script = "head -c 900000 /dev/zero | tr '\\0' x | fold -w 999; echo; echo last; sleep 600"
        name = await machines.make("/bin/sh", "-c", script)
        async with asyncio.timeout(20):
            while True:
                found = await lines(machines, name)
                if found and found[-1].message == "last":
                    break
                await asyncio.sleep(0.05)
        assert found[0].sequence > 1
        assert all(b.sequence == a.sequence + 1 for a, b in itertools.pairwise(found))
        size = sum(each.stat().st_size for each in (tmp_path / "steward/logs" / name).iterdir())
        assert size < 700_000
    finally:
        await driver.aclose()


async def test_a_log_that_breaks_off_is_taken_up_where_it_broke(
    machines: Machines, cluster: StandIn
) -> None:
    script = "for i in 1 2 3 4 5 6; do echo $i; sleep 0.3; done"
    name = await machines.make("/bin/sh", "-c", script)
    cluster.fail("GET", "/log$", 500, "the node does not answer", count=3)
    async with asyncio.timeout(15):
        found = [each.message async for each in machines.driver.logs(name, follow=True)]
    assert found == ["1", "2", "3", "4", "5", "6"]


async def test_use_is_told_by_the_clusters_metrics(
    cluster: StandIn, kubeconfig: Path, tmp_path: Path
) -> None:
    cluster.has_metrics = True
    driver = KubernetesDriver(tmp_path / "steward", Cluster(kubeconfig))
    await driver.open()
    try:
        name = await Machines(driver).make()
        told = await driver.stats(name)
        assert (told.cpu_millicores, told.memory_bytes) == (125, 256 << 20)
        assert told.process_count > 0
        assert told.storage_bytes is None
    finally:
        await driver.aclose()


async def test_use_is_told_by_the_pod_itself_where_there_are_no_metrics(
    machines: Machines,
) -> None:
    name = await machines.make()
    for _ in range(2):
        told = await machines.driver.stats(name)
        assert told.cpu_millicores >= 0
        assert told.process_count > 0


async def test_processes_are_listed_without_ours_and_take_signals(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, shell("echo ready; sleep 4321.5; echo over"))
    try:
        await running.read()
        async with asyncio.timeout(10):
            while True:
                listed = await machines.driver.processes(name)
                sleeping = [each for each in listed if each.command == "sleep 4321.5"]
                if sleeping:
                    break
        assert not [each for each in listed if "_st_say" in each.command]
        found = sleeping[0]
        parent = next(each for each in listed if each.pid == found.parent_pid)
        assert "ready" in parent.command
        assert found.memory_bytes > 0
        assert abs(found.started_at_us - parent.started_at_us) < 60_000_000
        await machines.driver.signal(name, found.pid, 15)
        assert await running.read() is not None
        with pytest.raises(Gone):
            await machines.driver.signal(name, found.pid, 15)
    finally:
        await running.aclose()


async def test_a_port_that_is_allowed_can_be_connected_to(machines: Machines) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(b"echo " + data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    name = await machines.make(network=NetworkPolicy(allowed_ingress_ports=(port,)))
    content, sink = await machines.driver.connect(name, port)
    await sink.write(b"hello")
    await sink.close()
    assert await anext(content) == b"echo hello"
    await cast("Any", content).aclose()
    with pytest.raises(Unusable) as closed:
        await machines.driver.connect(name, 1)
    assert closed.value.reason == "PORT_CLOSED"
    server.close()
    await server.wait_closed()
    with pytest.raises(Unusable) as refused:
        await machines.driver.connect(name, port)
    assert refused.value.reason == "PORT_REFUSED"


async def test_a_port_inside_cannot_be_listened_on(machines: Machines) -> None:
    name = await machines.make()
    assert Feature.TUNNEL not in machines.driver.capabilities().features
    with pytest.raises(Unusable) as refused:
        await machines.driver.listen(name, 0)
    assert refused.value.reason == "NOT_SUPPORTED"


async def _has(machines: Machines, name: str, count: int) -> bool:
    return len(await lines(machines, name)) >= count
