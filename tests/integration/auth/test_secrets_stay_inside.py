"""No secret reaches the database file, the journal, the logs or a refusal in clear."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import grpc
import jwt
import pytest
import structlog

from steward.auth.v1 import auth_pb2
from steward.providers.v1 import providers_pb2
from steward.tokens.v1 import tokens_pb2
from tests.integration.conftest import Server, bearer, ic_key, refusal
from tests.live import ADMIN_PASSWORD

PROVIDER_KEY = "sk-canary-4f1c9b7a-do-not-leak"
WRONG_PASSWORD = "a wrong but telling password"


@pytest.fixture
def log_lines() -> Any:
    with structlog.testing.capture_logs() as lines:
        yield lines


def shapes(secret: str) -> set[bytes]:
    """What a careless hand might write of a secret."""
    raw = secret.encode()
    return {raw, raw.hex().encode(), base64.b64encode(raw)[:-4], repr(secret).encode()}


async def test_no_secret_is_found_where_it_does_not_belong(
    server: Server, log_lines: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    first = await server.sign_in("admin")
    second = await server.auth.Refresh(auth_pb2.RefreshRequest(refresh_token=first.refresh_token))
    await server.auth.Refresh(auth_pb2.RefreshRequest(refresh_token=first.refresh_token))
    await server.provider_service.CreateProvider(
        providers_pb2.CreateProviderRequest(name="openai", api_key=PROVIDER_KEY),
        metadata=server.admin,
    )
    await server.providers.key_for(server.database, "openai")
    agent = await server.create_agent()
    made = await server.create_token(agent.id, request_id="once")
    await server.knock(ic_key(made.token))
    rotation = await server.token_service.RotateToken(
        tokens_pb2.RotateTokenRequest(token_id=made.id), metadata=server.admin
    )
    rotated = rotation.ic_token.token
    await server.knock(ic_key(rotated))
    refusals = [
        await refusal(server.sign_in("admin", WRONG_PASSWORD)),
        await refusal(server.knock(ic_key(made.token))),
        await refusal(server.knock(ic_key(made.token + "x"))),
        await refusal(server.knock(bearer(first.access_token + "x"))),
    ]
    server.clock.advance(11)
    reuse = auth_pb2.RefreshRequest(refresh_token=first.refresh_token)
    refusals.append(await refusal(server.auth.Refresh(reuse)))
    await server.providers.last_use.write()
    await server.tokens.last_use.write()

    signing = server.sessions._signer._private.private_bytes_raw()
    secrets = [
        ADMIN_PASSWORD,
        WRONG_PASSWORD,
        PROVIDER_KEY,
        made.token,
        rotated,
        first.access_token,
        first.refresh_token,
        second.access_token,
        second.refresh_token,
    ]
    forms = {form for secret in secrets for form in shapes(secret)}
    forms |= {signing, signing.hex().encode(), base64.b64encode(signing)}
    captured = capfd.readouterr()
    places = {file.name: file.read_bytes() for file in server.folder.iterdir()}
    places["logs"] = repr(log_lines).encode()
    places["output"] = (captured.out + captured.err).encode()
    places["refusals"] = repr(refusals).encode()
    assert {"steward.db", "steward.db-wal"} <= places.keys()
    assert made.id.encode() in places["steward.db"] + places["steward.db-wal"]
    for name, content in places.items():
        assert [form for form in forms if form in content] == [], name


async def test_a_fault_of_ours_shows_nothing_of_its_cause(
    server: Server, log_lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(**_: Any) -> None:
        raise RuntimeError("SELECT secret FROM /var/lib/steward")

    monkeypatch.setattr(server.tokens, "listed", broken)
    refused = await refusal(
        server.token_service.ListTokens(tokens_pb2.ListTokensRequest(), metadata=server.admin)
    )
    assert refused.code is grpc.StatusCode.INTERNAL
    assert "SELECT" not in repr(refused)
    async with asyncio.timeout(10):  # the call is logged once its refusal is on its way
        while len(log_lines) < 2:
            await asyncio.sleep(0.01)
    assert [line["event"] for line in log_lines] == ["rpc.failed", "grpc.request"]


async def test_database_and_master_key_are_for_their_owner_alone(server: Server) -> None:
    modes = {file.name: file.stat().st_mode & 0o777 for file in server.folder.iterdir()}
    assert modes["master.key"] == 0o600
    assert modes["steward.db"] == 0o600


async def test_an_access_token_tells_no_more_than_it_must(server: Server) -> None:
    token = (await server.sign_in("admin")).access_token
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims.keys() == {"typ", "sub", "role", "jti", "iss", "aud", "iat", "exp"}
    assert jwt.get_unverified_header(token)["alg"] == "EdDSA"
