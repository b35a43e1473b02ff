"""Callers who do not read, go half way, or ask for too much keep nothing and disturb nobody."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from steward.inference.v1 import inference_pb2 as pb
from tests.integration.inference.conftest import STATIC_TOKEN, Site

GOOD = {"observation": [1.0, 2.0, 3.0], "token": STATIC_TOKEN}
ROWS = 512
PATIENCE_S = 5
MOST_MESSAGES = 100_000
"""More than anything on the way could hold."""


async def version(site: Site) -> Any:
    listed = await site.client.call("GET", "/api/v1/policies/adding")
    return listed.body["versions"][0]


async def agents_are(site: Site, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await version(site))["agent_count"] != count:
            await asyncio.sleep(0.01)


async def others_step(site: Site) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(5):
            step = await site.client.call("POST", "/step", {"observation": [1, 2, 3]})
            assert step.status == 200


async def stands_still(site: Site) -> int:
    """How many steps were made once no more are."""
    made = -1
    async with asyncio.timeout(PATIENCE_S):
        while made != (now := (await version(site))["step_count"]):
            made = now
            await asyncio.sleep(0.2)
    return made


async def opened(site: Site, *agents: pb.StreamAgent) -> Any:
    call = site.stub.Stream(metadata=site.metadata)
    await call.write(pb.StreamRequest(open=pb.StreamOpen(agents=agents)))
    return call


async def write_until_it_takes_no_more(write: Any) -> int:
    for sent in range(MOST_MESSAGES):
        try:
            async with asyncio.timeout(0.5):
                await write()
        except TimeoutError:
            return sent
    pytest.fail("whatever is sent is taken, and nobody reads the answers")


async def test_a_stream_that_is_not_read_is_not_computed_for(site: Site) -> None:
    call = await opened(site, *[pb.StreamAgent()] * ROWS)
    rows = np.ones((ROWS, 3), "<f4").tobytes()
    message = pb.StreamRequest(packed=pb.PackedSteps(observations=rows))
    sent = await write_until_it_takes_no_more(lambda: call.write(message))
    assert await stands_still(site) <= sent * ROWS
    await others_step(site)
    call.cancel()
    await agents_are(site, 1)


async def test_what_was_sent_before_a_stream_is_half_closed_is_answered(site: Site) -> None:
    call = await opened(site, pb.StreamAgent())
    for sequence in range(1, 41):
        step = pb.StreamStep(observation=[1, 0, 0], deterministic=True)
        await call.write(pb.StreamRequest(sequence=sequence, step=step))
    await call.done_writing()
    answers = [answer async for answer in call]
    assert [each.sequence for each in answers] == list(range(41))
    assert {each.WhichOneof("message") for each in answers[1:]} == {"step"}
    await agents_are(site, 0)


async def test_an_opening_that_fails_half_way_keeps_none_of_its_agents(site: Site) -> None:
    call = await opened(site, pb.StreamAgent(), pb.StreamAgent(policy="none"))
    assert "no policy 'none'" in (await call.read()).refusal.message
    await agents_are(site, 0)
    await call.write(pb.StreamRequest(open=pb.StreamOpen(agents=[pb.StreamAgent()])))
    assert (await call.read()).opened.first == 0
    await agents_are(site, 1)
    call.cancel()


async def test_more_than_may_be_asked_for_at_once_is_refused_whole(site: Site) -> None:
    rows = {"observations": [[1, 2, 3]] * 4_097}
    batch = await site.client.call("POST", "/step_batch", rows)
    assert (batch.status, "at most 4096" in batch.body["detail"]) == (422, True)
    call = await opened(site, *[pb.StreamAgent()] * 4_097)
    assert "1 to 4096" in (await call.read()).refusal.message
    call.cancel()
    assert (await version(site))["step_count"] == 0
    await agents_are(site, 0)


async def test_a_batch_that_is_wrong_in_one_row_makes_no_step(site: Site) -> None:
    for name in ("one", "two"):
        await site.client.call("POST", "/reset", {"agent_id": name})
    body = {"observations": [[1, 2, 3], [1, 2]], "agent_ids": ["one", "two"]}
    assert (await site.client.call("POST", "/step_batch", body)).status == 400
    assert (await version(site))["step_count"] == 0
