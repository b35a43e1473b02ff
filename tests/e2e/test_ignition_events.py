"""What happened to a run and what it made, beside the paths of the guide, and by other doors."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from steward.executions.v1 import executions_pb2 as pb
from steward.executions.v1.executions_pb2_grpc import ExecutionServiceStub
from tests.e2e.curl import TIME, differences
from tests.e2e.ignition.scene import asks, in_step, over, save_playbooks
from tests.e2e.ignition.shapes import refused
from tests.live import Api, Live, create_agent
from tests.people import add_person

EVENTS_OF_SHORT = [
    *("started", "step_started", "logged", "step_completed"),
    *("step_started", "step_completed", "ended"),
]


@pytest.fixture
def house(live: Live, tmp_path: Path) -> Live:
    save_playbooks(tmp_path / "data")
    return live


async def start(api: Api, playbook: str) -> str:
    begun = await api.call("POST", "/api/executions", {"playbook_path": f"runs/{playbook}.yaml"})
    assert begun.status == 200, begun
    return str(begun.body["execution_id"])


async def awaited(api: Api, run: str, holds: Any) -> Any:
    async with asyncio.timeout(10):
        while not holds(seen := (await api.call("GET", f"/api/executions/{run}")).body):
            await asyncio.sleep(0.01)
    return seen


async def ask(api: Api, run: str, verb: str, **body: Any) -> Any:
    return await api.call("POST", f"/api/executions/{run}/{verb}", body)


async def read(api: Api, path: str, **headers: str) -> tuple[str, dict[str, str]]:
    """A stream to its end, and its headers."""
    async with asyncio.timeout(10):
        answer = await api.call("GET", path, **headers)
    assert answer.status == 200, answer
    return str(answer.body), answer.headers


async def sign_in(house: Live, name: str) -> Api:
    login = {"username": name, "password": "a long walk in the rain"}
    pair = (await house.api.call("POST", "/api/auth/login", login)).body
    return house.api.acting_as(authorization=f"Bearer {pair['access_token']}")


def sent(text: str) -> list[tuple[str, Any]]:
    """Ids and data of server-sent events."""
    blocks = [block.splitlines() for block in text.split("\n\n") if "data: " in block]
    fields = [dict(line.split(": ", 1) for line in block if ": " in line) for block in blocks]
    return [(each.get("id", ""), json.loads(each["data"])) for each in fields]


async def test_events_are_sent_until_the_run_is_over_and_resumed_by_the_last_id(
    house: Live,
) -> None:
    run = await start(house.admin, "short")
    path = f"/api/executions/{run}/events"
    text, headers = await read(house.admin, path, accept="text/event-stream")
    assert headers["Content-Type"].startswith("text/event-stream")
    events = sent(text)
    assert [each["execution_update"]["event"] for _, each in events] == EVENTS_OF_SHORT
    ids = [int(each) for each, _ in events]
    assert ids == [each["execution_update"]["sequence"] for _, each in events] == sorted(set(ids))
    for index, last in enumerate(ids):
        rest, _ = await read(house.admin, path, accept="text/event-stream", last_event_id=str(last))
        assert sent(rest) == events[index + 1 :]


async def test_events_are_lines_for_who_asks_for_lines(house: Live) -> None:
    run = await start(house.admin, "short")
    path = f"/api/executions/{run}/events"
    text, _ = await read(house.admin, path, accept="application/x-ndjson")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [each["execution_update"]["event"] for each in lines] == EVENTS_OF_SHORT
    since = lines[2]["sequence"]
    rest, _ = await read(house.admin, f"{path}?since={since}", accept="application/x-ndjson")
    assert [json.loads(line) for line in rest.splitlines()] == lines[3:]


async def test_events_of_a_run_that_goes_on_come_as_they_happen(house: Live) -> None:
    run, other = await start(house.admin, "long"), await start(house.admin, "long")
    path = f"/api/executions/{run}/events"
    following = asyncio.create_task(read(house.admin, path, accept="application/x-ndjson"))
    for each in (other, run):
        await awaited(house.admin, each, in_step)
        await ask(house.admin, each, "cancel", reason="It is late.")
    lines = [json.loads(line)["execution_update"] for line in (await following)[0].splitlines()]
    assert {each["execution_id"] for each in lines} == {run}
    assert [each["event"] for each in lines[:2]] == ["started", "step_started"]
    assert (lines[-1]["event"], lines[-1]["status"]) == ("ended", "cancelled")
    assert lines[-1]["message"] == "cancelled by admin: It is late."


async def test_a_run_is_the_same_by_every_door(house: Live) -> None:
    connect = f"{house.api.base_url}/steward.executions.v1.ExecutionService"
    body = {"playbookPath": "runs/short.yaml"}
    async with house.api.session.post(
        f"{connect}/StartExecution", json=body, headers=house.admin.headers
    ) as answer:
        assert answer.status == 200
        run = (await answer.json())["executionId"]
    stub: Any = ExecutionServiceStub(house.channel)
    metadata = tuple(house.admin.headers.items())
    watch = stub.Watch(pb.WatchRequest(execution_id=run), metadata=metadata)
    assert [each.execution_update.event async for each in watch] == EVENTS_OF_SHORT
    told = (
        await stub.GetExecution(pb.GetExecutionRequest(execution_id=run), metadata=metadata)
    ).execution
    seen = (await house.admin.call("GET", f"/api/executions/{run}")).body
    assert (told.status, seen["status"]) == (pb.EXECUTION_STATUS_COMPLETED, "completed")
    assert [each.step_id for each in told.step_results] == [
        each["step_id"] for each in seen["step_results"]
    ]
    assert seen["sequence"] == told.sequence
    # One value of JSON stays what it is: 1, and not 1.0.
    assert seen["step_results"][1]["output"] == {"variable": "a", "value": [1, 2]}


async def test_an_artifact_is_saved_and_not_shown(house: Live, tmp_path: Path) -> None:
    run = await start(house.admin, "short")
    await awaited(house.admin, run, over)
    page = b"<script>alert(1)</script>"
    folder = tmp_path / "data" / "artifacts" / run
    folder.mkdir(parents=True)
    for artifact_id, kind in (("art_page", "report"), ("art_shot", "screenshot")):
        (folder / artifact_id).write_bytes(page)
        with closing(sqlite3.connect(tmp_path / "data" / "steward.db")) as database, database:
            database.execute(
                "INSERT INTO execution_artifact VALUES (?, ?, 'hello', ?, ?, 'text/html', ?, 1)",
                (artifact_id, run, f"{kind}.html", kind, len(page)),
            )
    path = f"/api/executions/{run}/artifacts"
    listed = (await house.admin.call("GET", path)).body["artifacts"]
    shape = {
        "artifact_id": str,
        "name": str,
        "kind": str,
        "content_type": "text/html",
        "size_bytes": len(page),
        "step_id": "hello",
        "created_at": TIME,
    }
    assert list(differences([shape], listed)) == []
    assert {each["kind"] for each in listed} == {"report", "screenshot"}
    text, headers = await read(house.admin, f"{path}/art_page")
    assert text == page.decode()
    assert headers["Content-Type"] == "application/octet-stream"  # whatever it is
    assert headers["Content-Disposition"] == 'attachment; filename="report.html"'
    deleted = await house.admin.call("DELETE", f"/api/executions/{run}")
    assert deleted.body["screenshots_deleted"] == 1
    assert not folder.exists()


async def test_an_executors_key_takes_no_password_elsewhere(house: Live) -> None:
    credential = {"name": "gw", "username": "u", "password": "p4ssword", "gateway_url": "http://g"}
    await house.admin.call("POST", "/api/credentials", credential)
    made = await house.admin.call("POST", "/api/v1/api-keys", {"kind": "itk", "role": "executor"})
    executor = house.api.acting_as(x_api_key=made.body["key"])
    body = {"playbook_path": "gateway/health_check.yaml", "credential_name": "gw"}
    for elsewhere in ({"gateway_url": "http://evil"}, {"gateway_url": "http://g.evil/"}):
        refused = await executor.call("POST", "/api/executions", body | elsewhere)
        assert (refused.status, refused.body["detail"]["error"]) == (403, "permission_denied")
    upgrade = {
        "playbook_path": "gateway/module_upgrade.yaml",
        "credential_name": "gw",
        "parameters": {"gateway_url": "http://evil", "module_path": "m.modl"},
    }
    assert (await executor.call("POST", "/api/executions", upgrade)).status == 403
    begun = [
        await executor.call("POST", "/api/executions", body),
        await executor.call("POST", "/api/executions", body | {"gateway_url": "http://g/"}),
        await house.admin.call("POST", "/api/executions", body | {"gateway_url": "http://other"}),
    ]
    assert [each.status for each in begun] == [200, 200, 200]
    for each in begun:
        await ask(house.admin, each.body["execution_id"], "cancel")


async def test_an_executors_key_does_all_but_cancel_and_delete(house: Live) -> None:
    made = await house.admin.call("POST", "/api/v1/api-keys", {"kind": "itk", "role": "executor"})
    executor = house.api.acting_as(x_api_key=made.body["key"])
    run = await start(executor, "long")
    await awaited(executor, run, in_step)
    for verb in ("pause", "resume", "skip"):
        assert (await ask(executor, run, verb)).status == 200
    await awaited(executor, run, over)
    again = await ask(executor, run, "rerun", from_start=True)
    assert again.status == 200
    kept_out = [
        await ask(executor, again.body["execution_id"], "cancel"),
        await ask(executor, run, "approve"),
        await ask(executor, run, "reject"),
        await executor.call("DELETE", f"/api/executions/{run}"),
    ]
    for each in kept_out:
        assert each.status == 403
        shape = refused("permission_denied", reason="ROLE_NOT_ALLOWED")
        assert list(differences(shape, each.body)) == []


async def test_somebody_else_approves_what_one_may_not_approve_oneself(
    house: Live, tmp_path: Path
) -> None:
    add_person(tmp_path / "data", "ada", "user")
    ada = await sign_in(house, "ada")
    run = await start(ada, "strict")
    await awaited(ada, run, asks)
    own = await ask(ada, run, "approve", comment="It is fine.")
    assert (own.status, own.body["detail"]["details"]["reason"]) == (403, "OWN_RUN")
    given = await ask(house.admin, run, "approve", comment="It is fine.")
    assert given.body == {"message": "Step approved", "execution_id": run}
    seen = await awaited(ada, run, over)
    output = seen["step_results"][0]["output"]
    assert (output["approved"], output["by"], output["comment"]) == (True, "admin", "It is fine.")
    assert list(differences(TIME, output["at"])) == []
    # And it is on record who it was.
    query = f"action=execution.approved&resource_id={run}"
    (entry,) = (await house.admin.call("GET", f"/api/v1/audit?{query}")).body["entries"]
    assert entry["method"].endswith("/ApproveExecution")


async def test_an_agent_cancels_its_own_runs_and_no_other(house: Live) -> None:
    agents = [await create_agent(house.admin) for _ in range(2)]
    one, other = (house.api.acting_as(x_ic_key=each.ic_token) for each in agents)
    run = await start(one, "long")
    await awaited(one, run, in_step)
    assert (await ask(other, run, "cancel")).status == 404
    assert (await ask(one, run, "cancel")).status == 200
    seen = await awaited(one, run, over)
    assert (seen["status"], seen["agent_id"]) == ("cancelled", agents[0].agent_id)
    assert (await house.admin.call("GET", f"/api/executions/{run}")).status == 200


async def test_who_repeats_a_request_starts_one_run(house: Live) -> None:
    body = {"playbook_path": "runs/short.yaml", "request_id": "once"}
    begun = [await house.admin.call("POST", "/api/executions", body) for _ in range(3)]
    assert {each.body["execution_id"] for each in begun} == {begun[0].body["execution_id"]}
    run = begun[0].body["execution_id"]
    await awaited(house.admin, run, over)
    again = [
        (await ask(house.admin, run, "rerun", from_start=True, request_id="again")).body
        for _ in range(2)
    ]
    assert again[0] == again[1]
    listed = (await house.admin.call("GET", "/api/executions")).body
    assert [each["execution_id"] for each in listed] == [again[0]["execution_id"], run]
    assert listed[0]["rerun_of"] == run


async def test_what_changes_nothing_is_not_on_record(house: Live) -> None:
    run = await start(house.admin, "long")
    await awaited(house.admin, run, in_step)
    for verb in ("pause", "pause", "resume", "cancel"):
        assert (await ask(house.admin, run, verb)).status == 200
    await awaited(house.admin, run, over)
    for verb in ("pause", "resume", "skip", "cancel", "approve", "reject"):
        assert (await ask(house.admin, run, verb)).status == 409
    entries = (await house.admin.call("GET", f"/api/v1/audit?resource_id={run}")).body["entries"]
    assert sorted(each["action"] for each in entries) == [
        "execution.cancelled",
        "execution.paused",
        "execution.resumed",
        "execution.started",
    ]
