from __future__ import annotations

import asyncio
import hashlib
import signal
import time

import pytest

from steward_server.environments.driver import Command, Exit, Gone, Stream, Unusable
from tests.integration.environments.sandbox.machines import MIB, Machines, read_until


async def test_what_a_command_writes_is_told_apart(machines: Machines, machine: str) -> None:
    ran = await machines.sh(machine, "echo out; echo err >&2; exit 3")

    assert (ran.stdout, ran.stderr, ran.code) == ("out\n", "err\n", 3)


async def test_a_signal_is_128_and_its_number(machines: Machines, machine: str) -> None:
    running = await machines.driver.exec(machine, Command(("sleep", "600")))
    await running.signal(signal.SIGTERM)

    assert await running.wait() == Exit(143, 15)
    await running.aclose()


async def test_a_command_reads_what_it_is_given(machines: Machines, machine: str) -> None:
    assert (
        await machines.run(machine, "cat", stdin=b"given" * 100_000)
    ).stdout == "given" * 100_000


async def test_input_to_a_command_that_has_ended_is_ignored(
    machines: Machines, machine: str
) -> None:
    running = await machines.driver.exec(machine, Command(("true",)))
    await running.wait()

    await running.write(b"x" * MIB)
    await running.aclose()


async def test_a_command_has_its_folder_variables_and_user(
    machines: Machines, machine: str
) -> None:
    ran = await machines.sh(
        machine, 'echo "$(pwd) $COLOUR $(id -u):$(id -g)"', working_dir="/tmp",
        env={"COLOUR": "green"}, user=1234,
    )  # fmt: skip
    assert ran.stdout == "/tmp green 1234:1234\n"


async def test_by_itself_it_works_in_the_workspace_as_user_1000(
    machines: Machines, machine: str
) -> None:
    ran = await machines.sh(machine, "pwd; id -u; touch here && ls")

    assert ran.stdout == "/workspace\n1000\nhere\n"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command(()), "NOT_EXECUTABLE"),
        (Command(("echo", "a\0b")), "NOT_EXECUTABLE"),
        (Command(("/no/such",)), "NOT_EXECUTABLE"),
        (Command(("no-such-program",)), "NOT_EXECUTABLE"),
        (Command(("/etc/passwd",)), "NOT_EXECUTABLE"),
        (Command(("true",), working_dir="/no/such"), "NO_SUCH_DIRECTORY"),
        (Command(("true",), user=65_535), "BAD_USER"),
        (Command(("true", "x" * 200_000)), "NOT_EXECUTABLE"),
        (Command(("true", *["x" * 100_000] * 11)), "NOT_EXECUTABLE"),
    ],
)
async def test_what_cannot_run_is_refused(
    machines: Machines, machine: str, command: Command, reason: str
) -> None:
    with pytest.raises(Unusable) as refusal:
        await machines.driver.exec(machine, command)

    assert refusal.value.reason == reason


async def test_arguments_and_variables_may_be_long(machines: Machines, machine: str) -> None:
    words = tuple("w" * 100_000 for _ in range(5))
    ran = await machines.run(machine, "sh", "-c", 'echo "$# ${#LONG}"', "sh", *words,
                             env={"LONG": "v" * 100_000})  # fmt: skip
    assert ran.stdout == "5 100000\n"


async def test_every_byte_of_a_large_output_arrives(machines: Machines, machine: str) -> None:
    program = "import sys; [sys.stdout.buffer.write(bytes(range(256)) * 4096) for _ in range(64)]"
    running = await machines.driver.exec(machine, Command(("python3", "-c", program)))
    seen = hashlib.sha256()
    while (found := await running.read()) is not None:
        seen.update(found[1])
    assert await running.wait() == Exit(0)
    await running.aclose()

    assert seen.digest() == hashlib.sha256(bytes(range(256)) * 4096 * 64).digest()


async def test_it_ends_although_a_child_holds_its_output(machines: Machines, machine: str) -> None:
    async with asyncio.timeout(30):
        ran = await machines.sh(machine, "sleep 600 & echo done")

    assert ran.stdout == "done\n"


@pytest.mark.attack
async def test_closing_a_command_ends_whatever_it_started(machines: Machines, machine: str) -> None:
    """Children that left the session, forgot the environment and ignore SIGTERM too."""
    script = (
        "for i in 1 2 3; do (trap '' TERM HUP INT; exec setsid env -i /bin/sleep 777) & done; "
        "python3 -c 'import os\nif os.fork() == 0:\n os.setsid()\n os.fork()\n "
        'os.execve("/bin/sleep", ["sleep", "777"], {})\' & echo up; wait'
    )
    running = await machines.driver.exec(machine, Command(("sh", "-c", script)))
    assert await running.read() == (Stream.STDOUT, b"up\n")

    async def sleepers() -> int:
        found = await machines.driver.processes(machine)
        return sum(each.command.endswith("sleep 777") for each in found)

    async with asyncio.timeout(10):
        while await sleepers() < 5:
            await asyncio.sleep(0.02)
    await running.aclose()

    assert await sleepers() == 0
    assert (await machines.run(machine, "echo", "fine")).stdout == "fine\n"


async def test_who_reads_is_told_when_the_command_is_closed(
    machines: Machines, machine: str
) -> None:
    running = await machines.driver.exec(machine, Command(("sleep", "600")))
    reading = asyncio.create_task(running.read())
    await asyncio.sleep(0.05)
    await machines.driver.pause(machine)

    await running.aclose()

    assert await asyncio.wait_for(reading, 30) is None
    await machines.driver.resume(machine)


