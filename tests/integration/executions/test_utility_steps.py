"""Steps that wait, log and set variables."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from steward_server.executions.steps import utility
from tests.integration.executions.acting import do
from tests.jobs import TestJob, TestSession

WORK = utility.work()


@pytest.fixture
def session(tmp_path: Path) -> TestSession:
    return TestSession(tmp_path)


async def test_a_wait_is_the_runs_so_that_it_may_pause_meanwhile(
    session: TestSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = []

    async def sleep(self: TestJob, seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(TestJob, "sleep", sleep)
    outputs = await do(session, WORK, "utility.sleep", seconds=86_400)
    assert (outputs, slept) == ({"slept": 86_400}, [86_400])


async def test_a_wait_can_be_cancelled(session: TestSession) -> None:
    task = asyncio.ensure_future(do(session, WORK, "utility.sleep", seconds=60))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_line_goes_into_the_runs_events(session: TestSession) -> None:
    outputs = await do(session, WORK, "utility.log", message="all is well", level="warning")
    assert session.logged == [("warning", "all is well")]
    assert outputs == {"logged": "all is well", "level": "warning"}


async def test_a_variable_keeps_the_type_of_its_value(session: TestSession) -> None:
    value = {"rows": [1, 2.5, None, True]}
    outputs = await do(session, WORK, "utility.set_variable", name="found", value=value)
    assert session.variables == {"found": value}
    assert outputs == {"variable": "found", "value": value}
