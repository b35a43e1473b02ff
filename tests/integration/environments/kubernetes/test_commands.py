from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from steward_server.environments.driver import Command, Exit, Gone, Running, Stream, Unusable
from steward_server.environments.environment import SecurityContext
from tests.integration.environments.kubernetes.kubelet import marked
from tests.integration.environments.kubernetes.machines import Machines, said, shell, until
from tests.integration.environments.kubernetes.standin import StandIn

pytestmark = pytest.mark.usefixtures("speaking")


def processes(cluster: StandIn) -> list[int]:
    """The processes of all pods, but for their main commands."""
    found = []
    for machine in cluster.kubelet.machines.values():
        main = machine.process.pid if machine.process else 0
        children = Path(f"/proc/{main}/task/{main}/children")
        mine = {main, *map(int, children.read_text().split())} if children.exists() else {main}
        found += [pid for pid in marked(machine.mark) if pid not in mine]
    return found


async def test_a_command_tells_its_exit_code_and_both_outputs_apart(machines: Machines) -> None:
    name = await machines.make()
    told = await machines.run(name, shell("echo out; echo err >&2; exit 7"))
    assert (told.exit, told.stdout, told.stderr) == (Exit(7), "out\n", "err\n")


async def test_a_command_is_run_word_by_word_whatever_stands_in_them(machines: Machines) -> None:
    name = await machines.make()
    words = ["a b", "it's", '"$HOME"', "two\nlines", "`id`", "-n", "", "ünï", "$(x)", "\\n"]
    told = await machines.run(name, Command(("printf", "%s|", *words)))
    assert told.stdout == "".join(f"{word}|" for word in words)


async def test_a_program_is_run_and_not_what_the_shell_has_by_its_name(machines: Machines) -> None:
    name = await machines.make()
    assert (await machines.run(name, Command(("true",)))).exit == Exit(0)
    with pytest.raises(Unusable) as refusal:
        await machines.run(name, Command(("exit", "3")))
    assert refusal.value.reason == "NOT_EXECUTABLE"


async def test_variables_are_added_to_those_of_the_environment(machines: Machines) -> None:
    name = await machines.make(env={"ONE": "1", "TWO": "$(ONE) $$ $x", "n": "kept"})
    more = {"THREE": "3'\n\"", "dotted.name": "yes", "IFS": "x", "UID": "5", "PPID": "6"}
    told = await machines.run(name, Command(("env", "-0"), env=more))
    found = dict(line.split("=", 1) for line in told.stdout.split("\0") if line)
    assert found.items() >= {"ONE": "1", "TWO": "$(ONE) $$ $x", "n": "kept", **more}.items()
    assert not [each for each in found if each.startswith("_st_")]


async def test_a_command_works_where_it_is_told(machines: Machines, tmp_path: Path) -> None:
    name = await machines.make()
    folder = tmp_path / "with space"
    folder.mkdir()
    told = await machines.run(name, Command(("pwd",), working_dir=str(folder)))
    assert told.stdout == f"{folder}\n"
    with pytest.raises(Unusable, match="no such directory") as refusal:
        await machines.run(name, Command(("pwd",), working_dir="/no/such"))
    assert refusal.value.reason == "NO_SUCH_DIRECTORY"


@pytest.mark.parametrize("program", ["no-such-program", "/no/such", "/etc/passwd", "/tmp"])
async def test_what_is_no_program_is_said_before_anything_runs(
    machines: Machines, program: str
) -> None:
    name = await machines.make()
    with pytest.raises(Unusable) as refusal:
        await machines.run(name, Command((program,)))
    assert refusal.value.reason == "NOT_EXECUTABLE"


async def test_a_command_reads_its_input_to_the_end(machines: Machines) -> None:
    name = await machines.make()
    content = bytes(range(256)) * 4_000
    told = await machines.run(name, shell("cksum; echo done"), stdin=content)
    count = told.stdout.split()[1]
    assert (count, told.stdout.splitlines()[-1]) == ("1024000", "done")


async def test_input_comes_in_pieces_and_is_answered_in_between(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, shell("while read -r line; do echo got $line; done"))
    try:
        for word in (b"one", b"two"):
            await running.write(word + b"\n")
            assert await running.read() == (Stream.STDOUT, b"got " + word + b"\n")
        await running.close_input()
        assert (await said(running)).exit == Exit(0)
    finally:
        await running.aclose()


async def test_input_that_nobody_reads_holds_nothing_up(machines: Machines) -> None:
    name = await machines.make()
    async with asyncio.timeout(10):
        told = await machines.run(name, shell("exit 3"), stdin=b"x" * 50_000)
    assert told.exit == Exit(3)


async def test_a_flood_of_output_comes_whole(machines: Machines) -> None:
    name = await machines.make()
    told = await machines.run(
        name, shell("head -c 8000000 /dev/zero; head -c 3000000 /dev/zero >&2")
    )
    assert (len(told.stdout), len(told.stderr)) == (8_000_000, 3_000_000)


async def test_what_looks_like_a_record_of_ours_is_output_like_any_other(
    machines: Machines,
) -> None:
    name = await machines.make()
    told = await machines.run(name, shell(r"printf '\036E 0\036 \036\036x\036' >&2; exit 4"))
    assert (told.exit, told.stderr) == (Exit(4), "\x1eE 0\x1e \x1e\x1ex\x1e")


