"""Secrets that can be recognised go through everything a server does, and are looked for after."""

from __future__ import annotations

import base64
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest

from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.e2e.process import Steward, steward
from tests.live import Api

PASSWORD = "canary-password-7c1f0e9d"
GATEWAY_PASSWORD = "canary/gateway+password <&\"\\' ü>-7d41c09b"
OLD_GATEWAY_PASSWORD = "canary-old-gateway-password-e2a5"
PROVIDER_KEY = "canary/provider+key/3b8e5a2f-no-usual-prefix"
STATIC_TOKEN = "canary-static-token-94d2c6b1"
OTHER_PASSWORDS = {
    "first password": "canary-first-password-51b7d0",
    "reset password": "canary-reset-password-c83e4f",
    "own password": "canary-own-password-0a96e2",
}


def shapes(secret: str) -> set[bytes]:
    """What a careless hand might write of a secret."""
    raw = secret.encode()
    return {
        raw,
        raw.hex().encode(),
        base64.b64encode(raw).rstrip(b"=")[:-2],
        urllib.parse.quote(secret, safe="").encode(),
        json.dumps(secret).encode()[1:-1],
        json.dumps(secret, ensure_ascii=False).encode()[1:-1],
    }


async def live_through_it(server: Steward) -> tuple[dict[str, str], list[str]]:
    """Do everything there is to do, well and badly; the secrets met and what was refused."""
    secrets = {"password": PASSWORD, "provider key": PROVIDER_KEY, "static token": STATIC_TOKEN}
    refusals: list[str] = []
    async with aiohttp.ClientSession() as session:
        api = Api(server.url, session)

        async def refused(caller: Api, method: str, path: str, body: Any = None) -> None:
            answer = await caller.call(method, path, body)
            assert answer.status >= 400, answer
            refusals.append(json.dumps(answer.body) + json.dumps(answer.headers))

        login = {"username": "admin", "password": PASSWORD}
        pair = (await api.call("POST", "/api/auth/login", login)).body
        body = {"refresh_token": pair["refresh_token"]}
        second = (await api.call("POST", "/api/auth/refresh", body)).body
        secrets |= {
            "access token": pair["access_token"],
            "refresh token": pair["refresh_token"],
            "second access token": second["access_token"],
            "second refresh token": second["refresh_token"],
        }
        admin = api.acting_as(authorization=f"Bearer {second['access_token']}")
        provider = {"name": "openai", "base_url": "http://127.0.0.1:9", "api_key": PROVIDER_KEY}
        assert (await admin.call("POST", "/api/v1/providers", provider)).status == 201
        agent = (await admin.call("POST", "/api/v1/agents", {"name": "a", "budget_usd": 5})).body
        made = (await admin.call("POST", "/api/tokens", {"agent_id": agent["id"]})).body
        rotate = f"/api/tokens/{made['id']}/rotate"
        rotated = (await admin.call("POST", rotate, {}, idempotency_key="once")).body
        secrets |= {"IC token": made["token"], "rotated IC token": rotated["token"]}
        await _let_somebody_in(api, admin, secrets)
        secrets |= await _keep_credentials(session, server, admin)
        runtime = api.acting_as(x_ic_key=rotated["token"])
        wanted = {"requested_budget_usd": 4.95}
        lease = (await runtime.call("POST", "/api/budget/handshake", wanted)).body
        secrets["IP token"] = lease["ip_token"]
        usage = {"lease_id": lease["lease_id"], "request_id": "c", "model": "m", "cost_usd": 4.9}
        assert (await runtime.call("POST", "/api/budget/report", usage)).status == 200

        # Over the socket and over gRPC, with the credential where it can be seen.
        url = f"{server.url}/ws?token={second['access_token']}&since=0&type=CostUpdate"
        async with session.ws_connect(url) as socket:
            assert (await socket.receive_json(timeout=30))["type"] == "CostUpdate"
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            budget: Any = BudgetServiceStub(channel)
            request = budget_pb2.HandshakeRequest(ic_token=rotated["token"])
            sealed = (await budget.Handshake(request)).ip_token
            secrets["second IP token"] = sealed

        # And badly.
        stranger = api.acting_as(authorization=f"Bearer {pair['access_token']}x")
        await refused(stranger, "GET", "/api/tokens")
        guess = {"current_password": PROVIDER_KEY, "new_password": PASSWORD}
        await refused(admin, "POST", "/api/v1/auth/password", guess)
        user = {"username": "x", "password": PASSWORD}
        await refused(admin, "POST", "/api/v1/users", user)
        await refused(admin, "POST", "/api/v1/users", user | {"role": PASSWORD})
        await refused(api.acting_as(x_ic_key=made["token"]), "POST", "/api/budget/handshake", {})
        await refused(api.acting_as(authorization=f"Basic {PASSWORD}"), "GET", "/api/tokens")
        await refused(api, "POST", "/api/auth/login", {"username": "admin", "passwort": PASSWORD})
        await refused(api, "POST", "/api/auth/login", {"username": PASSWORD, "password": "x"})
        await refused(api, "POST", "/api/auth/login", login | {"email": "a@b"})
        await refused(api, "POST", "/api/auth/login", [PASSWORD])
        await refused(admin, "POST", "/api/v1/providers", provider)
        await refused(admin, "POST", "/api/v1/providers", provider | {"name": "?", "kind": "x"})
        await refused(admin, "POST", "/api/v1/providers", provider | {"api_key": [PROVIDER_KEY]})
        credential = {"name": "gw", "username": "admin", "password": GATEWAY_PASSWORD}
        await refused(admin, "POST", "/api/credentials", credential | {"name": "a b"})
        await refused(admin, "POST", "/api/credentials", credential | {"colour": "red"})
        await refused(admin, "POST", "/api/credentials", credential | {"username": ""})
        await refused(admin, "POST", "/api/credentials", {"password": [GATEWAY_PASSWORD]})
        await refused(admin, "POST", "/api/credentials", [credential])
        await refused(runtime, "POST", "/api/credentials", credential)
        await refused(runtime, "POST", "/api/budget/handshake", {"ic_token": 5})
        await refused(runtime, "GET", f"/api/tokens?token={rotated['token']}")
        client = api.acting_as(authorization=f"Bearer {STATIC_TOKEN}")
        await refused(client, "GET", "/api/tokens")
        await refused(api, "POST", "/api/auth/refresh", body)
        await refused(api, "GET", f"/nothing?token={pair['access_token']}")
        metrics = await api.call("GET", "/metrics")
        refusals.append(metrics.body)
        await admin.call("POST", "/api/auth/logout", {})
    return secrets, refusals


