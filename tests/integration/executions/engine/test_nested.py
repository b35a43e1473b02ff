"""Playbooks that run others: one run in the eyes of people, whatever happens to either."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from steward_server.db import Transaction
from steward_server.errors import FailedPrecondition, Unavailable
from steward_server.executions.room import Seen
from steward_server.executions.run import Kind
from steward_server.executions.work import Job
from tests.integration.executions.engine.conftest import (
    ADA,
    World,
    child,
    kinds,
    outputs,
    playbook,
    sleep,
    states,
    step,
    texts,
)


async def _begun(world: World, execution_id: str) -> Seen:
    """The only child of a run, once its step `in` is in hand."""
    async with asyncio.timeout(30):
        while True:
            found = await world.children(execution_id)
            if found and found[0].run.in_hand == "in":
                return found[0]
            await asyncio.sleep(0.005)


async def _parent(world: World, *steps: Any, **top: Any) -> tuple[str, str]:
    """A run whose child has a step `in` in hand; both ids."""
    world.library.texts["child.yaml"] = playbook(*steps, **top)
    execution_id = await world.begin(
        playbook(child("run", "child.yaml"), step("after", "give"), finally_=[step("last", "give")])
    )
    begun = await _begun(world, execution_id)
    return execution_id, begun.execution.execution_id


async def test_a_child_is_given_values_and_its_outputs_are_told(world: World) -> None:
    world.library.texts["child.yaml"] = playbook(
        step("in", "give", parameters={"x": "{{ parameter.x }}"}),
        parameters=[{"name": "x", "type": "list"}],
    )
    seen = await world.run(playbook(child("run", "child.yaml", x=[1, True])))
    assert seen.run.state == "completed", seen.run.why
    [made] = await world.children(seen.execution.execution_id)
    assert outputs(seen, "run") == {
        "playbook": "child.yaml",
        "execution_id": made.execution.execution_id,
        "status": "completed",
        "steps_executed": 1,
        "steps": [{"step_id": "in", "status": "completed", "output": {"x": [1, True]}}],
        "screenshots": [],
    }
    assert made.execution.parent_step_id == "run"
    assert made.execution.parameters == {"x": [1, True]}


async def test_a_child_that_fails_fails_its_parent(world: World) -> None:
    world.library.texts["child.yaml"] = playbook(
        step("in", "fail"), step("not", "give"), finally_=[step("clear", "give")]
    )
    seen = await world.run(playbook(child("run", "child.yaml"), step("after", "give")))
    assert seen.run.state == "failed"
    assert "playbook 'child.yaml' ended failed: Step 'in' failed: the pump is dry" in seen.run.why
    assert world.made == ["in", "clear"]
    [made] = await world.children(seen.execution.execution_id)
    failure = next(each.change for each in seen.events if each.change.kind is Kind.STEP_FAILED)
    assert failure.data["context"] == {"execution_id": made.execution.execution_id}


async def test_a_pause_and_a_resume_go_through_to_the_child(world: World) -> None:
    parent, made = await _parent(world, sleep("in", 2), step("next", "give"))
    await world.pause(parent)
    await world.until_paused(parent)
    assert (await world.seen(made)).run.state == "paused"
    assert texts(await world.seen(parent), Kind.PAUSED) == ["in step 'run', which runs 'Test'"]
    with pytest.raises(FailedPrecondition, match="the run that runs this one is paused"):
        await world.resume(made)
    await asyncio.sleep(2.1)
    assert world.made == []
    await world.resume(parent)
    assert (await world.ended(parent)).run.state == "completed"
    assert world.made == ["next", "after", "last"]


async def test_a_pause_taken_back_before_it_took_effect_is_taken_back_in_the_child(
    world: World,
) -> None:
    going = asyncio.Event()

    async def waits(job: Job) -> Any:
        await going.wait()
        return {}

    world.does["waits"] = waits
    parent, made = await _parent(world, step("in", "waits"), step("next", "give"))
    await world.pause(parent)
    await world.until(made, lambda run: run.pausing)
    await world.resume(parent)
    await world.until(made, lambda run: not run.pausing)
    going.set()
    assert (await world.ended(parent)).run.state == "completed"


async def test_cancelling_goes_through_to_the_child_which_clears_up(world: World) -> None:
    parent, made = await _parent(world, sleep("in"), finally_=[step("clear", "give")])
    await world.cancel(parent)
    seen = await world.ended(parent)
    assert (seen.run.state, seen.run.why) == ("cancelled", "cancelled by ada")
    inner = await world.seen(made)
    assert (inner.run.state, inner.run.why) == ("cancelled", "cancelled by ada")
    assert world.made == ["clear", "last"]


async def test_cancelling_once_more_cuts_what_the_child_clears_up(world: World) -> None:
    parent, made = await _parent(world, sleep("in"), finally_=[sleep("clear")])
    await world.cancel(parent)
    await world.until_in(made, "clear")
    await world.cancel(parent)
    seen = await world.ended(parent)
    assert seen.run.state == "cancelled"
    assert states(await world.seen(made)) == {"in": "failed", "clear": "failed"}
    assert world.made == []


async def test_a_skip_ends_the_child_and_goes_on(world: World) -> None:
    parent, made = await _parent(world, sleep("in"), step("next", "give"))
    await world.skip(parent)
    seen = await world.ended(parent)
    assert seen.run.state == "completed"
    assert states(seen) == {"run": "skipped", "after": "completed", "last": "completed"}
    inner = await world.seen(made)
    assert (inner.run.state, inner.run.why) == ("cancelled", "the step that runs it was ended")


async def test_cancelling_a_child_fails_its_step(world: World) -> None:
    parent, made = await _parent(world, sleep("in"))
    await world.cancel(made)
    seen = await world.ended(parent)
    assert seen.run.state == "failed"
    assert "ended cancelled: cancelled by ada" in seen.run.why


async def test_circles_and_depths_are_refused_when_they_are_run(world: World) -> None:
    world.library.is_checked = False  # the library may change after a run was checked
    world.library.texts |= {
        "a.yaml": playbook(child("run", "test.yaml")),
        "1.yaml": playbook(child("run", "2.yaml")),
        "2.yaml": playbook(child("run", "3.yaml")),
        "3.yaml": playbook(step("in", "give")),
    }
    seen = await world.run(playbook(child("run", "a.yaml")))
    assert "playbook 'test.yaml' would run itself" in seen.run.why
    seen = await world.run(playbook(child("run", "1.yaml")))
    assert "playbooks run each other at most 3 deep" in seen.run.why
    seen = await world.run(playbook(child("run", "2.yaml")))
    assert seen.run.state == "completed", seen.run.why
    seen = await world.run(playbook(child("run", "none.yaml")))
    assert "no playbook 'none.yaml'" in seen.run.why


async def test_a_secret_handed_to_a_child_is_written_down_nowhere(
    world: World, tmp_path: Path
) -> None:
    async def checks(job: Job) -> Any:
        assert job.values["inputs"]["token"] == "hunter2-secret"
        return dict(job.values["inputs"])

    world.does["checks"] = checks
    world.library.texts["child.yaml"] = playbook(
        step("in", "checks", parameters={"token": "{{ parameter.token }}"}),
        parameters=[{"name": "token", "type": "string"}],
    )
    seen = await world.run(
        playbook(child("run", "child.yaml", token="{{ credential.plant.password }}"))
    )
    assert seen.run.state == "completed", seen.run.why
    [made] = await world.children(seen.execution.execution_id)
    assert made.execution.parameters == {"token": "***"}
    assert outputs(made, "in") == {"token": "***"}
    for file in tmp_path.glob("steward.db*"):
        assert b"hunter2-secret" not in file.read_bytes()
    # What it was handed is not kept: it cannot be made again by itself.
    with pytest.raises(FailedPrecondition, match="handed it secrets"):
        await world.room.rerun(ADA, made.execution.execution_id, from_start=True)


async def test_a_child_whose_row_is_refused_fails_its_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.library.texts["child.yaml"] = playbook(step("in", "give"))
    run = world.database.run

    async def refusing(work: Any) -> Any:
        async def checked(transaction: Transaction) -> Any:
            found = await work(transaction)
            row = await transaction.fetch_one(
                "SELECT count(*) AS count FROM execution WHERE parent_id <> ''"
            )
            if row and row["count"]:
                raise Unavailable("the database cannot write now; nothing was changed")
            return found

        return await run(checked)

    monkeypatch.setattr(world.database, "run", refusing)
    seen = await world.run(playbook(child("run", "child.yaml")))
    monkeypatch.undo()
    assert seen.run.state == "failed"
    assert "the database cannot write now" in seen.run.why
    assert await world.children(seen.execution.execution_id) == []


async def test_a_step_that_is_ended_while_its_child_begins_leaves_no_child_running(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.library.texts["child.yaml"] = playbook(sleep("in"))
    run, is_slow = world.database.run, True

    async def slow(work: Any) -> Any:
        nonlocal is_slow
        found = await run(work)
        if is_slow and await world.database.fetch_all(
            "SELECT 1 FROM execution WHERE parent_id <> ''"
        ):
            is_slow = False
            await asyncio.sleep(2.5)
        return found

    monkeypatch.setattr(world.database, "run", slow)
    seen = await world.run(playbook({**child("run", "child.yaml"), "timeout": 2}))
    assert "it took longer than 2 s" in seen.run.why
    [made] = await world.children(seen.execution.execution_id)
    assert made.run.state.is_over, kinds(made)


async def test_a_child_whose_parent_breaks_is_not_left_running(world: World) -> None:
    async def waits(job: Job) -> Any:
        await job.sleep(30)

    world.does["waits"] = waits
    world.library.texts["child.yaml"] = playbook(step("in", "waits"))
    execution_id = await world.begin(playbook(child("run", "child.yaml"), timeout=3))
    await _begun(world, execution_id)
    worker, refusals = world.engine.worker(execution_id), 0
    assert worker is not None
    change = worker.change

    async def refusing(asked: Any) -> Any:
        nonlocal refusals
        refusals += 1
        if refusals == 1:
            raise Unavailable("the database cannot write now; nothing was changed")
        return await change(asked)

    worker.change = refusing  # type: ignore[method-assign]
    assert (await world.ended(execution_id)).run.state == "failed"
    [made] = await world.children(execution_id)
    assert made.run.state.is_over