async def test_a_child_that_holds_the_output_open_does_not_hold_up_the_end(
    machines: Machines,
) -> None:
    name = await machines.make()
    async with asyncio.timeout(30):
        told = await machines.run(name, shell("sleep 600 & echo started; exit 5"))
    assert (told.exit, told.stdout) == (Exit(5), "started\n")


async def test_a_command_that_a_signal_ended_says_which(machines: Machines) -> None:
    name = await machines.make()
    told = await machines.run(name, shell("kill -TERM $$"))
    assert (told.exit, told.stderr) == (Exit(143, signal.SIGTERM), "")


async def test_a_signal_reaches_a_command_and_its_children(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(
        name, shell("trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    )
    try:
        assert await running.read() == (Stream.STDOUT, b"ready\n")
        await running.signal(signal.SIGTERM)
        told = await said(running)
        assert told.exit == Exit(9)
        assert "asked" in told.stdout
    finally:
        await running.aclose()


async def test_closing_a_command_ends_all_its_processes_wherever_they_went(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make()
    running = await machines.driver.exec(
        name,
        shell("trap '' TERM HUP; setsid sleep 600 & (setsid sh -c 'sleep 601 & sleep 602' &); "
              "echo ready; sleep 603"),
    )  # fmt: skip
    assert await running.read() == (Stream.STDOUT, b"ready\n")
    await until(lambda: len(processes(cluster)) >= 6)
    await running.aclose()
    assert processes(cluster) == []
    assert (await running.wait()).code == 137
    assert await running.read() is None


async def test_what_a_command_wrote_before_it_was_closed_can_still_be_read(
    machines: Machines,
) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, shell("echo early; sleep 600"))
    await asyncio.sleep(0.2)
    await running.aclose()
    assert (await said(running)).stdout == "early\n"


async def test_a_cluster_out_of_reach_for_a_moment_does_not_spare_a_command(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, shell("echo ready; sleep 600"))
    await running.read()
    cluster.fail("GET", "/exec$", 500, "no process left to be had", count=2)
    await running.aclose()
    assert processes(cluster) == []


async def test_a_terminal_shows_its_size_and_takes_another(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, Command(("/bin/sh",), tty=(91, 33)))
    screen = Screen(running)
    try:
        await running.write(b"stty size; echo $TERM $((40+2))\n")
        await screen.shows(b"33 91")
        await screen.shows(b"42")
        await running.resize(120, 50)
        await running.write(b"stty size\n")
        await screen.shows(b"50 120")
        await running.write(b"exit 6\n")
        assert (await said(running)).exit == Exit(6)
    finally:
        await running.aclose()


async def test_ctrl_c_ends_what_a_terminal_runs_and_not_its_shell(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, Command(("/bin/sh",), tty=(80, 24)))
    screen = Screen(running)
    try:
        await running.write(b"sh -c \"echo be''gun; exec sleep 600\"\n")
        await screen.shows(b"begun\r\n")
        await running.write(b"\x03")
        await running.write(b"echo code $?\n")
        await screen.shows(b"code 130")
        await running.close_input()
        assert (await said(running)).exit == Exit(0)
    finally:
        await running.aclose()


async def test_a_terminal_holds_no_word_of_ours(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, Command(("echo", "plain"), tty=(80, 24)))
    try:
        told = await said(running)
        assert (told.stdout, told.exit) == ("plain\r\n", Exit(0))
    finally:
        await running.aclose()


async def test_another_user_than_the_pods_is_refused(machines: Machines) -> None:
    name = await machines.make(security=SecurityContext(run_as_user=1234))
    assert (await machines.run(name, Command(("true",), user=1234))).exit == Exit(0)
    with pytest.raises(Unusable) as refusal:
        await machines.run(name, Command(("true",), user=0))
    assert refusal.value.reason == "BAD_USER"


async def test_nothing_runs_in_a_machine_whose_main_command_has_ended(machines: Machines) -> None:
    name = await machines.make("/bin/sh", "-c", "exit 3")
    assert await machines.driver.wait(name) == Exit(3)
    with pytest.raises(Gone):
        await machines.run(name, Command(("true",)))


async def test_a_command_dies_with_its_machine(machines: Machines) -> None:
    name = await machines.make()
    running = await machines.driver.exec(name, shell("echo ready; sleep 600"))
    await running.read()
    await machines.driver.delete(name, grace_s=0)
    async with asyncio.timeout(30):
        assert (await said(running)).exit.code == 137
        await running.aclose()


async def test_an_image_without_a_shell_says_so(machines: Machines, cluster: StandIn) -> None:
    name = await machines.make()
    cluster.fail("GET", "/exec$", 500, 'exec: "/bin/sh": no such file', count=1)
    with pytest.raises(Exception, match="could not run a command"):
        await machines.run(name, Command(("true",)))


async def test_an_account_that_may_not_run_commands_says_so(
    machines: Machines, cluster: StandIn
) -> None:
    name = await machines.make()
    cluster.fail("GET", "/exec$", 403, "pods/exec is forbidden")
    with pytest.raises(Unusable) as refusal:
        await machines.run(name, Command(("true",)))
    assert refusal.value.reason == "FORBIDDEN"


class Screen:
    """What a terminal has shown and nobody has looked at yet."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._shown = b""

    async def shows(self, wanted: bytes) -> None:
        async with asyncio.timeout(30):
            while wanted not in self._shown:
                item = await self._running.read()
                assert item is not None, self._shown
                self._shown += item[1]
        self._shown = self._shown.partition(wanted)[2]