async def _keep_credentials(
    session: aiohttp.ClientSession, server: Steward, admin: Api
) -> dict[str, str]:
    """Two passwords of one credential, the second by Connect; and one that is deleted."""
    saved = {"name": "gw", "username": "admin", "gateway_url": "http://127.0.0.1:9"}
    for body in (saved, saved | {"name": "gone"}):
        old = body | {"password": OLD_GATEWAY_PASSWORD}
        assert (await admin.call("POST", "/api/credentials", old)).status == 200
    new = saved | {"password": GATEWAY_PASSWORD}
    connect = f"{server.url}/steward.credentials.v1.CredentialService/CreateCredential"
    async with session.post(connect, json=new, headers=admin.headers) as answer:
        assert answer.status == 200
    listed = await admin.call("GET", "/api/credentials")
    assert [each["name"] for each in listed.body["credentials"]] == ["gone", "gw"]
    assert (await admin.call("DELETE", "/api/credentials/gone")).status == 200
    return {"gateway password": GATEWAY_PASSWORD, "old gateway password": OLD_GATEWAY_PASSWORD}


async def _let_somebody_in(api: Api, admin: Api, secrets: dict[str, str]) -> None:
    """Three passwords of a person: given, reset, and their own."""
    secrets |= OTHER_PASSWORDS
    first, reset, own = OTHER_PASSWORDS.values()
    user = {"username": "ann", "password": first, "role": "admin"}
    made = await admin.call("POST", "/api/v1/users", user)
    assert made.status == 201, made
    path = f"/api/v1/users/{made.body['id']}"
    answer = await admin.call("POST", f"{path}/reset-password", {"new_password": reset})
    assert answer.status == 200, answer
    login = {"username": "ann", "password": reset}
    pair = (await api.call("POST", "/api/auth/login", login)).body
    secrets["another's access token"] = pair["access_token"]
    ann = api.acting_as(authorization=f"Bearer {pair['access_token']}")
    change = {"current_password": reset, "new_password": own}
    assert (await ann.call("POST", "/api/v1/auth/password", change)).status == 204
    assert (await admin.call("PUT", f"{path}/suspend", {"reason": "left"})).status == 200
    assert (await admin.call("GET", "/api/v1/audit")).status == 200
    assert (await admin.call("DELETE", path)).status == 204


