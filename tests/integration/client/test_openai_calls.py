"""What an agent with the openai package sees, and what is booked for it."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward_client.standin import Fault, StandInConfig
from tests.integration.client.conftest import Stall, StallOf, price_table

QUESTION = [{"role": "user", "content": "What is money?"}]


async def read_all(stall: Stall, **members: Any) -> None:
    ask: dict[str, Any] = {"model": "gpt-4o-mini", "messages": QUESTION} | members
    answer = await stall.openai.chat.completions.create(**ask)
    async for _ in answer:
        pass


async def test_a_whole_answer_costs_what_the_provider_bills(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(cached_share=0.5)) as stall:
        answer = await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, max_tokens=10
        )
        [report] = await stall.reports()

        assert answer.choices[0].message.content.count("word") == 10
        assert answer.choices[0].finish_reason == "length"
        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd > 0
        assert stall.tally.spent_nanousd == stall.standin.billed_nanousd
        assert report.cost_nanousd == stall.standin.billed_nanousd
        assert report.certainty == pb.CERTAINTY_MEASURED
        assert (report.output_tokens, report.sequence) == (10, 1)
        assert report.cache_read_tokens == answer.usage.prompt_tokens_details.cached_tokens > 0
        assert report.input_tokens == answer.usage.prompt_tokens - report.cache_read_tokens


async def test_a_report_says_how_long_its_call_took(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(chunk_count=5, chunk_delay_s=0.02)) as stall:
        await read_all(stall, stream=True)
        [report] = await stall.reports()

        assert 80 <= report.duration_ms < 10_000


async def test_a_stream_costs_what_the_provider_bills(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        stream = await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, max_tokens=10, stream=True
        )
        chunks = [chunk async for chunk in stream]
        [report] = await stall.reports()

        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).count("word") == 10
        assert report.cost_nanousd == stall.standin.billed_nanousd == stall.purse.spent_nanousd
        assert report.certainty == pb.CERTAINTY_MEASURED


async def test_usage_nobody_asked_for_is_not_shown(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        stream = await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, stream=True
        )
        chunks = [chunk async for chunk in stream]

        assert all(chunk.choices for chunk in chunks)
        assert stall.standin.bodies[0]["stream_options"] == {"include_usage": True}


async def test_usage_asked_for_is_shown(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        stream = await stall.openai.chat.completions.create(
            model="gpt-4o-mini",
            messages=QUESTION,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

        assert chunks[-1].choices == []
        assert chunks[-1].usage.completion_tokens == 16


@pytest.mark.parametrize("stream", [False, True])
async def test_bytes_are_relayed_unchanged(stall_of: StallOf, *, stream: bool) -> None:
    body = {"model": "gpt-4o-mini", "messages": QUESTION, "max_tokens": 5, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    async with stall_of() as stall:
        relayed = await stall.post("/v1/chat/completions", body)
        direct = await stall.post_directly("/v1/chat/completions", body)

        assert relayed.status == direct.status == 200
        assert relayed.body == direct.body
        assert stall.standin.bodies[0] == body == stall.standin.bodies[1]


async def test_every_choice_is_paid_for(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        answer = await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, max_tokens=7, n=3
        )

        assert len(answer.choices) == 3
        assert answer.usage.completion_tokens == 21
        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd


async def test_thinking_that_is_not_shown_is_paid_for(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(reasoning_tokens=50)) as stall:
        await stall.openai.chat.completions.create(model="o3", messages=QUESTION)
        [report] = await stall.reports()

        assert report.output_tokens == 66
        assert report.cost_nanousd == stall.standin.billed_nanousd


@pytest.mark.parametrize(
    ("model", "limit"),
    [("gpt-4o-mini", "max_tokens"), ("o3", "max_completion_tokens")],
)
async def test_a_call_without_a_limit_is_given_one(
    stall_of: StallOf, model: str, limit: str
) -> None:
    async with stall_of() as stall:
        await stall.openai.chat.completions.create(model=model, messages=QUESTION)

        assert stall.standin.bodies[0][limit] == 16_384


async def test_a_limit_that_fits_is_left_alone(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        await stall.openai.chat.completions.create(
            model="o3", messages=QUESTION, max_completion_tokens=77
        )

        assert stall.standin.bodies[0]["max_completion_tokens"] == 77
        assert "max_tokens" not in stall.standin.bodies[0]


async def test_a_whole_answer_without_usage_is_counted_and_never_too_low(
    stall_of: StallOf,
) -> None:
    async with stall_of(standin=StandInConfig(fault=Fault.NO_USAGE)) as stall:
        await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, max_tokens=100
        )
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_COUNTED
        assert report.cost_nanousd == stall.purse.spent_nanousd >= stall.standin.billed_nanousd


async def test_a_stream_without_usage_is_counted_and_never_too_low(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(fault=Fault.NO_USAGE)) as stall:
        stream = await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, max_tokens=100, stream=True
        )
        assert [chunk async for chunk in stream]
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_COUNTED
        assert report.cost_nanousd >= stall.standin.billed_nanousd


async def test_without_usage_a_model_that_thinks_unseen_costs_its_whole_hold(
    stall_of: StallOf,
) -> None:
    config = StandInConfig(fault=Fault.NO_USAGE, reasoning_tokens=900)
    async with stall_of(standin=config) as stall:
        await stall.openai.chat.completions.create(
            model="o3", messages=QUESTION, max_completion_tokens=1_000
        )
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_ASSUMED
        assert report.cost_nanousd >= stall.standin.billed_nanousd
        assert report.output_tokens == 0


async def test_usage_that_is_null_in_each_piece_is_not_taken_for_free(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(fault=Fault.NULL_USAGE)) as stall:
        stream = await stall.openai.chat.completions.create(
            model="gpt-4o-mini", messages=QUESTION, stream=True
        )
        assert [chunk async for chunk in stream]

        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd > 0


@pytest.mark.parametrize(("fault", "status"), [(Fault.RATE_LIMITED, 429), (Fault.BROKEN, 500)])
async def test_a_refusal_of_the_provider_is_relayed_and_costs_nothing(
    stall_of: StallOf, fault: Fault, status: int
) -> None:
    async with stall_of(standin=StandInConfig(fault=fault)) as stall:
        with pytest.raises(openai.APIStatusError) as refused:
            await stall.openai.chat.completions.create(model="gpt-4o-mini", messages=QUESTION)

        assert refused.value.status_code == status
        assert stall.purse.spent_nanousd == 0
        assert stall.purse.wallet.held_nanousd == 0
        assert await stall.reports() == []
        assert stall.tally.failed == 1


async def test_a_provider_that_is_not_there_costs_nothing(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        await stall.standin.stop()
        answer = await stall.post(
            "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": QUESTION}
        )

        assert answer.status == 502
        assert orjson.loads(answer.body)["error"]["code"] == "provider_unreachable"
        assert stall.purse.wallet.held_nanousd == stall.purse.spent_nanousd == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_cut_by_the_provider_costs_the_whole_hold(
    stall_of: StallOf, *, stream: bool
) -> None:
    async with stall_of(standin=StandInConfig(fault=Fault.CUT)) as stall:
        with pytest.raises(openai.APIError):
            await read_all(stall, max_tokens=50, stream=stream)
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_ASSUMED
        assert report.cost_nanousd >= stall.standin.billed_nanousd > 0
        assert stall.purse.wallet.held_nanousd == 0


async def test_the_list_of_models_is_free(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        models = [model.id async for model in await stall.openai.models.list()]

        assert "gpt-4o-mini" in models
        assert stall.purse.spent_nanousd == 0


async def test_the_providers_key_goes_to_the_provider_alone(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        answer = await stall.post(
            "/v1/chat/completions", {"model": "gpt-4o-mini", "messages": QUESTION}
        )

        assert answer.status == 200  # the stand-in knows its own key only
        assert b"sk-standin" not in answer.body
        assert "sk-standin" not in str(answer.headers)
        assert price_table().find("openai", "gpt-4o-mini") is not None
