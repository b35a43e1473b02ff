"""What a server that was away finds when it is back: nothing is left running, or made twice."""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from steward_server.db import Transaction
from steward_server.db.sqlite import Sqlite
from steward_server.errors import FailedPrecondition
from steward_server.executions import store
from steward_server.executions.run import StepState, replay
from steward_server.executions.work import ArtifactKind, Job
from tests.integration.executions.engine import killed
from tests.integration.executions.engine.conftest import (
    ADMIN,
    MakeWorld,
    World,
    child,
    kinds,
    outputs,
    playbook,
    sleep,
    step,
)


async def _waits(job: Job) -> Any:
    await job.sleep(60)
    return {}


async def test_a_repeatable_step_in_hand_is_made_again(world: World) -> None:
    execution_id = await world.begin(
        playbook(
            step("one", "give", parameters={"x": [1]}),
            sleep("two", 0.1),
            step("three", "give", parameters={"x": "{{ step.one.x }}"}),
        )
    )
    await world.until_in(execution_id, "two")
    await world.restart()
    seen = await world.ended(execution_id)
    assert seen.run.state == "completed"
    assert world.made == ["one", "three"]
    assert outputs(seen, "three") == {"x": [1]}
    assert seen.run.made["two"].attempts == 2


async def test_another_step_in_hand_fails_and_the_run_clears_up(world: World) -> None:
    world.does["waits"] = _waits
    execution_id = await world.begin(
        playbook(step("one", "waits"), step("two", "give"), finally_=[step("last", "give")])
    )
    await world.until_in(execution_id, "one")
    while not world.made:
        await asyncio.sleep(0)
    await world.restart()
    seen = await world.ended(execution_id)
    assert seen.run.state == "failed"
    assert seen.run.why == "interrupted"
    assert world.made == ["one", "last"]
    assert seen.run.made["one"].state is StepState.FAILED


async def test_a_run_between_two_attempts_is_not_made_twice(world: World) -> None:
    retry = {"attempts": 2, "delay": 60}
    execution_id = await world.begin(playbook(step("one", "fail", retry=retry)))
    await world.until(execution_id, lambda run: bool(run.made) and run.made["one"].text != "")
    await world.restart()
    seen = await world.ended(execution_id)
    assert (seen.run.state, seen.run.why) == ("failed", "interrupted")
    assert world.made == ["one"]


async def test_a_paused_run_stays_paused(world: World) -> None:
    execution_id = await world.begin(playbook(sleep("one", 0.2), step("two", "give")))
    await world.until_in(execution_id, "one")
    await world.pause(execution_id)
    await world.until_paused(execution_id)
    await world.restart()
    await asyncio.sleep(0.05)
    seen = await world.seen(execution_id)
    assert seen.run.state == "paused"
    assert world.made == []
    await world.resume(execution_id)
    assert (await world.ended(execution_id)).run.state == "completed"


async def test_a_run_that_is_held_stays_held(world: World) -> None:
    execution_id = await world.begin(playbook(step("one", "fail")), debug_mode=True)
    await world.until_paused(execution_id)
    await world.restart()
    assert (await world.until_paused(execution_id)).held == "one"
    await world.skip(execution_id)
    assert (await world.ended(execution_id)).run.state == "completed"


async def test_those_that_wait_keep_their_places_behind_those_that_had_begun(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_running=1)

    async def notes(job: Job) -> Any:
        order.append(job.session.execution_id)
        return {}

    order = list[str]()
    world.does["notes"] = notes
    waits_s = [1, 0.05, 0.05, 0.05]  # long enough to restart in the middle of the first
    texts = [playbook(sleep("one", wait_s), step("two", "notes")) for wait_s in waits_s]
    begun = [await world.begin(text) for text in texts]
    await world.until_in(begun[0], "one")
    await world.restart()
    for each in begun:
        assert (await world.ended(each)).run.state == "completed"
    assert order == begun