async def test_a_command_of_a_machine_that_ends_is_killed(machines: Machines, machine: str) -> None:
    running = await machines.driver.exec(machine, Command(("sleep", "600")))

    await machines.driver.delete(machine, grace_s=0)

    assert await running.wait() == Exit(137, 9)
    await running.aclose()


async def test_a_terminal_is_a_terminal(machines: Machines, machine: str) -> None:
    running = await machines.driver.exec(machine, Command(("sh",), tty=(80, 24)))
    await running.write(b"tty; stty size; echo $TERM\n")
    assert "xterm-256color" in (seen := await read_until(running, "xterm-256color\r\n"))
    assert "/dev/pts/0" in seen
    assert "24 80" in seen

    await running.resize(120, 40)
    await running.write(b"stty size\n")
    await read_until(running, "40 120")

    await running.write(b"sh -c \"echo be''gun; exec sleep 600\"\n")
    await read_until(running, "begun\r\n")
    await running.write(b"\x03")
    await running.write(b"echo code $?\n")
    await read_until(running, "code 130")

    await running.close_input()
    assert await running.wait() == Exit(0)
    while await running.read() is not None:
        pass
    await running.aclose()


async def test_one_cannot_run_a_command_in_a_machine_that_is_not_there(
    machines: Machines,
) -> None:
    with pytest.raises(Gone):
        await machines.run("nowhere", "true")


async def test_commands_run_at_the_same_time(machines: Machines, machine: str) -> None:
    ran = await asyncio.gather(
        *(machines.sh(machine, f"sleep 0.1; echo {number}") for number in range(30))
    )

    assert [each.stdout for each in ran] == [f"{number}\n" for number in range(30)]


async def test_the_processes_of_a_machine_are_told_by_their_inner_numbers(
    machines: Machines, machine: str
) -> None:
    running = await machines.driver.exec(machine, Command(("sleep", "4321")))
    await asyncio.sleep(0.1)
    found = {each.command: each for each in await machines.driver.processes(machine)}
    sleeper = found["sleep 4321"]

    assert sleeper.user == 1000
    assert sleeper.parent_pid == 1
    assert sleeper.memory_bytes > 0
    seen = await machines.run(machine, "cat", f"/proc/{sleeper.pid}/comm")
    assert seen.stdout == "sleep\n"
    await machines.driver.signal(machine, sleeper.pid, signal.SIGKILL)
    assert await running.wait() == Exit(137, 9)
    await running.aclose()
    with pytest.raises(Gone):
        await machines.driver.signal(machine, sleeper.pid, signal.SIGKILL)
    with pytest.raises(Gone):
        await machines.driver.signal(machine, 1, signal.SIGKILL)


async def test_a_paused_machine_stands_still_and_goes_on(machines: Machines, machine: str) -> None:
    for _ in range(5):
        running = await machines.driver.exec(
            machine, Command(("sh", "-c", "while :; do echo x; sleep 0.01; done"))
        )
        assert await running.read()
        await machines.driver.pause(machine)
        with pytest.raises(Unusable) as refusal:
            await machines.run(machine, "true")
        assert refusal.value.reason == "PAUSED"
        while True:
            try:
                await asyncio.wait_for(running.read(), 0.2)
            except TimeoutError:
                break
        await machines.driver.resume(machine)
        assert await asyncio.wait_for(running.read(), 30)
        await running.aclose()
    assert (await machines.sh(machine, "echo on >> f; cat f")).stdout == "on\n"


@pytest.mark.attack
async def test_a_command_that_is_closed_in_a_paused_machine_is_gone_when_it_goes_on(
    machines: Machines, machine: str
) -> None:
    running = await machines.driver.exec(machine, Command(("sleep", "4321")))
    await machines.driver.pause(machine)
    await asyncio.wait_for(running.aclose(), 8)
    await machines.driver.resume(machine)

    found = await machines.driver.processes(machine)
    assert "sleep 4321" not in [each.command for each in found]


async def test_a_paused_machine_can_be_deleted(machines: Machines, machine: str) -> None:
    await machines.driver.pause(machine)
    await machines.driver.delete(machine, grace_s=0)

    assert await machines.driver.list_owned() == []


async def test_what_a_machine_uses_is_measured(machines: Machines, machine: str) -> None:
    running = await machines.driver.exec(
        machine,
        Command(("python3", "-c", "x = bytearray(64 << 20)\nprint(1, flush=True)\nwhile 1: pass")),
    )
    assert await running.read()
    await machines.sh(machine, "head -c 5000000 /dev/zero > f")
    await machines.driver.stats(machine)
    for _ in range(10):  # a host that is busy gives it less, or looks late
        await asyncio.sleep(0.7)
        stats = await machines.driver.stats(machine)
        if 300 < stats.cpu_millicores < 1300:
            break
    await running.aclose()

    assert 300 < stats.cpu_millicores < 1300
    assert 64 * MIB < stats.memory_bytes < 128 * MIB
    assert stats.storage_bytes is not None
    assert 5_000_000 < stats.storage_bytes < 6_000_000
    assert stats.process_count == 1


async def test_whoever_asks_what_a_machine_uses_is_answered_at_once(
    machines: Machines, machine: str
) -> None:
    began = time.monotonic()
    for _ in range(20):
        await machines.driver.stats(machine)

    assert time.monotonic() - began < 10


async def test_a_command_begins_with_no_signal_ignored_or_blocked(
    machines: Machines, machine: str
) -> None:
    """Else it could not be interrupted, and its own timers would not wake it."""
    seen = await machines.run(machine, "grep", "-E", "SigIgn|SigBlk", "/proc/self/status")

    masks = [int(line.split()[1], 16) for line in seen.stdout.splitlines()]
    assert [mask & 0x7FFF_FFFF for mask in masks] == [0, 0]  # two above these are the C library's
