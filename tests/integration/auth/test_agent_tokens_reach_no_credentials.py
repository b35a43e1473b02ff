"""An agent's token is refused wherever secrets travel, over gRPC and REST: every method there is.

The methods are found in the contracts, so that one that is added later is looked at too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from steward.gateway.v1 import options_pb2 as options
from steward.gateway.v1.options_pb2 import DIALECT_AGENTBOX, DIALECT_IGNITION
from steward_gateway.contracts import full_method, load_contracts, message_class
from steward_gateway.routes import Route, build_routes
from tests.integration.conftest import refusal
from tests.live import Agent, Live, create_agent, live_server, live_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

CREDENTIAL_ROOMS = {
    *("auth", "tokens", "providers", "users", "api_keys", "audit", "alerts", "credentials"),
}
"""Packages whose every method is about credentials, or about who did what with them."""

ALLOWED = {
    # Anyone may try to sign in; the token is not looked at.
    "/steward.auth.v1.AuthService/Login",
    "/steward.auth.v1.AuthService/Refresh",
    # Nor is it here: clients get a token of their own, or show one with each message.
    "/steward.inference.v1.ClientTokenService/MintToken",
    "/steward.inference.v1.InferenceService/Drive",
    # A runtime's own: they carry its own token, and the key it is lent, sealed.
    "/steward.budget.v1.BudgetService/Handshake",
    "/steward.budget.v1.BudgetService/Report",
    "/steward.budget.v1.BudgetService/Refresh",
    "/steward.budget.v1.BudgetService/Return",
    "/steward.budget.v1.BudgetService/Session",
    "/steward.budget.v1.ProviderKeyService/GetProviderKey",
    "/steward.analytics.v1.AnalyticsService/IngestEvents",
}
"""Written by hand: who adds to it has thought about it."""


def carries_secret(message: Descriptor, seen: frozenset[str] = frozenset()) -> bool:
    """Whether a field of the message, or of one inside it, is marked as secret."""
    if message.full_name in seen:
        return False
    for field in message.fields:
        if field.GetOptions().Extensions[options.field].secret:
            return True
        if field.message_type and carries_secret(field.message_type, seen | {message.full_name}):
            return True
    return False


CONTRACTS = load_contracts()
ROUTES = [route for route in build_routes(CONTRACTS) if route.kind == "http"]


def concerned() -> list[MethodDescriptor]:
    """Every method that carries a secret, or belongs to a room of credentials."""
    return [
        method
        for method in CONTRACTS.methods()
        if method.containing_service.full_name.split(".")[1] in CREDENTIAL_ROOMS
        or carries_secret(method.input_type)
        or carries_secret(method.output_type)
    ]


REFUSED = [method for method in concerned() if full_method(method) not in ALLOWED]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    settings = live_settings(tmp_path_factory.mktemp("credentials") / "data")
    async with live_server(settings) as live:
        yield live


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(live: Live) -> Agent:
    return await create_agent(live.admin)


async def test_the_methods_that_are_looked_at_are_the_ones_that_matter() -> None:
    rooms = {method.containing_service.full_name.split(".")[1] for method in CONTRACTS.methods()}
    assert rooms >= CREDENTIAL_ROOMS
    names = {full_method(method) for method in concerned()}
    assert names >= ALLOWED
    assert len(names - ALLOWED) >= 15
    for service, method in (
        ("providers.v1.ProviderService", "CreateProvider"),
        ("providers.v1.ProviderService", "ListProviders"),
        ("tokens.v1.TokenService", "RotateToken"),
        ("alerts.v1.AlertService", "RotateWebhookSecret"),
        ("auth.v1.AuthService", "Logout"),
        ("api_keys.v1.ApiKeyService", "RevokeApiKey"),
        ("credentials.v1.CredentialService", "ListCredentials"),
        ("credentials.v1.CredentialService", "CreateCredential"),
        ("credentials.v1.CredentialService", "DeleteCredential"),
    ):
        assert f"/steward.{service}/{method}" in names - ALLOWED


@pytest.mark.parametrize("method", REFUSED, ids=full_method)
async def test_an_agent_is_refused_over_grpc(
    live: Live, agent: Agent, method: MethodDescriptor
) -> None:
    request, response = message_class(method.input_type), message_class(method.output_type)
    serialize, read = request.SerializeToString, response.FromString
    metadata = agent.metadata
    name = full_method(method)
    assert not method.client_streaming, "say here how a stream of requests is refused"
    if method.server_streaming:
        stream = live.channel.unary_stream(name, serialize, read)
        refused = await refusal(stream(request(), metadata=metadata).read())
    else:
        call = live.channel.unary_unary(name, serialize, read)
        refused = await refusal(call(request(), metadata=metadata))
    assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert refused.reason == "ROLE_NOT_ALLOWED"
    assert "POST /api/budget/handshake" in refused.message


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(route, id=f"{route.verb} {route.template.text}")
        for route in ROUTES
        if route.full_method in {full_method(method) for method in REFUSED}
    ],
)
@pytest.mark.parametrize("shown_as", ["X-IC-Key", "Bearer"])
async def test_an_agent_is_refused_over_rest(
    live: Live, agent: Agent, route: Route, shown_as: str
) -> None:
    path = re.sub(r"\{[^}]*\}", "x", route.template.text)
    headers = (
        {"x_ic_key": agent.ic_token}
        if shown_as == "X-IC-Key"
        else {"authorization": f"Bearer {agent.ic_token}"}
    )
    body: dict[str, str] | None = {} if route.body else None
    answer = await live.api.call(route.verb, path, body, **headers)
    assert answer.status == 403
    if route.dialect == DIALECT_AGENTBOX:
        assert (answer.body["error"], answer.body["code"]) == ("Forbidden", 403)
        message = answer.body["message"]
    elif route.dialect == DIALECT_IGNITION:
        detail = answer.body["detail"]
        assert (detail["error"], detail["details"]) == (
            "permission_denied",
            {"reason": "ROLE_NOT_ALLOWED"},
        )
        message = detail["message"]
    else:
        error = answer.body["error"]
        assert (error["code"], error["reason"]) == ("FORBIDDEN", "ROLE_NOT_ALLOWED")
        message = error["message"]
    assert "POST /api/budget/handshake" in message


async def test_every_method_but_those_allowed_has_a_route_or_is_grpc_only() -> None:
    routed = {route.full_method for route in ROUTES}
    assert {full_method(method) for method in REFUSED} <= routed
