"""Steps with environments, on a server whose environments are child processes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward_server.executions.steps import environment
from steward_server.executions.work import StepFailed
from tests.child_driver import ChildDriver
from tests.environment_site import environment_site
from tests.integration.executions.acting import (
    Acting,
    administrator,
    always,
    do,
    failure,
    person,
)
from tests.jobs import TestJob, TestSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = environment.work()
IMAGE = "python:3.11"


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


async def made(session: TestSession, **parameters: Any) -> str:
    outputs = await do(session, WORK, "environment.create", image=IMAGE, **parameters)
    return str(outputs["environment_id"])


def creation(session: TestSession, request_id: str = "exec_1/make", **values: Any) -> TestJob:
    """One attempt at a step that makes an environment, which could not be bound as it is."""
    full = {
        "image": IMAGE,
        "name": None,
        "lifetime": 600,
        "idle_timeout": None,
        "env": {},
        "labels": {},
        "resources": {},
        "wait": 10,
        **values,
    }
    return TestJob(session, "environment.create", full, "make", request_id)


async def test_an_environment_is_made_used_and_deleted(session: TestSession) -> None:
    environment_id = await made(session, name="lab", env={"COLOUR": "green"}, wait=10)
    ran = await do(
        session,
        WORK,
        "environment.exec",
        environment_id=environment_id,
        command=["sh", "-c", 'echo "$COLOUR $SIZE"; cat; pwd >&2'],
        env={"SIZE": "small"},
        working_dir="/tmp",
        stdin="given",
    )
    assert ran["stdout"] == "green small\ngiven"
    assert ran["stderr"].endswith("/tmp\n")
    assert (ran["exit_code"], ran["timed_out"], ran["truncated"]) == (0, False, False)
    await do(session, WORK, "environment.delete", environment_id=environment_id)
    assert await is_gone(session, environment_id)


async def is_gone(session: TestSession, environment_id: str) -> bool:
    failed = await failure(
        do(session, WORK, "environment.exec", environment_id=environment_id, command=["true"])
    )
    return bool(failed.context["reason"] == "ENVIRONMENT_NOT_FOUND")


async def test_it_is_called_after_its_run_and_belongs_to_who_started_that(
    acting: Acting,
) -> None:
    kim = person(acting.data_dir, "kim")
    session = acting.session(steward=acting.steward(always(kim)), execution_id="Exec_7")
    outputs = await do(session, WORK, "environment.create", image=IMAGE)
    assert outputs["name"] == "exec-7-step"
    sql = "SELECT owner_id FROM environment WHERE environment_id = ?"
    assert acting.rows(sql, outputs["environment_id"]) == [("user_kim",)]


async def test_another_attempt_finds_what_the_last_one_made(
    session: TestSession, driver: ChildDriver
) -> None:
    first = await WORK["environment.create"](creation(session, "exec_1/again"))
    again = await WORK["environment.create"](creation(session, "exec_1/again"))
    assert first["environment_id"] == again["environment_id"]
    assert driver.calls.count(("create", first["environment_id"])) == 1


async def test_what_cannot_be_made_is_deleted_and_another_attempt_makes_another(
    session: TestSession, driver: ChildDriver
) -> None:
    driver.faults["start"].append(RuntimeError("the disk is on fire"))
    failed = await failure(WORK["environment.create"](creation(session, "exec_1/fire")))
    assert str(failed).startswith("the environment does not run: ")
    assert await is_gone(session, failed.context["environment_id"])
    again = await WORK["environment.create"](creation(session, "exec_1/fire"))
    assert again["status"] == "running"


async def test_what_does_not_run_in_time_is_deleted(
    session: TestSession, driver: ChildDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(driver.gates, "start", asyncio.Event())
    failed = await failure(WORK["environment.create"](creation(session, "exec_1/slow", wait=0)))
    assert str(failed) == "the environment did not run after 0 s, and is deleted"
    assert await is_gone(session, failed.context["environment_id"])


async def test_a_wait_that_is_cancelled_leaves_nothing(
    acting: Acting, session: TestSession, driver: ChildDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(driver.gates, "start", asyncio.Event())
    job = creation(session, "exec_1/cancelled", name="cancelled")
    task = asyncio.ensure_future(WORK["environment.create"](job))
    while not (rows := named(acting, "cancelled")):
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await is_gone(session, rows[0])


async def test_a_creation_that_is_cancelled_in_the_middle_leaves_nothing(
    acting: Acting, session: TestSession
) -> None:
    """Its id is known only once the call has been answered."""
    task = asyncio.ensure_future(
        WORK["environment.create"](creation(session, "exec_1/early", name="early"))
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    [environment_id] = named(acting, "early")
    assert await is_gone(session, environment_id)


def named(acting: Acting, name: str) -> list[str]:
    rows = acting.rows("SELECT environment_id FROM environment WHERE name = ?", name)
    return [row[0] for row in rows]


async def test_what_is_refused_is_told_with_the_reason(session: TestSession) -> None:
    failed = await failure(do(session, WORK, "environment.create", image="nothing"))
    assert str(failed) == "there is no image 'nothing'; there is python:3.11"
    assert failed.context["reason"] == "UNKNOWN_IMAGE"
    failed = await failure(
        do(session, WORK, "environment.create", image=IMAGE, resources={"cpu": "many"})
    )
    assert "resources.cpu" in str(failed)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(served: tuple[Acting, ChildDriver]) -> str:
    """An environment for commands."""
    return await made(served[0].session(), name="shared-lab")


async def run(session: TestSession, lab: str, script: str, **parameters: Any) -> Any:
    command = ["sh", "-c", script]
    return await do(
        session, WORK, "environment.exec", environment_id=lab, command=command, **parameters
    )


async def test_a_command_that_ends_badly_fails_the_step_with_its_last_words(
    session: TestSession, lab: str
) -> None:
    script = "echo begun; yes line | head -c 3000 >&2; echo no such file >&2; exit 3"
    failed = await failure(run(session, lab, script))
    assert str(failed).startswith("'sh' ended with 3: ")
    assert str(failed).endswith("no such file")
    assert len(str(failed)) < 2_100
    assert failed.context["exit_code"] == 3
    assert failed.context["stdout"] == "begun\n"


async def test_a_command_may_end_badly_where_that_is_well(session: TestSession, lab: str) -> None:
    ran = await run(session, lab, "echo no >&2; exit 3", must_succeed=False)
    assert (ran["exit_code"], ran["stderr"]) == (3, "no\n")


async def test_a_command_that_takes_too_long_is_killed_and_fails_the_step(
    session: TestSession, lab: str
) -> None:
    failed = await failure(run(session, lab, "sleep 60", timeout=1))
    assert str(failed) == "'sh' was killed, because it had not ended after 1 s"
    assert failed.context["timed_out"] is True


async def test_a_signal_that_ended_a_command_is_told(session: TestSession, lab: str) -> None:
    failed = await failure(run(session, lab, "kill -KILL $$"))
    assert str(failed) == "'sh' was ended by SIGKILL"


async def test_a_step_that_is_cancelled_kills_its_command(
    session: TestSession, lab: str, tmp_path: Path
) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    script = f"touch {begun}; sleep 0.3; touch {ended}"
    task = asyncio.ensure_future(run(session, lab, script))
    while not begun.exists():
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.35)
    assert not ended.exists()


async def test_what_is_gone_is_as_good_as_deleted(acting: Acting, session: TestSession) -> None:
    outputs = await do(session, WORK, "environment.delete", environment_id="env-none", force=True)
    assert outputs == {"environment_id": "env-none"}


async def test_what_one_may_only_look_at_is_not_deleted(
    acting: Acting, session: TestSession, lab: str
) -> None:
    lee = person(acting.data_dir, "lee")
    path = f"/api/v1/environments/{lab}/shares/user_lee"
    shared = await acting.live.admin.call("PUT", path, {"permission": "read"})
    assert shared.status == 200, shared
    theirs = acting.session(steward=acting.steward(always(lee)))
    failed = await failure(do(theirs, WORK, "environment.delete", environment_id=lab))
    assert failed.context["code"] == "PERMISSION_DENIED"
    assert (await run(session, lab, "true"))["exit_code"] == 0


@dataclass
class Wayward:
    """A server that answers some methods otherwise, the first times they are called."""

    steward: Any
    answers: dict[str, list[Callable[[], Awaitable[Any]]]]

    async def call(self, method: str, request: Any) -> Any:
        if others := self.answers.get(method.rpartition("/")[2]):
            return await others.pop(0)()
        return await self.steward.call(method, request)


async def cut_off() -> Any:
    raise StepFailed("the call was cut off by a stop of the server", reason="OUTCOME_UNKNOWN")


async def not_now() -> Any:
    raise StepFailed("not now")


async def never() -> Any:
    await asyncio.Event().wait()


async def test_what_a_stop_of_the_server_cut_off_is_made_again(session: TestSession) -> None:
    session.steward = Wayward(session.steward, {"CreateEnvironment": [cut_off]})
    outputs = await WORK["environment.create"](creation(session, "exec_1/cut"))
    assert outputs["status"] == "running"


async def test_a_creation_without_an_answer_does_not_keep_a_step_that_is_cancelled(
    session: TestSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "_PATIENCE_S", 0.05)
    session.steward = Wayward(session.steward, {"CreateEnvironment": [never]})
    task = asyncio.ensure_future(WORK["environment.create"](creation(session, "exec_1/never")))
    await asyncio.sleep(0.01)
    task.cancel()
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("answer", [not_now, never])
async def test_what_cannot_be_deleted_does_not_hide_why_the_step_failed(
    session: TestSession,
    driver: ChildDriver,
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[], Awaitable[Any]],
) -> None:
    monkeypatch.setattr(environment, "_PATIENCE_S", 0.05)
    driver.faults["start"].append(RuntimeError("the disk is on fire"))
    session.steward = Wayward(session.steward, {"DeleteEnvironment": [answer]})
    job = creation(session, f"exec_1/{answer.__name__}")
    failed = await failure(WORK["environment.create"](job))
    assert str(failed).startswith("the environment does not run: ")
