"""What machines with gVisor promise beyond, or otherwise than, those of the back end itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from steward_server.environments.driver import Command, Exit, Unusable
from steward_server.environments.images.catalogue import Catalogue
from steward_server.environments.sandbox import SandboxDriver
from steward_server.environments.sandbox.native import Native
from tests.integration.environments.gvisor.conftest import Machines
from tests.integration.environments.sandbox.machines import MIB, lines, read_until, spec, until


def _host_pids(driver: SandboxDriver, machine: str) -> list[int]:
    backend = driver._backend
    assert isinstance(backend, Native)
    return backend.groups.pids(machine)


async def test_it_is_offered_beside_the_class_of_the_back_end(driver: SandboxDriver) -> None:
    told = driver.capabilities()

    assert told.runtime_classes == ("native", "gvisor")
    assert "kernel in user space" in told.promise


async def test_commands_see_a_kernel_that_is_not_the_hosts(
    machines: Machines, machine: str
) -> None:
    assert "Starting gVisor" in (await machines.run(machine, "dmesg")).stdout


@pytest.mark.attack
async def test_nothing_of_it_is_root_on_the_host(driver: SandboxDriver, machines: Machines) -> None:
    name = await machines.secured(run_as_user=0)
    running = await driver.exec(name, Command(("sleep", "600")))

    pids = _host_pids(driver, name)
    for pid in pids:
        status = Path(f"/proc/{pid}/status").read_text()
        ids = {int(each) for key in ("Uid:", "Gid:") for each in status.split(key)[1].split()[:4]}
        assert min(ids) >= 0x7000_0000
    await running.aclose()
    assert len(pids) > 3


async def test_commands_run_as_the_user_and_group_that_are_asked_for(machines: Machines) -> None:
    name = await machines.secured(run_as_user=4321, run_as_group=5678)
    program = "import os; open('f', 'w'); s = os.stat('f'); print(s.st_uid, s.st_gid)"

    assert (await machines.sh(name, "id -u; id -g; id -G")).stdout == "4321\n5678\n5678\n"
    assert (await machines.python(name, program)).stdout == "4321 5678\n"
    found = await machines.driver.files.stat(name, "/workspace/f")
    assert (found.user, found.group) == (4321, 5678)


@pytest.mark.attack
async def test_no_rights_are_left(machines: Machines) -> None:
    name = await machines.secured(run_as_user=0)

    ran = await machines.sh(
        name, "grep Cap /proc/self/status; chown 5 /etc; date -s @0 > /dev/null"
    )

    assert {line.split()[1] for line in ran.stdout.splitlines()} == {"0" * 16}
    assert ran.stderr.count("Operation not permitted") == 2


@pytest.mark.attack
@pytest.mark.parametrize(
    ("call", "answers"),
    [
        ("165, b'none', b'/tmp', b'tmpfs', 0, b''", {"EPERM"}),
        ("161, b'/tmp'", {"EPERM"}),
        ("175, 0, 0, 0", {"EPERM", "ENOSYS"}),
        ("321, 0, 0, 0", {"EPERM", "ENOSYS"}),
        ("298, 0, 0, -1, -1, 0", {"ENODEV", "EPERM", "ENOSYS"}),
        ("133, b'/tmp/sda', 0o060600, 0x800", {"EPERM"}),
        ("41, 40, 1, 0", {"EAFNOSUPPORT"}),
        ("41, 17, 3, 0", {"EAFNOSUPPORT", "EPERM"}),
        ("41, 2, 3, 1", {"EPERM", "EAFNOSUPPORT"}),
    ],
)
async def test_calls_of_attackers_are_refused(
    machines: Machines, call: str, answers: set[str]
) -> None:
    name = await machines.secured(run_as_user=0)
    program = (
        "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"done = libc.syscall({call}) >= 0\n"
        "print('done' if done else errno.errorcode[ctypes.get_errno()])"
    )

    assert (await machines.python(name, program)).stdout.strip() in answers


@pytest.mark.attack
async def test_its_first_process_cannot_be_killed(machines: Machines) -> None:
    name = await machines.secured(run_as_user=0)

    await machines.sh(name, "kill -9 1; kill -STOP 1")

    assert (await machines.run(name, "echo", "fine")).stdout == "fine\n"


@pytest.mark.attack
async def test_where_memory_ends_the_machine_does_and_says_so(
    driver: SandboxDriver, machines: Machines
) -> None:
    name = await machines.make(
        spec(
            "python3", "-c", "x = [bytearray(1 << 20) for _ in range(4000)]", memory_bytes=96 * MIB
        )
    )

    ended = await asyncio.wait_for(driver.wait(name), 20)

    assert ended.code == 137
    await until(lambda: not _host_pids(driver, name))
    async with asyncio.timeout(30):  # its supervisor's last word is on its way
        while [each.is_alive for each in await driver.list_owned()] != [False]:
            await asyncio.sleep(0.01)


@pytest.mark.attack
async def test_a_disk_is_full_when_it_is_full(machines: Machines) -> None:
    name = await machines.make(spec(storage_bytes=16 * MIB))

    for place in ("/workspace", "/tmp", "/var/tmp"):
        ran = await machines.sh(
            name, f"head -c 30M /dev/zero > {place}/f; wc -c < {place}/f; rm {place}/f"
        )
        assert "No space left" in ran.stderr
        assert int(ran.stdout) <= 16 * MIB


async def test_too_little_memory_for_its_kernel_is_refused(machines: Machines) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.make(spec(memory_bytes=32 * MIB))

    assert refusal.value.reason == "LIMIT_TOO_SMALL"
    assert "gVisor" in str(refusal.value)


async def test_a_terminal_is_one(machines: Machines, machine: str) -> None:
    running = await machines.driver.exec(machine, Command(("sh",), tty=(80, 24)))
    await running.write(b"stty size; echo $TERM\n")
    assert "24 80" in await read_until(running, "xterm-256color\r\n")
    await running.resize(120, 40)
    await running.write(b"stty size\n")
    await read_until(running, "40 120")
    await running.write(b"sh -c \"echo be''gun; exec sleep 600\"\n")
    await read_until(running, "begun\r\n")
    await running.write(b"\x03")
    await running.write(b"echo code $?\n")
    await read_until(running, "code 130")
    await running.close_input()
    assert await asyncio.wait_for(running.wait(), 30) == Exit(0)
    await running.aclose()


async def test_a_command_that_ends_takes_none_of_anothers_with_it(
    machines: Machines, machine: str
) -> None:
    other = await machines.driver.exec(
        machine, Command(("sh", "-c", "(setsid sleep 777 &); sleep 600"))
    )
    await asyncio.sleep(0.2)

    assert (await machines.sh(machine, "(setsid sleep 888 &); echo done")).stdout == "done\n"

    commands = {each.command for each in await machines.driver.processes(machine)}
    assert "sleep 777" in commands
    assert "sleep 888" not in commands
    await other.aclose()
    assert await machines.driver.processes(machine) == []


async def test_several_commands_run_at_the_same_time(machines: Machines, machine: str) -> None:
    ran = await asyncio.gather(*(machines.sh(machine, f"echo {each}") for each in range(8)))

    assert [each.stdout for each in ran] == [f"{each}\n" for each in range(8)]


async def test_what_it_wrote_becomes_an_image(machines: Machines, images: Catalogue) -> None:
    name = await machines.secured(run_as_user=0)
    await machines.sh(name, "mkdir /data; echo kept > /data/f; rm /etc/protocols")

    await machines.driver.snapshot(name, "with-gvisor")

    again = await machines.make(replace(spec(), image="with-gvisor"))
    ran = await machines.sh(
        again, "cat /data/f; test -e /etc/protocols || echo gone; echo /dev/st*"
    )
    assert ran.stdout == "kept\ngone\n/dev/stderr /dev/stdin /dev/stdout /dev/steward\n"
    assert not list((await images.find("with-gvisor")).root.glob("dev/*"))
    await machines.driver.delete(again, grace_s=0)
    await images.remove("with-gvisor")


async def test_the_main_command_is_logged_and_obeys(machines: Machines) -> None:
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    name = await machines.make(spec("sh", "-c", script))
    assert await lines(machines.driver.logs(name, follow=True), 1) == ["up"]
    told = asyncio.create_task(lines(machines.driver.logs(name, follow=True), 2))
    await asyncio.sleep(0.1)

    await machines.driver.delete(name, grace_s=5)

    assert await told == ["up", "bye"]


@pytest.mark.parametrize(
    ("runsc", "why"),
    [
        (
            "/nowhere/runsc",
            "there is no '/nowhere/runsc'; install it on this host",
        ),
        (None, "STEWARD_ENVIRONMENTS_RUNSC is empty; give it the path of runsc"),
    ],
)
async def test_without_runsc_it_is_refused_with_the_reason(
    tmp_path: Path, images: Catalogue, runsc: str | None, why: str
) -> None:
    opened = SandboxDriver(tmp_path / "bare", images, runsc=runsc)
    await opened.open()
    try:
        told = opened.capabilities()
        assert told.runtime_classes == ("native",)
        assert why in told.missing_classes["gvisor"]
        with pytest.raises(Unusable) as refusal:
            await opened.create("m", spec(runtime_class="gvisor"))
    finally:
        await opened.aclose()

    assert refusal.value.reason == "RUNTIME_CLASS"
    assert why in str(refusal.value)


async def test_a_runsc_that_fails_its_trial_is_refused_with_the_reason(
    tmp_path: Path, images: Catalogue
) -> None:
    opened = SandboxDriver(tmp_path / "broken", images, runsc="/bin/false")
    await opened.open()
    try:
        assert opened.capabilities().runtime_classes == ("native",)
        with pytest.raises(Unusable) as refusal:
            await opened.create("m", spec(runtime_class="gvisor"))
    finally:
        await opened.aclose()

    assert "gVisor does not start" in str(refusal.value)
