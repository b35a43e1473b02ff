"""Money that runs short, answers that are shortened, and calls that end in ugly ways."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import orjson
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward_client.relay import AbortPolicy as OnAbort
from steward_client.relay import RelayConfig
from steward_client.standin import AbortPolicy, Fault, StandInConfig
from tests.integration.client.conftest import Stall, StallOf, until

MODEL = "gpt-4o-mini"
QUESTION = [{"role": "user", "content": "What is money?"}]
ASK: dict[str, Any] = {"model": MODEL, "messages": QUESTION}


async def test_an_answer_is_shortened_to_what_the_lease_can_pay(stall_of: StallOf) -> None:
    async with stall_of(granted_nanousd=300_000, standin=StandInConfig(chunk_count=5_000)) as stall:
        answer = await stall.openai.chat.completions.create(**ASK, max_tokens=4_000)

        limit = stall.standin.bodies[0]["max_tokens"]
        assert 256 <= limit < 4_000
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == limit
        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd <= 300_000


async def test_a_call_that_never_fits_is_refused_before_it_is_sent(stall_of: StallOf) -> None:
    async with stall_of(granted_nanousd=10_000) as stall:
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 402
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
        error = orjson.loads(answer.body)["error"]
        assert error == {
            "message": error["message"],
            "type": "budget_exceeded",
            "code": "budget_exceeded",
            "param": None,
        }
        assert error["message"].startswith("too_large:")
        assert stall.standin.bodies == []
        assert (stall.tally.calls, stall.tally.refused) == (0, 1)


async def test_the_official_client_does_not_try_a_402_again(stall_of: StallOf) -> None:
    async with stall_of(granted_nanousd=10_000) as stall:
        with pytest.raises(openai.APIStatusError) as refused:
            await stall.openai.with_options(max_retries=5).chat.completions.create(**ASK)

        assert refused.value.status_code == 402
        assert stall.tally.refused == 1


async def test_more_is_asked_for_before_a_call_is_refused(stall_of: StallOf) -> None:
    async with stall_of(granted_nanousd=10_000, drawer_nanousd=50_000_000) as stall:
        await stall.openai.chat.completions.create(**ASK, max_tokens=1_000)

        assert stall.till.asked == [10_000_000]
        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd


async def test_more_than_the_budget_is_never_asked_for(stall_of: StallOf) -> None:
    async with stall_of(
        granted_nanousd=10_000, budget_nanousd=15_000, drawer_nanousd=10**12
    ) as stall:
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 402
        assert sum(stall.till.asked) == 5_000
        assert stall.purse.granted_nanousd == 15_000


async def test_a_call_may_be_tried_again_when_nobody_could_be_asked_for_more(
    stall_of: StallOf,
) -> None:
    async with stall_of(granted_nanousd=10_000, drawer_nanousd=50_000_000) as stall:
        stall.till.is_reachable = False
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 503
        assert orjson.loads(answer.body)["error"]["code"] == "ledger_unavailable"
        assert answer.headers["retry-after"] == "2"
        assert "x-should-retry" not in answer.headers
        assert stall.standin.bodies == []
        stall.till.is_reachable = True
        assert (await stall.post("/v1/chat/completions", ASK)).status == 200


async def test_money_that_is_out_is_out_even_when_nobody_can_be_asked(stall_of: StallOf) -> None:
    async with stall_of(granted_nanousd=10_000, budget_nanousd=15_000) as stall:
        stall.till.is_reachable = False
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 402
        assert answer.headers["x-should-retry"] == "false"
        assert stall.till.asked == []


async def test_a_call_waits_for_others_to_settle(stall_of: StallOf) -> None:
    config = StandInConfig(chunk_count=50, chunk_delay_s=0.004)
    async with stall_of(granted_nanousd=230_000, standin=config) as stall:
        answers = await asyncio.gather(
            *(stall.openai.chat.completions.create(**ASK, max_tokens=300) for _ in range(2))
        )

        assert [answer.usage.completion_tokens for answer in answers] == [50, 50]
        assert stall.tally.refused == 0


async def test_a_call_that_waits_in_vain_is_told_when_to_come_back(stall_of: StallOf) -> None:
    config = StandInConfig(fault=Fault.HANG)
    waits = {"in_flight_wait_s": 0.1, "refresh_wait_s": 0.1, "full_answer_wait_s": 0.05}
    async with stall_of(granted_nanousd=200_000, standin=config, purse=waits) as stall:
        first = asyncio.create_task(
            stall.openai.chat.completions.create(**ASK, max_tokens=300, stream=True)
        )
        await until(lambda: stall.standin.running == 1)
        answer = await stall.post("/v1/chat/completions", ASK | {"max_tokens": 300})

        assert answer.status == 402
        assert answer.headers["retry-after"] == "1"
        assert answer.headers["x-should-retry"] == "false"
        assert orjson.loads(answer.body)["error"]["message"].startswith("in_flight:")
        await (await first).close()


async def test_a_model_without_a_price_is_refused(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        answer = await stall.post("/v1/chat/completions", ASK | {"model": "mystery-1"})

        assert answer.status == 400
        error = orjson.loads(answer.body)["error"]
        assert error["code"] == "unpriced_model"
        assert "'mystery-1'" in error["message"]
        assert stall.standin.bodies == []


@pytest.mark.parametrize(
    "path", ["/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/images/generations", "/"]
)
async def test_a_route_without_a_meter_is_closed(stall_of: StallOf, path: str) -> None:
    async with stall_of() as stall:
        answer = await stall.post(path, ASK)

        assert answer.status == 403
        assert orjson.loads(answer.body)["error"]["code"] == "not_metered"
        assert stall.standin.bodies == []


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"web_search_options": {}}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n is"),
        ({"messages": "hello"}, "messages"),
        ({"tools": {"a": 1}}, "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input_audio",
        ),
    ],
)
async def test_a_request_that_cannot_be_bounded_is_refused_and_says_why(
    stall_of: StallOf, members: dict[str, object], named: str
) -> None:
    async with stall_of() as stall:
        answer = await stall.post("/v1/chat/completions", ASK | members)

        assert answer.status == 400
        error = orjson.loads(answer.body)["error"]
        assert error["code"] == "not_metered"
        assert named in error["message"]
        assert stall.standin.bodies == []


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_request_nested_without_end_is_refused(stall_of: StallOf, kind: str) -> None:
    path, model = {
        "openai": ("/v1/chat/completions", MODEL),
        "anthropic": ("/v1/messages", "claude-haiku-4-5"),
    }[kind]
    nested = "[" * 1_000 + '"call 555-123-4567"' + "]" * 1_000
    body = f'{{"model":"{model}","max_tokens":5,"messages":[],"metadata":{{"a":{nested}}}}}'
    async with stall_of(kind=kind) as stall:
        answer = await stall.post(path, body.encode())

        assert answer.status == 400
        assert stall.purse.wallet.held_nanousd == 0


async def test_a_stranger_is_refused(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        answer = await stall.post("/v1/chat/completions", ASK, token="sk-standin")

        assert answer.status == 401
        assert stall.standin.bodies == []


async def test_a_request_that_says_a_thing_twice_is_sent_as_it_was_bounded(
    stall_of: StallOf,
) -> None:
    text = (
        b'{"max_tokens":1,"model":"gpt-4o-mini","messages":[{"role":"user","content":"x"}],'
        b'"max_tokens":5}'
    )
    async with stall_of() as stall:
        answer = await stall.post("/v1/chat/completions", text)

        assert answer.status == 200
        assert stall.standin.bodies[0]["max_tokens"] == 5


async def abort_a_stream(stall: Stall) -> None:
    stream = await stall.openai.chat.completions.create(**ASK, max_tokens=100, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await until(lambda: stall.purse.wallet.open_calls == 0)
    await until(lambda: stall.standin.running == 0)


@pytest.mark.parametrize("billing", list(AbortPolicy))
async def test_an_aborted_answer_that_is_drained_costs_what_is_billed(
    stall_of: StallOf, billing: AbortPolicy
) -> None:
    config = StandInConfig(chunk_count=40, chunk_delay_s=0.005, abort_policy=billing)
    async with stall_of(standin=config) as stall:
        await abort_a_stream(stall)
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_MEASURED
        assert report.cost_nanousd == stall.standin.billed_nanousd > 0
        assert stall.standin.accounts["sk-standin"].aborted == 0


@pytest.mark.parametrize("billing", list(AbortPolicy))
async def test_an_aborted_answer_that_is_cancelled_costs_the_whole_hold(
    stall_of: StallOf, billing: AbortPolicy
) -> None:
    config = StandInConfig(chunk_count=1_000, chunk_delay_s=0.005, abort_policy=billing)
    relay = RelayConfig(abort_policy=OnAbort.CANCEL)
    async with stall_of(standin=config, relay=relay) as stall:
        await abort_a_stream(stall)
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_ASSUMED
        assert report.cost_nanousd >= stall.standin.billed_nanousd > 0
        assert stall.standin.accounts["sk-standin"].aborted == 1


async def test_draining_ends_after_its_limit(stall_of: StallOf) -> None:
    config = StandInConfig(chunk_count=10_000, chunk_delay_s=0.005)
    relay = RelayConfig(drain_limit_s=0.1)
    async with stall_of(standin=config, relay=relay) as stall:
        await abort_a_stream(stall)
        [report] = await stall.reports()

        assert report.certainty == pb.CERTAINTY_ASSUMED
        assert report.cost_nanousd >= stall.standin.billed_nanousd > 0


async def test_a_silent_provider_is_given_up_and_charged_in_full(stall_of: StallOf) -> None:
    config = StandInConfig(fault=Fault.HANG)
    async with stall_of(standin=config, relay=RelayConfig(idle_timeout_s=0.1)) as stall:
        answer = await stall.post("/v1/chat/completions", ASK)
        [report] = await stall.reports()

        assert answer.status == 504
        assert orjson.loads(answer.body)["error"]["code"] == "provider_silent"
        assert report.certainty == pb.CERTAINTY_ASSUMED


async def test_sixty_four_callers_never_spend_more_than_was_lent(stall_of: StallOf) -> None:
    """With aborts and failures among them, and every nano-dollar of the bill in the books."""
    config = StandInConfig(chunk_count=20, abort_policy=AbortPolicy.ALL)
    waits = {"in_flight_wait_s": 0.2, "full_answer_wait_s": 0.02, "denied_pause_s": 0.2}
    granted_nanousd = 3_000_000
    async with stall_of(granted_nanousd=granted_nanousd, standin=config, purse=waits) as stall:
        refused = 0

        async def call(number: int) -> None:
            nonlocal refused
            for turn in range(6):
                fault = {5: "500", 9: "cut"}.get((number * 7 + turn) % 20, "")
                body = ASK | {"max_tokens": 30 + number, "stream": turn % 2 == 0}
                try:
                    answer = await asyncio.wait_for(
                        stall.post("/v1/chat/completions", body, x_standin_fault=fault),
                        0.02 if (number + turn) % 10 == 3 else 20,
                    )
                except (TimeoutError, OSError):
                    continue
                refused += answer.status == 402

        await asyncio.gather(*(call(number) for number in range(64)))
        await until(lambda: stall.purse.wallet.open_calls == 0)
        reports = await stall.reports()

        assert refused > 0
        assert stall.standin.billed_nanousd <= stall.purse.spent_nanousd <= granted_nanousd
        assert sum(report.cost_nanousd for report in reports) == stall.purse.spent_nanousd
        assert [report.sequence for report in reports] == list(range(1, len(reports) + 1))
        assert stall.purse.wallet.held_nanousd == 0
