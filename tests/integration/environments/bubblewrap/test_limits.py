"""What holds without control groups and what does not, and that neither is told wrongly."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Command, Feature, FileFault, Hold, Unusable
from steward_server.environments.environment import NetworkPolicy, Spec
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from tests.integration.environments.sandbox.machines import MIB, Machines, secured, spec

_FORK_BOMB = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"


def _has_groups(driver: SandboxDriver) -> bool:
    """Whether control groups are delegated to whoever runs this."""
    return driver.capabilities().limits["memory"] is Hold.ENFORCED


async def test_it_says_what_it_can_and_what_it_cannot(driver: SandboxDriver) -> None:
    told = driver.capabilities()

    assert (told.driver, told.backend, told.unusable) == ("sandbox", "bubblewrap", "")
    for name in ("storage", "inodes", "processes", "network"):
        assert told.limits[name] is Hold.ENFORCED
    assert told.features == {
        Feature.ATTACH, Feature.FILES, Feature.INGRESS, Feature.PAUSE, Feature.SIGNAL,
        Feature.SNAPSHOT, Feature.TUNNEL,
    }  # fmt: skip
    assert told.runtime_classes == ("bubblewrap",)
    assert "share the host's user id of the server" in told.promise
    if not _has_groups(driver):
        assert told.limits["memory"] is told.limits["cpu"] is Hold.ADVISORY
        assert "limited for each process" in told.promise
        assert "Delegate=yes" in told.promise


_INTERNET = NetworkPolicy(allow_internet=True)


@pytest.mark.parametrize(
    ("wanted", "reason", "fix"),
    [
        (spec(runtime_class="gvisor"), "RUNTIME_CLASS", "install runsc"),
        (spec(runtime_class="native"), "RUNTIME_CLASS", "as root"),
        (spec(network=_INTERNET), "NO_NETWORK", "run the server as root"),
        (spec(storage_bytes=1 << 50), "LIMIT_TOO_LARGE", "at most half"),
    ],
)
async def test_what_it_cannot_is_refused_with_what_to_do(
    machines: Machines, wanted: Spec, reason: str, fix: str
) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(wanted)

    assert refusal.value.reason == reason
    assert fix in str(refusal.value)
    assert await machines.driver.list_owned() == []


async def test_a_machine_has_one_user(machines: Machines, machine: str) -> None:
    assert (await machines.run(machine, "id", "-u", user=1000)).stdout == "1000\n"
    with pytest.raises(Unusable) as refusal:
        await machines.run(machine, "id", "-u", user=1234)

    assert refusal.value.reason == "BAD_USER"
    assert "run as user 1000 alone" in str(refusal.value)


async def test_files_of_a_machine_are_those_of_the_server_outside(
    machines: Machines, machine: str
) -> None:
    await machines.sh(machine, "echo x > /workspace/f")
    seen = await machines.run(machine, "stat", "-c", "%u", "/workspace/f")
    pid = machines.driver._machine(machine).record.pid

    assert seen.stdout == "1000\n"
    assert Path(f"/proc/{pid}").exists()
    status = Path(f"/proc/{pid}/status").read_text()
    assert set(status.split("Uid:\t")[1].split("\n")[0].split("\t")) == {str(os.geteuid())}


@pytest.mark.starves
@pytest.mark.attack
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
    assert (await machines.run(neighbour, "echo", "fine")).stdout == "fine\n"
    ran = await machines.python(machine, "import os; os.fork()")
    assert "BlockingIOError" in ran.stderr

    async with asyncio.timeout(20):
        await bomb.aclose()
        while (await machines.driver.stats(machine)).process_count > 2:
            await asyncio.sleep(0.05)
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"


async def test_a_process_that_eats_memory_ends_and_the_machine_goes_on(machines: Machines) -> None:
    name = await machines.make(spec(memory_bytes=128 * MIB))

    ran = await machines.python(name, "x = [bytearray(1 << 20) for _ in range(1 << 20)]")

    assert ran.code != 0
    assert "MemoryError" in ran.stderr or ran.code == 137
    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"


async def test_memory_that_is_only_set_aside_is_not_counted(machines: Machines) -> None:
    """Many a runtime reserves gigabytes that it never writes."""
    name = await machines.make(spec(memory_bytes=128 * MIB))
    program = "import mmap; print(len(mmap.mmap(-1, 4 << 30, prot=mmap.PROT_READ)))"

    assert (await machines.python(name, program)).stdout == f"{4 << 30}\n"


async def test_a_machine_gets_the_cores_that_it_asks_for(machines: Machines) -> None:
    one = await machines.make(spec(cpu_millicores=500))
    all_of_them = await machines.make(spec(cpu_millicores=1000 * (os.cpu_count() or 1)))

    count = "import os; print(len(os.sched_getaffinity(0)))"
    assert (await machines.python(one, count)).stdout == "1\n"
    there = len(os.sched_getaffinity(0))
    assert (await machines.python(all_of_them, count)).stdout == f"{there}\n"


async def test_a_command_cannot_take_its_supervisors_limits_away(
    machines: Machines, machine: str
) -> None:
    program = (
        "import resource\n"
        "try: resource.prlimit(1, resource.RLIMIT_NOFILE, (1, 1))\n"
        "except PermissionError: print('refused')\n"
        "print(resource.prlimit(0, resource.RLIMIT_NOFILE, (64, 64)) != (64, 64))"
    )

    assert (await machines.python(machine, program)).stdout == "refused\nTrue\n"


@pytest.mark.attack
async def test_keepers_that_are_killed_or_stopped_set_nobody_free(machines: Machines) -> None:
    """All in a machine have the same user, so a command can send signals to its keeper."""
    machine = await machines.make(spec("sleep", "3600"))
    script = (
        "trap '' TERM; for i in 1 2 3; do setsid env -i /bin/sleep 777 & done; "
        "sleep 0.3; kill -{} $PPID; sleep 600"
    )
    for signal in ("KILL", "STOP"):
        running = await machines.driver.exec(machine, Command(("sh", "-c", script.format(signal))))
        async with asyncio.timeout(10):
            await asyncio.sleep(0.6)
            await running.aclose()
            while [
                each
                for each in await machines.driver.processes(machine)
                if "sleep 777" in each.command or "sleep 600" in each.command
            ]:
                await asyncio.sleep(0.02)
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"
    main = await machines.driver.processes(machine)
    assert any("sleep 3600" in each.command for each in main)


@pytest.mark.attack
async def test_whoever_kills_everything_is_ended_himself(machines: Machines, machine: str) -> None:
    program = (
        "import os, signal, time\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  while True:\n"
        "    try: os.kill(-1, signal.SIGKILL)\n"
        "    except OSError: pass\n"
        "    time.sleep(0.01)\n"
        "time.sleep(600)"
    )
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    async with asyncio.timeout(10):
        assert (await running.wait()).code == 137
        await running.aclose()
        while await machines.driver.processes(machine):
            await asyncio.sleep(0.05)
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"


_COMET = "import os\nwhile True:\n  if os.fork(): os._exit(0)"
"""Never the same process for long: whoever looks finds the last one dead."""
_ATTACKS = {
    "a bomb": _FORK_BOMB,
    "a comet": _COMET,
    "many comets": f"import os\nfor _ in range(6): os.fork()\n{_COMET}",
    "a comet that has killed its keeper": f"import os\nos.kill(os.getppid(), 9)\n{_COMET}",
    "a bomb that stops all it meets": (
        "import os, signal\nfor _ in range(40):\n  if not os.fork(): break\n"
        "while True:\n  try: os.kill(-1, signal.SIGSTOP); os.fork()\n  except OSError: pass"
    ),
    "two that wake each other": (
        "import os, signal\nos.fork()\nwhile True:\n"
        "  try: os.kill(-1, signal.SIGCONT)\n  except OSError: pass"
    ),
    "a daemon without a trace": (
        "import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
        "os.execve('/bin/sleep', ['sleep', '777'], {})"
    ),
    "one that stops its keeper again and again": (
        "import os, signal\nkeeper = os.getppid()\nfor _ in range(4): os.fork()\n"
        "while True: os.kill(keeper, signal.SIGSTOP)"
    ),
    "one that kills all it meets": (
        "import os, signal\nos.fork()\nos.setsid()\nwhile True:\n"
        "  try: os.kill(-1, signal.SIGKILL)\n  except OSError: pass"
    ),
}


@pytest.mark.starves
@pytest.mark.attack
@pytest.mark.parametrize("program", _ATTACKS.values(), ids=_ATTACKS.keys())
async def test_nothing_flees_from_the_end_of_its_command(
    machines: Machines, machine: str, program: str
) -> None:
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    await asyncio.sleep(0.7)

    began = time.monotonic()
    async with asyncio.timeout(12):
        await running.aclose()
        took_s = time.monotonic() - began
        assert await machines.driver.processes(machine) == []

    assert took_s < 8
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"


@pytest.mark.attack
@pytest.mark.parametrize("program", _ATTACKS.values(), ids=_ATTACKS.keys())
async def test_nothing_holds_up_a_deletion(machines: Machines, program: str) -> None:
    name = await machines.make(spec("python3", "-c", program))
    await asyncio.sleep(0.5)

    async with asyncio.timeout(8):
        await machines.driver.delete(name, grace_s=0.5)

    assert await machines.driver.list_owned() == []


@pytest.mark.attack
async def test_a_command_ends_although_another_stops_everything(
    machines: Machines, machine: str
) -> None:
    program = (
        "import os, signal\nwhile True:\n  try: os.kill(-1, signal.SIGSTOP)\n  except OSError: pass"
    )
    left = await machines.driver.exec(machine, Command(("sh", "-c", "sleep 777 & sleep 778")))
    other = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    await asyncio.sleep(0.5)

    async with asyncio.timeout(8):
        await left.aclose()
    commands = {each.command for each in await machines.driver.processes(machine)}
    assert not any("77" in each for each in commands)
    assert any("SIGSTOP" in each for each in commands)
    async with asyncio.timeout(8):
        await other.aclose()
    assert await machines.driver.processes(machine) == []


@pytest.mark.starves
@pytest.mark.attack
async def test_a_server_starts_although_machines_are_full_of_bombs(
    machines: Machines, tmp_path: Path, images: Catalogue
) -> None:
    bombs = [
        await machines.driver.exec(await machines.make(), Command(("python3", "-c", _FORK_BOMB)))
        for _ in range(3)
    ]
    await asyncio.sleep(1)

    again = SandboxDriver(tmp_path / "sandbox", images)
    async with asyncio.timeout(40):
        await again.open()
        while again.capabilities().may_come:  # too busy to say what it can
            await again.open()
    try:
        assert [each.is_alive for each in await again.list_owned()] == [True] * 3
        assert [await again.processes(each) for each in ("m1", "m2", "m3")] == [[]] * 3
    finally:
        await again.aclose()
        for bomb in bombs:
            await bomb.aclose()


async def test_what_a_machine_wrote_becomes_an_image(machines: Machines) -> None:
    name = await machines.make()
    await machines.sh(name, "mkdir -p /workspace/d; echo kept > /workspace/d/f; rm /etc/protocols")

    assert await machines.driver.snapshot(name, "mine") >= 5

    again = await machines.make(replace(spec(), image="mine"))
    ran = await machines.sh(again, "cat /workspace/d/f; ls /etc/protocols; echo more >> d/f")
    assert ran.stdout == "kept\n"
    assert (await machines.sh(name, "cat /workspace/d/f")).stdout == "kept\n"
    await machines.driver.delete(again, grace_s=0)


async def test_a_machine_cannot_make_namespaces_below_it(machines: Machines, machine: str) -> None:
    """Were the filter of calls not there, the kernel's own limit would still refuse."""
    ran = await machines.sh(machine, "cat /proc/sys/user/max_user_namespaces; unshare -U true")

    assert ran.stdout == "0\n"
    assert ran.code != 0


