"""What steps give reaches those after them; what they cannot give ends the run truthfully."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from steward_server.executions.run import Kind
from steward_server.executions.session import RunJob
from steward_server.executions.work import Job, StepFailed
from tests.integration.executions.engine.conftest import (
    MakeWorld,
    World,
    kinds,
    outputs,
    playbook,
    sleep,
    states,
    step,
    texts,
)


async def test_outputs_and_variables_reach_later_steps_with_their_types(world: World) -> None:
    given = {"list": [1, 2.5, None], "map": {"on": True}, "text": "5"}
    seen = await world.run(
        playbook(
            step("first", "give", parameters=given),
            step("set", type="utility.set_variable", parameters={"name": "v", "value": [3]}),
            step(
                "last",
                "give",
                parameters={
                    "all": "{{ step.first.list }}",
                    "on": "{{ step.first.map.on }}",
                    "text": "{{ step.first.text }}",
                    "at": "{{ step.first.list[1] }}",
                    "set": "{{ variable.v }}",
                    "asked": "{{ parameter.count }}",
                },
            ),
            parameters=[{"name": "count", "type": "integer"}],
        ),
        {"count": 7},
    )
    assert seen.run.state == "completed"
    assert outputs(seen, "last") == {
        "all": [1, 2.5, None],
        "on": True,
        "text": "5",
        "at": 2.5,
        "set": [3],
        "asked": 7,
    }


async def test_a_variable_that_any_step_sets_is_there_after_a_restart(world: World) -> None:
    async def sets(job: Job) -> Any:
        job.set_variable("found", [1])
        return {}

    world.does["set_variable('found')"] = sets
    execution_id = await world.begin(
        playbook(
            step("one", "set_variable('found')"),
            sleep("wait", 0.1),
            step("two", "give", parameters={"found": "{{ variable.found }}"}),
        )
    )
    await world.until_in(execution_id, "wait")
    await world.restart()
    seen = await world.ended(execution_id)
    assert outputs(seen, "two") == {"found": [1]}


async def test_a_failed_attempt_sets_no_variables(world: World) -> None:
    async def sets(job: Job) -> Any:
        job.set_variable("half", 1)
        raise StepFailed("no")

    world.does["set_variable('half')"] = sets
    seen = await world.run(
        playbook(
            step("one", "set_variable('half')", on_failure="continue"),
            step("two", "give", when="variable.half is not defined"),
        )
    )
    assert states(seen) == {"one": "failed", "two": "completed"}


async def test_a_step_whose_condition_does_not_hold_is_skipped(world: World) -> None:
    seen = await world.run(
        playbook(
            step("one", "give", parameters={"count": 0}),
            step("two", "give", when="step.one.count > 0"),
            step("three", "give", when="step.two.count is not defined"),
        )
    )
    assert seen.run.state == "completed"
    assert states(seen) == {"one": "completed", "two": "skipped", "three": "completed"}
    assert seen.execution.step_index == 3


async def test_a_condition_that_cannot_be_decided_fails_its_step(world: World) -> None:
    seen = await world.run(
        playbook(
            step("one", "give", parameters={"count": "many"}),
            step("two", "give", when="step.one.count"),
        )
    )
    assert seen.run.state == "failed"
    assert seen.run.why.startswith("Step 'two' failed: its condition cannot be decided")
    assert world.made == ["one"]


async def test_a_failure_aborts_and_says_step_and_line(world: World) -> None:
    text = (
        "name: T\nversion: '1'\nsteps:\n"
        "  - {id: one, name: One, type: utility.python, parameters: {script: give}}\n"
        "  - {id: two, name: Two, type: utility.python, parameters: {script: fail}}\n"
        "  - {id: three, name: Three, type: utility.python, parameters: {script: give}}\n"
        "finally:\n"
        "  - {id: last, name: Last, type: utility.python, parameters: {script: give}}\n"
    )
    seen = await world.run(text)
    assert seen.run.state == "failed"
    assert seen.run.why == "Step 'two' failed: the pump is dry (step 'two' in line 5)"
    assert world.made == ["one", "two", "last"]
    failure = next(each.change for each in seen.events if each.change.kind is Kind.STEP_FAILED)
    assert failure.data["context"] == {"level": 0}


async def test_a_failure_that_is_continued_after_lets_the_run_complete(world: World) -> None:
    seen = await world.run(
        playbook(step("one", "fail", on_failure="continue"), step("two", "give"))
    )
    assert seen.run.state == "completed"
    assert states(seen) == {"one": "failed", "two": "completed"}


async def test_a_rollback_undoes_what_was_completed_the_last_first(world: World) -> None:
    seen = await world.run(
        playbook(
            step("one", "give", undo=[step("undo-one", "give")]),
            step("two", "fail", on_failure="continue", undo=[step("undo-two", "give")]),
            step("three", "give", undo=[step("undo-three", "give")]),
            step("four", "fail", on_failure="rollback", undo=[step("undo-four", "give")]),
            finally_=[step("last", "give")],
        )
    )
    assert seen.run.state == "failed"
    assert world.made == ["one", "two", "three", "four", "undo-three", "undo-one", "last"]


async def test_attempts_are_counted_and_the_last_failure_is_final(world: World) -> None:
    seen = await world.run(
        playbook(step("one", "fail", retry={"attempts": 3, "delay": 0.01, "backoff": "fixed"}))
    )
    assert world.made == ["one"] * 3
    assert seen.run.made["one"].attempts == 3
    assert [e.change.is_final for e in seen.events if e.change.kind is Kind.STEP_FAILED] == [
        False,
        False,
        True,
    ]


async def test_waits_between_attempts_grow_and_chance_shortens_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = list[float]()

    async def sleeps(job: RunJob, seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(RunJob, "sleep", sleeps)
    monkeypatch.setattr("steward_server.executions.worker.random.random", lambda: 1.0)
    retry = {"attempts": 4, "delay": 2, "backoff": "exponential", "jitter": 0.5, "most": 5}
    await world.run(playbook(step("one", "fail", retry=retry)))
    assert waits == [1, 2, 2.5]
    waits.clear()
    await world.run(playbook(step("one", "fail", retry_count=2, retry_delay=3)))
    assert waits == [3, 3]


async def test_a_run_out_of_time_fails_and_still_makes_its_finally_steps(world: World) -> None:
    async def waits(job: Job) -> Any:
        await job.sleep(30)

    world.does["waits"] = waits
    seen = await world.run(
        playbook(step("one", "waits", retry_count=3), finally_=[step("last", "give")], timeout=0.1)
    )
    assert seen.run.state == "failed"
    assert seen.run.why == "the run took longer than 0.1 s"
    assert world.made == ["one", "last"]


async def test_time_in_the_queue_counts_for_no_timeout(make_world: MakeWorld) -> None:
    world = await make_world(max_running=1)

    async def waits(job: Job) -> Any:
        await job.sleep(0.3)
        return {}

    world.does["waits"] = waits
    text = playbook(step("one", "waits"), timeout=0.55)
    first, second = await world.begin(text), await world.begin(text)
    assert (await world.ended(first)).run.state == "completed"
    assert (await world.ended(second)).run.state == "completed"


async def test_an_attempt_that_takes_too_long_is_one_that_failed(world: World) -> None:
    async def waits(job: Job) -> Any:
        await job.sleep(30)

    world.does["waits"] = waits
    retry = {"attempts": 2, "delay": 0.01}
    seen = await world.run(playbook(step("one", "waits", timeout=0.05, retry=retry)))
    assert world.made == ["one", "one"]
    assert "it took longer than 0.05 s" in seen.run.why


async def test_time_in_a_pause_counts_for_no_timeout(world: World) -> None:
    async def waits(job: Job) -> Any:
        await job.sleep(1)
        return {}

    world.does["waits"] = waits
    execution_id = await world.begin(playbook(step("one", "waits", timeout=3), timeout=3))
    await world.until_in(execution_id, "one")
    await world.pause(execution_id)
    await world.until_paused(execution_id)
    await asyncio.sleep(3.2)
    await world.resume(execution_id)
    assert (await world.ended(execution_id)).run.state == "completed"


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(None, id="nothing"),
        pytest.param([1], id="list"),
        pytest.param({1: 2}, id="keys"),
        pytest.param({"x": b"bytes"}, id="bytes"),
        pytest.param({"x": 2**70}, id="huge"),
        pytest.param({"x": object()}, id="object"),
        pytest.param({"x": "\ud800"}, id="surrogate"),
        pytest.param({"x": "y" * (1 << 20)}, id="large"),
    ],
)
async def test_what_cannot_be_kept_fails_the_step_and_is_not_made_again(
    world: World, given: Any
) -> None:
    async def gives(job: Job) -> Any:
        return given

    world.does["gives"] = gives
    seen = await world.run(
        playbook(step("one", "gives", retry_count=2), finally_=[step("last", "give")])
    )
    assert seen.run.state == "failed"
    assert "it gave" in seen.run.why
    assert world.made == ["one", "last"]


async def test_outputs_are_no_deeper_than_messages_hold(world: World) -> None:
    deep: Any = {}
    for _ in range(29):
        deep = {"in": deep}

    async def gives(job: Job) -> Any:
        return deep if job.step_id == "one" else {"in": deep}

    world.does["gives"] = gives
    seen = await world.run(playbook(step("one", "gives"), step("two", "gives")))
    assert states(seen) == {"one": "completed", "two": "failed"}
    assert "more than 30 deep" in seen.run.why
    assert outputs(seen, "one") == deep


async def test_what_is_no_number_is_null(world: World) -> None:
    async def gives(job: Job) -> Any:
        return {
            "nan": math.nan,
            "infinite": math.inf,
            "pair": (1, 2),
            "at": datetime(2026, 1, 1, tzinfo=UTC),
        }

    world.does["gives"] = gives
    seen = await world.run(playbook(step("one", "gives")))
    assert outputs(seen, "one") == {
        "nan": None,
        "infinite": None,
        "pair": [1, 2],
        "at": "2026-01-01T00:00:00+00:00",
    }


class Odd(BaseException):
    pass


@pytest.mark.parametrize(
    "error",
    [
        ValueError("hunter2"),
        KeyError("hunter2"),
        RecursionError("hunter2"),
        MemoryError("hunter2"),
        asyncio.CancelledError("hunter2"),
        TimeoutError("hunter2"),
        SystemExit("hunter2"),
        GeneratorExit("hunter2"),
        Odd("hunter2"),
        ExceptionGroup("hunter2", [ValueError("hunter2")]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_breaks_in_a_step_ends_the_run_truthfully(
    world: World, error: BaseException
) -> None:
    async def breaks(job: Job) -> Any:
        raise error

    world.does["breaks"] = breaks
    seen = await world.run(playbook(step("one", "breaks"), finally_=[step("last", "give")]))
    assert seen.run.state == "failed"
    assert states(seen) == {"one": "failed", "last": "completed"}
    assert "hunter2" not in "".join(f"{each.change}" for each in seen.events)
    assert "in line" in seen.run.why


async def test_facts_about_a_failure_that_cannot_be_kept_are_left_out(world: World) -> None:
    async def fails(job: Job) -> Any:
        raise StepFailed("no \ud800", page=b"bytes")

    world.does["fails"] = fails
    seen = await world.run(playbook(step("one", "fails"), finally_=[step("last", "give")]))
    assert states(seen) == {"one": "failed", "last": "completed"}
    assert "no ?" in seen.run.why


async def test_a_long_error_keeps_its_line(world: World) -> None:
    async def fails(job: Job) -> Any:
        raise StepFailed("x" * 10_000)

    world.does["fails"] = fails
    seen = await world.run(playbook(step("one", "fails")))
    assert seen.run.why.endswith(")")
    assert "(step 'one' in line 5)" in seen.run.why
    assert len(seen.run.why) < 4_000


async def test_what_steps_log_is_kept_whatever_it_is(world: World) -> None:
    async def logs(job: Job) -> Any:
        for line in ("plain", "\ud800", "nul \0 in it", "", "x" * 10_000):
            await job.log(line)
        return {}

    world.does["logs"] = logs
    seen = await world.run(playbook(step("one", "logs")))
    assert seen.run.state == "completed"
    logged = texts(seen, Kind.LOGGED)
    assert logged[:4] == ["plain", "?", "nul \0 in it", ""]
    assert len(logged[4]) == 4_000


async def test_nothing_is_said_after_the_end(world: World) -> None:
    tasks = list[asyncio.Task[None]]()

    async def leaves(job: Job) -> Any:
        async def speak() -> None:
            await asyncio.sleep(0.1)
            await job.log("still here")

        tasks.append(asyncio.create_task(speak()))
        return {}

    world.does["leaves"] = leaves
    execution_id = (await world.run(playbook(step("one", "leaves")))).execution.execution_id
    await asyncio.gather(*tasks)
    assert kinds(await world.seen(execution_id))[-1] == "ended"


async def test_a_step_of_a_type_that_nobody_makes_fails(world: World) -> None:
    logout = step("one", type="gateway.logout")
    seen = await world.run(
        playbook(logout, finally_=[step("last", "give")]), gateway_url="http://gateway"
    )
    assert seen.run.state == "failed"
    assert states(seen) == {"one": "failed", "last": "completed"}


async def test_a_time_is_told_in_utc(world: World) -> None:
    seen = await world.run(playbook(step("one", "give")))
    started, ended = seen.execution.started_at_us, seen.execution.ended_at_us
    assert started is not None
    assert ended is not None
    assert seen.execution.created_at_us <= started <= ended
    assert datetime.fromtimestamp(ended / 1e6, UTC).year >= 2026
