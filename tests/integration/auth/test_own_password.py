"""Passwords that must be changed, and how people change their own."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from steward.auth.v1 import auth_pb2
from steward.auth.v1.auth_pb2_grpc import AuthServiceStub
from steward.events.v1 import events_pb2
from steward.gateway.v1 import options_pb2 as options
from steward_server.auth.accounts import Role
from steward_server.auth.config import AuthConfig
from tests.integration.auth.people import (
    FORBIDDEN,
    NEW_PASSWORD,
    change_own,
    entered,
    knock,
    me,
    reset,
)
from tests.integration.conftest import Server, bearer, refusal
from tests.live import ADMIN_PASSWORD, live_server, live_settings


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"auth": AuthConfig(logins_per_minute=1_000)}


async def test_who_must_change_their_password_can_do_nothing_else_before(server: Server) -> None:
    user, _ = await entered(server, "ann")
    assert (await reset(server, user.id, NEW_PASSWORD)).user.must_change_password
    pair = await server.sign_in("ann", NEW_PASSWORD)
    assert pair.must_change_password
    metadata = bearer(pair.access_token)
    subscribing = server.events.Subscribe(events_pb2.SubscribeRequest(), metadata=metadata)
    for call in (knock(server, metadata), subscribing.read()):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (FORBIDDEN, "PASSWORD_CHANGE_REQUIRED")
        assert "/api/v1/auth/password" in refused.message
    assert (await me(server, metadata)).must_change_password
    renewed = await server.auth.Refresh(auth_pb2.RefreshRequest(refresh_token=pair.refresh_token))
    metadata = bearer(renewed.access_token)
    assert (await refusal(knock(server, metadata))).reason == "PASSWORD_CHANGE_REQUIRED"

    await change_own(server, metadata, NEW_PASSWORD, ADMIN_PASSWORD)
    await knock(server, metadata)
    await knock(server, bearer(pair.access_token))  # of the same sign-in
    assert not (await me(server, metadata)).must_change_password
    assert not (await server.sign_in("ann")).must_change_password


async def test_changing_ones_password_ends_every_other_sign_in(server: Server) -> None:
    _, kept = await entered(server, "ann")
    other = await server.sign_in("ann")
    stream = await server.listen(bearer(other.access_token))
    own_stream = await server.listen(bearer(kept.access_token))
    await change_own(server, bearer(kept.access_token), ADMIN_PASSWORD, NEW_PASSWORD)

    await knock(server, bearer(kept.access_token))
    assert (await refusal(knock(server, bearer(other.access_token)))).reason == "TOKEN_REVOKED"
    assert (await refusal(asyncio.wait_for(stream, 30))).reason == "CREDENTIAL_ENDED"
    assert not own_stream.done()
    own_stream.cancel()
    assert (await refusal(server.sign_in("ann"))).reason == "INVALID_CREDENTIALS"
    await server.sign_in("ann", NEW_PASSWORD)


WRONG_PASSWORDS: list[tuple[str, str, str, str]] = [
    ("", NEW_PASSWORD, "current_password", "VALIDATION_ERROR"),
    ("x" * 1_001, NEW_PASSWORD, "current_password", "VALIDATION_ERROR"),
    ("wrong one", NEW_PASSWORD, "current_password", "WRONG_PASSWORD"),
    (ADMIN_PASSWORD, "short", "new_password", "VALIDATION_ERROR"),
    (ADMIN_PASSWORD, ADMIN_PASSWORD, "new_password", "VALIDATION_ERROR"),
    (ADMIN_PASSWORD, "letmein123", "new_password", "VALIDATION_ERROR"),
]


async def test_a_change_of_password_may_be_refused(server: Server) -> None:
    for current, new, wrong, reason in WRONG_PASSWORDS:
        refused = await refusal(change_own(server, server.admin, current, new))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
        assert refused.fields.keys() == {wrong}
        await server.sign_in("admin")


async def test_guessing_a_password_with_a_stolen_session_locks_the_account(
    server: Server,
) -> None:
    _, pair = await entered(server, "ann")
    metadata = bearer(pair.access_token)
    for _ in range(10):
        await refusal(change_own(server, metadata, "a guess", NEW_PASSWORD))
    refused = await refusal(change_own(server, metadata, ADMIN_PASSWORD, NEW_PASSWORD))
    assert refused.reason == "ACCOUNT_LOCKED"
    assert (await refusal(server.sign_in("ann"))).reason == "ACCOUNT_LOCKED"


async def test_changes_of_passwords_are_limited_as_sign_ins_are(tmp_path: Any) -> None:
    async with live_server(live_settings(tmp_path / "data")) as live:
        auth: Any = AuthServiceStub(live.channel)
        metadata = tuple(live.admin.headers.items())
        request = auth_pb2.ChangePasswordRequest(current_password="x", new_password="y")
        reasons = [
            (await refusal(auth.ChangePassword(request, metadata=metadata))).reason
            for _ in range(11)
        ]
    assert reasons == ["VALIDATION_ERROR"] * 10 + ["RATE_LIMITED"]


async def test_whoever_asks_is_told_who_they_are(server: Server) -> None:
    user_id, metadata = await server.enter("ann", Role.VIEWER)
    answer = await me(server, metadata)
    assert (answer.id, answer.username, answer.role) == (user_id, "ann", options.ROLE_VIEWER)
    assert answer.last_login_at.ToMicroseconds() == server.clock()
