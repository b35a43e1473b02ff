"""What /metrics counts, and that callers cannot make it grow."""

from __future__ import annotations

import asyncio

import aiohttp
from prometheus_client.parser import text_string_to_metric_families as families

from steward.events.v1 import events_pb2
from steward.events.v1.events_pb2_grpc import EventServiceStub
from tests.live import Live, create_agent

TIMED = "rpc_latency_seconds_count"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(live: Live) -> Samples:
    answer = await live.api.call("GET", "/metrics")
    assert answer.status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families(answer.body)
        for sample in family.samples
    }


def count(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, tuple(sorted(labels.items()))), 0)


async def test_requests_are_counted_by_endpoint_and_outcome(live: Live) -> None:
    agent = await create_agent(live.admin)
    for _ in range(2):
        await live.admin.call("GET", f"/api/agents/{agent.agent_id}/status")
    await live.admin.call("GET", "/api/agents/nobody/status")
    await live.api.call("GET", "/api/agents/nobody/status")
    samples = await scrape(live)
    endpoint = "/api/agents/{agent_id}/status"
    assert count(samples, "request_count_total", endpoint=endpoint, status="success") == 2
    assert count(samples, "request_count_total", endpoint=endpoint, status="error") == 2
    assert count(samples, "request_latency_seconds_count", endpoint=endpoint) == 4
    below_10_s = count(samples, "request_latency_seconds_bucket", endpoint=endpoint, le="10.0")
    assert below_10_s == 4
    method = "/steward.agents.v1.AgentService/GetAgentStatus"
    assert count(samples, "rpc_count_total", method=method, code="OK") == 2
    assert count(samples, "rpc_count_total", method=method, code="NOT_FOUND") == 1
    assert count(samples, "rpc_count_total", method=method, code="UNAUTHENTICATED") == 1


async def test_buckets_of_the_seed_are_there(live: Live) -> None:
    await live.api.call("GET", "/health")
    samples = await scrape(live)
    for edge in ("0.005", "0.01"):
        bucket = ("request_latency_seconds_bucket", (("endpoint", "/health"), ("le", edge)))
        assert bucket in samples


async def test_callers_cannot_make_new_series(live: Live) -> None:
    async def knock(number: int) -> None:
        await live.api.call("GET", f"/nothing/{number}")
        await live.api.call("GET", f"/api/tokens/{number}")
        await live.api.call(f"VERB{number}", "/api/tokens")

    await knock(0)
    await scrape(live)  # counts itself from the next time on
    before = await scrape(live)
    for number in range(1, 30):
        await knock(number)
    after = await scrape(live)
    assert after.keys() == before.keys()
    assert count(after, "request_count_total", endpoint="unmatched", status="error") == 30


async def test_open_streams_are_counted_while_they_are_open(live: Live) -> None:
    stub = EventServiceStub(live.channel)
    credential = (("authorization", live.admin.headers["authorization"]),)
    call = stub.Subscribe(events_pb2.SubscribeRequest(), metadata=credential)
    await call.initial_metadata()
    method = "/steward.events.v1.EventService/Subscribe"

    async def reaches(expected: int) -> None:
        while count(await scrape(live), "rpc_open_streams", method=method) != expected:
            await asyncio.sleep(0.01)

    async with asyncio.timeout(10):
        await reaches(1)
        call.cancel()
        await reaches(0)
    ended = count(await scrape(live), "rpc_count_total", method=method, code="CANCELLED")
    assert ended == 1


async def test_what_is_sent_is_what_prometheus_reads(live: Live) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{live.running.http_address}/metrics") as response,
    ):
        text = await response.text()
        assert response.content_type == "text/plain"
    assert "# HELP request_count_total Total requests by endpoint\n" in text
    assert "# TYPE request_count_total counter\n" in text
    assert "# HELP request_latency_seconds Request latency\n" in text
    assert "# TYPE request_latency_seconds histogram\n" in text
    assert "_created" not in text


async def test_methods_nobody_called_have_no_histogram_yet(live: Live) -> None:
    await live.admin.call("GET", "/api/v1/agents")
    names = {dict(labels)["method"] for name, labels in await scrape(live) if name == TIMED}
    assert "/steward.agents.v1.AgentService/ListAgents" in names
    assert "/steward.agents.v1.AgentService/DeleteAgent" not in names


async def test_metrics_are_sent_as_gzip_to_those_who_take_it(live: Live) -> None:
    packed = await live.api.call("GET", "/metrics", accept_encoding="gzip")
    plain = await live.api.call("GET", "/metrics", accept_encoding="identity")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert "Content-Encoding" not in plain.headers
    assert {answer.headers["Vary"] for answer in (packed, plain)} == {"Accept-Encoding"}
    assert "policy_steps_total" in packed.body
    assert int(packed.headers["Content-Length"]) < len(plain.body) / 5
