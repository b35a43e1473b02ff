"""AuthService over a real port: signing in, carrying on, and ending at once."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from steward.agents.v1 import agents_pb2
from steward.auth.v1 import auth_pb2 as pb
from steward.gateway.v1 import options_pb2
from steward_server.auth.accounts import Role
from steward_server.auth.config import AuthConfig
from tests.integration.conftest import Server, bearer, ic_key, refusal, refusal_of
from tests.live import ADMIN_PASSWORD

UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
MANY_LOGINS = AuthConfig(logins_per_minute=1_000)


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return getattr(request, "param", {})


async def list_agents(server: Server, metadata: Any) -> Any:
    return await server.agents.ListAgents(agents_pb2.ListAgentsRequest(), metadata=metadata)


async def refresh(server: Server, token: str) -> Any:
    return await server.auth.Refresh(pb.RefreshRequest(refresh_token=token))


# Signing in.


async def test_the_right_password_opens_a_session(server: Server) -> None:
    answer = await server.sign_in("admin")
    assert answer.token_type == "Bearer"
    assert answer.token == answer.access_token
    assert 3_599 <= answer.expires_in <= 3_600
    assert answer.user.username == "admin"
    assert answer.user.role == options_pb2.ROLE_ADMIN
    assert answer.user.id.startswith("user_")
    assert answer.refresh_token.startswith("rt_")
    await list_agents(server, bearer(answer.access_token))


async def test_an_email_is_as_good_as_a_name_in_any_case(server: Server) -> None:
    server.add_user("ann", Role.USER, email="ann@example.com")
    request = pb.LoginRequest(email="Ann@Example.COM", password=ADMIN_PASSWORD)
    assert (await server.auth.Login(request)).user.email == "ann@example.com"


async def test_an_unknown_name_and_a_wrong_password_read_the_same(server: Server) -> None:
    wrong = await refusal(server.sign_in("admin", "not it"))
    unknown = await refusal(server.sign_in("nobody", "not it"))
    assert wrong == unknown
    assert (wrong.code, wrong.reason) == (UNAUTHENTICATED, "INVALID_CREDENTIALS")


async def test_an_unknown_name_costs_as_much_hashing_as_a_known_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[bool] = []
    matches = server.passwords.matches

    async def counted(stored: str | None, password: str) -> bool:
        hashed.append(stored is None)
        return await matches(stored, password)

    monkeypatch.setattr(server.passwords, "matches", counted)
    await refusal(server.sign_in("admin", "not it"))
    await refusal(server.sign_in("nobody", "not it"))
    assert hashed == [False, True]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"password": "x"}, {"username"}),
        ({"username": "a"}, {"password"}),
        ({}, {"username", "password"}),
        ({"username": "a", "email": "a@b", "password": "x"}, {"email"}),
        ({"username": "a" * 256, "password": "x"}, {"username"}),
        ({"email": "a" * 256, "password": "x"}, {"email"}),
        ({"username": "a\0b", "password": "x"}, {"username"}),
        ({"username": "a", "password": "x" * 1_001}, {"password"}),
    ],
)
async def test_every_malformed_field_is_named(
    server: Server, fields: dict[str, str], wrong: set[str]
) -> None:
    refused = await refusal(server.auth.Login(pb.LoginRequest(**fields)))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields.keys() == wrong


@pytest.mark.parametrize("length", [1, 1_000])
async def test_passwords_of_any_allowed_length_are_looked_at(server: Server, length: int) -> None:
    refused = await refusal(server.sign_in("admin", "x" * length))
    assert refused.reason == "INVALID_CREDENTIALS"


async def test_the_eleventh_attempt_of_a_minute_is_too_much(server: Server) -> None:
    for _ in range(9):  # the fixture has signed in once
        assert (await refusal(server.sign_in("nobody", "x"))).reason == "INVALID_CREDENTIALS"
    refused = await refusal(server.sign_in("admin"))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "RATE_LIMITED",
    )
    assert refused.retry_after_s == 60
    server.clock.advance(60)
    await server.sign_in("admin")


async def test_every_answer_to_a_sign_in_tells_the_limit(server: Server) -> None:
    call = server.auth.Login(pb.LoginRequest(username="admin", password=ADMIN_PASSWORD))
    trailers = dict(await call.trailing_metadata())
    assert trailers["x-ratelimit-limit"] == "10"
    assert trailers["x-ratelimit-remaining"] == "8"
    assert int(trailers["x-ratelimit-reset"]) > server.clock() // 1_000_000


@pytest.mark.parametrize("settings", [{"auth": MANY_LOGINS}], indirect=True)
@pytest.mark.parametrize("name", ["admin", "nobody"])
async def test_ten_wrong_passwords_lock_a_name_for_half_an_hour_whether_it_is_known_or_not(
    server: Server, name: str
) -> None:
    for _ in range(10):
        assert (await refusal(server.sign_in(name, "x"))).reason == "INVALID_CREDENTIALS"
    refused = await refusal(server.sign_in(name))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "ACCOUNT_LOCKED",
    )
    assert refused.retry_after_s == 1_800
    server.clock.advance(1_799)
    assert (await refusal(server.sign_in(name))).reason == "ACCOUNT_LOCKED"


@pytest.mark.parametrize("settings", [{"auth": MANY_LOGINS}], indirect=True)
async def test_after_a_lock_the_count_starts_anew(server: Server) -> None:
    for _ in range(10):
        await refusal(server.sign_in("admin", "x"))
    server.clock.advance(1_800)
    assert (await refusal(server.sign_in("admin", "x"))).reason == "INVALID_CREDENTIALS"
    await server.sign_in("admin")


@pytest.mark.parametrize("settings", [{"auth": MANY_LOGINS}], indirect=True)
async def test_a_success_clears_the_count(server: Server) -> None:
    for _ in range(2):
        for _ in range(9):
            await refusal(server.sign_in("admin", "x"))
        await server.sign_in("admin")


@pytest.mark.parametrize("settings", [{"auth": MANY_LOGINS}], indirect=True)
async def test_guesses_at_the_same_time_cannot_outrun_the_lock(server: Server) -> None:
    refusals = await asyncio.gather(*(refusal(server.sign_in("admin", "x")) for _ in range(25)))
    reasons = [each.reason for each in refusals]
    assert reasons.count("INVALID_CREDENTIALS") == 10
    assert reasons.count("ACCOUNT_LOCKED") == 15
    assert [row["kind"] for row in await server.journal("user.locked")] == ["user.locked"]


async def test_a_suspended_person_cannot_sign_in_and_is_not_told_why(server: Server) -> None:
    user_id = server.add_user("ann", Role.USER)
    await suspend(server, user_id)
    assert (await refusal(server.sign_in("ann"))).reason == "INVALID_CREDENTIALS"


async def test_a_password_that_changes_while_it_is_checked_does_not_open_a_session(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    matches = server.passwords.matches

    async def slow(stored: str | None, password: str) -> bool:
        answer = await matches(stored, password)
        await server.database.run(
            lambda transaction: transaction.execute("UPDATE app_user SET password_hash = 'other'")
        )
        return answer

    monkeypatch.setattr(server.passwords, "matches", slow)
    assert (await refusal(server.sign_in("admin"))).reason == "INVALID_CREDENTIALS"


async def suspend(server: Server, user_id: str) -> None:
    await server.database.run(
        lambda transaction: transaction.execute(
            "UPDATE app_user SET state = 'suspended' WHERE user_id = ?", user_id
        )
    )


# Access tokens.


async def test_an_access_token_ends_after_an_hour_and_says_when(server: Server) -> None:
    token = (await server.sign_in("admin")).access_token
    server.clock.advance(3_599 - server.clock() % 1_000_000 / 1e6)
    await list_agents(server, bearer(token))
    server.clock.advance(1)
    refused = await refusal(list_agents(server, bearer(token)))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert refused.facts["expired_at"] in refused.message


async def test_no_credential_is_told_what_to_send(server: Server) -> None:
    refused = await refusal(list_agents(server, ()))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "CREDENTIAL_MISSING")
    assert "authorization: Bearer" in refused.message


@pytest.mark.parametrize(
    "value", ["", "   ", "Bearer", "Bearer ", "Basic YTpi", "token", "Bearer a.b.c", "Bearer a b"]
)
async def test_a_malformed_header_is_refused(server: Server, value: str) -> None:
    refused = await refusal(list_agents(server, (("authorization", value),)))
    assert refused.code is UNAUTHENTICATED
    assert refused.reason == ("INVALID_TOKEN" if value.strip() else "CREDENTIAL_MISSING")


async def test_the_word_bearer_is_taken_in_any_case(server: Server) -> None:
    token = (await server.sign_in("admin")).access_token
    await list_agents(server, (("authorization", f"bEARER {token}"),))


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    head, body, signature = token.split(".")
    read = [json.loads(base64.urlsafe_b64decode(each + "==")) for each in (head, body)]
    return read[0], read[1], signature


def joined(head: dict[str, Any], body: dict[str, Any], signature: str) -> str:
    written = [
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=")
        for each in (head, body)
    ]
    return ".".join((*written, signature))


async def test_no_change_to_a_token_goes_unseen(server: Server) -> None:
    head, body, signature = parts_of((await server.sign_in("admin")).access_token)
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    key_id = head["kid"]
    changed = [
        joined(head, body, flipped),
        joined(head, body, ""),
        joined(head, body | {"exp": body["exp"] + 86_400}, signature),
        joined(head, body | {"role": "admin", "sub": "user_other"}, signature),
        joined(head | {"alg": "none"}, body, ""),
        joined(head | {"alg": "HS256"}, body, signature),
        joined(head | {"kid": "key_other"}, body, signature),
        joined(head | {"kid": 7}, body, signature),
        joined(head | {"kid": ["x"]}, body, signature),
        jwt.encode(body, "k" * 32, "HS256", headers={"kid": key_id}),
        jwt.encode(body, Ed25519PrivateKey.generate(), "EdDSA", headers={"kid": key_id}),
    ]
    for token in changed:
        refused = await refusal(list_agents(server, bearer(token)))
        assert (refused.code, refused.reason) == (UNAUTHENTICATED, "INVALID_TOKEN"), token


async def test_the_public_key_is_no_secret_to_sign_with(server: Server) -> None:
    head, body, _ = parts_of((await server.sign_in("admin")).access_token)
    public = server.sessions._signer._public[head["kid"]].public_bytes_raw()
    token = jwt.encode(body, public, "HS256", headers={"kid": head["kid"]})
    assert (await refusal(list_agents(server, bearer(token)))).reason == "INVALID_TOKEN"


async def test_a_refresh_token_is_no_access_token_nor_the_reverse(server: Server) -> None:
    answer = await server.sign_in("admin")
    refused = await refusal(list_agents(server, bearer(answer.refresh_token)))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "INVALID_TOKEN")
    refused = await refusal(refresh(server, answer.access_token))
    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_suspended_person_loses_access_at_the_next_look(server: Server) -> None:
    user_id, metadata = await server.enter("ann", Role.USER)
    await suspend(server, user_id)
    refused = await refusal(list_agents(server, metadata))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "TOKEN_REVOKED")


# Refreshing.


async def test_a_chain_of_refreshes_carries_on(server: Server) -> None:
    answer = await server.sign_in("admin")
    seen = {answer.refresh_token}
    for _ in range(5):
        server.clock.advance(3_600)
        answer = await refresh(server, answer.refresh_token)
        assert answer.refresh_token not in seen
        seen.add(answer.refresh_token)
        await list_agents(server, bearer(answer.access_token))
    assert answer.user.username == "admin"


async def test_a_lost_answer_is_given_again_within_ten_seconds(server: Server) -> None:
    first = (await server.sign_in("admin")).refresh_token
    given = await refresh(server, first)
    server.clock.advance(10)
    again = await refresh(server, first)
    assert again.refresh_token == given.refresh_token
    assert again.access_token == given.access_token
    assert again.expires_at == given.expires_at
    await refresh(server, again.refresh_token)


async def test_reuse_after_the_grace_ends_the_family_and_no_other(server: Server) -> None:
    mine = await server.sign_in("admin")
    other = await server.sign_in("admin")
    renewed = await refresh(server, mine.refresh_token)
    server.clock.advance(10.001)
    refused = await refusal(refresh(server, mine.refresh_token))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "REFRESH_TOKEN_REUSED")
    for token in (mine.access_token, renewed.access_token):
        assert (await refusal(list_agents(server, bearer(token)))).reason == "TOKEN_REVOKED"
    for token in (mine.refresh_token, renewed.refresh_token):
        assert (await refusal(refresh(server, token))).reason == "TOKEN_REVOKED"
    await list_agents(server, bearer(other.access_token))
    await refresh(server, other.refresh_token)
    (ended,) = await server.journal("session.ended")
    assert json.loads(ended["body"])["why"] == "refresh_token_reused"


async def test_refreshes_at_the_same_time_get_one_successor(server: Server) -> None:
    first = (await server.sign_in("admin")).refresh_token
    answers = await asyncio.gather(*(refresh(server, first) for _ in range(20)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert len({answer.access_token for answer in answers}) == 1


async def test_a_refresh_token_ends_after_seven_days_and_says_when(server: Server) -> None:
    token = (await server.sign_in("admin")).refresh_token
    server.clock.advance(7 * 86_400)
    refused = await refusal(refresh(server, token))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "TOKEN_EXPIRED")


async def test_a_refresh_token_lives_to_the_last_microsecond(server: Server) -> None:
    token = (await server.sign_in("admin")).refresh_token
    server.clock.advance(7 * 86_400 - 0.000001)
    await refresh(server, token)


@pytest.mark.parametrize("token", ["rt_unknown", "x", "rt_" + "A" * 43, "é"])
async def test_an_unknown_refresh_token_is_refused(server: Server, token: str) -> None:
    refused = await refusal(refresh(server, token))
    assert (refused.code, refused.reason) == (UNAUTHENTICATED, "INVALID_TOKEN")


async def test_a_suspended_person_cannot_refresh(server: Server) -> None:
    user_id = server.add_user("ann", Role.USER)
    token = (await server.sign_in("ann")).refresh_token
    await suspend(server, user_id)
    assert (await refusal(refresh(server, token))).reason == "TOKEN_REVOKED"


# Signing out.


async def test_logout_ends_the_token_and_its_family_at_once(server: Server) -> None:
    answer = await server.sign_in("admin")
    renewed = await refresh(server, answer.refresh_token)
    await list_agents(server, bearer(answer.access_token))
    await server.auth.Logout(pb.LogoutRequest(), metadata=bearer(renewed.access_token))
    for token in (answer.access_token, renewed.access_token):
        refused = await refusal(list_agents(server, bearer(token)))
        assert (refused.code, refused.reason) == (UNAUTHENTICATED, "TOKEN_REVOKED")
    assert (await refusal(refresh(server, renewed.refresh_token))).reason == "TOKEN_REVOKED"


async def test_logout_ends_no_other_session(server: Server) -> None:
    other = await server.sign_in("admin")
    mine = await server.sign_in("admin")
    await server.auth.Logout(pb.LogoutRequest(), metadata=bearer(mine.access_token))
    await list_agents(server, bearer(other.access_token))


async def test_a_second_logout_is_refused_as_any_call_is(server: Server) -> None:
    metadata = bearer((await server.sign_in("admin")).access_token)
    await server.auth.Logout(pb.LogoutRequest(), metadata=metadata)
    refused = await refusal(server.auth.Logout(pb.LogoutRequest(), metadata=metadata))
    assert refused.reason == "TOKEN_REVOKED"


async def test_logout_ends_open_streams(server: Server) -> None:
    metadata = bearer((await server.sign_in("admin")).access_token)
    reading = await server.listen(metadata)
    await server.auth.Logout(pb.LogoutRequest(), metadata=metadata)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(reading, 30)
    assert refusal_of(caught.value).code is UNAUTHENTICATED


# Other credentials.


@pytest.mark.parametrize("settings", [{"static_token": "a static token of some"}], indirect=True)
async def test_the_static_token_is_a_client_that_may_not_do_what_people_do(
    server: Server,
) -> None:
    refused = await refusal(list_agents(server, bearer("a static token of some")))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    refused = await refusal(list_agents(server, bearer("a static token of same")))
    assert refused.code is UNAUTHENTICATED


@pytest.mark.parametrize("settings", [{"local_single_user": True}], indirect=True)
@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("x-steward-host", "localhost:8080"),),
        (("x-steward-host", "127.0.0.1:8080"), ("x-steward-origin", "http://localhost:3000")),
        (("x-steward-host", "[::1]:8080"), ("x-forwarded-for", "127.0.0.1, ::1")),
    ],
)
async def test_local_callers_may_do_without_a_credential_where_that_is_set(
    server: Server, metadata: Any
) -> None:
    await list_agents(server, metadata)


@pytest.mark.parametrize("settings", [{"local_single_user": True}], indirect=True)
@pytest.mark.parametrize(
    "metadata",
    [
        (("x-steward-host", "evil.example"),),
        (("x-steward-host", "127.0.0.1.evil.example"),),
        (("x-steward-host", "localhost"), ("x-steward-origin", "https://evil.example")),
        (("x-steward-host", "localhost"), ("x-steward-origin", "null")),
        (("x-forwarded-for", "10.0.0.7"),),
        (("x-forwarded-for", "10.0.0.7, 127.0.0.1"),),
        (("authorization", "Bearer a.b.c"),),
        (("x-ic-key", "ic_wrong"),),
    ],
)
async def test_pages_of_other_sites_and_wrong_credentials_are_no_local_callers(
    server: Server, metadata: Any
) -> None:
    assert (await refusal(list_agents(server, metadata))).code is UNAUTHENTICATED


async def test_an_agents_token_reaches_nothing_that_is_for_people(server: Server) -> None:
    agent = await server.create_agent()
    token = (await server.create_token(agent.id)).token
    refused = await refusal(list_agents(server, ic_key(token)))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    refused = await refusal(server.auth.Logout(pb.LogoutRequest(), metadata=ic_key(token)))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
