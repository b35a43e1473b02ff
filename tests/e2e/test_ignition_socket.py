"""`/ws/executions` as the guide of Ignition has it, and what it can do beside."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.e2e.curl import TIME, differences
from tests.e2e.ignition.executions import UUID
from tests.e2e.ignition.scene import in_step, over, save_playbooks
from tests.e2e.ignition.shapes import invalid, refused
from tests.live import Api, Live, ServerProcess, create_agent
from tests.people import add_person

Socket = aiohttp.ClientWebSocketResponse
PATIENCE_S = 10
DOCUMENTED = {"execution_update", "screenshot_frame", "pong"}
UPDATE = {
    "execution_id": UUID,
    "status": str,
    "current_step_index": int,
    "sequence": int,
    "event": str,
    "timestamp": TIME,
    "playbook_name": str,
    "total_steps": int,
}
PARENT = """name: Parent
version: "1"
steps:
  - {id: child, name: Child, type: playbook.run, parameters: {playbook: runs/short.yaml}}
"""
LOUD = 110
"""Lines of 10,000 characters that one run logs. Three runs tell more than any buffer holds."""


@pytest.fixture
def house(live: Live, tmp_path: Path) -> Live:
    save_playbooks(tmp_path / "data")
    return live


async def new_key(api: Api, **fields: str) -> str:
    made = await api.call("POST", "/api/v1/api-keys", {"kind": "itk"} | fields)
    assert made.status == 201, made
    return str(made.body["key"])


@asynccontextmanager
async def listening(api: Api, key: str, query: str = "", **options: Any) -> AsyncIterator[Socket]:
    url = f"{api.base_url.replace('http', 'ws')}/ws/executions?api_key={key}{query}"
    async with api.session.ws_connect(url, **options) as socket:
        yield socket


async def receive(socket: Socket) -> Any:
    return await socket.receive_json(timeout=PATIENCE_S)


async def until_ended(socket: Socket, *runs: str) -> list[Any]:
    """The updates up to the end of all these runs."""
    updates: list[Any] = []
    left = {*runs}
    while left:
        frame = await receive(socket)
        assert frame["type"] == "execution_update", frame
        updates.append(frame["data"])
        if frame["data"]["event"] == "ended":
            left.discard(frame["data"]["execution_id"])
    return updates


async def start(api: Api, playbook: str, **fields: Any) -> str:
    body = {"playbook_path": f"runs/{playbook}.yaml"} | fields
    begun = await api.call("POST", "/api/executions", body)
    assert begun.status == 200, begun
    return str(begun.body["execution_id"])


async def ask(api: Api, run: str, verb: str, **body: Any) -> None:
    done = await api.call("POST", f"/api/executions/{run}/{verb}", body)
    assert done.status == 200, done


async def awaited(api: Api, run: str, holds: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        while not holds(seen := (await api.call("GET", f"/api/executions/{run}")).body):
            await asyncio.sleep(0.01)
    return seen


def assert_like(shape: Any, frame: Any) -> None:
    assert list(differences(shape, frame, "frame")) == [], frame


# What the guide prints.


async def test_an_update_begins_as_the_guide_prints_it(house: Live) -> None:
    async with listening(house.api, await new_key(house.admin)) as socket:
        run = await start(house.admin, "short")
        frames = [await receive(socket) for _ in range(6)]
    assert [[*each] for each in frames] == [["type", "data"]] * 6
    updates = [each["data"] for each in frames]
    assert {each["execution_id"] for each in updates} == {run}
    assert [(each["event"], each["status"], each["current_step_index"]) for each in updates] == [
        ("started", "running", 0),
        ("step_started", "running", 0),
        ("logged", "running", 0),
        ("step_completed", "running", 1),
        ("step_started", "running", 1),
        ("step_completed", "running", 2),
    ]
    told = updates[3]
    assert [*told][:3] == ["execution_id", "status", "current_step_index"]
    result = told["step_result"]
    assert (result["step_id"], result["status"]) == ("hello", "completed")
    assert result["output"] == {"logged": "Hello", "level": "info"}
    assert_like(UPDATE | {"step_result": dict}, told)
    assert_like(UPDATE | {"message": "Hello", "level": "info"}, updates[2])


async def test_a_ping_is_answered_with_its_timestamp(house: Live) -> None:
    async with listening(house.api, await new_key(house.admin)) as socket:
        for timestamp in (1707000000000, 0, -1, 2**53 - 1):
            await socket.send_str(f'{{"type": "ping", "timestamp": {timestamp}}}')
            answer = await socket.receive_str(timeout=PATIENCE_S)
            assert answer == f'{{"type":"pong","timestamp":{timestamp}}}'
        await socket.send_json({"type": "ping"})
        assert await receive(socket) == {"type": "pong", "timestamp": 0}


async def test_who_knows_the_guide_is_sent_nothing_it_does_not_name(
    house: Live, tmp_path: Path
) -> None:
    """Whatever becomes of runs: they end well, fail, ask, run others, pause, are cancelled."""
    (tmp_path / "data" / "playbooks" / "runs" / "parent.yaml").write_text(PARENT)
    admin, frames = house.admin, list[Any]()
    async with listening(house.api, await new_key(admin)) as socket:
        runs = [
            await start(admin, name) for name in ("short", "failing", "asking", "long", "parent")
        ]
        _, _, asking, long, _ = runs
        await awaited(admin, asking, lambda seen: "question" in seen)
        await awaited(admin, long, in_step)
        await ask(admin, asking, "reject", comment="No.")
        for verb in ("pause", "resume", "cancel"):
            await ask(admin, long, verb)
        left = {*runs}
        while left:
            await socket.send_json({"type": "ping", "timestamp": len(frames)})
            frames.append(await receive(socket))
            if frames[-1]["type"] == "execution_update" and frames[-1]["data"]["event"] == "ended":
                left.discard(frames[-1]["data"]["execution_id"])
    assert {each["type"] for each in frames} <= DOCUMENTED
    updates = [each["data"] for each in frames if each["type"] == "execution_update"]
    ends = {each["playbook_name"]: each["status"] for each in updates if each["event"] == "ended"}
    assert ends == {
        "Short": "completed",
        "Failing": "failed",
        "Asking": "failed",
        "Long": "cancelled",
        "Parent": "completed",
    }
    children = [each for each in updates if each.get("parent_execution_id")]
    assert {each["parent_execution_id"] for each in children} == {runs[-1]}
    assert {each["status"] for each in updates} <= {
        *("running", "paused", "completed", "failed", "cancelled"),
    }
    assert {"pause_asked", "paused", "resumed", "stop_asked", "asked", "answered"} <= {
        each["event"] for each in updates
    }


@pytest.mark.parametrize("query", ["", "?api_key=", "?api_key=dev-key", "?api_key=itk_nonsense"])
async def test_without_a_good_key_there_is_no_socket(house: Live, query: str) -> None:
    url = f"{house.api.base_url}/ws/executions{query}"
    with pytest.raises(aiohttp.WSServerHandshakeError) as kept_out:
        await house.api.session.ws_connect(url)
    assert kept_out.value.status == 401


async def test_a_key_that_is_revoked_ends_its_socket(house: Live) -> None:
    made = (await house.admin.call("POST", "/api/v1/api-keys", {"kind": "itk"})).body
    async with listening(house.api, made["key"]) as socket:
        await house.admin.call("DELETE", f"/api/v1/api-keys/{made['id']}")
        message = await socket.receive(timeout=PATIENCE_S)
        assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 4016)


async def test_a_path_that_is_called_without_an_upgrade_says_so(house: Live) -> None:
    answer = await house.admin.call("GET", "/ws/executions")
    assert (answer.status, answer.headers["Upgrade"]) == (426, "websocket")


# Beside the guide.


async def test_what_cannot_be_read_is_told_and_the_socket_goes_on(house: Live) -> None:
    unknown = "550e8400-e29b-41d4-a716-446655440000"
    told: list[tuple[str, dict[str, Any]]] = [
        ("{", refused("validation_error")),
        ("[]", refused("validation_error")),
        ('{"type": "gossip"}', invalid("type")),
        ('{"timestamp": 5}', invalid("type")),
        ('{"type": "ping", "timestamp": "now"}', invalid("timestamp")),
        ('{"type": "ping", "timestamp": 1.5}', invalid("timestamp")),
        ('{"type": "ping", "colour": "red"}', invalid("colour")),
        ('{"type": "subscribe", "data": {"since": -1}}', invalid("since")),
        ('{"type": "subscribe", "data": {"status": ["asleep"]}}', invalid("data.status[0]")),
        ('{"type": "subscribe", "data": {"colour": "red"}}', invalid("data.colour")),
        (
            f'{{"type": "subscribe", "data": {{"execution_id": ["{unknown}"]}}}}',
            refused("execution_not_found", execution_id=unknown),
        ),
    ]
    async with listening(house.api, await new_key(house.admin)) as socket:
        for text, shape in told:
            await socket.send_str(text)
            assert_like({"type": "Error", "error": shape["detail"]}, await receive(socket))
        await socket.send_bytes(b"\x00")
        assert (await receive(socket))["type"] == "Error"
        run = await start(house.admin, "short")
        assert (await until_ended(socket, run))[-1]["status"] == "completed"


@pytest.mark.parametrize(
    ("query", "shape"),
    [
        ("&since=-1", invalid("since")),
        ("&execution_id=none", refused("execution_not_found", execution_id="none")),
    ],
)
async def test_a_subscription_that_cannot_be_is_told_so_and_may_be_mended(
    house: Live, query: str, shape: dict[str, Any]
) -> None:
    async with listening(house.api, await new_key(house.admin), query) as socket:
        assert_like({"type": "Error", "error": shape["detail"]}, await receive(socket))
        await socket.send_json({"type": "subscribe", "data": {"since": 0}})
        run = await start(house.admin, "short")
        assert (await until_ended(socket, run))[-1]["status"] == "completed"


@pytest.mark.parametrize("query", ["&since=x", "&status=asleep", "&colour=red"])
async def test_a_query_that_cannot_be_read_is_refused_before_the_upgrade(
    house: Live, query: str
) -> None:
    with pytest.raises(aiohttp.WSServerHandshakeError) as kept_out:
        async with listening(house.api, await new_key(house.admin), query):
            pass
    assert kept_out.value.status == 400


async def test_a_query_says_which_runs_states_and_lines_are_sent(house: Live) -> None:
    admin, key = house.admin, await new_key(house.admin)
    chosen = await start(admin, "long")
    async with (
        listening(house.api, key, f"&execution_id={chosen}") as of_run,
        listening(house.api, key, "&status=failed&status=cancelled") as of_ends,
        listening(house.api, key, "&logs=false&status=running") as silent,
    ):
        failed = await start(admin, "failing")
        await awaited(admin, failed, over)
        await ask(admin, chosen, "cancel")
        assert {each["execution_id"] for each in await until_ended(of_run, chosen)} == {chosen}
        ends = await until_ended(of_ends, failed, chosen)
        assert {each["status"] for each in ends} == {"failed", "cancelled"}
        events = [(await receive(silent))["data"]["event"] for _ in range(4)]
    assert "logged" not in events


async def test_a_new_subscription_takes_the_place_of_the_old(house: Live) -> None:
    admin, key = house.admin, await new_key(house.admin)
    first, second = await start(admin, "long"), await start(admin, "long")
    async with listening(house.api, key, f"&execution_id={first}") as socket:
        only = {"type": "subscribe", "data": {"execution_id": [second]}}
        await socket.send_json(only)
        await socket.send_json({"type": "ping", "timestamp": 1})
        while (await receive(socket))["type"] != "pong":
            pass
        for run in (first, second):
            await awaited(admin, run, in_step)
            await ask(admin, run, "cancel")
        updates = await until_ended(socket, second)
    assert {each["execution_id"] for each in updates} == {second}


async def test_a_cut_reader_resumes_without_loss_or_repetition(house: Live) -> None:
    admin, key = house.admin, await new_key(house.admin)
    async with listening(house.api, key) as whole:
        async with listening(house.api, key) as cut:
            runs = [await start(admin, "short") for _ in range(4)]
            before = [(await receive(cut))["data"] for _ in range(9)]
            assert cut._response.connection is not None
            transport = cut._response.connection.transport
            assert transport is not None
            transport.abort()
        runs += [await start(admin, "short") for _ in range(4)]
        async with listening(house.api, key, f"&since={before[-1]['sequence']}") as resumed:
            after = await until_ended(resumed, *_not_ended(runs, before))
        everything = await until_ended(whole, *runs)
    assert before + after == everything
    sequences = [each["sequence"] for each in everything]
    assert sequences == sorted(set(sequences))


def _not_ended(runs: Sequence[str], updates: Sequence[Any]) -> set[str]:
    return {*runs} - {each["execution_id"] for each in updates if each["event"] == "ended"}


async def test_people_and_agents_see_their_own_runs_and_administrators_all(
    house: Live, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    people = {}
    for name, role in (("ada", "user"), ("bob", "viewer")):
        add_person(data_dir, name, role)
        login = {"username": name, "password": "a long walk in the rain"}
        pair = (await house.api.call("POST", "/api/auth/login", login)).body
        people[name] = house.api.acting_as(authorization=f"Bearer {pair['access_token']}")
    agent = await create_agent(house.admin)
    other = await create_agent(house.admin)
    runtime = house.api.acting_as(x_ic_key=agent.ic_token)
    stranger = {"X-IC-Key": other.ic_token}
    ada = await new_key(people["ada"])
    async with (
        listening(house.api, ada) as of_ada,
        listening(house.api, "", "&since=0", headers=people["bob"].headers) as of_bob,
        listening(house.api, "", headers=runtime.headers) as of_agent,
        listening(house.api, "", headers=stranger) as of_other,
        listening(house.api, await new_key(house.admin, role="admin")) as of_admin,
    ):
        hers = await start(people["ada"], "short")
        its = await start(runtime, "short")
        theirs = await start(house.admin, "short")
        for socket, run in ((of_ada, hers), (of_agent, its)):
            assert {each["execution_id"] for each in await until_ended(socket, run)} == {run}
        seen = await until_ended(of_admin, hers, its, theirs)
        assert {each["execution_id"] for each in seen} == {hers, its, theirs}
        # Had they seen anything, it would come before the answer to this.
        for socket in (of_ada, of_bob, of_agent, of_other):
            await socket.send_json({"type": "ping", "timestamp": 7})
            assert await receive(socket) == {"type": "pong", "timestamp": 7}
        prying = {"type": "subscribe", "data": {"execution_id": [its], "since": 0}}
        for socket in (of_ada, of_bob, of_other):
            await socket.send_json(prying)
            shape = refused("execution_not_found", execution_id=its)["detail"]
            assert_like({"type": "Error", "error": shape}, await receive(socket))
    listed = (await runtime.call("GET", "/api/executions")).body
    assert [each["execution_id"] for each in listed] == [its]
    assert (await people["bob"].call("GET", "/api/executions")).body == []
    assert len((await house.admin.call("GET", "/api/executions")).body) == 3


async def test_a_reader_that_stands_still_stalls_nobody_and_loses_nothing(
    house: Live, tmp_path: Path
) -> None:
    say = 'name: Say, type: utility.log, parameters: {message: "{{ text }}"}'
    lines = "".join(f"  - {{id: s{number}, {say}}}\n" for number in range(LOUD))
    parameter = "parameters:\n  - {name: text, type: string}\n"
    loud = f'name: Loud\nversion: "1"\n{parameter}steps:\n{lines}'
    (tmp_path / "data" / "playbooks" / "runs" / "loud.yaml").write_text(loud)
    key = await new_key(house.admin)

    def narrow(address: Any) -> sockets.socket:
        made = sockets.socket(address[0], address[1], address[2])
        made.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        return made

    connector = aiohttp.TCPConnector(socket_factory=narrow)
    async with aiohttp.ClientSession(connector=connector) as narrow_session:
        url = f"{house.api.base_url}/ws/executions?api_key={key}"
        still = await narrow_session.ws_connect(url, max_msg_size=0)
        async with listening(house.api, key) as quick:
            text = {"text": "x" * 10_000}
            runs = [await start(house.admin, "loud", parameters=text) for _ in range(3)]
            told = await until_ended(quick, *runs)
        late = await until_ended(still, *runs)
        await still.close()
    assert late == told
    assert len([each for each in told if each["event"] == "logged"]) == 3 * LOUD


async def test_a_server_that_restarts_is_gone_on_from(tmp_path: Path) -> None:
    save_playbooks(tmp_path)
    server = await ServerProcess(tmp_path).start()
    try:
        async with aiohttp.ClientSession() as session:
            admin = await Api(f"http://{server.http_address}", session).sign_in()
            key = await new_key(admin, role="admin")
            async with listening(admin, key) as socket:
                run = await start(admin, "long")
                before = [(await receive(socket))["data"] for _ in range(2)]
                stopping = asyncio.create_task(asyncio.to_thread(server.stop))
                message = await socket.receive(timeout=PATIENCE_S)
                assert (message.type, socket.close_code) == (WSMsgType.CLOSE, 1001)
            await stopping
            await server.start()
            admin = await admin.sign_in()
            async with listening(admin, key, f"&since={before[-1]['sequence']}") as socket:
                await awaited(admin, run, in_step)
                await ask(admin, run, "skip")
                after = await until_ended(socket, run)
    finally:
        server.kill()
    assert [each["event"] for each in before] == ["started", "step_started"]
    assert after[-1]["status"] == "completed"
    assert min(each["sequence"] for each in after) > before[-1]["sequence"]
