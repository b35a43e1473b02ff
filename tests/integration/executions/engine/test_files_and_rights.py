"""What runs make and leave, who may see it, and what becomes of it when they are deleted."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from steward_server.errors import InvalidArgument, NotFound, PermissionDenied
from steward_server.executions import store
from steward_server.executions.artifacts import MAX_NAME
from steward_server.executions.store import Wanted
from steward_server.executions.work import ArtifactKind, Job
from tests.integration.executions.engine.conftest import (
    ADA,
    ADMIN,
    AGENT,
    BOB,
    MakeWorld,
    World,
    child,
    outputs,
    playbook,
    sleep,
    step,
)


async def _keep(job: Job, name: str, content: bytes | Path = b"text") -> str:
    made = await job.keep(name, content, kind=ArtifactKind.SCREENSHOT, content_type="image/png")
    return made.name


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("../../etc/passwd", "_etc_passwd"),
        ("/etc/passwd", "_etc_passwd"),
        ("nul\0.png", "nul_.png"),
        ("", "file"),
        ("...", "file"),
        ("C:\\x.png", "C_x.png"),
        ("new\r\nline.png", "new_line.png"),
        ("\ud800.png", "_.png"),
        ("x" * 1_000 + ".png", "x" * (MAX_NAME - 4) + ".png"),
    ],
)
async def test_odd_names_are_made_safe(world: World, name: str, kept: str) -> None:
    async def keeps(job: Job) -> Any:
        return {"name": await _keep(job, name)}

    world.does["keeps"] = keeps
    seen = await world.run(playbook(step("one", "keeps")))
    found = outputs(seen, "one")["name"]
    assert found.strip("._") == kept.strip("._")
    folder = world.folder / "artifacts"
    files = [each for each in folder.rglob("*") if each.is_file()]
    assert [each.parent.parent for each in files] == [folder]


async def test_names_that_are_taken_are_told_apart_however_many_are_kept_at_once(
    world: World,
) -> None:
    async def keeps(job: Job) -> Any:
        return {"names": sorted(await asyncio.gather(*(_keep(job, "a.png") for _ in range(4))))}

    world.does["keeps"] = keeps
    seen = await world.run(playbook(step("one", "keeps")))
    assert outputs(seen, "one") == {"names": ["a-2.png", "a-3.png", "a-4.png", "a.png"]}


async def test_files_have_limits_and_what_is_too_much_leaves_nothing(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_artifact_bytes=10, max_artifacts=2, max_artifacts_bytes=15)

    async def keeps(job: Job) -> Any:
        return {"name": await _keep(job, "a.png", b"x" * job.values["inputs"]["size"])}

    world.does["keeps"] = keeps

    def of(name: str, size: int) -> Any:
        return step(name, "keeps", parameters={"size": size}, on_failure="continue")

    seen = await world.run(playbook(of("one", 11), of("two", 10), of("three", 6), of("four", 5)))
    assert "has 11 bytes; a file of a run has at most 10" in seen.run.made["one"].text
    assert "would have 16 bytes; at most 15" in seen.run.made["three"].text
    last = await world.run(playbook(of("one", 1), of("two", 1), of("three", 1)))
    assert "has made 2 files; at most 2" in last.run.made["three"].text
    for each in (seen, last):
        kept = await world.room.artifacts_of(ADA, each.execution.execution_id)
        folder = world.folder / "artifacts" / each.execution.execution_id
        assert {file.name for file in folder.iterdir()} == {
            found.artifact.artifact_id for found in kept
        }
        assert len(kept) == 2


async def test_a_file_is_moved_and_can_be_read_by_its_name_in_its_run(world: World) -> None:
    async def keeps(job: Job) -> Any:
        source = world.folder / "download.tmp"
        source.write_bytes(b"content")
        name = await _keep(job, "download.bin", source)
        return {"name": name, "is_moved": not source.exists()}

    async def reads(job: Job) -> Any:
        return {"text": job.file("download.bin").read_text()}

    async def strays(job: Job) -> Any:
        return {"text": job.file(job.values["inputs"]["path"]).read_text()}

    (world.folder / "files").mkdir()
    (world.folder / "files" / "module.modl").write_text("module")
    (world.folder / "files" / "out").symlink_to("/etc")
    world.does |= {"keeps": keeps, "reads": reads, "strays": strays}
    paths = ("/etc/passwd", "../steward.db", "out/passwd", "nul\0", "x" * 5_000, "", ".", "none")
    stray = [
        step(f"s{at}", "strays", parameters={"path": path}, on_failure="continue")
        for at, path in enumerate(paths)
    ]
    module = step("module", "strays", parameters={"path": "module.modl"})
    seen = await world.run(playbook(step("one", "keeps"), step("two", "reads"), *stray, module))
    assert outputs(seen, "one") == {"name": "download.bin", "is_moved": True}
    assert outputs(seen, "two") == {"text": "content"}
    assert outputs(seen, "module") == {"text": "module"}
    for at, path in enumerate(paths):
        assert seen.run.made[f"s{at}"].text.startswith("there is no file"), path


async def test_a_file_that_a_cancelled_step_was_keeping_is_kept_or_gone(world: World) -> None:
    async def keeps(job: Job) -> Any:
        while True:
            await _keep(job, "a.png", b"x" * 100_000)

    world.does["keeps"] = keeps
    for at in range(8):
        execution_id = await world.begin(playbook(step("one", "keeps")))
        await world.until_in(execution_id, "one")
        await asyncio.sleep(0.003 + at * 0.001)
        await world.cancel(execution_id)
        await world.ended(execution_id)
        kept = await world.room.artifacts_of(ADA, execution_id)
        folder = world.folder / "artifacts" / execution_id
        there = {file.name for file in folder.iterdir()} if folder.exists() else set()
        assert there == {each.artifact.artifact_id for each in kept}


async def test_deleting_a_run_deletes_its_files_and_its_children_and_counts_screenshots(
    world: World,
) -> None:
    async def keeps(job: Job) -> Any:
        await _keep(job, "a.png")
        await job.keep("b.txt", b"", kind=ArtifactKind.REPORT, content_type="text/plain")
        return {}

    world.does["keeps"] = keeps
    world.library.texts["child.yaml"] = playbook(step("in", "keeps"))
    seen = await world.run(playbook(step("one", "keeps"), child("run", "child.yaml")))
    assert await world.room.delete(ADA, seen.execution.execution_id) == 2
    assert [*(world.folder / "artifacts").iterdir()] == []
    for table in ("execution", "execution_event", "execution_artifact", "execution_playbook"):
        assert await world.database.fetch_all(f"SELECT 1 FROM {table}") == []
    rows = await world.database.fetch_all("SELECT action, resource_id FROM audit_entry")
    told = [(row["action"], row["resource_id"]) for row in rows]
    assert told == [
        ("execution.started", seen.execution.execution_id),
        ("execution.deleted", seen.execution.execution_id),
    ]


async def test_a_run_can_be_deleted_as_soon_as_it_says_that_it_is_over(world: World) -> None:
    for _ in range(5):
        execution_id = await world.begin(playbook(step("one", "give")))
        worker = world.engine.worker(execution_id)
        assert worker is not None
        while not worker.run.state.is_over:
            await asyncio.wait({worker.bell})
        assert await world.room.delete(ADA, execution_id) == 0


async def test_runs_that_were_over_too_long_ago_are_tidied_up(make_world: MakeWorld) -> None:
    world = await make_world(kept_days=1)
    seen = await world.run(playbook(step("one", "give")))
    assert await world.room.tidy() == 0

    async def age(transaction: Any) -> None:
        await transaction.execute("UPDATE execution SET ended_at_us = 1")

    await world.database.run(age)
    assert await world.room.tidy() == 1
    assert await store.find(world.database, seen.execution.execution_id) is None


async def test_the_runs_of_others_do_not_exist(world: World) -> None:
    ada = (await world.run(playbook(step("one", "give")))).execution.execution_id
    bob = await world.begin(playbook(sleep("one")), who=BOB)
    agent = await world.begin(playbook(sleep("one")), who=AGENT)

    async def seen_by(who: Any) -> list[str]:
        return [each.execution_id for each in await world.room.page(who, Wanted(), "", 10)]

    assert await seen_by(ADMIN) == [agent, bob, ada]
    assert await seen_by(ADA) == [agent, ada]  # an agent's runs are its owner's
    assert await seen_by(BOB) == [bob]
    assert await seen_by(AGENT) == [agent]
    for who, hidden in ((BOB, ada), (ADA, bob), (AGENT, ada), (AGENT, bob), (BOB, agent)):
        for call in (
            world.room.get(who, hidden),
            world.room.artifacts_of(who, hidden),
            world.room.artifact(who, hidden, "art_1"),
            world.room.delete(who, hidden),
            world.room.page(who, Wanted(parent_id=hidden), "", 10),
            world.room.page(who, Wanted(), hidden, 10),
            world.pause(hidden, who),
            world.cancel(hidden, who),
        ):
            with pytest.raises(NotFound) as refusal:
                await call
            assert refusal.value.reason == "EXECUTION_NOT_FOUND"
    await world.cancel(bob, BOB)
    await world.cancel(agent, AGENT)


async def test_agents_use_no_credentials_and_no_network(world: World) -> None:
    ping = step("one", type="gateway.ping")
    plain = step("one", type="utility.log", parameters={"message": "x"})
    with pytest.raises(PermissionDenied, match="uses gateway") as refusal:
        await world.begin(playbook(ping), who=AGENT, gateway_url="http://gateway")
    assert refusal.value.reason == "NOT_FOR_AGENTS"
    with pytest.raises(PermissionDenied, match="uses credentials"):
        await world.begin(playbook(plain), who=AGENT, credential_name="plant")
    secret = step("one", type="utility.log", parameters={"message": "{{ credential.plant.name }}"})
    with pytest.raises(PermissionDenied, match="uses credentials"):
        await world.begin(playbook(secret), who=AGENT)
    with pytest.raises(PermissionDenied, match="uses credentials"):
        await world.begin(
            playbook(plain, parameters=[{"name": "c", "type": "credential"}]),
            {"c": "plant"},
            who=AGENT,
        )
    with pytest.raises(NotFound):
        await world.begin(playbook(plain), who=replace(AGENT, subject="agent_gone"))
    assert (await world.run(playbook(plain), who=AGENT)).run.state == "completed"


async def test_a_playbook_that_changed_since_is_refused_in_an_agents_run_as_well(
    world: World,
) -> None:
    world.library.texts["child.yaml"] = playbook(sleep("in", 0))
    execution_id = await world.begin(
        playbook(sleep("wait", 0.1), child("run", "child.yaml")), who=AGENT
    )
    world.library.texts["child.yaml"] = playbook(step("in", type="gateway.ping"))
    seen = await world.ended(execution_id)
    assert "which the runs of agents may not" in seen.run.why
    assert world.made == []


async def test_an_agents_run_reads_no_files_but_its_own(world: World) -> None:
    async def strays(job: Job) -> Any:
        return {"text": job.file("module.modl").read_text()}

    (world.folder / "files").mkdir()
    (world.folder / "files" / "module.modl").write_text("module")
    world.does["strays"] = strays
    seen = await world.run(playbook(step("one", "strays")), who=AGENT)
    assert "the runs of agents read their own only" in seen.run.why


async def test_what_a_playbook_is_given_is_checked_before_it_is_a_run(world: World) -> None:
    text = playbook(step("one", "give"), parameters=[{"name": "n", "type": "integer"}])
    for given in ({}, {"n": "5"}, {"n": True}, {"n": 1, "more": 2}):
        with pytest.raises(InvalidArgument):
            await world.begin(text, given)
    assert await world.database.fetch_all("SELECT 1 FROM execution") == []
