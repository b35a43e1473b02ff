"""Pausing, resuming, skipping and cancelling: at once, truthfully, and in any order."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from steward_server.errors import FailedPrecondition, NotFound
from steward_server.executions.run import Kind, State, StepState, replay
from steward_server.executions.work import Job
from tests.integration.executions.engine.conftest import (
    ADA,
    BOB,
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

SOON_S = 5
"""Far less than steps sleep, and enough on a busy host; benchmarks measure how soon it is."""


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_a_sleeping_step_pauses_at_once_and_sleeps_the_rest_after(world: World) -> None:
    execution_id = await world.begin(playbook(sleep("one", 5), step("two", "give")))
    await world.until_in(execution_id, "one")
    await asyncio.sleep(3)
    begun_s = now_s()
    await world.pause(execution_id)
    await world.until_paused(execution_id)
    assert now_s() - begun_s < SOON_S
    seen = await world.seen(execution_id)
    assert texts(seen, Kind.PAUSED) == ["in step 'one'"]
    await asyncio.sleep(0.25)
    assert (await world.seen(execution_id)).run.state == "paused"
    resumed_s = now_s()
    await world.resume(execution_id)
    seen = await world.ended(execution_id)
    assert 0.05 < now_s() - resumed_s < 4.9
    assert kinds(seen)[-5:] == [
        "resumed",
        "step_completed",
        "step_started",
        "step_completed",
        "ended",
    ]


async def test_a_pause_takes_effect_before_the_next_step(world: World) -> None:
    going = asyncio.Event()

    async def waits(job: Job) -> Any:
        await going.wait()
        return {}

    world.does["waits"] = waits
    execution_id = await world.begin(playbook(step("one", "waits"), step("two", "give")))
    await world.until_in(execution_id, "one")
    await world.pause(execution_id)
    assert (await world.seen(execution_id)).run.pausing
    going.set()
    await world.until_paused(execution_id)
    seen = await world.seen(execution_id)
    assert texts(seen, Kind.PAUSED) == ["before step 'two'"]
    assert states(seen) == {"one": "completed"}
    await world.resume(execution_id)
    assert (await world.ended(execution_id)).run.state == "completed"


async def test_a_pause_before_a_finally_step_names_it(world: World) -> None:
    going = asyncio.Event()

    async def waits(job: Job) -> Any:
        await going.wait()
        return {}

    world.does["waits"] = waits
    execution_id = await world.begin(playbook(step("one", "waits"), finally_=[step("f", "give")]))
    await world.until_in(execution_id, "one")
    await world.pause(execution_id)
    going.set()
    await world.until_paused(execution_id)
    assert texts(await world.seen(execution_id), Kind.PAUSED) == ["before step 'f'"]
    await world.resume(execution_id)
    await world.ended(execution_id)


async def test_no_attempt_begins_while_a_run_is_paused(world: World) -> None:
    execution_id = await world.begin(
        playbook(step("one", "fail", retry={"attempts": 2, "delay": 0.05}))
    )
    await world.until(execution_id, lambda run: bool(run.made) and run.made["one"].text != "")
    await world.pause(execution_id)
    await world.until_paused(execution_id)
    await asyncio.sleep(0.1)
    assert world.made == ["one"]
    await world.resume(execution_id)
    await world.ended(execution_id)
    assert world.made == ["one", "one"]


async def test_a_pause_comes_before_an_attempt_that_waits_for_nothing(world: World) -> None:
    attempts = 0

    async def pauses(job: Job) -> Any:
        nonlocal attempts
        attempts += 1
        await world.pause(job.session.execution_id)
        raise ValueError

    world.does["pauses"] = pauses
    retry = {"attempts": 2, "delay": 0}
    execution_id = await world.begin(playbook(step("one", "pauses", retry=retry)))
    await world.until_paused(execution_id)
    assert attempts == 1
    await world.cancel(execution_id)
    await world.ended(execution_id)
    assert attempts == 1


@pytest.mark.parametrize("is_paused", [False, True])
async def test_a_sleeping_step_is_skipped_at_once(world: World, is_paused: bool) -> None:  # noqa: FBT001
    execution_id = await world.begin(playbook(sleep("one"), step("two", "give")))
    await world.until_in(execution_id, "one")
    if is_paused:
        await world.pause(execution_id)
        await world.until_paused(execution_id)
    begun_s = now_s()
    await world.skip(execution_id)
    if is_paused:
        # It stays paused, and says where it is now.
        await world.until(execution_id, lambda run: run.made["one"].state is StepState.SKIPPED)
        assert texts(await world.seen(execution_id), Kind.PAUSED)[-1] == "before step 'two'"
        assert world.made == []
        await world.resume(execution_id)
    seen = await world.ended(execution_id)
    assert now_s() - begun_s < 4 * SOON_S
    assert states(seen) == {"one": "skipped", "two": "completed"}
    asked = next(each.change for each in seen.events if each.change.kind is Kind.SKIP_ASKED)
    assert asked.data["by"] == "ada"


async def test_a_step_that_waits_for_its_next_attempt_is_skipped(world: World) -> None:
    retry = {"attempts": 2, "delay": 60}
    execution_id = await world.begin(
        playbook(step("one", "fail", retry=retry), step("two", "give"))
    )
    await world.until(execution_id, lambda run: bool(run.made) and run.made["one"].text != "")
    await world.skip(execution_id)
    seen = await world.ended(execution_id)
    assert states(seen) == {"one": "skipped", "two": "completed"}


async def test_cancelling_ends_what_a_step_holds_and_says_who_and_why(world: World) -> None:
    processes = list[asyncio.subprocess.Process]()

    async def holds(job: Job) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(60)"
        )
        processes.append(process)
        try:
            await process.wait()
        finally:
            process.kill()
            await process.wait()

    world.does["holds"] = holds
    execution_id = await world.begin(
        playbook(step("one", "holds"), step("two", "give"), finally_=[step("last", "give")])
    )
    await world.until_in(execution_id, "one")
    async with asyncio.timeout(30):
        while not processes:
            await asyncio.sleep(0.01)
    begun_s = now_s()
    await world.cancel(execution_id)
    seen = await world.ended(execution_id)
    assert now_s() - begun_s < 2 * SOON_S
    assert processes[0].returncode is not None
    assert seen.run.state == "cancelled"
    assert seen.run.why == "cancelled by ada"
    assert states(seen) == {"one": "failed", "last": "completed"}


async def test_cancelling_once_more_leaves_out_what_clears_up(world: World) -> None:
    execution_id = await world.begin(
        playbook(sleep("one"), finally_=[sleep("first"), step("second", "give")])
    )
    await world.until_in(execution_id, "one")
    await world.cancel(execution_id)
    await world.until_in(execution_id, "first")
    await world.cancel(execution_id)
    seen = await world.ended(execution_id)
    assert seen.run.state == "cancelled"
    assert states(seen) == {"one": "failed", "first": "failed"}
    with pytest.raises(FailedPrecondition, match="it cannot be cancelled any more"):
        await world.cancel(execution_id)


async def test_a_cancelled_step_at_a_safe_point_makes_no_further_move(world: World) -> None:
    moved = False

    async def moves(job: Job) -> Any:
        nonlocal moved
        while not moved:
            await job.safe_point("between two")
            await asyncio.sleep(0.01)
            if job.session.execution_id in cancelled:
                moved = True

    cancelled = set[str]()
    world.does["moves"] = moves
    execution_id = await world.begin(playbook(step("one", "moves")))
    await world.until_in(execution_id, "one")
    await world.pause(execution_id)
    await world.until_paused(execution_id)
    cancelled.add(execution_id)
    await world.cancel(execution_id)
    await world.ended(execution_id)
    assert not moved


async def test_a_run_that_waits_for_its_turn_is_cancelled_and_gone(make_world: MakeWorld) -> None:
    world = await make_world(max_running=1, max_queued=1)
    first = await world.begin(playbook(sleep("one")))
    await world.until_in(first, "one")
    second = await world.begin(playbook(step("one", "give")))
    await world.cancel(second)
    seen = await world.seen(second)
    assert seen.execution.state == "cancelled"
    # Its place is free, and it can be deleted, though no other run has ended.
    third = await world.begin(playbook(step("one", "give")))
    assert await world.room.delete(ADA, second) == 0
    await world.cancel(first)
    assert (await world.ended(third)).run.state == "completed"
    assert world.made == ["one"]


async def test_a_run_in_debug_mode_holds_where_it_failed_until_it_is_tried_again(
    world: World,
) -> None:
    execution_id = await world.begin(
        playbook(
            step("one", "give", parameters={"x": 1}),
            step("two", "fail"),
            step("three", "give", parameters={"x": "{{ step.one.x }}"}),
        ),
        debug_mode=True,
    )
    await world.until_paused(execution_id)
    seen = await world.seen(execution_id)
    assert seen.run.held == "two"
    failure = next(each.change for each in seen.events if each.change.kind is Kind.STEP_FAILED)
    assert failure.data["context"] == {"level": 0}
    await world.resume(execution_id)
    await world.until(execution_id, lambda run: run.made["two"].attempts == 2 and bool(run.held))
    await world.skip(execution_id)
    seen = await world.ended(execution_id)
    assert states(seen) == {"one": "completed", "two": "skipped", "three": "completed"}
    assert outputs(seen, "three") == {"x": 1}
    assert seen.run.state == "completed"


async def test_a_held_run_is_cancelled(world: World) -> None:
    execution_id = await world.begin(
        playbook(step("one", "fail"), finally_=[step("last", "give")]), debug_mode=True
    )
    await world.until_paused(execution_id)
    await world.cancel(execution_id)
    seen = await world.ended(execution_id)
    assert seen.run.state == "cancelled"
    assert states(seen) == {"one": "failed", "last": "completed"}


async def test_what_cannot_be_done_says_what_the_run_is(world: World) -> None:
    execution_id = await world.begin(playbook(sleep("one")))
    await world.until_in(execution_id, "one")
    with pytest.raises(FailedPrecondition, match="is running and not paused") as refusal:
        await world.resume(execution_id)
    assert refusal.value.reason == "WRONG_STATE"
    with pytest.raises(FailedPrecondition, match="the run is running; cancel it"):
        await world.room.delete(ADA, execution_id)
    with pytest.raises(NotFound):
        await world.cancel(execution_id, BOB)
    await world.cancel(execution_id)
    await world.ended(execution_id)
    for control in (world.pause, world.resume, world.skip, world.cancel):
        with pytest.raises(FailedPrecondition, match="the run is cancelled"):
            await control(execution_id)
    assert await world.room.delete(ADA, execution_id) == 0
    for control in (world.pause, world.resume, world.skip, world.cancel):
        with pytest.raises(NotFound):
            await control(execution_id)


async def test_a_caller_who_hangs_up_leaves_nothing_half_done(world: World) -> None:
    chance = random.Random(1)
    text = playbook(sleep("one"), sleep("two"))
    for _ in range(15):
        execution_id = await world.begin(text)
        await world.until_in(execution_id, "one")
        for control in (world.pause, world.resume, world.skip):
            call = asyncio.create_task(control(execution_id))
            await asyncio.sleep(chance.random() * 0.004)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        await world.cancel(execution_id)
        seen = await world.ended(execution_id)
        assert seen.run.state == "cancelled", seen.run.why


async def test_whoever_starts_a_run_and_hangs_up_has_started_it_or_not(world: World) -> None:
    chance = random.Random(1)
    for _ in range(25):
        call = asyncio.create_task(world.begin(playbook(step("one", "give"))))
        await asyncio.sleep(chance.random() * 0.01)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    async with asyncio.timeout(30):
        while world.engine._workers:
            await asyncio.sleep(0.01)
    rows = await world.database.fetch_all("SELECT state FROM execution")
    assert {row["state"] for row in rows} <= {"completed"}


async def test_a_step_that_is_ended_while_it_logs_leaves_the_run_whole(world: World) -> None:
    async def logs(job: Job) -> Any:
        while True:
            await job.log("and on")

    world.does["logs"] = logs
    for at in range(1, 8):
        logging = step("one", "logs", timeout=0.01 + at / 1e3, on_failure="continue")
        seen = await world.run(playbook(logging, step("two", "give")))
        assert states(seen) == {"one": "failed", "two": "completed"}, seen.run.why
        assert "it took longer than" in seen.run.made["one"].text


async def test_what_does_not_close_keeps_no_run_from_its_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.executions.session._CLOSING_S", 0.05)
    closed = list[str]()

    @asynccontextmanager
    async def opened(name: str) -> AsyncIterator[str]:
        yield name
        closed.append(name)
        if name == "hangs":
            await asyncio.sleep(60)
        if name == "breaks":
            raise ValueError(name)

    async def opens(job: Job) -> Any:
        names = job.values["inputs"]["names"]
        return {"got": [await job.session.shared(name, partial(opened, name)) for name in names]}

    world.does["opens"] = opens
    names = ["first", "breaks", "hangs", "first"]
    seen = await world.run(playbook(step("one", "opens", parameters={"names": names})))
    assert seen.run.state == "completed"
    assert outputs(seen, "one") == {"got": names}
    assert closed == ["hangs", "breaks", "first"], "what was opened last is closed first"


Control = Callable[[World, str], Awaitable[Any]]
CONTROLS: dict[str, Control] = {
    "pause": lambda world, execution_id: world.pause(execution_id),
    "resume": lambda world, execution_id: world.resume(execution_id),
    "skip": lambda world, execution_id: world.skip(execution_id),
    "cancel": lambda world, execution_id: world.cancel(execution_id),
    "delete": lambda world, execution_id: world.room.delete(ADA, execution_id),
    "rerun": lambda world, execution_id: world.room.rerun(ADA, execution_id, from_start=True),
}
RACES = 3


@pytest.mark.parametrize("is_debugged", [False, True], ids=["plain", "debug"])
async def test_controls_that_race_leave_a_run_that_says_what_is_so(
    make_world: MakeWorld,
    is_debugged: bool,  # noqa: FBT001
) -> None:
    world = await make_world(max_running=8)
    chance = random.Random(7)
    text = playbook(
        sleep("one", 0.004),
        step("two", "fail", retry={"attempts": 2, "delay": 0.002}, on_failure="continue"),
        step("three", "give", undo=[step("undo", "give")]),
        sleep("four", 0.004),
        step("five", "fail", on_failure="rollback"),
        finally_=[sleep("last", 0.002)],
    )

    async def race(first: str, second: str) -> None:
        execution_id = await world.begin(text, debug_mode=is_debugged)

        async def control(name: str) -> None:
            await asyncio.sleep(chance.random() * 0.04)
            try:
                await CONTROLS[name](world, execution_id)
            except (FailedPrecondition, NotFound):
                return

        await asyncio.gather(control(first), control(second))
        if world.engine.worker(execution_id) is not None:
            await control("cancel")
        try:
            seen = await world.ended(execution_id)
        except NotFound:
            return
        check(seen)

    def check(seen: Any) -> None:
        assert seen.run.state.is_over
        run = replay(each.change for each in seen.events)
        assert run == seen.run
        ends = [each for each in seen.events if each.change.kind is Kind.ENDED]
        assert ends == [seen.events[-1]]
        assert not any(made.state is StepState.RUNNING for made in run.made.values())
        assert "mistake" not in run.why
        for before, after in zip(seen.events, seen.events[1:], strict=False):
            assert before.number < after.number
            if before.run_state is State.PAUSED:
                assert after.change.kind is not Kind.STEP_STARTED

    pairs = [(first, second) for first in CONTROLS for second in CONTROLS] * RACES
    for at in range(0, len(pairs), 8):
        await asyncio.gather(*(race(*pair) for pair in pairs[at : at + 8]))
    async with asyncio.timeout(30):
        while world.engine._workers:
            for execution_id in [*world.engine._workers]:
                try:
                    await world.cancel(execution_id)
                except FailedPrecondition:
                    continue
            await asyncio.sleep(0.01)
    rows = await world.database.fetch_all("SELECT execution_id, state FROM execution")
    for row in rows:
        seen = await world.seen(row["execution_id"])
        check(seen)
        assert row["state"] == seen.run.state
