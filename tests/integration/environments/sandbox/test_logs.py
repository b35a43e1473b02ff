from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from steward_server.environments.driver import Gone, LogRecord
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import Machines, lines, spec, until


async def _all(driver: SandboxDriver, machine: str, **how: int) -> list[LogRecord]:
    return [record async for record in driver.logs(machine, **how)]  # type: ignore[arg-type]


async def test_lines_have_their_stream_their_time_and_a_number(machines: Machines) -> None:
    before_us = time.time_ns() // 1_000
    name = await machines.make(spec("sh", "-c", "echo one; sleep 0.1; echo two >&2; echo; exit 3"))
    await machines.driver.wait(name)

    records = await _all(machines.driver, name)

    assert [(each.sequence, each.stream, each.message) for each in records] == [
        (1, "stdout", "one"),
        (2, records[1].stream, records[1].message),
        (3, records[2].stream, records[2].message),
        (4, "system", "the main command ended with code 3"),
    ]
    assert {(each.stream, each.message) for each in records[1:3]} == {
        ("stderr", "two"),
        ("stdout", ""),
    }
    times = [each.at_us for each in records]
    assert before_us < times[0] < times[1] <= times[3] < time.time_ns() // 1_000


async def test_the_end_or_what_comes_after_a_line_is_read(machines: Machines) -> None:
    name = await machines.make(spec("sh", "-c", "seq 1 1000; sleep 600"))
    await lines(machines.driver.logs(name, follow=True), 1000)

    last = await _all(machines.driver, name, tail=3)
    rest = await _all(machines.driver, name, after=998)

    assert [each.message for each in last] == ["998", "999", "1000"]
    assert [each.sequence for each in rest] == [999, 1000]
    assert await _all(machines.driver, name, tail=0) == []
    assert len(await _all(machines.driver, name, tail=5000)) == 1000


async def test_a_log_is_followed_as_it_is_written(machines: Machines) -> None:
    name = await machines.make(
        spec("sh", "-c", "i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo $i; sleep 0.01; done")
    )

    assert await lines(machines.driver.logs(name, follow=True), 50) == [
        str(number) for number in range(1, 51)
    ]


async def test_following_ends_with_the_machine(machines: Machines, machine: str) -> None:
    following = asyncio.create_task(lines(machines.driver.logs(machine, follow=True), 1000))
    await machines.driver.log(machine, "stdout", ["before"])

    await machines.driver.delete(machine, grace_s=0)

    assert await asyncio.wait_for(following, 30) == ["before"]
    with pytest.raises(Gone):
        await _all(machines.driver, machine)


async def test_lines_of_commands_stand_beside_those_of_the_main_one(
    machines: Machines, machine: str
) -> None:
    await machines.driver.log(machine, "stdout", ["from a command", "größer \x1b[31m"])
    await machines.driver.log(machine, "stderr", ["its error"])
    await machines.driver.log(machine, "stdout", [f"line {number}" for number in range(30_000)])

    records = await _all(machines.driver, machine)

    assert [(each.stream, each.message) for each in records[:3]] == [
        ("stdout", "from a command"),
        ("stdout", "größer \x1b[31m"),
        ("stderr", "its error"),
    ]
    assert [each.sequence for each in records] == list(range(1, 30_004))
    assert records[-1].message == "line 29999"


async def test_lines_that_come_while_it_stands_still_are_not_lost(
    machines: Machines, machine: str
) -> None:
    await machines.driver.log(machine, "stdout", ["before"])
    await machines.driver.pause(machine)
    await machines.driver.log(machine, "stdout", ["during"])
    assert [each.message for each in await _all(machines.driver, machine)] == ["before"]

    await machines.driver.resume(machine)
    await machines.driver.log(machine, "stdout", ["after"])

    assert [each.message for each in await _all(machines.driver, machine)] == [
        "before",
        "during",
        "after",
    ]


async def test_a_question_without_a_line_end_is_recorded_after_a_while(
    machines: Machines,
) -> None:
    name = await machines.make(spec("sh", "-c", "printf 'password: '; sleep 600"))

    assert await lines(machines.driver.logs(name, follow=True), 1) == ["password: "]


async def test_long_lines_are_cut_and_bad_bytes_replaced(machines: Machines) -> None:
    name = await machines.make(
        spec(
            "sh", "-c", "head -c 150000 /dev/zero | tr '\\0' x; echo; printf '\\377\\n'; sleep 600"
        )
    )

    found = await lines(machines.driver.logs(name, follow=True), 4)

    assert [len(each) for each in found] == [65536, 65536, 150_000 - 131_072, 1]
    assert found[3] == "\N{REPLACEMENT CHARACTER}"


async def test_a_flood_keeps_the_end_within_the_bounds_of_the_ring(
    tmp_path: Path, images: Catalogue
) -> None:
    driver = SandboxDriver(tmp_path / "small", images, log_bytes=1024 * 1024)
    await driver.open()
    machines = Machines(driver)
    try:
        name = await machines.make(spec("sh", "-c", "seq 1 1000000"))
        await asyncio.wait_for(driver.wait(name), 30)
        records = await _all(driver, name)

        assert records[-2].message == "1000000"
        numbers = [each.sequence for each in records]
        assert numbers == list(range(numbers[0], 1_000_002))
        assert numbers[0] > 1
        used = sum(path.stat().st_size for path in (driver._known(name) / "logs").iterdir())
        assert used <= 1024 * 1024 + 100
    finally:
        await machines.clear()
        await driver.aclose()


async def test_ten_followers_lose_nothing(machines: Machines) -> None:
    name = await machines.make(spec("sh", "-c", "sleep 0.3; seq 1 100000; sleep 600"))

    async def follow() -> list[int]:
        seen = []
        async for record in machines.driver.logs(name, follow=True):
            seen.append(record.sequence)
            if len(seen) == 100_000:
                return seen
        return seen

    async with asyncio.timeout(30):
        for seen in await asyncio.gather(*(follow() for _ in range(10))):
            assert seen == list(range(1, 100_001))


async def test_a_reader_that_stops_holds_nobody_up(machines: Machines) -> None:
    name = await machines.make(spec("sh", "-c", "seq 1 500000; touch done; sleep 600"))
    stalled = machines.driver.logs(name, follow=True)
    await anext(stalled)

    seen = await machines.sh(name, "until test -e done; do sleep 0.05; done; echo done")

    assert seen.stdout == "done\n"
    await stalled.aclose()  # type: ignore[attr-defined]
    await until(lambda: not machines.driver._bells._listeners)
