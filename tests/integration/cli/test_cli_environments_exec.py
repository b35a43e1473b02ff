"""`steward env exec` and `steward env logs`: bytes, codes, signals, and a log that goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from steward_client.cli.environments_exec import NOT_FOUND, NOT_RUN, TIMED_OUT
from tests.integration.cli.conftest import COMMAND, Ended, Shell
from tests.integration.environments.conftest import Site, until
from tests.relay import Relay

EVERYTHING = bytes(range(256)) * 4_096
"""A mebibyte: more than fits into the pipes and windows between."""


async def execute(
    shell: Shell, *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    def run() -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [COMMAND, "env", "exec", *arguments],
            input=stdin,
            env=shell.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )

    return await asyncio.to_thread(run)


async def test_bytes_go_in_and_out_as_they_are(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    echoed = await execute(operator, environment_id, "cat", stdin=EVERYTHING)
    script = "tee /dev/stderr; exit 9"
    apart = await execute(operator, environment_id, "sh", "-c", script, stdin=b"\xff\x00\n")
    closed = await execute(operator, "-n", environment_id, "--", "cat", stdin=b"not read")

    assert (echoed.returncode, echoed.stderr) == (0, b"")
    assert echoed.stdout == EVERYTHING
    assert (apart.returncode, apart.stdout, apart.stderr) == (9, b"\xff\x00\n", b"\xff\x00\n")
    assert (closed.returncode, closed.stdout) == (0, b"")


async def test_it_ends_with_the_code_of_the_command_or_one_of_its_own(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running(name="mine")
    own = await operator("env", "exec", "-e", "A=b", "mine", "sh", "-c", "echo $A -e; exit 3")
    killed = await operator("env", "exec", "mine", "sh", "-c", "kill -9 $$")
    late = await operator("env", "exec", "--timeout", "1", "mine", "sh", "-c", "echo out; sleep 60")
    nothing = await operator("env", "exec", "mine", "no-such-program")
    nowhere = await operator("env", "exec", "-w", "/no/such/place", "mine", "true")
    nobody = await operator("env", "exec", "nobody", "true")
    bare = await operator("env", "exec", environment_id, "--")
    misplaced = await operator("env", "exec", "mine", "--timeout", "1", "true")

    assert (own.code, own.out, own.err) == (3, "b -e\n", "")
    assert killed.code == 137
    assert (late.code, late.out) == (TIMED_OUT, "out\n")
    assert "killed after 1 s" in late.err
    assert nothing.code == NOT_FOUND
    assert "no-such-program" in nothing.err
    assert (nowhere.code, nobody.code) == (NOT_RUN, NOT_RUN)
    assert "/no/such/place" in nowhere.err
    assert "steward env list" in nobody.err
    assert (bare.code, misplaced.code) == (2, 2)
    assert "--timeout stands after the environment" in misplaced.err


async def test_programs_get_what_a_command_wrote_as_json(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    ended = await operator(
        "env", "exec", "--json", environment_id, "sh", "-c", "cat; echo no >&2; exit 4", stdin="in"
    )

    assert ended.code == 4
    told = ended.json
    assert (told["stdout"], told["stderr"], told["exit_code"]) == ("in", "no\n", 4)
    assert (told["timed_out"], told["signal"]) == (False, "")
    assert told["duration_ms"] >= 0


async def test_an_interruption_is_passed_on_and_a_second_one_leaves(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running()
    trap = "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    with operator.running("env", "exec", environment_id, "bash", "-c", trap) as polite:
        assert await next_line(polite) == "ready\n"
        polite.send_signal(signal.SIGINT)
        assert await next_line(polite) == "caught\n"
        assert await asyncio.to_thread(polite.wait, 10) == 5

    deaf = "trap '' INT; echo ready; while :; do sleep 0.05; done"
    with operator.running("env", "exec", environment_id, "bash", "-c", deaf) as stubborn:
        assert await next_line(stubborn) == "ready\n"
        stubborn.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        assert stubborn.poll() is None
        stubborn.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(stubborn.wait, 10) == 130
    await until(lambda: nothing_runs(site, environment_id), "the command was ended")


@pytest.mark.parametrize("stuck_s", [0.05, 0.7], ids=["just now", "for a while"])
async def test_whoever_is_told_to_end_leaves_though_nobody_takes_the_input(
    operator: Shell, site: Site, tmp_path: Path, stuck_s: float
) -> None:
    environment_id = await site.running()
    (tmp_path / "big").write_bytes(b"x" * 30_000_000)
    with (tmp_path / "big").open("rb") as big:
        command = ("env", "exec", environment_id, "sh", "-c", "echo ready; sleep 600")
        with operator.running(*command, source=big.fileno()) as stuck:
            assert await next_line(stuck) == "ready\n"
            await stands_still(big.fileno(), stuck_s)
            stuck.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(stuck.wait, 10) == 143
    await until(lambda: nothing_runs(site, environment_id), "the command was ended")


async def test_from_here_on_is_from_here_on_after_a_cut_too(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    await site.run(environment_id, "echo", "old")
    async with Relay(site.live.running.grpc_address) as relay:
        shell = await replace(operator, server=relay.address).sign_in()
        with shell.running("env", "logs", "-f", "--tail", "0", environment_id) as following:
            await until(lambda: ("logs", environment_id) in site.driver.calls, "it follows")
            await asyncio.sleep(0.3)
            relay.cut()
            await site.run(environment_id, "echo", "meanwhile")
            assert await next_line(following) == "meanwhile\n"


async def stands_still(source: int, for_s: float) -> None:
    """Wait until a file that another process reads was begun, and has not been read on for long."""
    place, since_s = 0, time.monotonic()
    async with asyncio.timeout(10):
        while not place or time.monotonic() - since_s < for_s:
            await asyncio.sleep(0.01)
            if (now := os.lseek(source, 0, os.SEEK_CUR)) != place:
                place, since_s = now, time.monotonic()


async def nothing_runs(site: Site, environment_id: str) -> bool:
    path = f"/api/v1/environments/{environment_id}/processes"
    answer = await site.admin.call("GET", path)
    return bool(answer.body == {"processes": []})


async def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 10)


async def test_a_command_ends_when_nobody_reads_what_it_writes(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    shell = f"{COMMAND} env exec {environment_id} yes | head -n 1"
    ended = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", shell],
        env=operator.environment,
        capture_output=True,
        timeout=30,
        check=False,
    )

    assert ended.stdout == b"y\n"
    assert b"Traceback" not in ended.stderr
    await until(lambda: nothing_runs(site, environment_id), "the command was ended")


async def test_a_lost_connection_ends_a_command_with_a_clear_word(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running()
    async with Relay(site.live.running.grpc_address) as relay:
        shell = replace(operator, server=relay.address)
        await shell.sign_in()
        run = asyncio.create_task(shell("env", "exec", environment_id, "sleep", "60"))
        await until(lambda: something_runs(site, environment_id), "it runs")
        relay.cut()
        ended = await run

    assert ended.code == NOT_RUN
    assert "does not answer" in ended.err
    assert "Traceback" not in ended.err
    await until(lambda: nothing_runs(site, environment_id), "the command was ended")


async def something_runs(site: Site, environment_id: str) -> bool:
    return not await nothing_runs(site, environment_id)


async def test_a_log_is_printed_as_it_was_written(operator: Shell, site: Site) -> None:
    environment_id = await site.running(name="mine")
    await site.run(environment_id, "sh", "-c", "echo one; echo two; sleep 0.1; echo bad >&2")
    whole = await operator("env", "logs", "mine")
    last = await operator("env", "logs", "mine", "--tail", "2", "-t")
    listed = await operator("env", "logs", "mine", "--json")

    assert (whole.code, whole.out, whole.err) == (0, "one\ntwo\n", "bad\n")
    assert last.out.endswith("Z two\n")
    assert last.err.endswith("Z bad\n")
    assert [(each["stream"], each["message"], each["sequence"]) for each in listed.json] == [
        ("stdout", "one", 1),
        ("stdout", "two", 2),
        ("stderr", "bad", 3),
    ]


async def test_a_log_that_does_not_go_into_an_answer_is_printed_whole(
    operator: Shell, site: Site
) -> None:
    environment_id = await site.running()
    machine = site.driver.host.machines[environment_id]
    machine.write("stdout", *(f"{number} {'x' * 2_000}" for number in range(4_000)))
    ended = await operator("env", "logs", environment_id)

    numbers = [int(each.split()[0]) for each in ended.out.splitlines()]
    assert numbers == list(range(4_000))


async def test_following_goes_on_after_a_cut_until_the_end(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    await site.run(environment_id, "echo", "old")
    await site.run(environment_id, "echo", "before")
    async with Relay(site.live.running.grpc_address) as relay:
        shell = await replace(operator, server=relay.address).sign_in()
        with shell.running("env", "logs", "-f", "--tail", "1", environment_id) as following:
            assert await next_line(following) == "before\n"
            relay.cut()
            await site.run(environment_id, "echo", "meanwhile")
            assert await next_line(following) == "meanwhile\n"
            await site.run(environment_id, "echo", "after")
            assert await next_line(following) == "after\n"
            await operator("env", "rm", environment_id)
            assert await asyncio.to_thread(following.wait, 10) == 0
            assert following.stderr is not None
            told = following.stderr.read()

    assert "trying again" in told
    assert "there is no more" in told


async def test_a_followed_log_is_json_line_by_line(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    await site.run(environment_id, "echo", "hello")
    with operator.running("env", "logs", "-f", "--json", environment_id) as following:
        told = json.loads(await next_line(following))
        following.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(following.wait, 10) == 130

    assert (told["message"], told["sequence"], told["stream"]) == ("hello", 1, "stdout")


async def test_whoever_may_only_read_runs_nothing(operator: Shell, site: Site) -> None:
    environment_id = await site.running()
    grant = {"environment_id": environment_id, "permission": "read"}
    key = await site.admin.call("POST", "/api/v1/api-keys", {"permissions": [grant]})
    ended: Ended = await operator(
        "env", "exec", environment_id, "true", STEWARD_API_KEY=key.body["key"]
    )
    logs = await operator("env", "logs", environment_id, STEWARD_API_KEY=key.body["key"])

    assert ended.code == NOT_RUN
    assert "write" in ended.err
    assert logs.code == 0
