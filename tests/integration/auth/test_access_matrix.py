"""Who may call what: every method of these rooms, by every kind of caller."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2, agents_pb2_grpc
from steward.analytics.v1 import (
    analytics_pb2,
    analytics_pb2_grpc,
    traces_pb2,
    traces_pb2_grpc,
    usage_pb2,
    usage_pb2_grpc,
)
from steward.auth.v1 import auth_pb2, auth_pb2_grpc
from steward.providers.v1 import providers_pb2, providers_pb2_grpc
from steward.tokens.v1 import tokens_pb2, tokens_pb2_grpc
from steward_server.auth.accounts import Role
from tests.integration.conftest import Server, ic_key

EVERYONE = {"anonymous", "client", "agent", "viewer", "user", "admin"}
PEOPLE = {"viewer", "user", "admin"}
OWNERS = {"user", "admin"}
ADMIN = {"admin"}
RUNTIMES = {"agent"}

MATRIX: dict[tuple[Any, Any, str], set[str]] = {
    (auth_pb2_grpc.AuthServiceStub, auth_pb2, "Login"): EVERYONE,
    (auth_pb2_grpc.AuthServiceStub, auth_pb2, "Refresh"): EVERYONE,
    (auth_pb2_grpc.AuthServiceStub, auth_pb2, "Logout"): PEOPLE,
    (tokens_pb2_grpc.TokenServiceStub, tokens_pb2, "ListTokens"): ADMIN,
    (tokens_pb2_grpc.TokenServiceStub, tokens_pb2, "CreateToken"): ADMIN,
    (tokens_pb2_grpc.TokenServiceStub, tokens_pb2, "GetToken"): ADMIN,
    (tokens_pb2_grpc.TokenServiceStub, tokens_pb2, "RotateToken"): ADMIN,
    (tokens_pb2_grpc.TokenServiceStub, tokens_pb2, "RevokeToken"): ADMIN,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "CreateAgent"): ADMIN,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "ListAgents"): PEOPLE,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "GetAgent"): PEOPLE,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "UpdateAgent"): ADMIN,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "DeleteAgent"): ADMIN,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "GetAgentStatus"): PEOPLE,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "StopAgent"): OWNERS,
    (agents_pb2_grpc.AgentServiceStub, agents_pb2, "StartAgent"): OWNERS,
    (providers_pb2_grpc.ProviderServiceStub, providers_pb2, "CreateProvider"): ADMIN,
    (providers_pb2_grpc.ProviderServiceStub, providers_pb2, "ListProviders"): ADMIN,
    (providers_pb2_grpc.ProviderServiceStub, providers_pb2, "DeleteProvider"): ADMIN,
    (analytics_pb2_grpc.AnalyticsServiceStub, analytics_pb2, "IngestEvents"): RUNTIMES,
    **{
        (analytics_pb2_grpc.AnalyticsServiceStub, analytics_pb2, name): PEOPLE
        for name in (
            "GetTotalSpending",
            "ListSpendingByAgent",
            "ListSpendingByProvider",
            "GetCostPerRequest",
            "ListBudgetStatus",
            "GetRequestUsage",
            "ListTokenUsageByAgent",
            "ListModelUsage",
        )
    },
    (usage_pb2_grpc.UsageServiceStub, usage_pb2, "GetUsage"): PEOPLE,
    (traces_pb2_grpc.TraceServiceStub, traces_pb2, "ListTraces"): PEOPLE,
    (traces_pb2_grpc.TraceServiceStub, traces_pb2, "GetTrace"): PEOPLE,
}

STATIC_TOKEN = "3b2f8e0c9a7d41d6"


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"static_token": STATIC_TOKEN}


@pytest.fixture
async def callers(server: Server) -> dict[str, Any]:
    token = (await server.create_token((await server.create_agent()).id)).token
    _, user = await server.enter("ann", Role.USER)
    _, viewer = await server.enter("vic", Role.VIEWER)
    return {
        "anonymous": (),
        "client": (("authorization", f"Bearer {STATIC_TOKEN}"),),
        "agent": ic_key(token),
        "viewer": viewer,
        "user": user,
        "admin": server.admin,
    }


async def code_of(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def test_the_matrix_names_every_method() -> None:
    modules = (
        auth_pb2,
        tokens_pb2,
        agents_pb2,
        providers_pb2,
        analytics_pb2,
        usage_pb2,
        traces_pb2,
    )
    served = {
        method.name
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {name for _, _, name in MATRIX} == served


@pytest.mark.parametrize("caller", sorted(EVERYONE))
async def test_each_caller_reaches_what_the_matrix_says_and_nothing_else(
    server: Server, callers: dict[str, Any], caller: str
) -> None:
    """An empty request: whoever is let in is told what is missing, if anything."""
    inside = {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
    outside = (
        grpc.StatusCode.UNAUTHENTICATED
        if caller == "anonymous"
        else grpc.StatusCode.PERMISSION_DENIED
    )
    rows = sorted(MATRIX.items(), key=lambda row: row[0][2] == "Logout")  # it ends the caller
    for (stub, module, name), allowed in rows:
        request = getattr(module, f"{name}Request")()
        code = await code_of(getattr(stub(server.channel), name)(request, metadata=callers[caller]))
        if caller in allowed:
            assert code in inside, (name, code)
        else:
            assert code is outside, (name, code)
