"""A caller who goes away during a commit does not take its consequences along."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2
from steward.tokens.v1 import tokens_pb2
from steward.users.v1 import users_pb2
from steward.users.v1.users_pb2_grpc import UserServiceStub
from steward_server.auth.accounts import Role
from tests.integration.conftest import Server, bearer, ic_key, refusal


class SlowCommits:
    """Holds each commit's answer back until it is told to go on."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        self.committed, self.go_on = asyncio.Event(), asyncio.Event()
        run: Callable[[Any], Awaitable[Any]] = server.database.run

        async def slow(work: Any) -> Any:
            result = await run(work)
            self.committed.set()
            await self.go_on.wait()
            return result

        monkeypatch.setattr(server.database, "run", slow)


async def leave(call: Any, commits: SlowCommits) -> None:
    await asyncio.wait_for(commits.committed.wait(), 30)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    commits.go_on.set()


async def becomes_refused(attempt: Callable[[], Awaitable[Any]]) -> str:
    async with asyncio.timeout(30):
        while True:
            try:
                await attempt()
            except Exception:  # noqa: BLE001 - looked at by `refusal`
                return (await refusal(attempt())).reason


async def test_a_revoked_token_is_refused_though_its_revoker_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await server.create_token((await server.create_agent()).id)
    await server.knock(ic_key(made.token))
    commits = SlowCommits(server, monkeypatch)
    request = tokens_pb2.RevokeTokenRequest(token_id=made.id)
    await leave(server.token_service.RevokeToken(request, metadata=server.admin), commits)
    assert await becomes_refused(lambda: server.knock(ic_key(made.token))) == "TOKEN_REVOKED"


async def test_a_rotated_text_is_refused_though_its_rotator_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await server.create_token((await server.create_agent()).id)
    await server.knock(ic_key(made.token))
    commits = SlowCommits(server, monkeypatch)
    request = tokens_pb2.RotateTokenRequest(token_id=made.id)
    await leave(server.token_service.RotateToken(request, metadata=server.admin), commits)
    assert await becomes_refused(lambda: server.knock(ic_key(made.token))) == "INVALID_TOKEN"


async def test_a_session_is_over_though_whoever_ended_it_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata = bearer((await server.sign_in("admin")).access_token)
    await server.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata)
    commits = SlowCommits(server, monkeypatch)
    await leave(server.auth.Logout(auth_pb2.LogoutRequest(), metadata=metadata), commits)
    request = agents_pb2.ListAgentsRequest()
    attempt = lambda: server.agents.ListAgents(request, metadata=metadata)  # noqa: E731
    assert await becomes_refused(attempt) == "TOKEN_REVOKED"


async def test_a_suspended_person_is_out_though_whoever_suspended_them_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id, metadata = await server.enter("ann", Role.USER)

    async def attempt() -> Any:
        return await server.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata)

    await attempt()
    commits = SlowCommits(server, monkeypatch)
    suspend = users_pb2.SuspendUserRequest(user_id=user_id)
    users: Any = UserServiceStub(server.channel)
    await leave(users.SuspendUser(suspend, metadata=server.admin), commits)
    assert await becomes_refused(attempt) == "TOKEN_REVOKED"


async def test_a_deleted_agent_is_forgotten_though_its_deleter_left(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = await server.create_agent()
    commits = SlowCommits(server, monkeypatch)
    request = agents_pb2.DeleteAgentRequest(agent_id=agent.id)
    await leave(server.agents.DeleteAgent(request, metadata=server.admin), commits)
    async with asyncio.timeout(30):
        while server.directory.owner_of(agent.id) is not None:
            await asyncio.sleep(0)
