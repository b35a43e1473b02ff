"""Environments by curl, on the driver of this machine: what each path, stream and socket answers.

The rows stand in `agentbox/`. `$names` in them are made by the scene.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from steward.gateway.v1 import options_pb2
from steward_gateway.contracts import method_rule
from tests.e2e.agentbox import (
    api_keys,
    environments,
    files,
    networks,
    sharing,
    signing_in,
    snapshots,
    streams,
)
from tests.e2e.agentbox.scene import RATES, AgentboxScene, agentbox_scene
from tests.e2e.agentbox.shapes import refused
from tests.e2e.agentbox.terminals import terminal
from tests.e2e.curl import Answer, differences
from tests.e2e.iron.shapes import NO_BODY, Row
from tests.e2e.paths import route_of, uncalled

ROWS = [
    *environments.ROWS,
    *sharing.ROWS,
    *files.ROWS,
    *snapshots.ROWS,
    *networks.ROWS,
    *streams.REFUSED,
]
SOCKET_ROWS: list[Row] = [
    (name, f"{environments.ONE}/attach{query} $upgrade", 101, None)
    for name, query, _, _ in streams.SOCKETS
]
CATEGORIES = {
    options_pb2.RATE_CATEGORY_ENVIRONMENT_CREATION: RATES["CREATION"],
    options_pb2.RATE_CATEGORY_COMMAND_EXECUTION: RATES["EXECUTION"],
    options_pb2.RATE_CATEGORY_UNSPECIFIED: RATES["DEFAULT"],
    options_pb2.RATE_CATEGORY_DEFAULT: RATES["DEFAULT"],
    options_pb2.RATE_CATEGORY_LOGIN: RATES["LOGIN"],
}
NOT_COUNTED = (400, 405, 415, 426)
"""What is refused for its form has not reached a method."""
COUNTED_ELSEWHERE = ("$as_runtime", "Origin:")
"""Agents have a limit of their own; of pages that may not call, no call is let in."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentboxScene]:
    with agentbox_scene(tmp_path_factory.mktemp("environments") / "data") as scene:
        yield scene


@pytest.mark.parametrize(
    ("arguments", "status", "shape"), [pytest.param(*row[1:], id=row[0]) for row in ROWS]
)
def test_a_path_answers(scene: AgentboxScene, arguments: str, status: int, shape: Any) -> None:
    answer = scene.run(arguments)
    assert answer.status == status, answer
    assert_counted(arguments, answer)
    if shape is NO_BODY:
        assert answer.text == ""
        return
    assert answer.headers["content-type"] == "application/json"
    assert list(differences(shape, answer.body)) == [], answer.text


def assert_counted(arguments: str, answer: Answer) -> None:
    """Every answer to a call that is counted tells the limit of its category, and what is left."""
    route = route_of(arguments)
    limit = None if route is None else CATEGORIES.get(method_rule(route.method).rate_category)
    if (
        limit is None
        or answer.status == 401
        or any(each in arguments for each in COUNTED_ELSEWHERE)
    ):
        return  # strangers are counted by their address
    told = answer.headers.get("x-ratelimit-limit")
    assert told == str(limit) or (told is None and answer.status in NOT_COUNTED), answer
    if told is not None:
        assert int(answer.headers["x-ratelimit-remaining"]) < limit
        assert int(answer.headers["x-ratelimit-reset"]) > 1_700_000_000


@pytest.mark.parametrize(
    ("arguments", "status", "shapes"),
    [pytest.param(*row[1:], id=row[0]) for row in streams.EVENTS],
)
def test_a_stream_answers(
    scene: AgentboxScene, arguments: str, status: int, shapes: dict[str, Any]
) -> None:
    answer = scene.run(arguments)
    assert (answer.status, answer.headers["content-type"]) == (status, "text/event-stream")
    assert_counted(arguments, answer)
    events = re.findall(r"(?:event: (\w+)\n)?(?:id: \d+\n)?data: (.*)\n\n", answer.text)
    assert {name or "message" for name, _ in events} == shapes.keys(), answer.text
    for name, data in events:
        assert list(differences(shapes[name or "message"], json.loads(data))) == []


@pytest.mark.parametrize(
    "call",
    ["-X POST $url/api/v1/environments", f"-X PUT '{environments.ONE}/files/content?path=/tmp/a'"],
)
def test_a_body_of_more_than_4_mib_is_refused(
    scene: AgentboxScene, tmp_path: Path, call: str
) -> None:
    (tmp_path / "body").write_bytes(b" " * (4 * 1024 * 1024 + 1))
    answer = scene.run(f"{call} $as_admin $json --data-binary @{tmp_path / 'body'}")
    assert answer.status == 413
    assert list(differences(refused(413, "4194304"), answer.body)) == []


@pytest.mark.parametrize(
    ("command", "timeout_s", "ended"),
    [
        ("trap '' TERM; {}; sleep 96", 1, {"timed_out": True, "exit_code": 137}),
        ("{}; echo left", 30, {"exit_code": 0}),
    ],
    ids=["timeout", "end"],
)
def test_a_command_leaves_no_process_behind(
    scene: AgentboxScene, command: str, timeout_s: int, ended: dict[str, Any]
) -> None:
    path = f"/api/v1/environments/{scene['environment_id']}"
    children = "setsid sleep 98 & (sleep 97 >/dev/null 2>&1 &)"
    body = {"command": ["sh", "-c", command.format(children)], "timeout": timeout_s}
    ran = scene.post(f"{path}/exec", body, f"Authorization: Bearer {scene.token}")
    assert ran | ended == ran
    left = scene.run(f"$url{path}/processes $as_admin").body["processes"]
    assert [each["command"] for each in left if "sleep 9" in each["command"]] == []


