"""A password that goes through everything a run does, and is written down nowhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from steward_server.executions import projection
from steward_server.executions.run import Kind
from steward_server.executions.work import ArtifactKind, Job, StepFailed
from tests.integration.executions.engine.conftest import (
    ADMIN,
    World,
    child,
    outputs,
    playbook,
    step,
    texts,
)

CANARY = 'Kanarien-Vogel"7 ü/ß'


def spellings(secret: str) -> set[bytes]:
    found = {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}
    found |= {json.dumps(secret, ensure_ascii=False)[1:-1], secret.encode().hex()}
    found.add(base64.b64encode(secret.encode()).decode().rstrip("=")[:-2])
    return {each.encode() for each in found}


def leaks(folder: Path) -> list[str]:
    """What in a folder has the canary in it, or in its name."""
    found = []
    for each in folder.rglob("*"):
        content = each.read_bytes() if each.is_file() else b""
        name = str(each.relative_to(folder)).encode()
        found += [f"{each.name}: {text!r}" for text in spellings(CANARY) if text in content + name]
    return found


async def test_a_password_is_written_down_nowhere(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.credentials.passwords["plant"] = CANARY
    encoded = base64.b64encode(CANARY.encode()).decode()

    async def leaks_it(job: Job) -> Any:
        secret = job.values["inputs"]["token"]
        assert secret == CANARY
        await job.log(f"the password is {secret}")
        await job.log(f"http://x/?p={quote(secret)} {encoded}")
        await job.log("x" * 3_990 + secret)
        job.set_variable("kept", {secret: [secret, {"deep": f"({secret})"}]})
        await job.keep(
            f"{secret}.png", b"png", kind=ArtifactKind.SCREENSHOT, content_type="image/png"
        )
        return {"plain": secret, secret: 1, "basic": f"Basic {encoded}", "in": [[secret]]}

    async def fails(job: Job) -> Any:
        secret = job.values["inputs"]["token"]
        raise StepFailed(f"refused: {secret}", answer=f"<b>{secret}</b>", sent={secret: encoded})

    async def breaks(job: Job) -> Any:
        raise ValueError(f"cannot connect with {job.values['inputs']['token']}")

    world.does |= {"set_variable('kept')": leaks_it, "fails": fails, "breaks": breaks}
    token = {"token": "{{ credential.plant.password }}"}
    world.library.texts["child.yaml"] = playbook(
        step("in", "give", parameters={"token": "{{ parameter.token }}"}),
        step("broken", "breaks", parameters={"token": "{{ parameter.token }}"}),
        parameters=[{"name": "token", "type": "string"}],
    )
    message = "Is {{ credential.plant.password }} well?"
    execution_id = await world.begin(
        playbook(
            step("one", "set_variable('kept')", parameters=token),
            step("two", "fails", parameters=token, on_failure="continue"),
            step("three", "breaks", parameters=token, on_failure="continue"),
            step("four", "give", when="credential.plant.password == 1"),
            {**child("run", "child.yaml", **token), "on_failure": "continue"},
            step("again", "give", parameters={"x": "{{ step.one.plain }} {{ variable.kept }}"}),
            step("ask", type="approval.wait", parameters={"message": message}),
            finally_=[step("last", "fails", parameters=token)],
        ),
    )
    await world.until(execution_id, lambda run: run.asks is not None)
    await world.room.give_word(ADMIN, execution_id, "", f"it is {CANARY}", approves=False)
    seen = await world.ended(execution_id)
    assert seen.run.state == "failed"
    assert outputs(seen, "one")["plain"] == "***"
    logged = texts(seen, Kind.LOGGED)
    assert (logged[0], logged[2]) == ("the password is ***", "x" * 3_990 + "***")
    told = f"{seen.events}{projection.in_full(seen)}"
    told += "".join(str(projection.update(seen.execution.about, each)) for each in seen.events)
    assert not any(each.decode() in told for each in spellings(CANARY))
    assert leaks(tmp_path) == []
    out, err = capsys.readouterr()
    assert "executions.step_broke" in out + err
    assert not any(each.decode() in out + err for each in spellings(CANARY))


async def test_a_password_of_digits_leaves_the_engines_own_facts_alone(world: World) -> None:
    for password in ("1790", "true", "admin", "info"):
        world.credentials.passwords["plant"] = password
        wait = step("ask", type="approval.wait", parameters={"message": "Go?"})
        execution_id = await world.begin(playbook(wait), credential_name="plant")
        run = await world.until(execution_id, lambda run: run.asks is not None)
        assert run.asks is not None
        assert isinstance(run.asks.data["expires_at_us"], int)
        await world.room.give_word(ADMIN, execution_id, "", "", approves=True)
        seen = await world.ended(execution_id)
        assert seen.run.state == "completed", seen.run.why
        answered = next(e.change for e in seen.events if e.change.kind is Kind.ANSWERED)
        assert answered.data["by"] == "admin"
        assert projection.in_full(seen).status
