"""UserService over a real port: who is let in, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.gateway.v1 import options_pb2 as options
from steward.users.v1 import users_pb2 as pb
from steward_server.auth.config import AuthConfig
from tests.integration.auth.people import (
    CONFLICT,
    FORBIDDEN,
    NEW_PASSWORD,
    NOT_FOUND,
    change_own,
    create,
    delete,
    entered,
    listed,
    me,
    reset,
    set_role,
    suspend,
    users,
)
from tests.integration.conftest import Server, bearer, refusal
from tests.live import ADMIN_PASSWORD


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"auth": AuthConfig(logins_per_minute=1_000)}


# Creating and seeing.


async def test_a_created_person_may_sign_in_and_is_seen(server: Server) -> None:
    made = await create(server, "ann", email="Ann@Example.com", role=options.ROLE_VIEWER)
    server.clock.advance(5)
    pair = await server.sign_in("ann")
    seen = await users(server).GetUser(pb.GetUserRequest(user_id=made.id), metadata=server.admin)

    assert made.id.startswith("user_")
    assert (made.username, made.email) == ("ann", "ann@example.com")
    assert (made.role, made.state) == (options.ROLE_VIEWER, pb.USER_STATE_ACTIVE)
    assert not made.HasField("last_login_at")
    assert pair.user.id == made.id
    assert seen.user.last_login_at.ToMicroseconds() == server.clock()
    assert seen.user.created_at == made.created_at


async def test_a_name_and_an_address_are_one_persons(server: Server) -> None:
    await create(server, "ann", email="ann@example.com")
    same_name = await refusal(create(server, "ann"))
    same_address = await refusal(create(server, "bob", email="ANN@example.com"))
    exists = grpc.StatusCode.ALREADY_EXISTS
    assert (same_name.code, same_name.reason) == (exists, "DUPLICATE_USERNAME")
    assert (same_address.code, same_address.reason) == (exists, "DUPLICATE_EMAIL")
    await create(server, "bob")
    await create(server, "eve")  # nobody's address is nobody's twice


WRONG_FIELDS: list[tuple[dict[str, Any], set[str]]] = [
    ({"username": ""}, {"username"}),
    ({"username": "x" * 256}, {"username"}),
    ({"username": "a\nb"}, {"username"}),
    ({"username": "a@b"}, {"username"}),
    ({"username": " a"}, {"username"}),
    ({"password": "1234567"}, {"password"}),
    ({"password": "x" * 1_001}, {"password"}),
    ({"email": "nobody"}, {"email"}),
    ({"email": "@example.com"}, {"email"}),
    ({"email": "a b@example.com"}, {"email"}),
    ({"email": "a@" + "x" * 254}, {"email"}),
    ({"role": 0}, {"role"}),
    ({"role": 9}, {"role"}),
    (
        {"username": "", "password": "", "email": "x", "role": 0},
        {
            "username",
            "password",
            "email",
            "role",
        },
    ),
    ({"role": options.ROLE_ADMIN, "password": "Password123"}, {"password"}),
    (
        {"role": options.ROLE_ADMIN, "username": "somebody", "password": "Somebody"},
        {
            "password",
        },
    ),
]


async def test_every_field_that_is_wrong_is_named(server: Server) -> None:
    for fields, wrong in WRONG_FIELDS:
        refused = await refusal(create(server, **({"username": "ann"} | fields)))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.fields.keys() == wrong
        assert fields.get("password") in (None, "") or fields["password"] not in repr(refused)


@pytest.mark.parametrize("length", [8, 1_000])
async def test_passwords_of_8_to_1000_characters_are_taken(server: Server, length: int) -> None:
    await entered(server, "ann", password="é" * length)


async def test_people_are_listed_the_newest_first_and_by_page(server: Server) -> None:
    for name in ("ann", "bob", "cid"):
        server.clock.advance(1)
        await create(server, name)
    request = pb.ListUsersRequest(page_size=2)
    first = await users(server).ListUsers(request, metadata=server.admin)
    request.page_token = first.next_page_token
    second = await users(server).ListUsers(request, metadata=server.admin)
    assert [user.username for user in first.users] == ["cid", "bob"]
    assert [user.username for user in second.users] == ["ann", "admin"]
    assert second.next_page_token == ""


async def test_people_are_found_by_role_state_and_any_part_of_name_or_address(
    server: Server,
) -> None:
    await create(server, "Ann_Lee", email="lee@example.com", role=options.ROLE_VIEWER)
    bob = await create(server, "annxlee")
    await create(server, "100%", email="ÉVA@example.com")
    await suspend(server, bob.id)

    assert await listed(server, role=options.ROLE_VIEWER) == ["Ann_Lee"]
    assert await listed(server, state=pb.USER_STATE_SUSPENDED) == ["annxlee"]
    assert set(await listed(server, search="ANN")) == {"Ann_Lee", "annxlee"}
    assert await listed(server, search="ann_lee") == ["Ann_Lee"]
    assert await listed(server, search="0%") == ["100%"]
    assert await listed(server, search="%") == ["100%"]
    assert await listed(server, search="!") == []
    assert await listed(server, search="éva@") == ["100%"]
    assert await listed(server, search="lee@example", role=options.ROLE_USER) == []


WRONG_FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"page_size": 1_001}, {"page_size"}),
    ({"page_token": "?"}, {"page_token"}),
    ({"role": 7}, {"role"}),
    ({"state": 7}, {"state"}),
    ({"search": "x" * 256}, {"search"}),
]


async def test_a_wrong_filter_is_named(server: Server) -> None:
    for fields, wrong in WRONG_FILTERS:
        assert (await refusal(listed(server, **fields))).fields.keys() == wrong


async def test_nobody_is_not_found(server: Server) -> None:
    stub = users(server)
    calls = [
        stub.GetUser(pb.GetUserRequest(user_id="user_x"), metadata=server.admin),
        suspend(server, "user_x"),
        stub.ActivateUser(pb.ActivateUserRequest(user_id="user_x"), metadata=server.admin),
        set_role(server, "user_x", options.ROLE_USER),
        reset(server, "user_x", NEW_PASSWORD),
        delete(server, "user_x"),
    ]
    for call in calls:
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (NOT_FOUND, "USER_NOT_FOUND")


WRONG_CHANGES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("GetUser", {}, {"user_id"}),
    ("SuspendUser", {"user_id": "u", "reason": "x" * 1_001}, {"reason"}),
    ("SuspendUser", {"user_id": "x" * 101}, {"user_id"}),
    ("ActivateUser", {}, {"user_id"}),
    ("SetUserRole", {"user_id": "u"}, {"role"}),
    ("ResetPassword", {"new_password": "short"}, {"user_id", "new_password"}),
    ("DeleteUser", {}, {"user_id"}),
]


async def test_a_malformed_change_is_told_what_is_wrong(server: Server) -> None:
    for method, fields, wrong in WRONG_CHANGES:
        request = getattr(pb, f"{method}Request")(**fields)
        refused = await refusal(getattr(users(server), method)(request, metadata=server.admin))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.fields.keys() == wrong


# What may not be done.


async def test_the_last_administrator_stays(server: Server) -> None:
    admin_id = (await me(server, server.admin)).id
    for call in (
        suspend(server, admin_id),
        set_role(server, admin_id, options.ROLE_USER),
        delete(server, admin_id),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (CONFLICT, "LAST_ADMIN_PROTECTED")
    # A suspended one does not count.
    other = await create(server, "bob", role=options.ROLE_ADMIN, password=NEW_PASSWORD)
    await suspend(server, other.id)
    assert (await refusal(delete(server, admin_id))).reason == "LAST_ADMIN_PROTECTED"


async def test_nobody_changes_their_own_account(server: Server) -> None:
    await create(server, "bob", role=options.ROLE_ADMIN, password=NEW_PASSWORD)
    admin_id = (await me(server, server.admin)).id
    for call in (
        suspend(server, admin_id),
        set_role(server, admin_id, options.ROLE_USER),
        reset(server, admin_id, NEW_PASSWORD),
        delete(server, admin_id),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (FORBIDDEN, "SELF_MODIFICATION_FORBIDDEN")


async def test_what_is_so_already_is_a_conflict(server: Server) -> None:
    ann = await create(server, "ann")
    activate = pb.ActivateUserRequest(user_id=ann.id)
    active = await refusal(users(server).ActivateUser(activate, metadata=server.admin))
    same = await refusal(set_role(server, ann.id, options.ROLE_USER))
    await suspend(server, ann.id)
    suspended = await refusal(suspend(server, ann.id))
    assert [each.code for each in (active, same, suspended)] == [CONFLICT] * 3
    assert active.reason == "USER_ACTIVE"
    assert same.reason == "ROLE_UNCHANGED"
    assert suspended.reason == "USER_SUSPENDED"


@pytest.mark.parametrize("role", [options.ROLE_ADMIN, options.ROLE_USER, options.ROLE_VIEWER])
async def test_anybodys_password_must_be_hard_to_guess(
    server: Server, role: options.Role.ValueType
) -> None:
    """Whoever is made an administrator later has the password they were let in with."""
    for weak in ("letmein123", "Root-User"):
        made = create(server, "root-user", role=role, password=weak)
        assert (await refusal(made)).fields.keys() == {"password"}
    bob = await create(server, "root-user", role=role)
    for weak in ("letmein123", "Root-User"):
        refused = await refusal(reset(server, bob.id, weak))
        assert refused.fields.keys() == {"new_password"}
        metadata = bearer((await server.sign_in("root-user")).access_token)
        changed = change_own(server, metadata, ADMIN_PASSWORD, weak)
        assert (await refusal(changed)).fields.keys() == {"new_password"}


async def test_a_role_that_is_for_keys_is_refused_by_its_name(server: Server) -> None:
    refused = await refusal(create(server, "bob", role=options.ROLE_EXECUTOR))
    assert refused.fields == {"role": "is executor; it must be admin, user or viewer"}


async def test_of_two_administrators_who_demote_each_other_one_stays(server: Server) -> None:
    admin_id = (await me(server, server.admin)).id
    for number in range(10):
        name = f"rival-{number}"
        rival, pair = await entered(server, name, role=options.ROLE_ADMIN, password=NEW_PASSWORD)
        # And a third, who would let both go if only the last one were looked after.
        third = await create(
            server, f"third-{number}", role=options.ROLE_ADMIN, password=NEW_PASSWORD
        )
        outcomes = await asyncio.gather(
            set_role(server, rival.id, options.ROLE_USER),
            set_role(server, admin_id, options.ROLE_USER, bearer(pair.access_token)),
            return_exceptions=True,
        )
        refused = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert len(refused) == 1
        assert refused[0].code() in (FORBIDDEN, grpc.StatusCode.UNAUTHENTICATED)
        if isinstance(outcomes[0], grpc.aio.AioRpcError):  # the rival won: back again
            await set_role(server, admin_id, options.ROLE_ADMIN, bearer(pair.access_token))
            server.admin = bearer((await server.sign_in("admin")).access_token)
            await delete(server, rival.id)
        await delete(server, third.id)