def test_a_file_comes_as_it_is(scene: AgentboxScene) -> None:
    whole = scene.run(f"'{environments.ONE}/files/content?path=/etc/hosts' $as_admin")
    rest = scene.run(f"'{environments.ONE}/files/content?path=/etc/hosts&offset=10' $as_admin")
    assert (whole.status, whole.headers["content-type"]) == (200, "application/octet-stream")
    assert "localhost" in whole.text
    assert rest.text == whole.text[10:]


@pytest.mark.parametrize(
    ("query", "sent", "shapes"), [pytest.param(*row[1:], id=row[0]) for row in streams.SOCKETS]
)
async def test_a_socket_answers(
    scene: AgentboxScene, query: str, sent: list[Any], shapes: list[dict[str, Any]]
) -> None:
    url = attach_url(scene, scene["environment_id"]) + query
    headers = {"Authorization": f"Bearer {scene.token}"}
    async with terminal(url, headers=headers) as shell:
        for frame in sent:
            await shell.send(frame)
        frames = [frame async for frame in shell]
        assert shell.socket.close_code == 1000
    faults = {
        shape["type"]: [
            fault
            for frame in frames
            if frame["type"] == shape["type"]
            for fault in differences(shape, frame)
        ]
        for shape in shapes
    }
    assert faults == {shape["type"]: [] for shape in shapes}, frames
    assert {frame["type"] for frame in frames} == faults.keys()
    assert frames[-1]["type"] == "exit"


def test_every_path_of_the_guide_and_beside_it_is_called_well_and_badly() -> None:
    read = ("", f"{environments.ONE}/files/content?path=/etc/hosts $as_admin", 200, None)
    tables = [*ROWS, *streams.EVENTS, *SOCKET_ROWS, *api_keys.ROWS, *signing_in.ROWS, read]
    assert uncalled(tables, {options_pb2.DIALECT_AGENTBOX}, with_streams=True) == set()


def test_logs_are_followed_as_the_guide_prints_them(scene: AgentboxScene) -> None:
    environment_id = scene["new_environment_id"]
    run = f"-X POST $url/api/v1/environments/{environment_id}/exec $as_admin $json"
    scene.run(run + """ -d '{"command":["sh","-c","echo Line 1; echo Warning >&2"]}'""")
    path = f"'$url/api/v1/environments/{environment_id}/logs?follow=true&tail=10'"
    following = scene.run(f"-N -X GET {path} $as_admin {streams.FOR_A_MOMENT}")
    data = re.findall(r"^id: \d+\ndata: (\{.*\})\n\n", following.text, re.MULTILINE)
    assert len(data) == 2
    assert all(re.match(r'\{"timestamp":"[^"]+Z","stream":"std', each) for each in data)


def attach_url(scene: AgentboxScene, environment_id: str) -> str:
    return f"{scene.url()}/api/v1/environments/{environment_id}/attach"


async def test_a_terminal_works_as_the_guide_prints_it(scene: AgentboxScene) -> None:
    url = attach_url(scene, scene["environment_id"])
    protocols = {"Sec-WebSocket-Protocol": f"Authorization, Bearer {scene.token}"}
    async with terminal(f"{url}?cols=100&rows=30", headers=protocols) as shell:
        await shell.type("stty size; echo $MY_VAR\n")
        seen = await shell.until("my-value\r\n")
        assert "30 100" in seen
        await shell.socket.send_json({"type": "resize", "cols": 120, "rows": 40})
        await shell.type("stty size\n")
        await shell.until("40 120")
        await shell.type("sh -c \"echo be''gun; exec sleep 99\"\n")
        await shell.until("begun\r\n")
        await shell.type("\x03")
        await shell.type("echo é$?\n")
        await shell.until("é130\r\n")
        await shell.type("exit 5\n")
        assert await shell.exit() == {"type": "exit", "exit_code": 5}


async def test_a_ticket_opens_one_terminal(scene: AgentboxScene) -> None:
    environment_id = scene["environment_id"]
    url = attach_url(scene, environment_id)
    mint = f"-X POST $url/api/v1/environments/{environment_id}/tickets $as_admin $json -d '{{}}'"
    ticket = scene.run(mint).body["ticket"]
    async with terminal(f"{url}?ticket={ticket}") as shell:
        await shell.type("echo i''n\n")
        await shell.until("in\r\n")
    with pytest.raises(aiohttp.WSServerHandshakeError) as used:
        async with terminal(f"{url}?ticket={ticket}"):
            pass
    assert used.value.status == 401


async def test_the_log_of_a_deleted_environment_ends_with_an_event(scene: AgentboxScene) -> None:
    environment_id = scene["new_environment_id"]
    path = f"{scene.url()}/api/v1/environments/{environment_id}/logs?follow=true"
    headers = {"Authorization": f"Bearer {scene.token}"}
    async with aiohttp.ClientSession() as session, session.get(path, headers=headers) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        await asyncio.to_thread(
            scene.run, f"-X DELETE $url/api/v1/environments/{environment_id} $as_admin"
        )
        text = (await asyncio.wait_for(answer.read(), 10)).decode()
    assert 'event: end\ndata: {"reason":"it was deleted","status":null}\n\n' in text
