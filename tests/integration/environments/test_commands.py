"""Commands: run to their end over REST, and as streams over gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import pytest

from steward.environments.v1 import environments_pb2 as pb
from steward_gateway.config import GatewayConfig
from steward_server.environments.commands import Commands
from steward_server.environments.driver import Stream
from steward_server.errors import Unavailable
from tests.child_driver import Child, _marked
from tests.integration.conftest import refusal_of
from tests.integration.environments.conftest import Site, Sites, until

EXEC = "/api/v1/environments/{}/exec"


async def test_an_exec_answers_what_the_guide_prints(site: Site) -> None:
    environment_id = await site.running()
    ran = await site.run(environment_id, "python3", "-c", 'print("Hello, World!")', timeout=30)
    assert ran.pop("duration_ms") >= 0
    assert ran == {"stdout": "Hello, World!\n", "stderr": "", "exit_code": 0}


async def test_how_a_command_ended_is_data(site: Site) -> None:
    environment_id = await site.running()
    failed = await site.run(environment_id, "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (failed["stdout"], failed["stderr"], failed["exit_code"]) == ("out\n", "err\n", 3)
    killed = await site.run(environment_id, "sh", "-c", "kill -TERM $$")
    assert (killed["exit_code"], killed["signal"]) == (143, "SIGTERM")


async def test_input_variables_and_directory_reach_the_command(site: Site) -> None:
    environment_id = await site.running(env={"ONE": "1", "TWO": "2"})
    ran = await site.run(
        environment_id,
        *("sh", "-c", "cat; echo $ONE $TWO; pwd"),
        stdin="typed\n",
        env={"TWO": "zwei"},
        working_dir="/tmp",
    )
    assert ran["stdout"] == "typed\n1 zwei\n/tmp\n"


async def test_a_command_that_cannot_be_recorded_does_not_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise Unavailable("the database cannot write now; nothing was changed")

    environment_id = await site.running()
    monkeypatch.setattr(Commands, "write_down", fails)
    command = {"command": ["sleep", "600"]}
    refused = await site.admin.call("POST", EXEC.format(environment_id), command)
    assert refused.status == 503, refused
    assert "the database cannot write now" in str(refused.body)
    assert _marked(environment_id) == []


async def test_a_timeout_kills_everything_and_says_so(site: Site) -> None:
    environment_id = await site.running()
    begun_s = time.monotonic()
    script = "echo begun; setsid sleep 600 & sleep 600"
    ran = await site.run(environment_id, "sh", "-c", script, timeout=1)
    assert time.monotonic() - begun_s < 30
    assert ran["timed_out"] is True
    assert ran["stdout"] == "begun\n"
    assert (ran["exit_code"], ran["signal"]) == (137, "SIGKILL")
    assert _marked(environment_id) == []


async def test_a_child_left_behind_holds_up_no_answer(site: Site) -> None:
    environment_id = await site.running()
    begun_s = time.monotonic()
    ran = await site.run(environment_id, "sh", "-c", "sleep 60 & echo done")
    assert ran["stdout"] == "done\n"
    assert time.monotonic() - begun_s < 30
    assert _marked(environment_id) == []


async def test_output_is_bounded_and_the_answer_says_so(sites: Sites) -> None:
    async with sites.open(max_output_bytes=1024) as site:
        environment_id = await site.running()
        ran = await site.run(environment_id, "sh", "-c", "yes é | head -c 100000; echo e >&2")
        assert ran["truncated"] is True
        assert len(ran["stdout"].encode()) in (1023, 1024)
        assert "\ufffd" not in ran["stdout"]
        assert ran["stderr"] == "e\n"


async def test_bytes_that_are_no_text_are_replaced(site: Site) -> None:
    environment_id = await site.running()
    ran = await site.run(environment_id, "printf", r"a\377b")
    assert ran["stdout"] == "a\ufffdb"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "command: is missing"),
        ({"command": []}, 400, "command: is missing"),
        ({"command": [""]}, 400, "command: is missing"),
        ({"command": ["true"], "timeout": 0}, 400, "timeout: is 0"),
        ({"command": ["true"], "timeout": 3601}, 400, "3600"),
        ({"command": ["true"], "working_dir": "tmp"}, 400, "absolute"),
        ({"command": ["true"], "shell": True}, 400, "shell"),
        ({"command": "true"}, 400, "command"),
        ({"command": ["no-such-program"]}, 409, "cannot run 'no-such-program'"),
        ({"command": ["true"], "working_dir": "/no/such"}, 409, "/no/such"),
    ],
)
async def test_a_wrong_exec_is_told_what_is_wrong(
    site: Site, body: Any, status: int, words: str
) -> None:
    environment_id = await site.running()
    answer = await site.admin.call("POST", EXEC.format(environment_id), body)
    assert (answer.status, answer.body["code"]) == (status, status)
    assert words in answer.body["message"]


async def test_exec_on_what_does_not_run_is_a_conflict_that_names_the_state(site: Site) -> None:
    site.driver.gates["create"] = asyncio.Event()
    environment_id = await site.create()
    body = {"command": ["true"]}
    pending = await site.admin.call("POST", EXEC.format(environment_id), body)
    assert pending.status == 409
    assert "is pending and does not run" in pending.body["message"]

    site.driver.gates["create"].set()
    await site.becomes(environment_id, "running")
    await site.admin.call("POST", f"/api/v1/environments/{environment_id}/pause", {})
    paused = await site.admin.call("POST", EXEC.format(environment_id), body)
    assert (paused.status, "is paused" in paused.body["message"]) == (409, True)
    await site.admin.call("POST", f"/api/v1/environments/{environment_id}/resume", {})
    assert (await site.run(environment_id, "true"))["exit_code"] == 0

    site.driver.host.machines[environment_id].end(site_exit(0))
    await site.becomes(environment_id, "terminated")
    over = await site.admin.call("POST", EXEC.format(environment_id), body)
    assert over.status == 409
    assert "is terminated" in over.body["message"]
    unknown = await site.admin.call("POST", EXEC.format("env-nothing"), body)
    assert unknown.status == 404


def site_exit(code: int) -> Any:
    from steward_server.environments.driver import Exit

    return Exit(code)


async def test_a_caller_who_leaves_ends_the_command(site: Site) -> None:
    environment_id = await site.running()
    path = EXEC.format(environment_id)
    call = asyncio.create_task(site.admin.call("POST", path, {"command": ["sleep", "600"]}))
    await until(lambda: _marked(environment_id), "it runs")
    call.cancel()
    await until(lambda: not _marked(environment_id), "it ends")


async def test_a_caller_has_so_many_commands_under_way_in_all_environments(sites: Sites) -> None:
    async with sites.open(max_commands_per_caller=2) as site:
        owner = await site.person("owner")
        program = await site.key(owner)
        names = [await site.running(owner) for _ in range(2)]
        waiting = [
            asyncio.create_task(site.run(name, "sleep", "600", api=api))
            for name, api in zip(names, (owner, program), strict=True)
        ]
        await until(lambda: all(map(_marked, names)), "they run")
        refused = await owner.call("POST", EXEC.format(names[0]), {"command": ["true"]})
        assert (refused.status, "2 commands under way" in refused.body["message"]) == (429, True)
        assert (await site.run(names[0], "true"))["exit_code"] == 0

        waiting[0].cancel()

        async def is_let() -> bool:
            answer = await owner.call("POST", EXEC.format(names[1]), {"command": ["true"]})
            return bool(answer.status == 200)

        await until(is_let, "one has ended")
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_who_ran_what_is_written_down_without_arguments(site: Site) -> None:
    environment_id = await site.running()
    await site.run(environment_id, "sh", "-c", "echo canary-argument")
    entry = site.audit(environment_id)[-1]
    assert entry["action"] == "environment.command_executed"
    assert '"program":"sh"' in entry["after"]
    assert entry["address"] == "127.0.0.1"
    assert "canary" not in str(tuple(entry))


async def test_an_exec_is_not_cut_short_by_the_deadline_of_other_calls(sites: Sites) -> None:
    hurried = partial(GatewayConfig, unary_timeout_s=0.3)
    sites.monkeypatch.setattr("steward_server.doors.GatewayConfig", hurried)
    async with sites.open() as site:
        environment_id = await site.running()
        ran = await site.run(environment_id, "sh", "-c", "sleep 0.6; echo done")
        assert (ran["stdout"], ran["exit_code"]) == ("done\n", 0)


# Streams.


async def sent(*requests: pb.ExecStreamRequest, held: asyncio.Event | None = None) -> Any:
    async def iterate() -> AsyncIterator[pb.ExecStreamRequest]:
        for request in requests:
            yield request
        if held is not None:
            await held.wait()

    return iterate()


def start(environment_id: str, *command: str, **fields: Any) -> pb.ExecStreamRequest:
    begun = pb.ExecStart(environment_id=environment_id, command=command, **fields)
    return pb.ExecStreamRequest(start=begun)


async def streamed(site: Site, requests: Any) -> tuple[bytes, bytes, pb.ExecExit]:
    out, err, ended = b"", b"", pb.ExecExit()
    async for frame in site.stub.ExecStream(requests, metadata=site.metadata):
        out += frame.stdout
        err += frame.stderr
        if frame.HasField("exit"):
            ended = frame.exit
    return out, err, ended


async def test_a_stream_carries_input_output_and_the_end(site: Site) -> None:
    environment_id = await site.running()
    requests = await sent(
        start(environment_id, "sh", "-c", "cat; echo e >&2; exit 4"),
        pb.ExecStreamRequest(stdin=b"one\n"),
        pb.ExecStreamRequest(stdin=b"\xff\n"),
        pb.ExecStreamRequest(eof=pb.Eof()),
    )
    out, err, ended = await streamed(site, requests)
    assert (out, err, ended.exit_code) == (b"one\n\xff\n", b"e\n", 4)


async def test_bulk_output_comes_whole_and_in_order(site: Site) -> None:
    environment_id = await site.running()
    requests = await sent(start(environment_id, "sh", "-c", "seq 1 300000"))
    out, _, ended = await streamed(site, requests)
    assert out == "".join(f"{n}\n" for n in range(1, 300_001)).encode()
    assert ended.exit_code == 0
    logs = await site.admin.call("GET", f"/api/v1/environments/{environment_id}/logs?tail=1")
    assert logs.body["logs"][0]["stream"] == "system"


async def test_a_signal_reaches_a_streamed_command(site: Site) -> None:
    environment_id = await site.running()
    held = asyncio.Event()
    requests = await sent(
        start(environment_id, "sleep", "600"),
        pb.ExecStreamRequest(signal=pb.Signal(name="INT")),
        held=held,
    )
    _, _, ended = await streamed(site, requests)
    held.set()
    assert (ended.exit_code, ended.signal) == (130, "SIGINT")


async def test_a_streamed_command_has_a_terminal_if_it_is_asked_for(site: Site) -> None:
    environment_id = await site.running()
    held = asyncio.Event()
    requests = await sent(
        start(
            environment_id,
            *("sh", "-c", "stty size; sleep 0.3; stty size"),
            terminal=pb.TerminalSize(columns=100, rows=30),
        ),
        pb.ExecStreamRequest(resize=pb.TerminalSize(columns=120, rows=40)),
        held=held,
    )
    out, _, ended = await streamed(site, requests)
    held.set()
    assert out.split() == [b"40", b"120"] * 2 or out.split() == [b"30", b"100", b"40", b"120"]
    assert ended.exit_code == 0


async def test_a_streamed_command_times_out_and_what_it_wrote_before_is_passed_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id, close = await site.running(), Child.aclose

    async def with_last_words(child: Child) -> None:
        if child._items.empty():
            child._items.put_nowait((Stream.STDOUT, b"last words"))
        await close(child)

    monkeypatch.setattr(Child, "aclose", with_last_words)
    held = asyncio.Event()
    requests = await sent(start(environment_id, "sleep", "600", timeout_s=1), held=held)
    out, _, ended = await streamed(site, requests)
    held.set()
    assert (out, ended.timed_out, ended.exit_code) == (b"last words", True, 137)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (pb.ExecStreamRequest(stdin=b"x"), "start"),
        (pb.ExecStreamRequest(start=pb.ExecStart(environment_id="e")), "command"),
    ],
)
async def test_a_stream_that_begins_wrong_is_refused(
    site: Site, wrong: pb.ExecStreamRequest, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await streamed(site, await sent(wrong))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in refusal_of(refused.value).fields


async def test_a_wrong_message_ends_the_command(site: Site) -> None:
    environment_id = await site.running()
    begun = start(environment_id, "sleep", "600")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await streamed(site, await sent(begun, begun))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    await until(lambda: not _marked(environment_id), "it ends")


# Processes.


async def test_processes_are_listed_and_take_signals(site: Site) -> None:
    environment_id = await site.running(command=["sh", "-c", "sleep 600"])
    path = f"/api/v1/environments/{environment_id}/processes"
    listed = await site.admin.call("GET", path)
    assert listed.status == 200
    pid = listed.body["processes"][0]["pid"]
    unknown = await site.admin.call("POST", f"{path}/1/signal", {"signal": "TERM"})
    assert (unknown.status, "no process 1" in unknown.body["message"]) == (404, True)
    wrong = await site.admin.call("POST", f"{path}/{pid}/signal", {"signal": "LOUD"})
    assert (wrong.status, "LOUD" in wrong.body["message"]) == (400, True)
    for process in listed.body["processes"]:
        await site.admin.call("POST", f"{path}/{process['pid']}/signal", {"signal": "SIGKILL"})
    shown = await site.becomes(environment_id, "failed")
    assert shown["exit_code"] == 137
    assert "SIGKILL" in shown["reason"]


async def test_a_signal_is_written_down_though_its_caller_has_left(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment_id = await site.running(command=["sh", "-c", "sleep 600"])
    path = f"/api/v1/environments/{environment_id}/processes"
    pid = (await site.admin.call("GET", path)).body["processes"][0]["pid"]
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(*_: Any) -> None:
        begun.set()
        await gate.wait()

    monkeypatch.setattr(site.driver, "signal", slow)
    asking = asyncio.create_task(site.admin.call("POST", f"{path}/{pid}/signal", {}))
    async with asyncio.timeout(10):
        await begun.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await asyncio.sleep(0.2)
    gate.set()

    def is_written() -> bool:
        actions = {each["action"] for each in site.audit(environment_id)}
        return "environment.process_signalled" in actions

    await until(is_written, "it is written down")
