"""What an agent with the anthropic package sees, and what is booked for it."""

from __future__ import annotations

import anthropic
import orjson
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward_client.allowance import Told
from steward_client.standin import Fault, StandInConfig
from tests.integration.client.conftest import StallOf

MODEL = "claude-haiku-4-5"
QUESTION = [{"role": "user", "content": "What is money?"}]


async def test_a_message_costs_what_the_provider_bills(stall_of: StallOf) -> None:
    async with stall_of(kind="anthropic", standin=StandInConfig(cached_share=0.5)) as stall:
        message = await stall.anthropic.messages.create(
            model=MODEL, messages=QUESTION, max_tokens=10
        )
        [report] = await stall.reports()

        assert message.stop_reason == "max_tokens"
        assert report.cost_nanousd == stall.standin.billed_nanousd == stall.purse.spent_nanousd > 0
        assert report.cache_read_tokens == message.usage.cache_read_input_tokens > 0
        assert report.input_tokens == message.usage.input_tokens
        assert report.certainty == pb.CERTAINTY_MEASURED


async def test_a_streamed_message_costs_what_the_provider_bills(stall_of: StallOf) -> None:
    async with stall_of(kind="anthropic") as stall:
        async with stall.anthropic.messages.stream(
            model=MODEL, messages=QUESTION, max_tokens=10
        ) as stream:
            text = "".join([piece async for piece in stream.text_stream])
        [report] = await stall.reports()

        assert text.count("word") == 10
        assert report.output_tokens == 10
        assert report.cost_nanousd == stall.standin.billed_nanousd


@pytest.mark.parametrize("stream", [False, True])
async def test_bytes_of_messages_are_relayed_unchanged(stall_of: StallOf, *, stream: bool) -> None:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 5, "stream": stream}
    async with stall_of(kind="anthropic") as stall:
        relayed = await stall.post("/v1/messages", body)
        direct = await stall.post_directly("/v1/messages", body)

        assert relayed.status == direct.status == 200
        assert relayed.body == direct.body
        assert stall.standin.bodies[0] == body


async def test_the_token_may_come_as_an_api_key(stall_of: StallOf) -> None:
    async with stall_of(kind="anthropic") as stall:
        with pytest.raises(anthropic.AuthenticationError):
            await stall.anthropic.with_options(api_key="sk-other").messages.create(
                model=MODEL, messages=QUESTION, max_tokens=10
            )

        assert stall.purse.spent_nanousd == 0


async def test_a_refusal_for_money_is_in_the_dialect_of_anthropic(stall_of: StallOf) -> None:
    async with stall_of(kind="anthropic", granted_nanousd=1_000) as stall:
        with pytest.raises(anthropic.APIStatusError) as refused:
            await stall.anthropic.messages.create(model=MODEL, messages=QUESTION, max_tokens=1_000)

        assert refused.value.status_code == 402
        assert refused.value.response.headers["x-should-retry"] == "false"
        body = refused.value.response.json()
        assert body["type"] == "error"
        assert body["error"]["type"] == "budget_exceeded"
        assert body["error"]["message"].startswith("too_large:")


async def test_a_streamed_message_without_usage_is_never_too_cheap(stall_of: StallOf) -> None:
    config = StandInConfig(fault=Fault.NO_USAGE)
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 100, "stream": True}
    async with stall_of(kind="anthropic", standin=config) as stall:
        answer = await stall.post("/v1/messages", body)
        [report] = await stall.reports()

        assert b"message_stop" in answer.body
        assert report.certainty == pb.CERTAINTY_COUNTED
        assert report.cost_nanousd >= stall.standin.billed_nanousd > 0


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "web_search"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"max_tokens": None}, "max_tokens"),
        ({"service_tier": "priority"}, "service_tier"),
        (
            {"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]},
            "document",
        ),
    ],
)
async def test_what_cannot_be_bounded_is_refused_and_named(
    stall_of: StallOf, members: dict[str, object], named: str
) -> None:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 5, **members}
    async with stall_of(kind="anthropic") as stall:
        answer = await stall.post("/v1/messages", body)

        assert answer.status == 400
        error = orjson.loads(answer.body)["error"]
        assert error["type"] == "not_metered"
        assert named in error["message"]
        assert stall.standin.bodies == []


async def test_a_call_beyond_a_limit_is_refused_as_the_package_expects(stall_of: StallOf) -> None:
    async with stall_of(kind="anthropic") as stall:
        told = Told(1, requests=1, requests_scope="everyone", requests_limit=1)
        stall.purse.wallet.allowance.obey(told)
        await stall.anthropic.messages.create(model=MODEL, messages=QUESTION, max_tokens=10)
        with pytest.raises(anthropic.RateLimitError) as refused:
            await stall.anthropic.messages.create(model=MODEL, messages=QUESTION, max_tokens=10)

        assert refused.value.response.headers["retry-after"] == "60"
        body = refused.value.response.json()
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_exceeded")
        assert len(stall.standin.bodies) == 1
