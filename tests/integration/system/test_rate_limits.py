"""How often who may call, over gRPC and HTTP, on a clock that only the test moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.events.v1 import events_pb2
from steward_server.auth.accounts import Role
from steward_server.rates import RatesConfig
from tests.integration.conftest import Metadata, Server, api_key, ic_key, refusal, refusal_of
from tests.live import Answer, TurnedClock, live_server, live_settings

LIMIT = 6
ADDRESS_LIMIT = 4
HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"rates": RatesConfig(default_per_minute=LIMIT, address_per_minute=ADDRESS_LIMIT)}


def told(answer: Answer) -> list[int]:
    """Limit, remaining and reset."""
    return [int(answer.headers[name]) for name in HEADERS]


def told_of(call: Any) -> dict[str, str]:
    return {key: value for key, value in call if key.startswith("x-ratelimit-")}


async def get(server: Server, path: str, metadata: Metadata = ()) -> Answer:
    headers = {key.replace("-", "_"): value for key, value in metadata}
    return await server.api.call("GET", path, **headers)


async def test_a_person_calls_so_often_and_is_then_told_when_to_come_back(server: Server) -> None:
    answers = [await get(server, "/api/v1/agents", server.admin) for _ in range(LIMIT + 1)]
    refused = answers[-1]

    assert [answer.status for answer in answers] == [200] * LIMIT + [429]
    assert [told(answer)[:2] for answer in answers] == [
        *([LIMIT, left] for left in range(LIMIT - 1, -1, -1)),
        [LIMIT, 0],
    ]
    error = refused.body["error"]
    assert (error["code"], error["details"]) == ("RATE_LIMITED", {"limit": str(LIMIT)})
    wait_s = int(refused.headers["Retry-After"])
    assert 59 <= wait_s <= 61
    assert 0 <= told(refused)[2] - server.clock() / 1e6 <= wait_s
    server.clock.advance(wait_s - 2)
    assert (await get(server, "/api/v1/agents", server.admin)).status == 429
    server.clock.advance(2)
    assert (await get(server, "/api/v1/agents", server.admin)).status == 200


async def test_over_grpc_it_is_told_in_the_trailers_and_in_retry_info(server: Server) -> None:
    request = agents_pb2.ListAgentsRequest()
    call = server.agents.ListAgents(request, metadata=server.admin)
    await call
    left = told_of(await call.trailing_metadata())
    for _ in range(LIMIT - 1):
        await server.agents.ListAgents(request, metadata=server.admin)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.agents.ListAgents(request, metadata=server.admin)
    refused = refusal_of(caught.value)

    assert left["x-ratelimit-remaining"] == str(LIMIT - 1)
    assert (refused.code, refused.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert refused.retry_after_s is not None
    assert 59 <= refused.retry_after_s <= 61
    assert told_of(caught.value.trailing_metadata())["x-ratelimit-remaining"] == "0"


async def test_refusals_of_other_kinds_tell_it_too(server: Server) -> None:
    agent = await server.create_agent()
    token = (await server.create_token(agent.id)).token
    _, viewer = await server.enter("vic", Role.VIEWER)
    body = {"agent_id": agent.id}
    answers = {
        404: await get(server, "/api/v1/agents/none", server.admin),
        409: await server.api.call("POST", "/api/tokens", body, **dict(server.admin)),
        400: await get(server, "/api/v1/agents?page_size=-1", server.admin),
        403: await get(server, "/api/tokens", viewer),
        401: await get(server, "/api/v1/agents", ic_key(token[:-1] + "!")),
    }

    assert {status: answer.status for status, answer in answers.items()} == {
        status: status for status in answers
    }
    assert [told(answer)[:2] for answer in answers.values()] == [
        [LIMIT, 3],
        [LIMIT, 2],
        [LIMIT, 1],
        [LIMIT, 5],
        [ADDRESS_LIMIT, 3],
    ]


async def test_whoever_shows_no_good_credential_is_counted_by_address(server: Server) -> None:
    refused = [await get(server, "/api/v1/agents") for _ in range(ADDRESS_LIMIT)]
    guess = await get(server, "/api/v1/agents", api_key("agentbox_guess"))
    known = await get(server, "/api/v1/agents", server.admin)

    assert {answer.status for answer in refused} == {401}
    assert guess.status == 429
    assert known.status == 200


async def test_a_person_and_their_keys_share_and_others_do_not(server: Server) -> None:
    _, ann = await server.enter("ann", Role.USER)
    key = (await server.create_key(ann)).key
    left = [
        told(await get(server, "/api/v1/agents", metadata))[1]
        for metadata in (ann, api_key(key), ann, server.admin)
    ]

    assert left == [LIMIT - 2, LIMIT - 3, LIMIT - 4, LIMIT - 1]


async def test_health_metrics_and_agents_are_not_limited(server: Server) -> None:
    token = (await server.create_token((await server.create_agent()).id)).token
    for _ in range(3 * LIMIT):
        health = await get(server, "/health")
        assert (health.status, "X-RateLimit-Limit" in health.headers) == (200, False)
        assert (await get(server, "/metrics")).status == 200
        prices = await get(server, "/api/v1/prices", ic_key(token))
        assert (prices.status, "X-RateLimit-Limit" in prices.headers) == (200, False)


async def test_a_stream_counts_once_and_tells_it_as_it_opens(server: Server) -> None:
    call = server.events.Subscribe(events_pb2.SubscribeRequest(), metadata=server.admin)
    over_grpc = told_of(await call.initial_metadata())
    call.cancel()
    api = server.api
    headers = dict(server.admin)
    async with api.session.get(f"{api.base_url}/api/v1/events", headers=headers) as stream:
        over_http = [stream.headers[name] for name in HEADERS[:2]]
    async with api.session.ws_connect(f"{api.base_url}/ws", headers=headers) as socket:
        upgraded = socket._response.headers[HEADERS[1]]
    for _ in range(LIMIT - 3):
        await get(server, "/api/v1/agents", server.admin)
    refused = await get(server, "/ws?since=0", server.admin)
    limited = await refusal(
        server.events.Subscribe(events_pb2.SubscribeRequest(), metadata=server.admin).read()
    )

    assert over_grpc["x-ratelimit-remaining"] == str(LIMIT - 1)
    assert over_http == [str(LIMIT), str(LIMIT - 2)]
    assert upgraded == str(LIMIT - 3)
    assert refused.status == 426
    assert limited.reason == "RATE_LIMITED"


async def test_attempts_to_sign_in_are_counted_apart(server: Server) -> None:
    body = {"username": "admin", "password": "wrong"}
    answers = [await server.api.call("POST", "/api/auth/login", body) for _ in range(10)]
    elsewhere = await get(server, "/api/v1/agents", server.admin)

    # The tests' administrator has signed in before.
    assert [answer.status for answer in answers] == [401] * 9 + [429]
    assert told(answers[0])[:2] == [10, 8]
    assert elsewhere.status == 200


async def test_an_agents_limit_holds_for_each_agent(tmp_path: Path) -> None:
    settings = live_settings(tmp_path / "data", rates=RatesConfig(0, 0, 0, 3, 0))
    async with live_server(settings, TurnedClock()) as live:
        tokens = []
        for name in ("one", "two"):
            body = {"name": name, "budget_usd": 1}
            made = await live.admin.call("POST", "/api/v1/agents", body)
            token = await live.admin.call("POST", "/api/tokens", {"agent_id": made.body["id"]})
            tokens.append(token.body["token"])
        first = [await live.api.call("GET", "/api/v1/prices", x_ic_key=tokens[0]) for _ in range(4)]
        other = await live.api.call("GET", "/api/v1/prices", x_ic_key=tokens[1])

    assert [answer.status for answer in first] == [200, 200, 200, 429]
    assert told(other)[:2] == [3, 2]


async def test_a_limited_path_of_another_dialect_refuses_in_it(server: Server) -> None:
    for _ in range(LIMIT):
        await get(server, "/api/v1/api-keys", server.admin)
    refused = await get(server, "/api/v1/api-keys", server.admin)

    assert refused.status == 429
    assert (refused.body["error"], refused.body["code"]) == ("Too Many Requests", 429)
    assert refused.headers["Retry-After"]


async def test_as_shipped_a_dashboard_may_ask_200_times_a_minute(tmp_path: Path) -> None:
    settings = live_settings(tmp_path / "data", rates=RatesConfig())
    async with live_server(settings, TurnedClock()) as live:
        statuses = [(await live.admin.call("GET", "/api/tokens")).status for _ in range(201)]

    assert statuses == [200] * 200 + [429]
