"""AuditService over a real port: what is listed, and what is found out about it."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.audit.v1 import audit_pb2 as pb
from steward.audit.v1.audit_pb2_grpc import AuditServiceStub
from steward.auth.v1 import auth_pb2
from steward_server.auth.config import AuthConfig
from steward_server.clock import timestamp
from tests.integration.conftest import Server, bearer, refusal


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"auth": AuthConfig(logins_per_minute=1_000, lock_after_failures=2)}


def audit(server: Server) -> Any:
    return AuditServiceStub(server.channel)


async def listed(server: Server, **fields: Any) -> Any:
    request = pb.ListAuditEntriesRequest(**fields)
    return await audit(server).ListAuditEntries(request, metadata=server.admin)


async def actions(server: Server, **fields: Any) -> list[str]:
    return [entry.action for entry in (await listed(server, **fields)).entries]


async def verified(server: Server, **fields: Any) -> Any:
    return await audit(server).VerifyAudit(pb.VerifyAuditRequest(**fields), metadata=server.admin)


async def update(server: Server, agent_id: str, **fields: Any) -> None:
    request = agents_pb2.UpdateAgentRequest(agent_id=agent_id, **fields)
    await server.agents.UpdateAgent(request, metadata=server.admin)


async def test_a_change_is_shown_with_what_was_before_and_after(server: Server) -> None:
    agent = await server.create_agent(name="scout")
    await update(server, agent.id, budget_nanousd=7_000_000_000, name="ranger")
    newest, created = (await listed(server, resource_id=agent.id)).entries

    assert (newest.action, created.action) == ("agent.updated", "agent.created")
    assert dict(newest.before) == {"name": "scout", "budget_nanousd": 5_000_000_000}
    assert dict(newest.after) == {"name": "ranger", "budget_nanousd": 7_000_000_000}
    assert not created.HasField("before")
    assert created.after["budget_nanousd"] == 5_000_000_000
    assert newest.at.ToMicroseconds() == server.clock()
    assert newest.number == created.number + 1
    assert len(bytes.fromhex(newest.hash)) == 32


async def test_entries_are_found_by_what_whose_and_when(server: Server) -> None:
    begun_us = server.clock()
    agent = await server.create_agent()
    server.clock.advance(10)
    await server.create_token(agent.id)
    admin_id = (await listed(server, action="session.opened")).entries[0].actor_id

    assert await actions(server) == [
        "token.created",
        "agent.created",
        "session.opened",
        "user.created",
    ]
    assert await actions(server, action="agent.created") == ["agent.created"]
    assert await actions(server, resource_type="token") == ["token.created"]
    assert await actions(server, resource_id=agent.id) == ["agent.created"]
    assert len(await actions(server, actor_id=admin_id)) == 3
    later = timestamp(begun_us + 1)
    assert await actions(server, since=later) == ["token.created"]
    assert "token.created" not in await actions(server, until=later)
    assert await actions(server, actor_id="user_x") == []
    assert await actions(server, resource_type="agent", action="token.created") == []


async def test_pages_follow_each_other_though_entries_are_added(server: Server) -> None:
    for _ in range(4):
        await server.create_agent()
    numbers, token = [], ""
    while True:
        page = await listed(server, page_size=2, page_token=token)
        numbers += [entry.number for entry in page.entries]
        await server.create_agent()
        if not (token := page.next_page_token):
            break
    assert numbers == [6, 5, 4, 3, 2, 1]


async def test_wrong_filters_are_named_together(server: Server) -> None:
    refused = await refusal(
        listed(
            server,
            page_size=-1,
            page_token="?",
            action="x" * 256,
            resource_type="a\nb",
            resource_id="x" * 256,
            actor_id="x" * 256,
            since=timestamp(2_000_000),
            until=timestamp(1_000_000),
        )
    )
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == {
        *("page_size", "page_token", "action", "resource_type", "resource_id", "actor_id"),
        "until",
    }


async def test_a_sound_log_is_verified_to_its_head(server: Server) -> None:
    first = await verified(server)
    await server.create_agent()
    second = await verified(server)
    assert (first.verified, first.entries, first.what) == (True, 2, "")
    assert (second.verified, second.head_number) == (True, 3)
    newest = (await listed(server, page_size=1)).entries[0]
    assert second.head_hash == newest.hash
    # A head kept from before is part of it; another is not.
    kept = {"known_number": first.head_number, "known_hash": first.head_hash.upper()}
    assert (await verified(server, **kept)).verified
    forged = await verified(server, known_number=first.head_number, known_hash=second.head_hash)
    assert (forged.verified, forged.broken_at) == (False, first.head_number)
    gone = await verified(server, known_number=99, known_hash=first.head_hash)
    assert (gone.verified, gone.broken_at) == (False, 99)


async def test_a_log_is_verified_while_it_grows(server: Server) -> None:
    growing = [asyncio.ensure_future(server.create_agent()) for _ in range(30)]
    verdicts = [await verified(server) for _ in range(10)]
    await asyncio.gather(*growing)
    assert all(verdict.verified for verdict in verdicts)
    assert (await verified(server)).entries == 32


async def test_a_wrong_hash_to_compare_with_is_named(server: Server) -> None:
    for fields, wrong in (
        ({"known_number": -1}, {"known_number", "known_hash"}),
        ({"known_number": 1}, {"known_hash"}),
        ({"known_number": 1, "known_hash": "x"}, {"known_hash"}),
        ({"known_hash": "0" * 64}, {"known_number"}),
    ):
        assert (await refusal(verified(server, **fields))).fields.keys() == wrong


async def test_what_is_altered_in_the_running_servers_file_is_told(server: Server) -> None:
    await server.create_agent()
    await server.database.run(
        lambda transaction: transaction.execute(
            "UPDATE audit_entry SET actor_id = 'user_x' WHERE number = 2"
        )
    )
    verdict = await verified(server)
    assert (verdict.verified, verdict.broken_at, verdict.entries) == (False, 2, 0)
    assert "its content gives" in verdict.what


# Signing in: whoever does it is nobody yet.


async def test_signing_in_and_out_is_written_down(server: Server) -> None:
    pair = await server.sign_in("admin")
    await server.auth.Logout(auth_pb2.LogoutRequest(), metadata=bearer(pair.access_token))
    ended, opened = (await listed(server, page_size=2)).entries
    assert (opened.action, ended.action) == ("session.opened", "session.ended")
    assert opened.actor_id == ended.actor_id == pair.user.id
    assert opened.credential == opened.resource_id == ended.credential == ended.resource_id
    assert (opened.actor_kind, opened.actor_role) == ("person", "admin")
    assert opened.method == "/steward.auth.v1.AuthService/Login"
    assert opened.address == "127.0.0.1"
    assert ended.reason == "logout"


async def test_a_lock_is_written_down_and_single_failures_are_not(server: Server) -> None:
    await refusal(server.sign_in("admin", "wrong"))
    assert "user.locked" not in await actions(server)
    await refusal(server.sign_in("admin", "wrong"))
    await refusal(server.sign_in("admin", "wrong"))
    (locked,) = (await listed(server, action="user.locked")).entries
    assert (locked.actor_kind, locked.actor_id, locked.address) == ("anonymous", "", "127.0.0.1")
    assert locked.after["failures"] == 2


async def test_a_refresh_token_used_twice_is_written_down(server: Server) -> None:
    pair = await server.sign_in("admin")
    request = auth_pb2.RefreshRequest(refresh_token=pair.refresh_token)
    await server.auth.Refresh(request)
    server.clock.advance(11)
    await refusal(server.auth.Refresh(request))
    ended = (await listed(server, page_size=1)).entries[0]
    assert (ended.action, ended.reason) == ("session.ended", "refresh_token_reused")


async def test_the_first_administrator_was_made_by_the_server(server: Server) -> None:
    first = (await listed(server)).entries[-1]
    assert (first.number, first.action, first.actor_kind) == (1, "user.created", "server")
    assert first.method == first.actor_id == ""