@pytest.mark.parametrize("log_format", ["json", "text"])
async def test_no_secret_is_found_where_it_does_not_belong(tmp_path: Path, log_format: str) -> None:
    data_dir = tmp_path / "data"
    with steward(
        data_dir,
        STEWARD_LOG_LEVEL="debug",
        STEWARD_LOG_FORMAT=log_format,
        STEWARD_ADMIN_PASSWORD=PASSWORD,
        STEWARD_STATIC_TOKEN=STATIC_TOKEN,
        STEWARD_AUTH_REFRESH_GRACE_S="0",
    ) as server:
        secrets, refusals = await live_through_it(server)
        server.stop()
    places = {
        "standard output": server.said.encode(),
        "log": server.log.encode(),
        "refusals and metrics": "\n".join(refusals).encode(),
    }
    places |= {file.name: file.read_bytes() for file in data_dir.iterdir()}
    assert {"steward.db", "master.key"} <= places.keys()
    assert b"CostUpdate" not in places["log"]
    assert b"agent_" in places["steward.db"] + places.get("steward.db-wal", b"")
    assert server.log.count("http.request") > 20
    found = {
        (name, place)
        for name, secret in secrets.items()
        for place, content in places.items()
        if any(shape in content for shape in shapes(secret))
    }
    assert found == set()


async def test_the_generated_password_is_on_its_line_alone(tmp_path: Path) -> None:
    with steward(tmp_path / "data", STEWARD_LOG_LEVEL="debug", STEWARD_ADMIN_PASSWORD="") as server:
        server.stop()
    found = re.search(r"password: (\S+) ", server.said)
    assert found
    lines = [line for line in server.said.splitlines() if found[1] in line]
    assert len(lines) == 1
    assert found[1] not in server.log
    stored = b"".join(file.read_bytes() for file in (tmp_path / "data").iterdir())
    assert found[1].encode() not in stored


def lines_of(server: Steward) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]


async def test_every_request_has_a_line_with_the_fields_of_the_seed(tmp_path: Path) -> None:
    with steward(tmp_path / "data") as server:
        async with aiohttp.ClientSession() as session:
            admin = await Api(server.url, session).sign_in()
            agent = (
                await admin.call("POST", "/api/v1/agents", {"name": "a", "budget_usd": 5})
            ).body
            token = (await admin.call("POST", "/api/tokens", {"agent_id": agent["id"]})).body
            runtime = Api(server.url, session).acting_as(x_ic_key=token["token"])
            await runtime.call("POST", "/api/budget/return", {"lease_id": "none"})
            await admin.call("GET", f"/api/agents/{agent['id']}/status")
            await admin.call("GET", "/nothing")
        async with grpc.aio.insecure_channel(server.grpc_address) as channel:
            stub: Any = BudgetServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError):
                await stub.Return(
                    budget_pb2.ReturnRequest(lease_id="none"),
                    metadata=(("x-ic-key", token["token"]), ("x-request-id", "mine")),
                )
        server.stop()
    requests = [line for line in lines_of(server) if line["event"] == "http.request"]
    told = {
        (line["endpoint"], line["status"], line["http_status"], line.get("agent_id"))
        for line in requests
    }
    assert told == {
        ("/api/auth/login", "success", 200, None),
        ("/api/v1/agents", "success", 201, None),
        ("/api/tokens", "success", 201, agent["id"]),
        ("/api/budget/return", "error", 404, agent["id"]),
        ("/api/agents/{agent_id}/status", "success", 200, agent["id"]),
        ("unmatched", "error", 404, None),
    }
    for line in requests:
        assert line["level"] == "INFO"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])
        assert 0 < line["latency_ms"] < 10_000
        assert line["request_id"]
    calls = [line for line in lines_of(server) if line["event"] == "grpc.request"]
    assert len(calls) == 1
    assert calls[0]["endpoint"] == "/steward.budget.v1.BudgetService/Return"
    assert (calls[0]["status"], calls[0]["code"]) == ("error", "NOT_FOUND")
    assert (calls[0]["agent_id"], calls[0]["request_id"]) == (agent["id"], "mine")
    assert 0 < calls[0]["latency_ms"] < 10_000
