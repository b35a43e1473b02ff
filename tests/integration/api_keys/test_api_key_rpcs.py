"""ApiKeyService over a real port: shown once, listed to its owner, dead at once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import pytest

from steward.api_keys.v1 import api_keys_pb2 as pb
from steward_server.api_keys.config import ApiKeysConfig
from steward_server.auth.accounts import Role
from steward_server.ids import digest
from tests.integration.conftest import Metadata, Server, api_key, bearer, refusal

PERMISSION_DENIED = grpc.StatusCode.PERMISSION_DENIED
FAILED_PRECONDITION = grpc.StatusCode.FAILED_PRECONDITION
DAY_US = 86_400 * 1_000_000


async def listed(server: Server, metadata: Metadata, **fields: Any) -> list[Any]:
    request = pb.ListApiKeysRequest(**fields)
    return list((await server.api_keys.ListApiKeys(request, metadata=metadata)).api_keys)


async def revoke(server: Server, key_id: str, metadata: Metadata) -> None:
    request = pb.RevokeApiKeyRequest(key_id=key_id)
    await server.api_keys.RevokeApiKey(request, metadata=metadata)


async def test_a_key_is_shown_once_and_stored_as_a_hash(server: Server) -> None:
    made = await server.create_key(
        description="CI",
        expires_in=90,
        permissions=[
            pb.EnvironmentPermission(environment_id="env-b", permission=pb.PERMISSION_WRITE),
            pb.EnvironmentPermission(environment_id="env-a", permission=pb.PERMISSION_READ),
        ],
    )
    (shown,) = await listed(server, server.admin)

    assert made.key.startswith(f"{made.prefix}_")
    assert made.prefix.startswith("agentbox_")
    assert (made.kind, made.role) == (pb.KEY_KIND_AGENTBOX, pb.KEY_ROLE_USER)
    assert [each.environment_id for each in made.permissions] == ["env-b", "env-a"]
    assert made.expires_at.ToMicroseconds() == server.clock() + 90 * DAY_US
    assert not made.HasField("last_used_at")
    text, made.key = made.key, ""
    assert shown == made
    row = await server.database.fetch_one("SELECT digest FROM api_key")
    assert row
    assert row["digest"] == digest(text)
    for file in server.folder.iterdir():
        content = file.read_bytes()
        assert text.encode() not in content, file
        assert text.removeprefix(f"{shown.prefix}_").encode() not in content, file


async def test_a_key_without_an_end_has_none(server: Server) -> None:
    made = await server.create_key(kind=pb.KEY_KIND_ITK)
    server.clock.advance(50 * 365 * 86_400)

    assert not made.HasField("expires_at")
    assert made.key.startswith("itk_")
    assert await server.keys.verify(made.key)


@pytest.mark.parametrize(
    ("maker", "given", "allowed"),
    [
        (Role.ADMIN, pb.KEY_ROLE_USER, set(pb.KeyRole.values()) - {0}),
        (
            Role.USER,
            pb.KEY_ROLE_USER,
            {pb.KEY_ROLE_USER, pb.KEY_ROLE_EXECUTOR, pb.KEY_ROLE_READONLY},
        ),
        (Role.VIEWER, pb.KEY_ROLE_READONLY, {pb.KEY_ROLE_READONLY}),
    ],
)
async def test_nobody_gives_a_key_more_than_they_have(
    server: Server, maker: Role, given: int, allowed: set[int]
) -> None:
    _, metadata = await server.enter("max", maker)

    assert (await server.create_key(metadata)).role == given
    for role in set(pb.KeyRole.values()) - {0}:
        if role in allowed:
            assert (await server.create_key(metadata, role=role)).role == role
            continue
        refused = await refusal(server.create_key(metadata, role=role))
        assert (refused.code, refused.reason) == (PERMISSION_DENIED, "ROLE_TOO_HIGH")
        assert refused.facts["highest_role"] in refused.message


async def test_people_see_their_own_keys_and_administrators_all(server: Server) -> None:
    ann_id, ann = await server.enter("ann", Role.USER)
    bob_id, bob = await server.enter("bob", Role.USER)
    first = await server.create_key(ann)
    server.clock.advance(1)
    second = await server.create_key(bob)
    own = await server.create_key()

    def ids(keys: list[Any]) -> list[str]:
        return [key.id for key in keys]

    assert ids(await listed(server, ann)) == [first.id]
    assert ids(await listed(server, ann, user_id=ann_id)) == [first.id]
    assert set(ids(await listed(server, server.admin))) == {own.id, second.id, first.id}
    assert ids(await listed(server, server.admin, user_id=bob_id)) == [second.id]
    refused = await refusal(listed(server, ann, user_id=bob_id))
    assert (refused.code, refused.reason) == (PERMISSION_DENIED, "ROLE_NOT_ALLOWED")


async def test_the_list_comes_in_pages(server: Server) -> None:
    made = []
    for _ in range(5):
        made.append((await server.create_key()).id)
        server.clock.advance(1)
    seen, token = [], ""
    for size in (2, 2, 1):
        request = pb.ListApiKeysRequest(page_size=2, page_token=token)
        page = await server.api_keys.ListApiKeys(request, metadata=server.admin)
        assert len(page.api_keys) == size
        seen += [key.id for key in page.api_keys]
        token = page.next_page_token

    assert token == ""
    assert seen == made[::-1]


async def test_a_revoked_key_is_gone_for_its_owner(server: Server) -> None:
    made = await server.create_key()
    await server.keys.verify(made.key)
    await revoke(server, made.id, server.admin)

    assert await listed(server, server.admin) == []
    again = await refusal(revoke(server, made.id, server.admin))
    assert (again.code, again.reason) == (grpc.StatusCode.NOT_FOUND, "API_KEY_NOT_FOUND")


async def test_nobody_revokes_what_is_not_theirs_and_an_administrator_anything(
    server: Server,
) -> None:
    _, ann = await server.enter("ann", Role.USER)
    _, bob = await server.enter("bob", Role.USER)
    made = await server.create_key(ann)
    strangers = await refusal(revoke(server, made.id, bob))
    nobodys = await refusal(revoke(server, "key_none", bob))

    assert strangers.code is nobodys.code is grpc.StatusCode.NOT_FOUND
    assert strangers.message == nobodys.message.replace("key_none", made.id)
    assert await server.keys.verify(made.key)
    await revoke(server, made.id, server.admin)


async def test_of_two_who_revoke_at_once_one_did(server: Server) -> None:
    made = await server.create_key()
    outcomes = await asyncio.gather(
        *(revoke(server, made.id, server.admin) for _ in range(2)), return_exceptions=True
    )

    assert sum(outcome is None for outcome in outcomes) == 1


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"api_keys": ApiKeysConfig(max_per_user=6)}


async def test_a_person_has_so_many_keys_and_no_more_even_at_once(server: Server) -> None:
    outcomes = await asyncio.gather(
        *(server.create_key(expires_in=1) for _ in range(9)), return_exceptions=True
    )
    refused = await refusal(server.create_key())

    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 6
    assert (refused.code, refused.reason) == (FAILED_PRECONDITION, "TOO_MANY_KEYS")
    assert refused.facts == {"limit": "6"}
    _, ann = await server.enter("ann", Role.USER)
    assert await server.create_key(ann)
    server.clock.advance(86_400)
    assert await server.create_key(bearer((await server.sign_in("admin")).access_token))


def permission(environment_id: str) -> pb.EnvironmentPermission:
    return pb.EnvironmentPermission(environment_id=environment_id, permission=pb.PERMISSION_READ)


WRONG: list[tuple[dict[str, Any], set[str]]] = [
    ({"description": "x" * 201}, {"description"}),
    ({"description": "a\nb"}, {"description"}),
    ({"expires_in": 0}, {"expires_in"}),
    ({"expires_in": -1}, {"expires_in"}),
    ({"expires_in": 3_651}, {"expires_in"}),
    ({"kind": 9}, {"kind"}),
    ({"role": 9}, {"role"}),
    ({"permissions": [permission("e")] * 101}, {"permissions"}),
    (
        {"permissions": [pb.EnvironmentPermission()]},
        {"permissions[0].environment_id", "permissions[0].permission"},
    ),
    ({"permissions": [permission("x" * 101)]}, {"permissions[0].environment_id"}),
    ({"permissions": [permission("e")] * 2}, {"permissions[1].environment_id"}),
    ({"description": "x" * 201, "expires_in": 0}, {"description", "expires_in"}),
    ({"request_id": "x" * 101}, {"request_id"}),
]


async def test_what_is_wrong_with_a_wish_is_told_all_at_once(server: Server) -> None:
    for fields, wrong in WRONG:
        refused = await refusal(server.create_key(**fields))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert set(refused.fields) == wrong
    assert await listed(server, server.admin) == []


async def test_a_creation_repeated_by_its_id_gives_the_same_key_and_keeps_it_sealed(
    server: Server,
) -> None:
    first = await server.create_key(request_id="once")
    again = await server.create_key(request_id="once")
    other = await refusal(server.create_key(request_id="once", description="other"))

    assert again == first
    assert other.reason == "REQUEST_ID_REUSED"
    assert len(await listed(server, server.admin)) == 1
    for file in server.folder.iterdir():
        assert first.key.encode() not in file.read_bytes()


async def test_changes_are_audited_without_the_secret(server: Server) -> None:
    made = await server.create_key(description="CI", role=pb.KEY_ROLE_READONLY)
    await revoke(server, made.id, server.admin)
    rows = await server.database.fetch_all(
        "SELECT action, actor_kind, resource_type, resource_id, method, before, after"
        " FROM audit_entry WHERE resource_type = 'api_key' ORDER BY number"
    )

    assert [row["action"] for row in rows] == ["api_key.created", "api_key.revoked"]
    assert {(row["actor_kind"], row["resource_id"]) for row in rows} == {("person", made.id)}
    shown = json.loads(rows[0]["after"])
    assert shown["role"] == "readonly"
    assert shown["description"] == "CI"
    assert json.loads(rows[1]["before"]) == shown
    secret = made.key.removeprefix(f"{made.prefix}_")
    assert all(secret not in repr(tuple(row)) for row in rows)


async def test_the_last_use_is_noted_and_written_down(server: Server) -> None:
    made = await server.create_key()
    server.clock.advance(5)
    await listed(server, api_key(made.key))
    (shown,) = await listed(server, server.admin)
    await server.keys.last_use.write()
    row = await server.database.fetch_one("SELECT last_used_at_us FROM api_key")

    assert shown.last_used_at.ToMicroseconds() == server.clock()
    assert row
    assert row["last_used_at_us"] == server.clock()