@pytest.mark.parametrize("user", [1000, 0])
async def test_the_supervisor_shows_no_more_than_how_many_files_it_has_open(
    machines: Machines, user: int
) -> None:
    name = await machines.make(secured(run_as_user=user))
    script = (
        "cat /proc/1/environ /proc/1/maps /proc/1/stack /proc/1/auxv; ls -d /proc/1/root/* "
        "/proc/1/cwd/*; readlink /proc/1/exe /proc/1/ns/net /proc/1/fd/*; cat /proc/1/mem "
        "/proc/1/fd/*"
    )
    assert (await machines.sh(name, script)).stdout == ""


@pytest.mark.parametrize("user", [1000, 0])
@pytest.mark.attack
async def test_setuid_programs_give_nothing(machines: Machines, user: int) -> None:
    name = await machines.make(secured(run_as_user=user))
    ran = await machines.sh(
        name, "cp /bin/bash /tmp/sh; chmod 6755 /tmp/sh; /tmp/sh -p -c 'id -u; id -ru; grep Cap "
        "/proc/self/status | tr -d 0 | grep [1-9a-f]$'; mount -t tmpfs none /tmp && echo mounted; "
        "su -c 'id -u' nobody",
    )  # fmt: skip
    assert ran.stdout == f"{user}\n{user}\n"


async def test_what_may_not_be_written_is_refused_by_its_name(
    machines: Machines, machine: str
) -> None:
    async def content() -> AsyncIterator[bytes]:
        yield b"x"

    for path, kind in (("/usr/x", "EROFS"), ("/proc/x", "ENOENT"), ("/dev/x", "EROFS")):
        with pytest.raises(FileFault) as refusal:
            await machines.driver.files.write(machine, path, content())
        assert refusal.value.kind == kind
