"""Callers with API keys, over gRPC, REST, event streams and WebSocket."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import aiohttp
import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.api_keys.v1 import api_keys_pb2 as pb
from steward.auth.v1 import auth_pb2
from steward_server.auth.accounts import Role
from tests.integration.conftest import Metadata, Server, api_key, bearer, refusal
from tests.live import Live, live_server, live_settings

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED


async def look(server: Server, metadata: Metadata) -> list[str]:
    """What every signed-in person may: the names of the agents they see."""
    request = agents_pb2.ListAgentsRequest()
    answer = await server.agents.ListAgents(request, metadata=metadata)
    return [agent.name for agent in answer.agents]


async def why_not(server: Server, text: str) -> str:
    refused = await refusal(look(server, api_key(text)))
    assert refused.code is UNAUTHENTICATED
    assert text[-20:] not in refused.message or len(text) < 20
    return refused.reason


def change_user(server: Server, username: str, **columns: str) -> None:
    connection = sqlite3.connect(server.folder / "steward.db")
    with connection:
        for name, value in columns.items():
            connection.execute(
                f"UPDATE app_user SET {name} = ? WHERE username = ?",
                (value, username),
            )
    connection.close()


async def test_both_kinds_of_key_let_their_owner_in_every_way_they_are_sent(
    server: Server,
) -> None:
    await server.create_agent(name="theirs")
    for kind in (pb.KEY_KIND_AGENTBOX, pb.KEY_KIND_ITK):
        await let_in_every_way(server, (await server.create_key(kind=kind)).key)


async def let_in_every_way(server: Server, key: str) -> None:
    assert await look(server, bearer(key)) == ["theirs"]
    assert await look(server, api_key(key)) == ["theirs"]
    assert await look(server, (("authorization", f"bEaReR  {key}"),)) == ["theirs"]

    api, session = server.api, server.api.session
    for headers in ({"authorization": f"Bearer {key}"}, {"x_api_key": key}):
        answer = await api.call("GET", "/api/v1/agents", **headers)
        assert (answer.status, answer.body["agents"][0]["name"]) == (200, "theirs")
    query = await api.call("GET", f"/api/v1/agents?api_key={key}")
    assert (query.status, query.body["error"]["code"]) == (400, "VALIDATION_ERROR")

    async with session.get(f"{api.base_url}/api/v1/events?api_key={key}") as stream:
        assert stream.status == 200
    sockets: list[dict[str, Any]] = [
        {"url": f"{api.base_url}/ws?api_key={key}"},
        {"url": f"{api.base_url}/ws?token={key}"},
        {"url": f"{api.base_url}/ws", "headers": {"X-API-Key": key}},
        {"url": f"{api.base_url}/ws", "headers": {"Authorization": f"Bearer {key}"}},
        {"url": f"{api.base_url}/ws", "protocols": ["Authorization", key]},
    ]
    for socket in sockets:
        async with session.ws_connect(**socket) as opened:
            assert not opened.closed


async def test_a_key_that_is_not_good_is_refused_wherever_it_is_sent(server: Server) -> None:
    key = (await server.create_key()).key[:-1] + "!"
    api = server.api
    places = [
        ("/api/v1/agents", {"X-API-Key": key}),
        ("/api/v1/agents", {"Authorization": f"Bearer {key}"}),
        (f"/api/v1/events?api_key={key}", {}),
    ]
    for path, headers in places:
        async with api.session.get(api.base_url + path, headers=headers) as response:
            body = await response.json()
        assert (response.status, body["error"]["reason"]) == (401, "INVALID_API_KEY")
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert key not in str(body)
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await api.session.ws_connect(f"{api.base_url}/ws?api_key={key}")
    assert refused.value.status == 401


DAMAGES: list[Callable[[str], str]] = [
    lambda text: text[:-1],
    lambda text: text[:-1] + ("A" if text[-1] != "A" else "B"),
    lambda text: text.replace("agentbox_", "itk_"),
    lambda text: text.replace("agentbox_", "sk_"),
    lambda text: text.replace("agentbox_", "agentbox_f"),
    lambda _: "agentbox_",
    lambda _: "dev-key",
]


async def test_a_wrong_text_is_not_known(server: Server) -> None:
    key = (await server.create_key()).key
    await look(server, api_key(key))

    reasons = [await why_not(server, damage(key)) for damage in DAMAGES]
    assert set(reasons) == {"INVALID_API_KEY"}


async def test_an_expired_key_is_refused_from_its_time_on(server: Server) -> None:
    key = (await server.create_key(expires_in=1)).key
    server.clock.advance(86_400 - 0.000_001)
    assert await look(server, api_key(key)) == []
    server.clock.advance(0.000_001)

    assert await why_not(server, key) == "API_KEY_EXPIRED"


async def test_a_revoked_key_is_refused_at_once_on_open_streams_too(server: Server) -> None:
    made = await server.create_key()
    other = await server.create_key()
    mine, others = await server.listen(api_key(made.key)), await server.listen(api_key(other.key))
    api = server.api
    async with api.session.ws_connect(f"{api.base_url}/ws?api_key={made.key}") as socket:
        request = pb.RevokeApiKeyRequest(key_id=made.id)
        await server.api_keys.RevokeApiKey(request, metadata=server.admin)
        assert await why_not(server, made.key) == "API_KEY_REVOKED"
        closing = await socket.receive(30)

    assert closing.data == 4016
    ended = await refusal(asyncio.wait_for(mine, 30))
    assert (ended.code, ended.reason) == (UNAUTHENTICATED, "CREDENTIAL_ENDED")
    assert not others.done()
    others.cancel()
    assert await look(server, api_key(other.key)) == []


async def test_a_key_sees_what_its_owner_owns_and_no_more(server: Server) -> None:
    user_id, ann = await server.enter("ann", Role.USER)
    await server.create_agent(name="hers", owner_id=user_id)
    await server.create_agent(name="not hers")
    key = (await server.create_key(ann)).key
    admin_as_user = (await server.create_key(role=pb.KEY_ROLE_USER)).key

    assert await look(server, api_key(key)) == ["hers"]
    assert await look(server, api_key(admin_as_user)) == ["not hers"]


async def test_a_key_has_the_lesser_of_its_role_and_its_owners_present_one(server: Server) -> None:
    user_id, ann = await server.enter("ann", Role.USER)
    agent = await server.create_agent(owner_id=user_id)
    key = (await server.create_key(ann)).key
    stop = agents_pb2.StopAgentRequest(agent_id=agent.id)
    await server.agents.StopAgent(stop, metadata=api_key(key))
    change_user(server, "ann", role="viewer")
    server.keys.drop_of(user_id)
    refused = await refusal(server.agents.StopAgent(stop, metadata=api_key(key)))
    change_user(server, "ann", role="admin")
    server.keys.drop_of(user_id)
    principal = await server.keys.verify(key)

    assert (refused.code, refused.reason) == (PERMISSION_DENIED, "ROLE_NOT_ALLOWED")
    assert "an API key with the role viewer" in refused.message
    assert not principal.is_admin


async def test_a_key_ends_with_its_owner(server: Server) -> None:
    user_id, ann = await server.enter("ann", Role.USER)
    key = (await server.create_key(ann)).key
    reading = await server.listen(api_key(key))
    change_user(server, "ann", state="suspended")
    server.keys.drop_of(user_id)
    ended = await refusal(asyncio.wait_for(reading, 30))

    assert (ended.code, ended.reason) == (UNAUTHENTICATED, "CREDENTIAL_ENDED")
    assert await why_not(server, key) == "OWNER_NOT_ACTIVE"
    change_user(server, "ann", state="active")
    assert await look(server, api_key(key)) == []
    change_user(server, "ann", user_id="user_somebody_else")
    server.keys.drop_of(user_id)
    assert await why_not(server, key) == "OWNER_NOT_ACTIVE"


async def test_dropping_ones_keys_leaves_those_of_others(server: Server) -> None:
    _, ann = await server.enter("ann", Role.USER)
    mine, hers = await server.create_key(), await server.create_key(ann)
    await look(server, api_key(mine.key))
    reading = await server.listen(api_key(mine.key))
    await look(server, api_key(hers.key))
    server.keys.drop_of("user_ann")

    await asyncio.sleep(0.05)
    assert not reading.done()
    reading.cancel()
    assert await look(server, api_key(hers.key)) == []


async def test_a_run_that_was_started_with_a_key_ends_with_it(server: Server) -> None:
    text = """name: Nap