async def test_what_was_being_cancelled_is_cancelled(world: World) -> None:
    execution_id = await world.begin(
        playbook(sleep("one"), finally_=[sleep("first", 1), step("second", "give")])
    )
    await world.until_in(execution_id, "one")
    await world.cancel(execution_id)
    await world.until_in(execution_id, "first")
    await world.restart()
    seen = await world.ended(execution_id)
    assert (seen.run.state, seen.run.why) == ("cancelled", "cancelled by ada")
    assert world.made == ["second"]


async def test_a_run_signs_in_again_before_it_uses_a_gateway(world: World) -> None:
    execution_id = await world.begin(
        playbook(
            step("login", type="gateway.login"),
            step("before", type="gateway.ping"),
            sleep("wait", 1),
            step("after", type="gateway.ping"),
        ),
        gateway_url="http://gateway",
        credential_name="plant",
    )
    await world.until_in(execution_id, "wait")
    await world.restart()
    assert (await world.ended(execution_id)).run.state == "completed"
    assert world.made == ["login", "before", "login", "after"]


async def test_nobody_signs_in_again_for_nothing(world: World) -> None:
    execution_id = await world.begin(
        playbook(step("login", type="gateway.login"), sleep("wait", 1)),
        gateway_url="http://gateway",
        credential_name="plant",
    )
    await world.until_in(execution_id, "wait")
    await world.restart()
    assert (await world.ended(execution_id)).run.state == "completed"
    assert world.made == ["login"]


def _page(name: str, **more: Any) -> dict[str, Any]:
    return step(name, type="browser.navigate", parameters={"url": "http://x"}, **more)


async def test_a_run_whose_browser_is_lost_fails(world: World) -> None:
    execution_id = await world.begin(playbook(_page("open"), sleep("wait"), _page("more")))
    await world.until_in(execution_id, "wait")
    await world.restart()
    seen = await world.ended(execution_id)
    assert (seen.run.state, seen.run.why) == ("failed", "interrupted")
    assert world.made == ["open"]


async def test_a_browser_that_no_step_uses_any_more_is_not_missed(world: World) -> None:
    execution_id = await world.begin(
        playbook(_page("open"), _page("left", when="1 == 2"), sleep("wait", 1), step("x", "give"))
    )
    await world.until_in(execution_id, "wait")
    await world.restart()
    assert (await world.ended(execution_id)).run.state == "completed"
    assert world.made == ["open", "x"]


async def test_a_run_whose_outputs_were_masked_fails_rather_than_go_on_with_them(
    world: World,
) -> None:
    text = playbook(
        step("one", "give", parameters={"token": "{{ credential.plant.password }}"}),
        sleep("wait"),
        step("two", "give", parameters={"token": "{{ step.one.token }}"}),
    )
    execution_id = await world.begin(text)
    await world.until_in(execution_id, "wait")
    await world.restart()
    seen = await world.ended(execution_id)
    assert (seen.run.state, seen.run.why) == ("failed", "interrupted")
    assert world.made == ["one"]


async def test_the_child_of_a_run_that_was_left_is_ended(world: World) -> None:
    world.library.texts["child.yaml"] = playbook(sleep("in"), finally_=[step("clear", "give")])
    execution_id = await world.begin(
        playbook(child("run", "child.yaml"), finally_=[step("last", "give")])
    )
    await world.until_in(execution_id, "run")
    async with asyncio.timeout(30):
        while not (await world.children(execution_id)):
            await asyncio.sleep(0.01)
    [begun] = await world.children(execution_id)
    await world.until_in(begun.execution.execution_id, "in")
    await world.restart()
    seen = await world.ended(execution_id)
    [ended] = await world.children(execution_id)
    assert (ended.run.state, ended.run.why) == ("failed", "interrupted")
    assert "stop_asked" not in kinds(ended)  # nobody cancelled it
    assert (seen.run.state, seen.run.why) == ("failed", "interrupted")
    assert world.made == ["last"]


