"""The step that runs Python, on a server whose environments are child processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import orjson
import pytest
import pytest_asyncio

from steward.environments.v1 import environments_pb2 as pb
from steward_server.executions.steps import python
from tests.child_driver import ChildDriver
from tests.environment_site import environment_site
from tests.integration.executions.acting import Acting, administrator, do, failure
from tests.jobs import TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = python.work(python.Machines("python:3.11", longest_s=60))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Acting, ChildDriver]]:
    folder = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as monkeypatch:
        async with environment_site(folder, monkeypatch) as site:
            yield Acting(site.live, site.folder, administrator(site.folder)), site.driver


@pytest.fixture
def acting(served: tuple[Acting, ChildDriver]) -> Acting:
    return served[0]


@pytest.fixture
def driver(served: tuple[Acting, ChildDriver]) -> ChildDriver:
    return served[1]


@pytest.fixture
def session(acting: Acting) -> TestSession:
    return acting.session()


async def run(session: TestSession, script: str, **inputs: Any) -> Any:
    return await do(session, WORK, "utility.python", script=dedent(script), inputs=inputs)


def living(acting: Acting) -> list[Any]:
    return acting.rows(
        "SELECT environment_id FROM environment WHERE state IN ('pending', 'running')"
    )


async def test_a_script_is_given_values_and_gives_values(
    acting: Acting, session: TestSession
) -> None:
    session.variables["seen"] = [1, 2]
    outputs = await run(
        session,
        """
        result = {"total": sum(inputs["numbers"]) + sum(get_variable("seen")), "of": inputs}
        set_variable("last", get_variable("seen")[-1])
        assert get_variable("last") == 2
        assert get_variable("none") is None and get_variable("none", 5) == 5
        print("grün")
        """,
        numbers=[0.5, 7],
        name='it\'s "quoted"\n{ x }',
    )
    assert outputs["total"] == 10.5
    assert outputs["of"] == {"numbers": [0.5, 7], "name": 'it\'s "quoted"\n{ x }'}
    assert outputs["_output"] == "grün\n"
    assert session.variables == {"seen": [1, 2], "last": 2}
    assert living(acting) == []


async def test_printed_lines_become_outputs_and_the_result_is_stronger(
    session: TestSession,
) -> None:
    outputs = await run(
        session,
        """
        print("colour = green = red")
        print("size=1")
        print("size=2\\nno value")
        print("=nothing")
        print("_output=forged")
        print("kept=printed")
        result = {"kept": "result", "_output": "forged"}
        """,
    )
    printed = outputs.pop("_output")
    assert outputs == {"colour": "green = red", "size": "2", "kept": "result"}
    assert printed.startswith("colour = green = red\nsize=1\n")


async def test_a_result_that_is_no_map_is_the_scripts_own(session: TestSession) -> None:
    assert await run(session, "result = [1]") == {"_output": ""}


async def test_what_others_than_the_script_itself_write_is_no_output(session: TestSession) -> None:
    outputs = await run(
        session,
        """
        import os, subprocess, sys
        subprocess.run(["echo", "a=1"], check=True)
        os.write(1, b'{"outputs": {"b": 1}}')
        print("c=1", file=sys.stderr)
        sys.stdout.buffer.write(b"d=1\\n")
        """,
    )
    assert outputs == {"d": "1", "_output": "d=1\n"}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("x = 1\n\nraise ValueError('no good')", "line 3: ValueError: no good"),
        ("import os\nos._exit(0)", "the script ended without a report of what came of it"),
        ("import os\nos._exit(3)", "the script ended with 3"),
        ("import os\nos.kill(os.getpid(), 9)", "the script was ended by SIGKILL"),
    ],
)
async def test_what_goes_wrong_is_told(
    acting: Acting, session: TestSession, script: str, told: str
) -> None:
    failed = await failure(run(session, script))
    assert str(failed) == told
    assert living(acting) == []


async def test_a_failure_tells_what_was_printed_and_sets_no_variable(session: TestSession) -> None:
    failed = await failure(
        run(session, "print('as far as this')\nset_variable('x', 1)\nprint(1 / 0)")
    )
    assert failed.context["output"] == "as far as this\n"
    assert session.variables == {}


async def test_nothing_keeps_a_script_that_has_ended(session: TestSession) -> None:
    script = """
    import sys, threading, time
    assert sys.stdin.read() == ""
    threading.Thread(target=time.sleep, args=(50,)).start()
    """
    assert await run(session, script) == {"_output": ""}


@dataclass
class Forger:
    """A server on which scripts report what they like."""

    stdout: str
    stderr: str = ""
    deleted: int = 0

    async def call(self, method: str, request: Any) -> Any:
        name = method.rpartition("/")[2]
        if name == "Exec":
            return pb.ExecResponse(stdout=self.stdout, stderr=self.stderr)
        if name == "DeleteEnvironment":
            self.deleted += 1
            return pb.DeleteEnvironmentResponse()
        running: dict[str, Any] = {"id": "env-1", "status": pb.ENVIRONMENT_STATUS_RUNNING}
        if name == "CreateEnvironment":
            return pb.CreateEnvironmentResponse(environment=pb.Environment(**running))
        return pb.GetEnvironmentResponse(environment=pb.EnvironmentDetails(**running))


NO_REPORT = "the script ended without a report of what came of it"
NAMES = "the names of outputs and variables have 1 to 255 characters"


@pytest.mark.parametrize(
    ("forgery", "told"),
    [
        ("", NO_REPORT),
        ("no json", NO_REPORT),
        ("[]", NO_REPORT),
        ("{}", NO_REPORT),
        ('{"printed": 5, "outputs": {}, "variables": {}}', NO_REPORT),
        ('{"printed": "", "outputs": [], "variables": {}}', NO_REPORT),
        ('{"printed": "", "outputs": {}, "variables": null}', NO_REPORT),
        ("[" * 5_000, NO_REPORT),
        ('{"error": [1]}', "the script: "),
        ('{"error": {"message": [1], "line": "2"}}', "the script: [1]"),
        ('{"printed": "", "outputs": {"": 1}, "variables": {}}', NAMES),
        ('{"printed": "", "outputs": {}, "variables": {"": 1}}', NAMES),
        (
            '{"printed": "", "was_cut": true, "outputs": {}, "variables": {}}',
            "the script printed more than 100000 bytes",
        ),
        (
            orjson.dumps(
                {"printed": "", "outputs": {}, "variables": dict.fromkeys(map(str, range(1001)))}
            ).decode(),
            "the script gave 1001 outputs; at most 1000 are taken",
        ),
        (
            f'{{"printed": "", "outputs": {{"a": {"[" * 31}{"]" * 31}}}, "variables": {{}}}}',
            "what the script gave is nested deeper than 30 levels",
        ),
    ],
)
async def test_what_a_script_reports_is_only_believed_where_it_fits(
    tmp_path: Path, forgery: str, told: str
) -> None:
    forger = Forger(forgery, "complaints")
    session = TestSession(tmp_path, steward=forger)
    failed = await failure(run(session, "pass"))
    assert str(failed) == told
    assert (session.variables, forger.deleted) == ({}, 1)


async def test_what_cannot_be_given_to_a_script_is_told(session: TestSession) -> None:
    session.variables["x"] = object()
    failed = await failure(run(session, "pass"))
    assert str(failed).startswith("the script cannot be given its inputs and variables")


async def test_a_script_that_is_cancelled_ends_with_its_environment(
    acting: Acting, session: TestSession, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    script = f"open({str(begun)!r}, 'w').close()\nimport time\ntime.sleep(50)"
    task = asyncio.ensure_future(run(session, script))
    while not begun.exists():
        await asyncio.sleep(0.005)
    assert len(living(acting)) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert living(acting) == []


async def test_a_script_that_takes_too_long_is_killed(acting: Acting, session: TestSession) -> None:
    work = python.work(python.Machines("python:3.11", longest_s=1))
    failed = await failure(
        do(session, work, "utility.python", script="import time\ntime.sleep(50)")
    )
    assert str(failed) == "the script was killed, because it had not ended after 1 s"
    assert living(acting) == []


async def test_its_environment_has_no_network_and_ends_by_itself(
    acting: Acting, session: TestSession, driver: ChildDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    create = driver.create

    async def noted(environment_id: str, spec: Any) -> None:
        made.append((environment_id, spec))
        await create(environment_id, spec)

    monkeypatch.setattr(driver, "create", noted)
    await run(session, "pass")
    [(environment_id, spec)] = made
    assert not spec.network.allow_internet
    assert not spec.network.allowed_egress
    sql = "SELECT idle_timeout_s, expires_at_us - created_at_us FROM environment"
    [row] = acting.rows(f"{sql} WHERE environment_id = ?", environment_id)
    assert row == (60, 60_000_000)


async def test_a_server_that_does_not_allow_it_runs_nothing(
    acting: Acting, session: TestSession
) -> None:
    failed = await failure(do(session, python.work(None), "utility.python", script="pass"))
    assert str(failed) == (
        "this server runs no Python of playbooks; STEWARD_EXECUTIONS_PYTHON=true lets it"
    )
