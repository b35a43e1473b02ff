"""A machine takes what it may have, and neither the host nor a neighbour feels it."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import suppress

import pytest

from steward_server.environments.driver import Command, Unusable
from tests.integration.environments.sandbox.machines import MIB, Machines, spec

_FORK_BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


@pytest.mark.starves
async def test_a_fork_bomb_stays_within_its_number_and_ends_with_its_command(
    machines: Machines, machine: str
) -> None:
    neighbour = await machines.make()
    bomb = await machines.driver.exec(machine, Command(("python3", "-c", _FORK_BOMB)))
    async with asyncio.timeout(20):
        while (await machines.driver.stats(machine)).process_count < 200:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)

    assert 200 <= (await machines.driver.stats(machine)).process_count <= 256
    began = time.monotonic()
    assert (await machines.run(neighbour, "echo", "fine")).stdout == "fine\n"
    assert time.monotonic() - began < 5
    with pytest.raises(Unusable) as refusal:
        await machines.run(machine, "true")
    assert refusal.value.reason == "TOO_MANY_PROCESSES"

    async with asyncio.timeout(10):
        await bomb.aclose()
    async with asyncio.timeout(10):
        while (await machines.driver.stats(machine)).process_count > 2:
            await asyncio.sleep(0.05)  # the dead are still being buried
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"


@pytest.mark.starves
async def test_a_fork_bomb_can_be_deleted(machines: Machines, machine: str) -> None:
    bomb = await machines.driver.exec(machine, Command(("python3", "-c", _FORK_BOMB)))
    await asyncio.sleep(1)

    async with asyncio.timeout(30):  # others that are tried now may take what the host has
        await machines.driver.delete(machine, grace_s=0)
        await bomb.aclose()


@pytest.mark.starves
async def test_a_memory_bomb_is_killed_and_the_machine_goes_on(machines: Machines) -> None:
    name = await machines.make(spec(memory_bytes=128 * MIB))

    ran = await machines.python(name, "x = [bytearray(1 << 20) for _ in range(1 << 20)]")

    assert ran.code == 137
    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"
    assert machines.driver._machine(name).is_alive


@pytest.mark.starves
async def test_many_small_eaters_are_killed_and_the_machine_goes_on(machines: Machines) -> None:
    """Each of them smaller than the supervisor, which must not be the one that is killed."""
    name = await machines.make(spec(memory_bytes=64 * MIB))
    script = (
        "for i in $(seq 1 40); do (head -c 3000000 /dev/zero | tail -c 3000000 | sleep 1) & done; "
        "wait; echo over"
    )

    await machines.sh(name, script)

    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"


async def test_memory_in_files_is_memory_too(machines: Machines) -> None:
    name = await machines.make(spec(memory_bytes=64 * MIB))

    ran = await machines.sh(name, "head -c 200M /dev/zero > /dev/shm/f; stat -c %s /dev/shm/f")

    assert int(ran.stdout.split()[-1]) <= 16 * MIB
    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"


@pytest.mark.parametrize("storage_bytes", [16 * MIB, 128 * MIB])
async def test_a_disk_is_full_when_it_is_full(machines: Machines, storage_bytes: int) -> None:
    name = await machines.make(spec(storage_bytes=storage_bytes))

    for place in ("/workspace", "/tmp", "/var/tmp"):
        ran = await machines.sh(
            name, f"head -c 300M /dev/zero > {place}/f; stat -c %s {place}/f; rm {place}/f"
        )
        assert "No space left" in ran.stderr
        assert int(ran.stdout) <= storage_bytes


@pytest.mark.parametrize("storage_bytes", [16 * MIB, 128 * MIB])
async def test_files_are_counted_too(machines: Machines, storage_bytes: int) -> None:
    name = await machines.make(spec(storage_bytes=storage_bytes))
    program = (
        "import os\nn = 0\ntry:\n  while n < 100000: open(f'/tmp/{n}', 'w').close(); n += 1\n"
        "except OSError as e: print(n, e.strerror)"
    )

    ran = await machines.python(name, program)

    assert "No space left" in ran.stdout
    assert int(ran.stdout.split()[0]) <= 8192


async def test_a_hog_has_its_share_of_the_cpu_and_no_more(machines: Machines) -> None:
    hog = await machines.make(spec(cpu_millicores=300))
    neighbour = await machines.make()
    burn = await machines.driver.exec(
        hog, Command(("sh", "-c", "for i in 1 2 3 4; do (while :; do :; done) & done; wait"))
    )
    await asyncio.sleep(0.3)
    await machines.driver.stats(hog)
    took, given = [], 0
    for _ in range(5):  # a host that is busy gives it less now and then, and never more
        for _ in range(10):
            began = time.monotonic()
            await machines.run(neighbour, "true")
            took.append(time.monotonic() - began)
            await asyncio.sleep(0.1)
        given = (await machines.driver.stats(hog)).cpu_millicores
        assert given <= 400
        if given >= 200:
            break
    await burn.aclose()

    assert given >= 200
    assert statistics.median(took) < 0.2


async def test_open_files_end_at_their_limit(machines: Machines, machine: str) -> None:
    program = (
        "import os, resource\n"
        "top = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (top, top))\n"
        "n = 0\ntry:\n  while True: os.open('/dev/null', 0); n += 1\n"
        "except OSError as e: print(n, e.strerror)\n"
        "try: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))\n"
        "except (OSError, ValueError) as e: print('kept')"
    )

    ran = await machines.python(machine, program)

    assert int(ran.stdout.split()[0]) <= 16_384
    assert "Too many open files" in ran.stdout
    assert ran.stdout.endswith("kept\n")


async def test_a_flood_of_output_waits_for_its_reader(machines: Machines, machine: str) -> None:
    flood = await machines.driver.exec(machine, Command(("cat", "/dev/zero")))
    seen = 0
    began = time.monotonic()
    while seen < 256 * MIB:
        found = await flood.read()
        assert found is not None
        seen += len(found[1])
    took_s = time.monotonic() - began
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"
    await flood.aclose()

    assert seen / took_s > 50 * MIB


async def test_a_flood_of_the_main_command_stays_within_the_log(machines: Machines) -> None:
    name = await machines.make(spec("cat", "/dev/zero"))
    neighbour = await machines.make()
    await asyncio.sleep(1.5)

    assert (await machines.run(neighbour, "echo", "fine")).stdout == "fine\n"
    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"
    size = 0
    for path in (machines.driver._known(name) / "logs").iterdir():
        with suppress(FileNotFoundError):  # the oldest goes while it is looked at
            size += path.stat().st_size
    assert MIB < size <= 17 * MIB


async def test_what_ignores_every_signal_ends_all_the_same(
    machines: Machines, machine: str
) -> None:
    program = (
        "import signal, time\nfor n in range(1, 32):\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except OSError: pass\nprint('up', flush=True)\ntime.sleep(600)"
    )
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    assert await running.read()

    async with asyncio.timeout(30):
        await running.signal(15)
        await running.aclose()

    found = await machines.driver.processes(machine)
    assert not [each for each in found if "SIG_IGN" in each.command]


async def test_escapes_for_a_terminal_arrive_as_they_are(machines: Machines, machine: str) -> None:
    """Whoever shows them decides what they do; the server is no terminal."""
    running = await machines.driver.exec(
        machine,
        Command(
            ("sh", "-c", r"while :; do printf '\033]0;title\007\033[6n\033[2J'; done"), tty=(80, 24)
        ),
    )
    seen = b""
    while len(seen) < MIB:
        found = await running.read()
        assert found is not None
        seen += found[1]
    assert b"\x1b]0;title\x07" in seen
    await running.aclose()
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"
