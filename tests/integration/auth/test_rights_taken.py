"""What ends with a right, at once and everywhere."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2
from steward.gateway.v1 import options_pb2 as options
from steward.users.v1 import users_pb2 as pb
from steward_server.auth.config import AuthConfig
from tests.integration.auth.people import (
    NEW_PASSWORD,
    NOT_FOUND,
    create,
    delete,
    entered,
    knock,
    listed,
    me,
    reset,
    set_role,
    suspend,
    users,
)
from tests.integration.conftest import Server, bearer, refusal
from tests.live import ADMIN_PASSWORD, Live


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"auth": AuthConfig(logins_per_minute=1_000)}


async def take_away(server: Server, how: str, user_id: str) -> None:
    if how == "suspend":
        await suspend(server, user_id)
    elif how == "role":
        await set_role(server, user_id, options.ROLE_VIEWER)
    elif how == "password":
        await reset(server, user_id, NEW_PASSWORD)
    else:
        await delete(server, user_id)


WAYS = ["suspend", "role", "password", "delete"]


@pytest.mark.parametrize("how", WAYS)
async def test_with_a_right_end_tokens_families_and_streams_at_once(
    server: Server, how: str
) -> None:
    user, pair = await entered(server, "ann")
    second = await server.sign_in("ann")
    tokens = [bearer(each.access_token) for each in (pair, second)]
    for metadata in tokens:
        await knock(server, metadata)  # verified, and remembered
    streams = [await server.listen(metadata) for metadata in tokens]
    bystander = await server.listen(server.admin)

    await take_away(server, how, user.id)

    for metadata in tokens:
        refused = await refusal(knock(server, metadata))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "TOKEN_REVOKED",
        )
    for stream in streams:
        assert (await refusal(asyncio.wait_for(stream, 30))).reason == "CREDENTIAL_ENDED"
    for each in (pair, second):
        request = auth_pb2.RefreshRequest(refresh_token=each.refresh_token)
        assert (await refusal(server.auth.Refresh(request))).reason == "TOKEN_REVOKED"
    assert not bystander.done()
    bystander.cancel()


@pytest.mark.parametrize("how", WAYS)
async def test_with_a_right_ends_a_websocket_at_once(live: Live, how: str) -> None:
    admin = tuple(live.admin.headers.items())
    request = pb.CreateUserRequest(username="ann", password=NEW_PASSWORD, role=options.ROLE_USER)
    user = (await users(live).CreateUser(request, metadata=admin)).user
    body = {"username": "ann", "password": NEW_PASSWORD}
    pair = (await live.api.call("POST", "/api/auth/login", body)).body
    headers = {"Authorization": f"Bearer {pair['access_token']}"}
    path = f"/api/v1/users/{user.id}"
    async with live.api.session.ws_connect(f"{live.api.base_url}/ws", headers=headers) as socket:
        calls = {
            "suspend": ("PUT", f"{path}/suspend", {"reason": "left"}),
            "role": ("PUT", f"{path}/role", {"role": "viewer"}),
            "password": ("POST", f"{path}/reset-password", {"new_password": ADMIN_PASSWORD}),
            "delete": ("DELETE", path, None),
        }
        answer = await live.admin.call(*calls[how])
        assert answer.status in (200, 204), answer
        message = await socket.receive(timeout=30)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert (message.data, message.extra) == (4016, "CREDENTIAL_ENDED")


async def test_a_person_let_in_again_signs_in_anew(server: Server) -> None:
    user, pair = await entered(server, "ann")
    seen = (await suspend(server, user.id)).user
    assert (seen.state, seen.suspend_reason) == (pb.USER_STATE_SUSPENDED, "left")
    assert seen.suspended_at.ToMicroseconds() == server.clock()
    assert (await refusal(server.sign_in("ann"))).reason == "INVALID_CREDENTIALS"

    activate = pb.ActivateUserRequest(user_id=user.id)
    back = (await users(server).ActivateUser(activate, metadata=server.admin)).user
    assert (back.state, back.suspend_reason) == (pb.USER_STATE_ACTIVE, "")
    assert not back.HasField("suspended_at")
    await server.sign_in("ann")
    assert (await refusal(knock(server, bearer(pair.access_token)))).reason == "TOKEN_REVOKED"


async def test_a_new_role_counts_from_the_next_sign_in(server: Server) -> None:
    user, _ = await entered(server, "ann")
    await set_role(server, user.id, options.ROLE_ADMIN)
    pair = await server.sign_in("ann")
    assert (await me(server, bearer(pair.access_token))).role == options.ROLE_ADMIN
    await users(server).ListUsers(pb.ListUsersRequest(), metadata=bearer(pair.access_token))


async def test_a_deleted_person_is_gone_and_their_agents_are_the_deleters(server: Server) -> None:
    user, _ = await entered(server, "ann", email="ann@example.com")
    agent = await server.create_agent(owner_id=user.id)
    other = await server.create_agent()
    await delete(server, user.id)
    admin_id = (await me(server, server.admin)).id

    assert (await refusal(server.sign_in("ann"))).reason == "INVALID_CREDENTIALS"
    assert (await refusal(delete(server, user.id))).code is NOT_FOUND
    assert await listed(server) == ["admin"]
    assert await listed(server, search="ann") == []
    assert server.directory.owner_of(agent.id) == admin_id
    owned = await server.agents.GetAgent(
        agents_pb2.GetAgentRequest(agent_id=agent.id), metadata=server.admin
    )
    assert owned.agent.owner_id == admin_id
    assert server.directory.owner_of(other.id) == admin_id
    refused = await refusal(server.create_agent(owner_id=user.id))
    assert refused.fields.keys() == {"owner_id"}
    # Their name stays theirs, their address does not.
    assert (await refusal(create(server, "ann"))).reason == "DUPLICATE_USERNAME"
    await create(server, "ann-2", email="ann@example.com")


async def test_a_reset_password_lifts_a_lock(server: Server) -> None:
    user = await create(server, "ann")
    for _ in range(10):
        await refusal(server.sign_in("ann", "wrong"))
    assert (await refusal(server.sign_in("ann"))).reason == "ACCOUNT_LOCKED"
    await reset(server, user.id, NEW_PASSWORD, force_change=False)
    pair = await server.sign_in("ann", NEW_PASSWORD)
    await knock(server, bearer(pair.access_token))
