"""Personal data, stops and broken circuits, on calls under way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import openai
import orjson
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward_client.breaker import BreakerConfig
from steward_client.pii import PiiAction, PiiKind
from steward_client.relay import RelayConfig
from steward_client.standin import Fault, StandInConfig
from tests.integration.client.conftest import StallOf, until

MODEL = "gpt-4o-mini"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "What is money?"}]}
TELLING: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "I am ann@example.com"}],
}
LEAK = ("mail", " bob@exam", "ple.com", " or", " 555-", "123-", "4567", " now")


async def read_on(pieces: AsyncIterator[Any]) -> None:
    async for _ in pieces:
        pass


async def test_personal_data_is_reported_by_kind_and_count(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(words=LEAK)) as stall:
        answer = await stall.openai.chat.completions.create(**TELLING, max_tokens=8)
        [sent, got] = stall.pii
        [report] = await stall.reports()

        assert "bob@example.com" in answer.choices[0].message.content
        assert stall.standin.bodies[0]["messages"] == TELLING["messages"]
        assert (sent.outgoing, sent.found) == (True, {PiiKind.EMAIL: 1})
        assert (got.outgoing, got.found) == (False, {PiiKind.EMAIL: 1, PiiKind.PHONE: 1})
        assert sent.request_id == got.request_id == report.request_id
        assert stall.tally.pii == {PiiKind.EMAIL: 2, PiiKind.PHONE: 1}


async def test_personal_data_split_over_pieces_of_a_stream_is_found(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(words=LEAK)) as stall:
        stream = await stall.openai.chat.completions.create(**ASK, max_tokens=8, stream=True)
        async for _ in stream:
            pass

        assert stall.tally.pii == {PiiKind.EMAIL: 1, PiiKind.PHONE: 1}


async def test_redacting_rewrites_what_is_sent_and_whole_answers(stall_of: StallOf) -> None:
    relay = RelayConfig(pii_action=PiiAction.REDACT)
    async with stall_of(standin=StandInConfig(words=LEAK), relay=relay) as stall:
        answer = await stall.openai.chat.completions.create(**TELLING, max_tokens=8)

        assert stall.standin.bodies[0]["messages"][0]["content"] == "I am [email]"
        assert answer.choices[0].message.content == "mail [email] or [phone] now"
        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd


async def test_blocking_keeps_a_request_in(stall_of: StallOf) -> None:
    async with stall_of(relay=RelayConfig(pii_action=PiiAction.BLOCK)) as stall:
        answer = await stall.post("/v1/chat/completions", TELLING)

        assert answer.status == 403
        assert orjson.loads(answer.body)["error"]["code"] == "pii_blocked"
        assert b"ann@" not in answer.body
        assert stall.standin.bodies == []
        assert stall.tally.pii == {PiiKind.EMAIL: 1}


async def test_blocking_keeps_a_whole_answer_back_and_books_it(stall_of: StallOf) -> None:
    relay = RelayConfig(pii_action=PiiAction.BLOCK)
    async with stall_of(standin=StandInConfig(words=LEAK), relay=relay) as stall:
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 403
        assert b"bob@" not in answer.body
        assert stall.purse.spent_nanousd == stall.standin.billed_nanousd > 0


async def test_blocking_ends_a_stream_where_personal_data_is_certain(stall_of: StallOf) -> None:
    words = ("I", " know", " ann@example.com", *([" and so on"] * 40))
    config = StandInConfig(words=words, chunk_count=40, chunk_delay_s=0.002)
    async with stall_of(standin=config, relay=RelayConfig(pii_action=PiiAction.BLOCK)) as stall:
        stream = await stall.openai.chat.completions.create(**ASK, max_tokens=100, stream=True)
        with pytest.raises(openai.APIError, match="personal data"):
            await read_on(aiter(stream))
        await until(lambda: stall.standin.running == 0)

        assert stall.standin.billed_nanousd <= stall.purse.spent_nanousd


async def test_a_stop_cuts_a_stream_long_before_its_end(stall_of: StallOf) -> None:
    config = StandInConfig(chunk_count=10_000, chunk_delay_s=0.005)
    async with stall_of(standin=config) as stall:
        stream = await stall.openai.chat.completions.create(**ASK, max_tokens=9_000, stream=True)
        pieces = aiter(stream)
        await anext(pieces)
        began_s = time.monotonic()
        stall.purse.stop("lunch")
        stall.proxy.cut("lunch")
        with pytest.raises(openai.APIError, match="lunch"):
            await read_on(pieces)
        took_s = time.monotonic() - began_s
        await until(lambda: stall.standin.running == 0)
        [report] = await stall.reports()

        assert took_s < 20  # of fifty seconds
        assert report.certainty == pb.CERTAINTY_ASSUMED
        assert report.cost_nanousd >= stall.standin.billed_nanousd


async def test_a_stop_ends_a_call_that_waits_for_its_answer(stall_of: StallOf) -> None:
    async with stall_of(standin=StandInConfig(fault=Fault.HANG)) as stall:
        waiting = asyncio.create_task(stall.post("/v1/chat/completions", ASK))
        await until(lambda: stall.standin.running == 1)
        stall.purse.stop("lunch")
        stall.proxy.cut("lunch")
        answer = await waiting
        await until(lambda: stall.standin.running == 0)

        assert answer.status == 403
        assert orjson.loads(answer.body)["error"]["code"] == "stopped"


async def test_after_a_stop_no_call_starts(stall_of: StallOf) -> None:
    async with stall_of() as stall:
        stall.purse.stop("lunch")
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 403
        assert orjson.loads(answer.body)["error"]["code"] == "stopped"
        assert answer.headers["x-should-retry"] == "false"
        assert stall.standin.bodies == []


async def test_a_provider_that_keeps_failing_is_not_asked(stall_of: StallOf) -> None:
    breaker = BreakerConfig(minimum_calls=3, open_s=30)
    async with stall_of(standin=StandInConfig(fault=Fault.BROKEN), breaker=breaker) as stall:
        for _ in range(3):
            assert (await stall.post("/v1/chat/completions", ASK)).status == 500
        answer = await stall.post("/v1/chat/completions", ASK)

        assert answer.status == 503
        assert orjson.loads(answer.body)["error"]["code"] == "CIRCUIT_OPEN"
        assert 1 <= int(answer.headers["retry-after"]) <= 30
        assert len(stall.standin.bodies) == 3
        assert stall.purse.wallet.held_nanousd == 0


async def test_one_good_probe_closes_the_circuit(stall_of: StallOf) -> None:
    breaker = BreakerConfig(minimum_calls=2, open_s=1)
    async with stall_of(breaker=breaker) as stall:
        for _ in range(2):
            await stall.post("/v1/chat/completions", ASK, x_standin_fault="500")
        refused = await stall.post("/v1/chat/completions", ASK)
        await asyncio.sleep(1.1)
        probe = await stall.post("/v1/chat/completions", ASK)
        after = await stall.post("/v1/chat/completions", ASK)

        assert [refused.status, probe.status, after.status] == [503, 200, 200]
