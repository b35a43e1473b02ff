"""Runs that are made again, and steps that wait for a person's word."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steward_server.errors import FailedPrecondition, NotFound, PermissionDenied, ResourceExhausted
from steward_server.executions.run import Kind
from steward_server.executions.work import Job, StepFailed
from steward_server.principals import Principal
from tests.integration.executions.engine.conftest import (
    ADA,
    ADMIN,
    AGENT,
    BOB,
    MakeWorld,
    World,
    child,
    kinds,
    outputs,
    playbook,
    sleep,
    states,
    step,
)

ONCE = playbook(
    step("one", "give", parameters={"x": [1, "{{ parameter.n }}"]}),
    step("set", type="utility.set_variable", parameters={"name": "v", "value": {"y": 2}}),
    step("left", "give", when="1 == 2"),
    step("two", "once"),
    step(
        "three",
        "give",
        parameters={"x": "{{ step.one.x }}", "v": "{{ variable.v }}"},
        when="step.left.x is not defined",
    ),
    parameters=[{"name": "n", "type": "integer"}],
)


async def _failed(world: World) -> str:
    """A run that failed in its step `two`, which would not fail again."""
    has_failed = False

    async def once(job: Job) -> Any:
        nonlocal has_failed
        if not has_failed:
            has_failed = True
            raise StepFailed("not now")
        return {}

    world.does["once"] = once
    seen = await world.run(ONCE, {"n": 3})
    assert seen.run.state == "failed"
    world.made.clear()
    return seen.execution.execution_id


async def test_a_run_goes_on_from_the_step_that_failed_with_what_came_before(
    world: World,
) -> None:
    execution_id = await _failed(world)
    again = await world.room.rerun(ADA, execution_id, from_start=False)
    seen = await world.ended(again.execution_id)
    assert seen.run.state == "completed", seen.run.why
    assert world.made == ["two", "three"]
    assert outputs(seen, "three") == {"x": [1, 3], "v": {"y": 2}}
    assert seen.execution.rerun_of == execution_id
    assert seen.execution.step_index == 5
    carried = seen.events[0].change
    assert (carried.step_id, carried.data["carried_from"]) == ("one", execution_id)


async def test_what_is_carried_over_is_there_after_a_restart(make_world: MakeWorld) -> None:
    world = await make_world(max_running=1)
    execution_id = await _failed(world)
    other = await world.begin(playbook(sleep("wait", 0.1)))
    await world.until_in(other, "wait")
    again = await world.room.rerun(ADA, execution_id, from_start=False)
    await world.restart()
    seen = await world.ended(again.execution_id)
    assert seen.run.state == "completed"
    assert world.made == ["two", "three"]


async def test_a_run_is_made_again_from_its_start(world: World) -> None:
    execution_id = await _failed(world)
    again = await world.room.rerun(ADA, execution_id, from_start=True)
    seen = await world.ended(again.execution_id)
    assert world.made == ["one", "two", "three"]
    assert states(seen)["left"] == "skipped"


async def test_a_run_is_made_again_as_it_was_whatever_its_playbook_is_now(world: World) -> None:
    execution_id = await _failed(world)
    world.library.texts["test.yaml"] = playbook(step("other", "fail"))
    again = await world.room.rerun(ADA, execution_id, from_start=False)
    await world.room.delete(ADA, execution_id)
    assert (await world.ended(again.execution_id)).run.state == "completed"


async def test_what_cannot_be_gone_on_from_is_refused_with_the_reason(world: World) -> None:
    async def refused(text: str, why: str, **asked: Any) -> None:
        seen = await world.run(text, **asked)
        with pytest.raises(FailedPrecondition, match=why) as refusal:
            await world.room.rerun(ADA, seen.execution.execution_id, from_start=False)
        assert refusal.value.reason == "WRONG_STATE"

    await refused(playbook(step("one", "give")), "every step of the run was completed")
    token = {"token": "{{ credential.plant.password }}"}
    await refused(
        playbook(step("one", "give", parameters=token), step("two", "fail")), "held secrets"
    )
    await refused(
        playbook(
            step("one", "give", undo=[step("undo", "give")]),
            step("two", "fail", on_failure="rollback"),
        ),
        "was undone",
    )
    page = step("page", type="browser.navigate", parameters={"url": "http://x"})
    await refused(playbook(page, step("two", "fail"), {**page, "id": "more"}), "browser is closed")
    execution_id = await world.begin(playbook(sleep("one")))
    with pytest.raises(FailedPrecondition, match="only one that is over"):
        await world.room.rerun(ADA, execution_id, from_start=True)
    with pytest.raises(NotFound):
        await world.room.rerun(BOB, execution_id, from_start=True)
    await world.cancel(execution_id)


async def test_a_full_queue_refuses_those_that_are_made_again(make_world: MakeWorld) -> None:
    world = await make_world(max_running=1, max_queued=0)
    execution_id = await _failed(world)
    other = await world.begin(playbook(sleep("one")))
    with pytest.raises(ResourceExhausted):
        await world.room.rerun(ADA, execution_id, from_start=False)
    await world.cancel(other)


# A person's word.


def ask(**parameters: Any) -> dict[str, Any]:
    return step("ask", type="approval.wait", parameters={"message": "Go?", **parameters})


async def _asking(world: World, *more: Any, who: Any = ADA, **parameters: Any) -> str:
    execution_id = await world.begin(
        playbook({**ask(**parameters)}, *more, step("after", "give")), who=who
    )
    await world.until(execution_id, lambda run: run.asks is not None)
    return execution_id


async def test_a_step_that_is_approved_tells_by_whom(world: World) -> None:
    execution_id = await _asking(world)
    await world.room.give_word(ADMIN, execution_id, "ask", "looks fine", approves=True)
    seen = await world.ended(execution_id)
    assert seen.run.state == "completed"
    found = outputs(seen, "ask")
    assert (found["approved"], found["by"], found["comment"]) == (True, "admin", "looks fine")
    assert found["at"].endswith("Z")


async def test_a_step_that_is_rejected_fails_with_who_and_why(world: World) -> None:
    execution_id = await _asking(world)
    await world.room.give_word(ADA, execution_id, "", "not on a Friday", approves=False)
    seen = await world.ended(execution_id)
    assert "rejected by ada: not on a Friday" in seen.run.why
    assert world.made == []


async def test_whoever_started_a_run_does_not_approve_it_unless_it_says_so(world: World) -> None:
    execution_id = await _asking(world)
    with pytest.raises(PermissionDenied) as refusal:
        await world.room.give_word(ADA, execution_id, "", "", approves=True)
    assert refusal.value.reason == "OWN_RUN"
    with pytest.raises(NotFound):
        await world.room.give_word(BOB, execution_id, "", "", approves=True)
    await world.cancel(execution_id)
    execution_id = await _asking(world, not_by_starter=False)
    await world.room.give_word(ADA, execution_id, "", "", approves=True)
    assert (await world.ended(execution_id)).run.state == "completed"


async def test_an_agent_does_not_approve_its_own_run_but_its_owner_does(world: World) -> None:
    text = playbook(ask(), sleep("after", 0))
    execution_id = await world.begin(text, who=AGENT)
    await world.until(execution_id, lambda run: run.asks is not None)
    with pytest.raises(PermissionDenied):
        await world.room.give_word(AGENT, execution_id, "", "", approves=True)
    await world.room.give_word(ADA, execution_id, "", "", approves=True)
    assert (await world.ended(execution_id)).run.state == "completed"


@pytest.mark.parametrize("is_nested", [False, True])
async def test_nobody_gets_around_an_approval_by_skipping(world: World, *, is_nested: bool) -> None:
    world.library.texts["asks.yaml"] = playbook(ask())
    first = child("ask", "asks.yaml") if is_nested else ask()
    execution_id = await world.begin(playbook(first, step("after", "give")))
    await world.until_in(execution_id, "ask")
    with pytest.raises(FailedPrecondition, match="needs a person's approval, and is not skipped"):
        await world.skip(execution_id)
    await world.cancel(execution_id)
    assert (await world.ended(execution_id)).run.state == "cancelled"
    assert world.made == []


async def test_nobody_gets_around_a_rejection_by_skipping(world: World) -> None:
    execution_id = await world.begin(playbook(ask(), step("after", "give")), debug_mode=True)
    await world.until(execution_id, lambda run: run.asks is not None)
    await world.room.give_word(ADMIN, execution_id, "", "no", approves=False)
    await world.until_paused(execution_id)
    with pytest.raises(FailedPrecondition, match="is not skipped"):
        await world.skip(execution_id)
    await world.cancel(execution_id)
    assert (await world.ended(execution_id)).run.state == "cancelled"
    assert world.made == []


@pytest.mark.parametrize("who", [ADA, ADMIN])
async def test_a_run_that_is_made_again_asks_again(world: World, who: Principal) -> None:
    execution_id = await world.begin(
        playbook(step("one", "give"), ask(), step("two", "fail"), step("three", "give"))
    )
    await world.until(execution_id, lambda run: run.asks is not None)
    await world.room.give_word(ADMIN, execution_id, "", "yes", approves=True)
    await world.ended(execution_id)
    again = await world.room.rerun(who, execution_id, from_start=False)
    run = await world.until(again.execution_id, lambda run: run.asks is not None)
    assert world.made == ["one", "two"]
    assert run.in_hand == "ask"
    with pytest.raises(PermissionDenied):
        await world.room.give_word(who, again.execution_id, "", "", approves=True)
    await world.cancel(again.execution_id, who)
    await world.ended(again.execution_id)


async def test_an_answer_that_nobody_waits_for_is_refused(world: World) -> None:
    execution_id = await _asking(world, sleep("wait"))
    with pytest.raises(FailedPrecondition, match="step 'other' waits for no approval"):
        await world.room.give_word(ADMIN, execution_id, "other", "", approves=True)
    await world.room.give_word(ADMIN, execution_id, "ask", "", approves=True)
    await world.until_in(execution_id, "wait")
    with pytest.raises(FailedPrecondition, match="no step of it waits"):
        await world.room.give_word(ADMIN, execution_id, "ask", "", approves=True)
    await world.cancel(execution_id)
    await world.ended(execution_id)
    with pytest.raises(FailedPrecondition):
        await world.room.give_word(ADMIN, execution_id, "ask", "", approves=True)


async def test_of_two_answers_at_once_one_counts(world: World) -> None:
    execution_id = await _asking(world)
    found = await asyncio.gather(
        world.room.give_word(ADMIN, execution_id, "", "", approves=True),
        world.room.give_word(ADMIN, execution_id, "", "", approves=False),
        return_exceptions=True,
    )
    assert sum(isinstance(each, FailedPrecondition) for each in found) == 1
    seen = await world.ended(execution_id)
    assert kinds(seen).count("answered") == 1


async def test_another_attempt_asks_again(world: World) -> None:
    execution_id = await world.begin(
        playbook({**ask(), "retry": {"attempts": 2, "delay": 0.2}}, step("after", "give"))
    )
    await world.until(execution_id, lambda run: run.asks is not None)
    await world.room.give_word(ADMIN, execution_id, "", "no", approves=False)
    await world.until(execution_id, lambda run: run.made["ask"].text != "")
    # Between the attempts nobody waits for an answer.
    with pytest.raises(FailedPrecondition, match="waits for an approval"):
        await world.room.give_word(ADMIN, execution_id, "", "", approves=True)
    await world.until(execution_id, lambda run: run.asks is not None)
    await world.room.give_word(ADMIN, execution_id, "", "yes", approves=True)
    seen = await world.ended(execution_id)
    assert seen.run.state == "completed"
    assert kinds(seen).count("asked") == 2


async def test_an_attempt_after_one_that_ran_out_of_time_has_a_question_of_its_own(
    world: World,
) -> None:
    execution_id = await world.begin(
        playbook({**ask(timeout=1), "retry": {"attempts": 2, "delay": 0}}, step("after", "give"))
    )
    seen = await world.ended(execution_id)
    assert "nobody approved or rejected within 1 s" in seen.run.why
    expiries = [
        each.change.data["expires_at_us"] for each in seen.events if each.change.kind is Kind.ASKED
    ]
    assert len(expiries) == 2
    assert expiries[1] - expiries[0] >= 900_000
