"""Tokens of inference clients: made, believed, and refused in the words of their document."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from grpc import StatusCode

from steward.inference.v1 import inference_pb2 as pb
from steward_server.config import BadSetting
from tests.integration.conftest import refusal
from tests.integration.inference.conftest import Site, open_site

SECRET = "a-secret-of-tests-with-more-than-32-characters"
HS256: dict[str, Any] = {
    "jwt_enabled": True,
    "jwt_secret": SECRET,
    "jwt_issuer": "cyborg-api",
    "jwt_audience": "cyborg-clients",
}
STEP = {"observation": [1, 2, 3]}


async def minted(site: Site, **body: Any) -> Any:
    answer = await site.live.api.call("POST", "/auth/token", {"subject": "user123", **body})
    assert answer.status == 200, answer
    return answer.body


async def step(site: Site, token: str) -> tuple[int, Any]:
    client = site.live.api.acting_as(authorization=f"Bearer {token}")
    answer = await client.call("POST", "/step", STEP)
    return answer.status, answer.body


def signed(**claims: Any) -> str:
    told = {"sub": "me", "exp": time.time() + 60, "iss": "cyborg-api", "aud": "cyborg-clients"}
    kept = {name: value for name, value in {**told, **claims}.items() if value is not None}
    return jwt.encode(kept, SECRET, "HS256")


async def test_a_token_is_made_and_steps(tmp_path: Path) -> None:
    async with open_site(tmp_path, **HS256) as site:
        body = await minted(site, expiry_minutes=120)
        assert list(body) == ["access_token", "token_type", "expires_at", "subject"]
        assert (body["token_type"], body["subject"]) == ("bearer", "user123")
        told = time.strptime(body["expires_at"], "%Y-%m-%dT%H:%M:%S")
        assert time.mktime(told) - time.mktime(time.gmtime()) == pytest.approx(7200, abs=5)
        claims = jwt.decode(body["access_token"], SECRET, ["HS256"], audience="cyborg-clients")
        assert set(claims) == {"sub", "iat", "exp", "iss", "aud"}
        assert (await step(site, body["access_token"]))[0] == 200
        assert (await site.client.call("POST", "/step", STEP)).status == 200  # the static one too


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (signed(exp=time.time() - 1), "Token has expired"),
        (signed(iss="another"), "Invalid token issuer"),
        (signed(iss=None), "Invalid token issuer"),
        (signed(aud="another"), "Invalid token audience"),
        (signed(aud=None), "Invalid token audience"),
        (signed(exp=None), "Invalid authentication token"),
        (signed(sub=None), "Invalid authentication token"),
        (jwt.encode({"sub": "me"}, "another" * 8, "HS256"), "Invalid authentication token"),
        (jwt.encode({"sub": "me"}, "", "none"), "Invalid authentication token"),
        ("not-a-token", "Invalid authentication token"),
    ],
)
async def test_a_token_that_is_not_good_is_told_why(tmp_path: Path, token: str, text: str) -> None:
    async with open_site(tmp_path, **HS256) as site:
        assert await step(site, token) == (403, {"detail": text})


async def test_a_stream_ends_with_its_token_and_so_do_its_agents(tmp_path: Path) -> None:
    async with open_site(tmp_path, **HS256) as site:
        token = signed(exp=time.time() + 2)
        call = site.stub.Stream(metadata=(("authorization", f"Bearer {token}"),))
        await call.write(pb.StreamRequest(open=pb.StreamOpen(agents=[pb.StreamAgent()])))
        assert list((await call.read()).opened.policies) == ["adding@1"]
        ended = await refusal(call.read())
        assert (ended.code, ended.reason) == (StatusCode.UNAUTHENTICATED, "CREDENTIAL_ENDED")
        listed = await site.client.call("GET", "/api/v1/policies/adding")
        assert listed.body["versions"][0]["agent_count"] == 0


async def test_tokens_that_are_switched_off_are_neither_made_nor_believed(site: Site) -> None:
    answer = await site.live.api.call("POST", "/auth/token", {"subject": "user123"})
    assert (answer.status, answer.body) == (
        501,
        {"detail": "JWT authentication is not enabled. Set api.jwt_enabled=true in config."},
    )
    assert (await step(site, signed()))[0] == 403


@pytest.mark.parametrize("body", [{}, {"subject": ""}, {"expiry_minutes": -5}, {"subject": 5}])
async def test_a_token_for_nobody_or_never_is_not_made(tmp_path: Path, body: Any) -> None:
    async with open_site(tmp_path, **HS256) as site:
        sent = {"subject": "x", **body} if "expiry_minutes" in body else body
        answer = await site.live.api.call("POST", "/auth/token", sent)
        assert answer.status in (400, 422)


async def test_no_token_is_good_for_longer_than_is_allowed(tmp_path: Path) -> None:
    async with open_site(tmp_path, **HS256, jwt_max_expiry_minutes=10) as site:
        body = await minted(site, expiry_minutes=1_000_000)
        told = time.strptime(body["expires_at"], "%Y-%m-%dT%H:%M:%S")
        assert time.mktime(told) - time.mktime(time.gmtime()) == pytest.approx(600, abs=5)


async def test_where_a_key_is_set_tokens_are_made_for_its_holder_only(tmp_path: Path) -> None:
    async with open_site(tmp_path, **HS256, jwt_mint_key="the key") as site:
        refused = await site.live.api.call("POST", "/auth/token", {"subject": "x"})
        assert refused.status == 403
        holder = site.live.api.acting_as(authorization="Bearer the key")
        assert (await holder.call("POST", "/auth/token", {"subject": "x"})).status == 200


async def test_a_pair_of_keys_signs_and_verifies(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    config: dict[str, Any] = {
        "jwt_enabled": True,
        "jwt_algorithm": "RS256",
        "jwt_secret": str(private),
        "jwt_public_key_path": public,
    }
    async with open_site(tmp_path / "data", **config) as site:
        token = (await minted(site))["access_token"]
        assert jwt.get_unverified_header(token)["alg"] == "RS256"
        assert (await step(site, token))[0] == 200
        # The public key is no secret: what it "signs" by the other algorithm is not believed.
        forged = jwt.api_jws.PyJWS().encode(b'{"sub":"me","exp":99999999999}', b"x" * 32, "HS256")
        assert (await step(site, forged))[0] == 403


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"jwt_secret": None}, "JWT_SECRET is unset"),
        ({"jwt_secret": "short"}, "has 5 characters"),
        ({"jwt_secret": "your-production-secret-key-min-32-chars"}, "is a well-known one"),
        ({"jwt_algorithm": "RS256", "jwt_secret": "/nowhere.pem"}, "No such file"),
        ({"jwt_algorithm": "RS256", "jwt_secret": None}, "RS256 needs"),
    ],
)
async def test_keys_that_cannot_be_used_keep_the_server_from_starting(
    tmp_path: Path, config: dict[str, Any], text: str
) -> None:
    with pytest.raises(BadSetting, match=text):
        async with open_site(tmp_path, **{**HS256, **config}):
            pass


async def test_a_token_that_was_made_is_written_down(tmp_path: Path) -> None:
    async with open_site(tmp_path, **HS256) as site:
        await minted(site)
        log = await site.live.admin.call("GET", "/api/v1/audit?action=client_token.minted")
        (entry,) = log.body["entries"]
        assert entry["resource_id"] == "user123"
