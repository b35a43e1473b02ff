"""Behind proxies: whom the audit log names and the limits count, over every door.

The tests' own machine is the proxy: what it says of its callers is believed where it is trusted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from steward.agents.v1 import agents_pb2
from steward.audit.v1 import audit_pb2
from steward.audit.v1.audit_pb2_grpc import AuditServiceStub
from steward_gateway.app import build_app, serve_gateway
from steward_gateway.channel import ChannelTransport, open_channel
from steward_gateway.contracts import load_contracts
from steward_server.config import BadSetting
from steward_server.rates import RatesConfig
from tests.integration.conftest import Server, refusal
from tests.live import live_server, live_settings

BEHIND = {"trusted_proxies": "127.0.0.1, 10.0.0.0/8", "rates": RatesConfig(address_per_minute=2)}
IN_FRONT: dict[str, Any] = {"rates": BEHIND["rates"]}
CALLER = "203.0.113.7"
CLAIMS = [CALLER, f"{CALLER}:55555, 10.1.2.3", f"6.6.6.6, unknown, {CALLER}"]


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return getattr(request, "param", BEHIND)


async def newest(server: Server) -> audit_pb2.AuditEntry:
    request = audit_pb2.ListAuditEntriesRequest(page_size=1, action="agent.created")
    audit: Any = AuditServiceStub(server.channel)
    entry: audit_pb2.AuditEntry
    (entry,) = (await audit.ListAuditEntries(request, metadata=server.admin)).entries
    return entry


async def newest_address(server: Server) -> str:
    return (await newest(server)).address


async def create_over_rest(server: Server, base_url: str, *claims: str) -> None:
    headers = [*server.admin, *(("X-Forwarded-For", claim) for claim in claims)]
    async with server.api.session.post(
        f"{base_url}/api/v1/agents", json={"name": "scout", "budget_usd": 1}, headers=headers
    ) as answer:
        assert answer.status == 201, await answer.text()


async def create_over_grpc(server: Server, *claims: str) -> None:
    request = agents_pb2.CreateAgentRequest(name="scout", budget_nanousd=1)
    metadata = (*server.admin, *(("x-forwarded-for", claim) for claim in claims))
    await server.agents.CreateAgent(request, metadata=metadata)


@pytest.mark.parametrize("claim", CLAIMS)
async def test_the_audit_log_names_the_caller_behind_the_proxy(server: Server, claim: str) -> None:
    await create_over_rest(server, server.api.base_url, claim)
    assert await newest_address(server) == CALLER
    await create_over_grpc(server, claim)
    assert await newest_address(server) == CALLER
    # A proxy may also add a header of its own to those that came.
    await create_over_rest(server, server.api.base_url, "6.6.6.6", claim)
    assert await newest_address(server) == CALLER
    await create_over_grpc(server, "6.6.6.6", claim)
    assert await newest_address(server) == CALLER


@pytest.mark.parametrize("settings", [IN_FRONT], indirect=True)
@pytest.mark.parametrize("claim", CLAIMS)
async def test_nobody_is_believed_who_is_no_proxy_of_ours(server: Server, claim: str) -> None:
    await create_over_rest(server, server.api.base_url, claim)
    assert await newest_address(server) == "127.0.0.1"
    await create_over_grpc(server, claim)
    assert await newest_address(server) == "127.0.0.1"
    headers = {"x_steward_peer": CALLER, "x_forwarded_for": claim}
    seen = [(await server.api.call("GET", "/api/v1/agents", **headers)).status for _ in range(3)]
    assert seen == [401, 401, 429]


async def test_what_a_proxy_does_not_forward_comes_from_itself(server: Server) -> None:
    await create_over_rest(server, server.api.base_url)
    assert await newest_address(server) == "127.0.0.1"
    await create_over_grpc(server, "unknown")
    assert await newest_address(server) == "127.0.0.1"


async def test_each_caller_behind_the_proxy_is_limited_alone_over_every_door(
    server: Server,
) -> None:
    async def rest(claim: str) -> int:
        answer = await server.api.call("GET", "/api/v1/agents", x_forwarded_for=claim)
        return answer.status

    async def socket(claim: str) -> int:
        try:
            headers = {"X-Forwarded-For": claim}
            await server.api.session.ws_connect(f"{server.api.base_url}/ws", headers=headers)
        except aiohttp.WSServerHandshakeError as error:
            return error.status
        raise AssertionError("a stranger was let in")

    async def grpc(claim: str) -> int:
        request = agents_pb2.ListAgentsRequest()
        call = server.agents.ListAgents(request, metadata=(("x-forwarded-for", claim),))
        return {"CREDENTIAL_MISSING": 401, "RATE_LIMITED": 429}[(await refusal(call)).reason]

    doors = (rest, socket, grpc)
    for number, door in enumerate(doors):
        # Whatever a caller puts before the address that the proxy adds, it is the same caller.
        seen = [await door(f"6.6.6.{each}, 198.51.100.{number}") for each in range(3)]
        assert seen == [401, 401, 429], door
        assert [await each(f"198.51.100.{number}") for each in doors] == [429] * 3
    # Nor do the others of a /64 count alone.
    seen = [await rest(f"2001:db8::{number}") for number in range(3)]
    assert seen == [401, 401, 429]


async def test_the_log_names_the_caller_too(server: Server) -> None:
    with structlog.testing.capture_logs() as lines:
        await create_over_rest(server, server.api.base_url, CALLER)
        await create_over_grpc(server, CALLER)
    peers = {line["event"]: line["peer"] for line in lines if "peer" in line}
    assert peers == {"http.request": CALLER, "grpc.request": CALLER}


async def test_a_gateway_of_its_own_is_one_more_proxy(server: Server) -> None:
    contracts = load_contracts()
    async with open_channel(server.grpc_address) as channel:
        gateway = build_app(ChannelTransport(channel, contracts), contracts=contracts)
        running = await serve_gateway(gateway, port=0)
        base_url = f"http://127.0.0.1:{running.port}"
        try:
            await create_over_rest(server, base_url, f"6.6.6.6, {CALLER}")
            entry = await newest(server)
            assert entry.address == CALLER
            assert "aiohttp" in entry.user_agent
            await create_over_rest(server, base_url)
            assert await newest_address(server) == "127.0.0.1"
        finally:
            await running.stop()


async def test_a_proxy_on_this_machine_is_no_single_user(tmp_path: Path) -> None:
    """Trusted or not: nobody else is let in as the administrator because a proxy is local."""
    for trusted in ("", "127.0.0.1"):
        settings = live_settings(
            tmp_path / f"data{trusted}", local_single_user=True, trusted_proxies=trusted
        )
        async with live_server(settings) as live:
            for claim in (CALLER, f"127.0.0.1, {CALLER}", "unknown"):
                answer = await live.api.call("GET", "/api/v1/agents", x_forwarded_for=claim)
                assert answer.status == 401, (trusted, claim)
            for claims in ({}, {"x_forwarded_for": "127.0.0.1"}):
                answer = await live.api.call("GET", "/api/v1/agents", **claims)
                assert answer.status == 200, (trusted, claims)


async def test_a_setting_that_names_no_network_stops_the_start(tmp_path: Path) -> None:
    settings = live_settings(tmp_path / "data", trusted_proxies="0.0.0.0/0")
    with pytest.raises(BadSetting, match=r"STEWARD_TRUSTED_PROXIES: 0\.0\.0\.0/0 would let"):
        async with live_server(settings):
            pass