async def test_an_answer_survives_and_is_not_asked_for_again(world: World) -> None:
    wait = step("ask", type="approval.wait", parameters={"message": "Go?"})
    execution_id = await world.begin(playbook(wait, step("two", "give")))
    await world.until(execution_id, lambda run: run.asks is not None)
    await world.pause(execution_id)
    await world.until_paused(execution_id)
    await world.room.give_word(ADMIN, execution_id, "", "fine", approves=True)
    await world.restart()
    await world.resume(execution_id)
    seen = await world.ended(execution_id)
    assert seen.run.state == "completed"
    assert kinds(seen).count("asked") == 1
    assert outputs(seen, "ask")["by"] == "admin"


async def test_a_run_whose_playbook_cannot_be_read_any_more_ends_and_the_server_starts(
    world: World,
) -> None:
    execution_id = await world.begin(playbook(step("one", "give"), sleep("two")))
    await world.until_in(execution_id, "two")

    async def spoil(transaction: Transaction) -> None:
        await transaction.execute("UPDATE execution_playbook SET text = 'nonsense: ['")

    await world.engine.aclose()
    await world.database.run(spoil)
    world.build()
    await world.engine.start()
    seen = await world.seen(execution_id)
    assert seen.execution.state == "failed"
    assert "can not be read any more" in seen.run.why
    with pytest.raises(FailedPrecondition):
        await world.room.rerun(ADMIN, execution_id, from_start=True)
    assert await store.unfinished(world.database) == []


async def test_a_run_that_breaks_when_it_is_taken_up_ends_and_the_server_starts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise KeyError

    execution_id = await world.begin(playbook(step("one", "give"), sleep("two")))
    await world.until_in(execution_id, "two")
    monkeypatch.setattr("steward_server.executions.engine.going_on", breaks)
    await world.restart()
    seen = await world.seen(execution_id)
    assert seen.run.state == "failed"
    assert seen.execution.step_index == 1
    assert "mistake" in seen.run.why


async def test_files_that_a_crash_left_are_deleted_and_no_others(world: World) -> None:
    async def keeps(job: Job) -> Any:
        made = await job.keep("a.txt", b"text", kind=ArtifactKind.REPORT, content_type="text/plain")
        return {"id": made.artifact_id}

    world.does["keeps"] = keeps
    seen = await world.run(playbook(step("one", "keeps")))
    folder = world.folder / "artifacts"
    own = folder / seen.execution.execution_id
    (own / "art_half").write_bytes(b"half")
    (folder / "gone").mkdir()
    (folder / "gone" / "art_1").write_bytes(b"1")
    await world.restart()
    assert [each.name for each in folder.iterdir()] == [own.name]
    assert [each.name for each in own.iterdir()] == [outputs(seen, "one")["id"]]


# A real death: in a process of its own.

MOST_LIVES = 3


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


async def test_a_server_killed_in_the_middle_of_fifty_runs_leaves_none_and_repeats_none(
    tmp_path: Path,
) -> None:
    chance = random.Random(3)
    lives = 0
    while True:
        lives += 1
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", killed.__name__, str(tmp_path)
        )
        if lives > MOST_LIVES:
            assert await process.wait() == 0
            break
        done = tmp_path / "done"
        most = _size(done)
        async with asyncio.timeout(20):
            while process.returncode is None and _size(done) <= most:
                await asyncio.sleep(0.01)
        await asyncio.sleep(chance.random() * 0.15)
        if process.returncode is None:
            process.kill()
        await process.wait()
    made = Counter((tmp_path / "done").read_text().splitlines())
    database = await Sqlite.open(tmp_path / "steward.db")
    try:
        assert await store.unfinished(database) == []
        rows = await database.fetch_all("SELECT execution_id, state FROM execution")
        assert len(rows) == killed.RUNS
        interrupted = 0
        for row in rows:
            events = await store.events_of(database, row["execution_id"])
            run = replay(event.change for event in events)
            assert row["state"] == run.state
            assert run.state in ("completed", "failed")
            interrupted += run.state == "failed"
            for name, each in run.made.items():
                if name in ("s1", "s3", "s5", "s7"):
                    assert made[f"{row['execution_id']} {name}"] <= 1
                    if each.state is StepState.COMPLETED:
                        assert made[f"{row['execution_id']} {name}"] == 1
        assert interrupted
    finally:
        await database.close()
