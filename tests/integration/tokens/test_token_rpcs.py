"""TokenService over a real port: shown once, good at once, dead at once."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import grpc
import pytest

from steward.tokens.v1 import tokens_pb2 as pb
from steward_server.auth.accounts import Role
from steward_server.ids import digest
from steward_server.tokens import store
from tests.integration.conftest import Server, bearer, ic_key, refusal, refusal_of

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION


async def rotate(server: Server, token_id: str) -> Any:
    request = pb.RotateTokenRequest(token_id=token_id)
    return (await server.token_service.RotateToken(request, metadata=server.admin)).ic_token


async def revoke(server: Server, token_id: str) -> None:
    request = pb.RevokeTokenRequest(token_id=token_id)
    await server.token_service.RevokeToken(request, metadata=server.admin)


async def get(server: Server, token_id: str) -> Any:
    request = pb.GetTokenRequest(token_id=token_id)
    return (await server.token_service.GetToken(request, metadata=server.admin)).ic_token


async def listed(server: Server, **fields: Any) -> Any:
    request = pb.ListTokensRequest(**fields)
    return await server.token_service.ListTokens(request, metadata=server.admin)


async def create(server: Server, **fields: Any) -> Any:
    request = pb.CreateTokenRequest(**fields)
    return await server.token_service.CreateToken(request, metadata=server.admin)


async def test_a_token_is_shown_once_and_stored_as_a_hash(server: Server) -> None:
    agent = await server.create_agent()
    made = await server.create_token(agent.id, name="laptop")
    assert re.fullmatch(r"ic_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", made.token)
    assert made.token.startswith(made.prefix)
    assert made.status == pb.TOKEN_STATUS_ACTIVE
    assert list(made.scopes) == ["budget", "events", "environments", "inference", "executions"]
    assert not made.HasField("expires_at")
    assert (made.agent_id, made.name) == (agent.id, "laptop")
    shown = await get(server, made.id)
    assert shown.token == ""
    made.token = ""
    assert shown == made
    row = await server.database.fetch_one("SELECT digest FROM ic_token")
    assert row is not None
    assert len(row["digest"]) == 32


async def test_it_lets_its_agent_in_by_header_bearer_and_body(server: Server) -> None:
    token = (await server.create_token((await server.create_agent()).id)).token
    await server.knock(ic_key(token))
    await server.knock(bearer(token))
    await server.knock((), ic_token=token)


async def test_the_body_counts_beside_a_header_that_is_for_people(server: Server) -> None:
    token = (await server.create_token((await server.create_agent()).id)).token
    await server.knock(server.admin, ic_token=token)


async def test_the_key_header_comes_first(server: Server) -> None:
    token = (await server.create_token((await server.create_agent()).id)).token
    refused = await refusal(server.knock((*ic_key("ic_wrong"), *bearer(token))))
    assert refused.reason == "INVALID_TOKEN"


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "ic_",
        "ic_0123456789abcdef",
        "ic_0123456789abcdef_" + "A" * 42,
        "ic_0123456789abcdef_" + "A" * 43,
        "ic_0123456789abcdef_" + "A" * 44,
        "ic_0123456789ABCDEF_" + "A" * 43,
        "ic_' OR 1 = 1 --",
        "ic_" + "x" * 5_000,
    ],
)
async def test_what_is_not_a_token_is_refused(server: Server, text: str) -> None:
    refused = await refusal(server.knock(ic_key(text)))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "INVALID_TOKEN")


async def test_the_public_part_alone_opens_nothing(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    forged = f"{made.prefix}_{'A' * 43}"
    assert (await refusal(server.knock(ic_key(forged)))).reason == "INVALID_TOKEN"


async def test_an_agent_has_one_live_token(server: Server) -> None:
    agent = await server.create_agent()
    made = await server.create_token(agent.id)
    refused = await refusal(create(server, agent_id=agent.id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TOKEN_EXISTS")
    assert refused.facts["token_id"] == made.id


async def test_creations_at_the_same_time_make_one_token(server: Server) -> None:
    agent = await server.create_agent()
    outcomes = await asyncio.gather(
        *(create(server, agent_id=agent.id) for _ in range(10)), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert {refusal_of(each).reason for each in refused} == {"TOKEN_EXISTS"}
    assert len(refused) == 9
    assert (await listed(server)).total == 1


async def test_a_token_for_no_agent_is_refused(server: Server) -> None:
    refused = await refusal(create(server, agent_id="agent_none"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, {"agent_id"}),
        ({"agent_id": "a" * 101}, {"agent_id"}),
        ({"agent_id": "a", "name": "n" * 101}, {"name"}),
        ({"agent_id": "a", "name": "a\0b"}, {"name"}),
        ({"agent_id": "a", "expires_in_days": 0}, {"expires_in_days"}),
        ({"agent_id": "a", "expires_in_days": -1}, {"expires_in_days"}),
        ({"agent_id": "a", "expires_in_days": 3_651}, {"expires_in_days"}),
        ({"agent_id": "a", "scopes": ["budget", "all"]}, {"scopes[1]"}),
        ({"name": "n" * 101, "expires_in_days": 0}, {"agent_id", "name", "expires_in_days"}),
        ({"agent_id": "a", "request_id": "r" * 101}, {"request_id"}),
    ],
)
async def test_every_malformed_field_is_named(
    server: Server, fields: dict[str, Any], wrong: set[str]
) -> None:
    refused = await refusal(create(server, **fields))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == wrong


async def test_names_may_be_as_long_as_is_said_and_in_any_script(server: Server) -> None:
    name = "Ω" * 100
    made = await server.create_token((await server.create_agent()).id, name=name)
    assert made.name == name


async def test_a_scope_is_all_a_token_is_good_for(server: Server) -> None:
    agent = await server.create_agent()
    made = await server.create_token(agent.id, scopes=["events"])
    assert list(made.scopes) == ["events"]
    assert (await refusal(server.knock(ic_key(made.token)))).code is (
        grpc.StatusCode.PERMISSION_DENIED
    )


async def test_expiry_is_to_the_microsecond_and_says_when(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id, expires_in_days=1)
    server.clock.advance(86_400 - 0.000001)
    await server.knock(ic_key(made.token))
    server.clock.advance(0.000001)
    refused = await refusal(server.knock(ic_key(made.token)))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert made.expires_at.ToJsonString()[:19] in refused.message


async def test_an_expired_token_makes_room_for_another(server: Server) -> None:
    agent = await server.create_agent()
    old = await server.create_token(agent.id, expires_in_days=1)
    server.clock.advance(86_400)
    admin = bearer((await server.sign_in("admin")).access_token)
    server.admin = admin
    new = await server.create_token(agent.id)
    await server.knock(ic_key(new.token))
    assert (await refusal(server.knock(ic_key(old.token)))).reason == "TOKEN_EXPIRED"
    assert (await get(server, old.id)).status == pb.TOKEN_STATUS_EXPIRED


async def test_rotation_keeps_the_token_and_ends_its_text_at_once(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id, expires_in_days=30)
    await server.knock(ic_key(made.token))
    server.clock.advance(5)
    rotated = await rotate(server, made.id)
    assert (rotated.id, rotated.created_at, rotated.expires_at) == (
        made.id,
        made.created_at,
        made.expires_at,
    )
    assert rotated.rotated_at.ToMicroseconds() == server.clock()
    assert rotated.token != made.token
    await server.knock(ic_key(rotated.token))
    refused = await refusal(server.knock(ic_key(made.token)))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "INVALID_TOKEN")


async def test_of_rotations_at_the_same_time_one_text_is_good(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    rotated = await asyncio.gather(*(rotate(server, made.id) for _ in range(8)))
    outcomes = await asyncio.gather(
        *(server.knock(ic_key(each.token)) for each in rotated), return_exceptions=True
    )
    assert len([each for each in outcomes if not isinstance(each, Exception)]) == 1


async def test_rotation_ends_streams_opened_with_the_old_text(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    reading = await server.listen(ic_key(made.token))
    await rotate(server, made.id)
    await ends_unauthenticated(reading)


async def test_revocation_refuses_the_token_and_ends_its_streams_at_once(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    await server.knock(ic_key(made.token))
    reading = await server.listen(ic_key(made.token))
    await revoke(server, made.id)
    refused = await refusal(server.knock(ic_key(made.token)))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "TOKEN_REVOKED")
    await ends_unauthenticated(reading)
    shown = await get(server, made.id)
    assert shown.status == pb.TOKEN_STATUS_REVOKED
    assert shown.revoked_at.ToMicroseconds() == server.clock()


async def ends_unauthenticated(reading: asyncio.Future[Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(reading, 30)
    assert refusal_of(caught.value).code is UNAUTHENTICATED


async def test_revocation_drains_what_was_lent(server: Server) -> None:
    agent = await server.create_agent()
    made = await server.create_token(agent.id)
    await server.lend(agent.id, "lease_1", 1_000)
    await revoke(server, made.id)
    row = await server.database.fetch_one("SELECT state FROM lease")
    assert row is not None
    assert row["state"] == "draining"


async def test_revoking_what_was_replaced_leaves_its_successors_leases(server: Server) -> None:
    agent = await server.create_agent()
    old = await server.create_token(agent.id, expires_in_days=1)
    server.clock.advance(86_400)
    server.admin = bearer((await server.sign_in("admin")).access_token)
    await server.create_token(agent.id)
    await server.lend(agent.id, "lease_1", 1_000)
    await revoke(server, old.id)
    row = await server.database.fetch_one("SELECT state FROM lease")
    assert row is not None
    assert row["state"] == "active"


async def test_dead_tokens_stay_dead(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    await revoke(server, made.id)
    for again in (revoke(server, made.id), rotate(server, made.id)):
        refused = await refusal(again)
        assert (refused.code, refused.reason) == (FAILED_PRECONDITION, "TOKEN_REVOKED")


async def test_an_expired_token_cannot_be_rotated_but_revoked(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id, expires_in_days=1)
    server.clock.advance(86_400)
    server.admin = bearer((await server.sign_in("admin")).access_token)
    refused = await refusal(rotate(server, made.id))
    assert (refused.code, refused.reason) == (FAILED_PRECONDITION, "TOKEN_EXPIRED")
    await revoke(server, made.id)
    assert (await get(server, made.id)).status == pb.TOKEN_STATUS_REVOKED


async def test_of_revocations_at_the_same_time_one_wins(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    outcomes = await asyncio.gather(
        *(revoke(server, made.id) for _ in range(8)), return_exceptions=True
    )
    refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert [refusal_of(each).reason for each in refused] == ["TOKEN_REVOKED"] * 7


async def test_a_rotation_and_a_revocation_at_the_same_time_leave_nothing_good(
    server: Server,
) -> None:
    made = await server.create_token((await server.create_agent()).id)
    outcomes: Any = await asyncio.gather(
        rotate(server, made.id), revoke(server, made.id), return_exceptions=True
    )
    assert outcomes[1] is None
    for text in (made.token, getattr(outcomes[0], "token", made.token)):
        assert (await refusal(server.knock(ic_key(text)))).code is UNAUTHENTICATED


@pytest.mark.parametrize("token_id", ["token_none", "' OR 1 = 1 --"])
async def test_an_unknown_id_is_not_found(server: Server, token_id: str) -> None:
    for call in (get, rotate, revoke):
        refused = await refusal(call(server, token_id))
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "TOKEN_NOT_FOUND")


@pytest.mark.parametrize("token_id", ["", "t" * 101, "a\0b"])
async def test_what_cannot_be_an_id_is_malformed(server: Server, token_id: str) -> None:
    for call in (get, rotate, revoke):
        refused = await refusal(call(server, token_id))
        assert refused.fields.keys() == {"token_id"}


async def test_the_list_pages_newest_first_and_counts_all(server: Server) -> None:
    made = []
    for _ in range(5):
        made.append(await server.create_token((await server.create_agent()).id))
        server.clock.advance(1)
    first = await listed(server, limit=2)
    assert [each.id for each in first.tokens] == [made[4].id, made[3].id]
    assert (first.total, first.limit, first.offset) == (5, 2, 0)
    last = await listed(server, limit=2, offset=4)
    assert [each.id for each in last.tokens] == [made[0].id]
    beyond = await listed(server, offset=5)
    assert (list(beyond.tokens), beyond.total, beyond.limit) == ([], 5, 100)
    assert not any(each.token for each in first.tokens)


async def test_the_list_filters_by_agent_and_state(server: Server) -> None:
    agents = [await server.create_agent() for _ in range(3)]
    live = await server.create_token(agents[0].id)
    short = await server.create_token(agents[1].id, expires_in_days=1)
    dead = await server.create_token(agents[2].id, expires_in_days=1)
    await revoke(server, dead.id)
    server.clock.advance(86_400)
    server.admin = bearer((await server.sign_in("admin")).access_token)
    for status, wanted in (
        (pb.TOKEN_STATUS_ACTIVE, live),
        (pb.TOKEN_STATUS_EXPIRED, short),
        (pb.TOKEN_STATUS_REVOKED, dead),
    ):
        answer = await listed(server, status=status)
        assert [each.id for each in answer.tokens] == [wanted.id]
        assert answer.tokens[0].status == status
        assert answer.total == 1
    answer = await listed(server, agent_id=agents[1].id)
    assert [each.id for each in answer.tokens] == [short.id]
    assert (await listed(server, agent_id="agent_none")).total == 0


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"limit": -1}, {"limit"}),
        ({"limit": 1_001}, {"limit"}),
        ({"offset": -1}, {"offset"}),
        ({"status": 9}, {"status"}),
        ({"limit": -1, "offset": -1}, {"limit", "offset"}),
    ],
)
async def test_a_page_out_of_bounds_is_refused(
    server: Server, fields: dict[str, Any], wrong: set[str]
) -> None:
    refused = await refusal(listed(server, **fields))
    assert refused.fields.keys() == wrong


async def test_the_last_use_is_shown_at_once_and_written_later(server: Server) -> None:
    made = await server.create_token((await server.create_agent()).id)
    assert not made.HasField("last_used_at")
    server.clock.advance(3)
    await server.knock(ic_key(made.token))
    used_us = server.clock()
    server.clock.advance(3)
    assert (await get(server, made.id)).last_used_at.ToMicroseconds() == used_us
    assert (await store.get(server.database, made.id)).last_used_at_us is None
    await server.tokens.last_use.write()
    assert (await store.get(server.database, made.id)).last_used_at_us == used_us
    rotated = await rotate(server, made.id)
    assert rotated.last_used_at.ToMicroseconds() == used_us


async def test_tokens_are_for_administrators(server: Server) -> None:
    agent = await server.create_agent()
    _, user = await server.enter("ann", Role.USER)
    _, viewer = await server.enter("vic", Role.VIEWER)
    for metadata in (user, viewer):
        calls = [
            server.token_service.CreateToken(
                pb.CreateTokenRequest(agent_id=agent.id), metadata=metadata
            ),
            server.token_service.ListTokens(pb.ListTokensRequest(), metadata=metadata),
            server.token_service.GetToken(pb.GetTokenRequest(token_id="t"), metadata=metadata),
            server.token_service.RotateToken(
                pb.RotateTokenRequest(token_id="t"), metadata=metadata
            ),
            server.token_service.RevokeToken(
                pb.RevokeTokenRequest(token_id="t"), metadata=metadata
            ),
        ]
        for call in calls:
            assert (await refusal(call)).code is grpc.StatusCode.PERMISSION_DENIED


async def test_the_journal_tells_what_happened_to_a_token(server: Server) -> None:
    agent = await server.create_agent()
    made = await server.create_token(agent.id, name="ci", expires_in_days=1)
    rotated = await rotate(server, made.id)
    await revoke(server, made.id)
    rows = await server.journal("token.")
    assert [row["kind"] for row in rows] == ["token.created", "token.rotated", "token.revoked"]
    assert {row["subject"] for row in rows} == {made.id}
    assert {row["agent_id"] for row in rows} == {agent.id}
    bodies = [json.loads(row["body"]) for row in rows]
    assert bodies[0]["prefix"] == made.prefix
    assert bodies[1]["prefix"] == bodies[2]["prefix"] == rotated.prefix
    for row in rows:
        for text in (made.token, rotated.token):
            assert digest(text).hex().encode() not in row["body"]


async def test_a_call_of_an_agent_whose_token_dies_meanwhile_is_refused_the_next_time(
    server: Server,
) -> None:
    made = await server.create_token((await server.create_agent()).id)
    for _ in range(20):
        calls = [server.knock(ic_key(made.token)) for _ in range(5)]
        rotated, *_ = await asyncio.gather(rotate(server, made.id), *calls, return_exceptions=True)
        refused = await refusal(server.knock(ic_key(made.token)))
        assert refused.code is UNAUTHENTICATED
        made = rotated
    await server.knock(ic_key(made.token))
