"""Runs of playbooks by both clients, and what happens to them over streams that are cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steward_client import AsyncClient, Client
from steward_client.client.executions_values import ScreenshotFrame
from steward_client.errors import Conflict, Forbidden, InvalidRequest, NotFound, StewardError
from tests.integration.environments.conftest import until
from tests.integration.sdk.conftest import Call
from tests.live import ADMIN_PASSWORD, Live, ServerProcess
from tests.playbook_runs import PNG, keeping, write_playbooks
from tests.relay import Relay

__all__ = ["keeping"]


@pytest.fixture(autouse=True)
def playbooks(tmp_path: Path) -> None:
    write_playbooks(tmp_path / "data")


@pytest.fixture
async def client(live: Live) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(live.running.grpc_address) as signed_in:
        await signed_in.login("admin", ADMIN_PASSWORD)
        yield signed_in


async def becomes(call: Call, execution_id: str, status: str) -> Any:
    """The run, when it is in this state."""

    async def look() -> Any:
        found = await call("executions.get", execution_id)
        return found if found.status == status else None

    return await until(look, f"it is {status}")


async def asked(call: Call, execution_id: str) -> Any:
    """What it asks for, when it does."""

    async def look() -> Any:
        return (await call("executions.get", execution_id)).question

    return await until(look, "it asks")


async def test_a_run_is_started_looked_at_listed_and_deleted(call: Call) -> None:
    started = await call(
        "executions.start", "t/say.yaml", parameters={"text": "hi", "count": 3}, request_id="one"
    )
    again = await call(
        "executions.start", "t/say.yaml", parameters={"text": "hi", "count": 3}, request_id="one"
    )
    ended = await becomes(call, started, "completed")
    listed = await call("executions.list", status="completed", playbook_path="t/say.yaml")
    failed = await call("executions.list", status="failed")
    await call("executions.delete", started)

    assert again == started
    assert (ended.playbook_path, ended.current_step_index, ended.total_steps) == (
        "t/say.yaml",
        1,
        1,
    )
    assert ended.parameters["count"] == 3
    (step,) = ended.step_results
    assert (step.step_id, step.status, step.attempts) == ("say", "completed", 1)
    assert step.output == {"logged": "hi 3", "level": "info"}
    assert step.started_at <= step.completed_at
    assert [each.execution_id for each in listed] == [started]
    assert failed == ()
    with pytest.raises(NotFound) as gone:
        await call("executions.get", started)
    assert gone.value.reason == "EXECUTION_NOT_FOUND"


async def test_what_cannot_be_started_is_said(call: Call) -> None:
    with pytest.raises(NotFound) as missing:
        await call("executions.start", "t/none.yaml")
    with pytest.raises(InvalidRequest) as wrong:
        await call("executions.start", "t/say.yaml", parameters={"count": "3"})
    with pytest.raises(NotFound) as nobody:
        await call("executions.start", "t/say.yaml", credential_name="none")

    assert missing.value.reason == "PLAYBOOK_NOT_FOUND"
    assert "parameters.count" in wrong.value.fields
    assert nobody.value.reason == "CREDENTIAL_NOT_FOUND"


async def test_a_run_is_paused_resumed_skipped_in_and_cancelled(call: Call) -> None:
    first = await call("executions.start", "t/long.yaml")
    second = await call("executions.start", "t/long.yaml")
    await becomes(call, first, "running")
    await call("executions.pause", first)
    await becomes(call, first, "paused")
    await call("executions.resume", first)
    await becomes(call, first, "running")
    await call("executions.skip", first)
    skipped = await becomes(call, first, "completed")
    await call("executions.cancel", second, reason="enough")
    cancelled = await becomes(call, second, "cancelled")

    assert [each.status for each in skipped.step_results] == ["completed", "skipped", "completed"]
    assert cancelled.error == "cancelled by admin: enough"
    with pytest.raises(Conflict) as over:
        await call("executions.resume", second)
    assert over.value.reason == "WRONG_STATE"


async def test_a_question_is_answered(call: Call) -> None:
    yes = await call("executions.start", "t/asks.yaml")
    no = await call("executions.start", "t/asks.yaml")
    others = await call("executions.start", "t/asks_others.yaml")
    question = await asked(call, yes)
    await call("executions.approve", yes, comment="fine")
    await asked(call, no)
    await call("executions.reject", no, step_id="ask", comment="not now")
    await asked(call, others)
    with pytest.raises(Forbidden) as own:
        await call("executions.approve", others)
    approved, rejected = (
        await becomes(call, yes, "completed"),
        await becomes(call, no, "failed"),
    )

    assert (question.step_id, question.message) == ("ask", "Go on?")
    assert approved.question is None
    assert approved.step_results[0].output["comment"] == "fine"
    assert "not now" in rejected.step_results[0].error
    assert own.value.reason == "OWN_RUN"


async def test_a_run_that_failed_is_made_again(call: Call) -> None:
    first = await call("executions.start", "t/fails.yaml")
    await becomes(call, first, "failed")
    again = await call("executions.rerun", first)
    carried = await becomes(call, again, "failed")
    anew = await becomes(call, await call("executions.rerun", first, from_start=True), "failed")

    assert carried.rerun_of == anew.rerun_of == first
    assert carried.step_results[0].status == anew.step_results[0].status == "completed"
    assert anew.step_results[0].attempts == 1


@pytest.mark.usefixtures("keeping")
async def test_the_files_of_a_run_are_read(call: Call) -> None:
    started = await call("executions.start", "t/keeps.yaml")
    await becomes(call, started, "completed")
    (made,) = await call("executions.artifacts", started)
    content = await call("executions.read_artifact", started, made.artifact_id)

    assert (made.name, made.kind, made.content_type) == ("kept.txt", "report", "text/plain")
    assert len(content) == made.size_bytes == 200_000
    with pytest.raises(NotFound) as missing:
        await call("executions.read_artifact", started, "art_none")
    assert missing.value.reason == "ARTIFACT_NOT_FOUND"


@pytest.mark.usefixtures("keeping")
async def test_pictures_of_its_browser_are_shown_to_whoever_asks(client: AsyncClient) -> None:
    started = await client.executions.start("t/keeps.yaml")
    with_pictures = [each async for each in await client.executions.watch(started, frames=True)]
    without = [each async for each in await client.executions.watch(started)]

    (picture,) = [each for each in with_pictures if isinstance(each, ScreenshotFrame)]
    assert (picture.execution_id, picture.png) == (started, PNG)
    assert [each for each in with_pictures if each is not picture] == without


async def test_a_thread_watches_a_run_to_its_end(live: Live) -> None:
    with Client(live.running.grpc_address) as client:

        def watched() -> list[Any]:
            client.login("admin", ADMIN_PASSWORD)
            return list(client.executions.watch(client.executions.start("t/short.yaml")))

        told = await asyncio.to_thread(watched)

    assert (told[0].event, told[-1].event, told[-1].status) == ("started", "ended", "completed")
    assert [each.message for each in told if each.event == "logged"] == ["one", "two"]
    assert [each.sequence for each in told] == sorted({each.sequence for each in told})


async def test_a_watch_goes_on_where_a_connection_was_cut(live: Live) -> None:
    cuts: list[StewardError] = []
    async with (
        Relay(live.running.grpc_address) as relay,
        AsyncClient(relay.address) as client,
        AsyncClient(live.running.grpc_address) as other,
    ):
        await client.login("admin", ADMIN_PASSWORD)
        await other.login("admin", ADMIN_PASSWORD)
        started = await client.executions.start("t/asks.yaml")
        told: list[Any] = []
        async with await client.executions.watch(started, on_cut=cuts.append) as watched:
            each: Any
            async for each in watched:
                told.append(each)
                if each.event == "asked":
                    relay.cut()
                    await other.executions.approve(started)
        whole = [each async for each in await other.executions.watch(started)]

    assert told == whole
    assert len(cuts) == 1


async def test_a_watch_goes_on_with_a_server_that_was_killed(tmp_path: Path) -> None:
    process = await ServerProcess(tmp_path / "data").start()
    try:
        async with AsyncClient(process.grpc_address) as client:
            await client.login("admin", ADMIN_PASSWORD)
            started = await client.executions.start("t/asks.yaml")
            told: list[Any] = []
            is_back = False
            async with await client.executions.watch(started) as watched:
                each: Any
                async for each in watched:
                    told.append(each)
                    if each.event != "asked":
                        continue
                    if not is_back:
                        process.kill()
                        await process.start()
                        is_back = True
                    else:
                        await client.executions.approve(started)
            whole = [each async for each in await client.executions.watch(started)]
    finally:
        process.stop()

    assert told == whole
    assert told[-1].status == "completed"


async def test_all_runs_are_watched_over_a_cut(live: Live, client: AsyncClient) -> None:
    async with (
        Relay(live.running.grpc_address) as relay,
        AsyncClient(relay.address) as watcher,
    ):
        await watcher.login("admin", ADMIN_PASSWORD)
        async with await watcher.executions.subscribe(logs=False) as happening:
            first = await client.executions.start("t/say.yaml")
            told: list[Any] = [await anext(happening)]
            relay.cut()
            second = await client.executions.start("t/say.yaml")
            while [each.event for each in told].count("ended") < 2:
                told.append(await anext(happening))
        async with await watcher.executions.subscribe(second, since=0) as one:
            only: Any = await anext(one)

    by_run = {
        run: [each.event for each in told if each.execution_id == run] for run in (first, second)
    }
    steps = ["started", "step_started", "step_completed", "ended"]
    assert by_run == {first: steps, second: steps}
    assert (only.execution_id, only.event) == (second, "started")


async def test_runs_that_are_not_there_cannot_be_watched(client: AsyncClient) -> None:
    with pytest.raises(NotFound):
        await anext(await client.executions.watch("none"))
    with pytest.raises(NotFound):
        await anext(await client.executions.subscribe("none"))