version: "1"
steps:
  - {id: nap, name: Nap, type: utility.sleep, parameters: {seconds: 600}}
"""
    api, admin = server.api, dict(server.admin)
    saving = await api.call("PUT", "/api/playbooks/nap.yaml", {"text": text}, **admin)
    assert saving.status == 200, saving.body
    made, other = await server.create_key(), await server.create_key()
    runs = []
    for key in (made.key, other.key):
        begun = await api.call(
            "POST", "/api/executions", {"playbook_path": "nap.yaml"}, x_api_key=key
        )
        runs.append(f"/api/executions/{begun.body['execution_id']}")
    request = pb.RevokeApiKeyRequest(key_id=made.id)
    await server.api_keys.RevokeApiKey(request, metadata=server.admin)
    async with asyncio.timeout(30):
        while (run := (await api.call("GET", runs[0], **admin)).body)["status"] != "cancelled":
            await asyncio.sleep(0.02)
    assert "revoked" in run["error"]
    assert (await api.call("GET", runs[1], **admin)).body["status"] == "running"


async def test_keys_may_neither_make_nor_revoke_keys_nor_sign_out(server: Server) -> None:
    made = await server.create_key(role=pb.KEY_ROLE_ADMIN)
    metadata = api_key(made.key)
    calls = [
        server.create_key(metadata),
        server.api_keys.RevokeApiKey(pb.RevokeApiKeyRequest(key_id=made.id), metadata=metadata),
        server.auth.Logout(auth_pb2.LogoutRequest(), metadata=metadata),
    ]
    for call in calls:
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (PERMISSION_DENIED, "KEYS_NOT_ALLOWED")
    assert await look(server, metadata) == []


async def test_an_administrators_key_sees_its_owners_keys_only(server: Server) -> None:
    user_id, ann = await server.enter("ann", Role.USER)
    await server.create_key(ann)
    made = await server.create_key(role=pb.KEY_ROLE_ADMIN)
    request = pb.ListApiKeysRequest()
    answer = await server.api_keys.ListApiKeys(request, metadata=api_key(made.key))
    hers = pb.ListApiKeysRequest(user_id=user_id)
    refused = await refusal(server.api_keys.ListApiKeys(hers, metadata=api_key(made.key)))

    assert [key.id for key in answer.api_keys] == [made.id]
    assert refused.code is PERMISSION_DENIED


async def test_what_a_key_changes_is_audited_as_the_keys_deed(server: Server) -> None:
    made = await server.create_key(role=pb.KEY_ROLE_ADMIN)
    request = agents_pb2.CreateAgentRequest(name="scout", budget_nanousd=1)
    agent = (await server.agents.CreateAgent(request, metadata=api_key(made.key))).agent
    row = await server.database.fetch_one(
        "SELECT actor_kind, actor_id, actor_role, credential FROM audit_entry"
        " WHERE resource_id = ?",
        agent.id,
    )

    assert agent.owner_id == made.user_id
    assert row
    assert tuple(row) == ("key", made.user_id, "admin", made.id)


async def test_a_principal_carries_the_permissions_of_its_key(server: Server) -> None:
    wanted = [pb.EnvironmentPermission(environment_id="env-1", permission=pb.PERMISSION_WRITE)]
    principal = await server.keys.verify((await server.create_key(permissions=wanted)).key)

    assert {name: each.word for name, each in principal.permissions.items()} == {"env-1": "write"}


async def test_an_ic_token_comes_before_an_api_key_and_that_before_a_sign_in(
    server: Server,
) -> None:
    agent = await server.create_agent()
    token = (await server.create_token(agent.id)).token
    _, ann = await server.enter("ann", Role.USER)
    key = (await server.create_key(ann)).key

    await server.knock((("x-ic-key", token), *api_key(key)))
    assert await look(server, (*server.admin, *api_key(key))) == []
    assert await look(server, server.admin) == ["scout"]
    refused = await refusal(look(server, (*server.admin, *api_key("agentbox_wrong"))))
    assert refused.code is UNAUTHENTICATED


@pytest.fixture
async def single(tmp_path: Any) -> Any:
    settings = live_settings(tmp_path / "data", local_single_user=True)
    async with live_server(settings) as live:
        yield live


async def test_to_a_single_user_a_made_up_key_is_as_good_as_none(single: Live) -> None:
    made_up = await single.api.call("GET", "/api/v1/agents", x_api_key="dev-key")
    of_ours = await single.api.call("GET", "/api/v1/agents", x_api_key="itk_wrong")
    from_afar = await single.api.call(
        "GET", "/api/v1/agents", x_api_key="dev-key", origin="https://elsewhere.example"
    )

    assert (made_up.status, of_ours.status, from_afar.status) == (200, 401, 401)
