"""`steward playbook run`, and what is done to runs."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from steward_client.cli.endings import CANCELLED, FAILED, INTERRUPTED
from steward_client.cli.executions import target_of, yaml_value
from steward_client.errors import InvalidRequest
from tests.integration.cli.conftest import COMMAND, Shell
from tests.integration.environments.conftest import until
from tests.live import Live, ServerProcess
from tests.playbook_runs import keeping, write_playbooks
from tests.relay import Relay

__all__ = ["keeping"]

UNKNOWN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(autouse=True, scope="module")
def playbooks(server: ServerProcess) -> None:
    write_playbooks(server.data_dir)


async def detached(shell: Shell, path: str, *options: str) -> str:
    """The id of a run that goes on."""
    begun = await shell("playbook", "run", path, "--detach", *options)
    assert (begun.code, begun.err) == (0, ""), begun
    return begun.out.strip()


async def becomes(shell: Shell, execution_id: str, status: str) -> Any:
    """The run as `status --json` has it, when it is in this state."""

    async def look() -> Any:
        found = (await shell("playbook", "status", execution_id, "--json")).json
        return found if found["status"] == status or found["question"] else None

    return await until(look, f"it is {status}")


async def test_a_run_is_followed_to_its_end(shell: Shell) -> None:
    ran = await shell("playbook", "run", "t/short.yaml")
    execution_id = ran.err.removeprefix("run ").strip()
    watched = await shell("playbook", "watch", execution_id, "--json")
    happened = [json.loads(each) for each in watched.out.splitlines()]
    later = await shell("playbook", "watch", execution_id, "--since", str(happened[-2]["sequence"]))

    told = [each.partition("Z  ")[2] for each in ran.out.splitlines()]
    assert ran.code == watched.code == later.code == 0, ran
    assert told == [
        "Test begins, 3 steps",
        "step say begins",
        "info: one",
        "step say completed",
        "step nap begins",
        "step nap completed",
        "step last begins",
        "info: two",
        "step last completed",
        "the run is completed",
    ]
    assert [each["event"] for each in happened][:2] == ["started", "step_started"]
    assert happened[-1]["status"] == "completed"
    assert later.out.endswith("the run is completed\n")
    assert later.out.count("\n") == 1


async def test_values_have_the_types_of_the_parameters(shell: Shell) -> None:
    given = ("-p", "text=5", "-p", "count=7", "-p", "flags=[1, 2020-01-01, yes]")
    execution_id = await detached(shell, "t/say.yaml", *given)
    found = await becomes(shell, execution_id, "completed")

    assert found["parameters"] == {"text": "5", "count": 7, "flags": [1, "2020-01-01", "yes"]}
    assert found["step_results"][0]["output"]["logged"] == "5 7"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("t/none.yaml",), 5, "'t/none.yaml' not found"),
        (("t/say.yaml", "-p", "count"), 2, "NAME=VALUE"),
        (("t/say.yaml", "-p", "count=many"), 2, "'count' must be a whole number"),
        (("t/say.yaml", "-p", "cuont=1"), 2, "no parameter 'cuont'"),
        (("t/say.yaml", "--credential", "none"), 5, "none"),
        (("t/say.yaml", "--gateway-url", "ftp://x"), 2, "http"),
    ],
)
async def test_what_cannot_be_started_is_said(
    shell: Shell, arguments: tuple[str, ...], code: int, told: str
) -> None:
    refused = await shell("playbook", "run", *arguments)

    assert (refused.code, refused.out) == (code, ""), refused
    assert told in refused.err


async def test_a_file_that_the_library_does_not_have_is_to_be_saved_first(
    shell: Shell, tmp_path: Path
) -> None:
    file = tmp_path / "my own.yaml"
    file.write_text("name: Mine")
    refused = await shell("playbook", "run", str(file))

    assert refused.code == 5
    assert f"steward playbook save '{file}' 'my own.yaml'" in refused.err


async def test_a_run_that_fails_ends_with_its_code_and_is_made_again(shell: Shell) -> None:
    ran = await shell("playbook", "run", "t/fails.yaml")
    execution_id = ran.err.split()[1]
    status = await shell("playbook", "status", execution_id)
    again = await shell("playbook", "rerun", execution_id)
    anew = await shell("playbook", "rerun", execution_id, "--from-start", "--json")

    assert ran.code == again.code == anew.code == FAILED
    assert f"steward playbook status {execution_id}" in ran.err
    assert "step http failed: " in ran.out
    assert "the run failed: Step 'http' failed: " in ran.out
    assert re.search(r"http +http +failed +1", status.out)
    assert "Step 'http' failed" in status.out
    assert "info: one" not in again.out
    assert '"message":"one"' in anew.out


async def test_a_run_is_paused_resumed_skipped_in_and_cancelled(shell: Shell) -> None:
    execution_id = await detached(shell, "t/long.yaml")
    paused = await shell("playbook", "pause", execution_id)
    shown = await becomes(shell, execution_id, "paused")
    status = await shell("playbook", "status", execution_id)
    resumed = await shell("playbook", "resume", execution_id)
    skipped = await shell("playbook", "skip", execution_id)
    watched = await shell("playbook", "watch", execution_id)
    other = await detached(shell, "t/long.yaml")
    cancelled = await shell("playbook", "cancel", other, "--reason", "enough")
    ended = await shell("playbook", "watch", other)

    assert {each.code for each in (paused, resumed, skipped, watched, cancelled)} == {0}
    assert shown["status"] == "paused"
    assert f"steward playbook resume {execution_id}" in status.out
    assert f"steward playbook resume {execution_id}" in watched.out
    assert f"steward playbook skip {execution_id}" in watched.out
    assert "step nap skipped\n" in watched.out
    assert ended.code == CANCELLED
    assert ended.out.endswith("the run is cancelled: cancelled by admin: enough\n")


async def test_in_debug_mode_a_step_that_failed_is_tried_again_or_skipped(shell: Shell) -> None:
    with shell.running("playbook", "run", "t/fails.yaml", "--debug") as running:
        assert running.stdout is not None
        execution_id, told = "", ""
        for command in ("resume", "skip"):
            while "steward playbook resume" not in (read := running.stdout.readline()):
                told += read
            execution_id = read.split()[-1]
            await shell("playbook", command, execution_id)
        rest, _ = await asyncio.to_thread(running.communicate, timeout=10)

    assert running.returncode == 0
    assert told.count("step http begins") == 2
    assert "step http is made again: tried again" in told
    assert "step http skipped" in rest
    assert rest.endswith("the run is completed\n")


async def test_a_question_is_shown_and_answered_while_the_run_is_followed(shell: Shell) -> None:
    with shell.running("playbook", "run", "t/asks.yaml") as running:
        assert running.stdout is not None
        told = ""
        while "steward playbook approve" not in told:
            told += await asyncio.to_thread(running.stdout.readline)
        execution_id = told.split()[-1]
        status = await shell("playbook", "status", execution_id)
        approved = await shell("playbook", "approve", execution_id, "-m", "fine")
        rest, _ = await asyncio.to_thread(running.communicate, timeout=10)

    other = await detached(shell, "t/asks.yaml")
    await becomes(shell, other, "asking")
    rejected = await shell("playbook", "reject", other, "--step", "ask", "--comment", "not now")
    ended = await shell("playbook", "watch", other)
    assert "step ask asks: Go on?" in told
    assert "Go on?" in status.out
    assert (approved.code, rejected.code, running.returncode) == (0, 0, 0)
    assert "answered: fine" in rest
    assert ended.code == FAILED
    assert "not now" in ended.out


async def test_whoever_started_it_may_not_approve_what_others_must(shell: Shell) -> None:
    execution_id = await detached(shell, "t/asks_others.yaml")
    await becomes(shell, execution_id, "asking")
    refused = await shell("playbook", "approve", execution_id)
    status = await shell("playbook", "status", execution_id)
    await shell("playbook", "cancel", execution_id)

    assert refused.code == 4
    assert "somebody else" in refused.err
    assert "somebody else than who started the run may approve it" in status.out


async def test_runs_are_listed_and_deleted(shell: Shell) -> None:
    first = (await shell("playbook", "run", "t/say.yaml")).err.split()[1]
    second = (await shell("playbook", "run", "t/say.yaml")).err.split()[1]
    table = await shell("playbook", "runs", "--status", "completed", "--playbook", "t/say.yaml")
    newest = await shell("playbook", "runs", "--limit", "1", "--json")
    deleted = await shell("playbook", "delete-run", second)
    gone = await shell("playbook", "delete-run", second)

    assert table.out.index(second) < table.out.index(first)
    assert re.search(rf"{first} +t/say.yaml +completed +1/1 ", table.out)
    assert [each["execution_id"] for each in newest.json] == [second]
    assert (deleted.code, gone.code) == (0, 5)


@pytest.mark.parametrize(
    "command",
    [
        "watch",
        "status",
        "pause",
        "resume",
        "skip",
        "cancel",
        "rerun",
        "approve",
        "reject",
        "artifacts",
        "delete-run",
    ],
)
async def test_a_run_that_is_not_there_is_said_to_be_none(shell: Shell, command: str) -> None:
    refused = await shell("playbook", command, UNKNOWN)

    assert (refused.code, refused.out) == (5, ""), refused
    assert UNKNOWN in refused.err


async def test_a_run_that_is_over_cannot_be_controlled(shell: Shell) -> None:
    over = (await shell("playbook", "run", "t/say.yaml")).err.split()[1]
    going_on = await detached(shell, "t/long.yaml")
    controls = ("pause", "resume", "skip", "cancel", "approve", "reject")
    refused = [await shell("playbook", control, over) for control in controls]
    refused += [await shell("playbook", each, going_on) for each in ("rerun", "delete-run")]
    await shell("playbook", "cancel", going_on)

    assert [each.code for each in refused] == [6] * 8, refused


async def test_what_strangers_wrote_does_nothing_to_a_terminal(shell: Shell) -> None:
    ran = await shell("playbook", "run", "t/rude.yaml")
    status = await shell("playbook", "status", ran.err.split()[1])

    assert ran.code == 0
    assert "info: \\x1b[31mred\\x0d\\x07" in ran.out
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", ran.out + status.out)


async def test_interrupting_ends_the_following_and_not_the_run(shell: Shell) -> None:
    with shell.running("playbook", "run", "t/long.yaml") as running:
        assert running.stdout is not None
        while "step nap begins" not in await asyncio.to_thread(running.stdout.readline):
            pass
        running.send_signal(signal.SIGINT)
        _, err = await asyncio.to_thread(running.communicate, timeout=10)
    execution_id = err.split()[1]
    found = await becomes(shell, execution_id, "running")
    await shell("playbook", "cancel", execution_id)

    assert running.returncode == INTERRUPTED
    assert f"steward playbook watch {execution_id}" in err
    assert f"steward playbook cancel {execution_id}" in err
    assert not found["cancelling"]


async def test_following_goes_on_where_the_connection_was_cut(
    shell: Shell, server: ServerProcess, tmp_path: Path
) -> None:
    async with Relay(server.grpc_address) as relay:
        away = await Shell(tmp_path / "away", relay.address).sign_in()
        with away.running("playbook", "run", "t/asks.yaml") as running:
            assert running.stdout is not None
            told = ""
            while "steward playbook approve" not in told:
                told += await asyncio.to_thread(running.stdout.readline)
            relay.cut()
            await shell("playbook", "approve", told.split()[-1])
            rest, err = await asyncio.to_thread(running.communicate, timeout=20)

    assert running.returncode == 0
    assert "the stream was cut" in err
    assert (told + rest).count("step ask begins") == 1
    assert (told + rest).count("step ask completed") == 1


async def test_at_a_terminal_the_steps_are_a_table_that_moves(shell: Shell) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    with subprocess.Popen(
        [COMMAND, "playbook", "run", "t/short.yaml"],
        env=shell.environment | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)

        def read() -> str:
            seen = b""
            try:
                while piece := os.read(ours, 65_536):
                    seen += piece
            except OSError:  # nobody has the other end any more
                return seen.decode()
            return seen.decode()

        try:
            shown = await asyncio.wait_for(asyncio.to_thread(read), 20)
        finally:
            process.kill()
            os.close(ours)

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert process.returncode == 0
    assert re.search(r"nap +nap +running +1", plain)
    assert "info: two" in plain
    last = plain.rpartition("STEP")[2]
    assert re.search(r"nap +nap +completed +1 +0\.[3-9] s +slept=0.3", last)
    assert "\x1b[?25h" in shown.rpartition("\x1b[?25l")[2]  # the cursor is shown again


@pytest.mark.usefixtures("keeping")
async def test_files_of_a_run_are_listed_and_saved_over_nothing(live: Live, tmp_path: Path) -> None:
    write_playbooks(tmp_path / "data")
    shell = await Shell(tmp_path / "home", live.running.grpc_address).sign_in()
    execution_id = (await shell("playbook", "run", "t/keeps.yaml")).err.split()[1]
    listed = await shell("playbook", "artifacts", execution_id)
    status = await shell("playbook", "status", execution_id)
    folder, content = tmp_path / "here", "line\n" * 40_000
    folder.mkdir()
    download = ("playbook", "download", execution_id)
    saved = await shell(*download, "kept.txt", "-o", str(folder))
    again = await shell(*download, "kept.txt", "-o", f"{folder}/")
    printed = await shell(*download, "kept.txt", "-o", "-")
    named = await shell(*download, "kept.txt", "-o", str(folder / "other"), "--json")
    nowhere = await shell(*download, "kept.txt", "-o", str(folder / "none" / "x"))
    missing = await shell(*download, "../etc/passwd")

    assert re.search(r"kept.txt +report +text/plain +195 KiB +keep ", listed.out)
    assert "kept.txt" in status.out
    assert (saved.code, printed.code, named.code) == (0, 0, 0)
    assert (folder / "kept.txt").read_text() == printed.out == content
    assert named.json["path"] == str(folder / "other")
    assert again.code == FAILED
    assert "is there already" in again.err
    assert nowhere.code == FAILED
    assert (missing.code, "kept.txt" in missing.err) == (5, True)
    assert sorted(each.name for each in folder.iterdir()) == ["kept.txt", "other"]


@pytest.mark.parametrize("name", ["", ".", "..", ".bashrc", "a/b", "/etc/x", "a\\b", "a\nb"])
def test_a_name_from_a_server_leads_out_of_no_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="-o"):
        target_of(str(tmp_path), name)
    assert target_of(str(tmp_path / "mine"), name) == tmp_path / "mine"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("0.5", 0.5),
        ("true", True),
        ("yes", "yes"),
        ("2020-01-01", "2020-01-01"),
        ("[a, 1]", ["a", 1]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ('"5"', "5"),
        ("[1", "[1"),
    ],
)
def test_values_are_read_as_yaml_has_them(text: str, value: object) -> None:
    assert yaml_value(text) == value
