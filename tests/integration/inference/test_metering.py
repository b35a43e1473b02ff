"""Steps that agents pay for out of their budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from steward.inference.v1 import inference_pb2 as pb
from tests.integration.inference.conftest import Site, open_site
from tests.live import Agent, Api, create_agent

STEP = {"observation": [1, 0, 0]}
PRICE = 2.0
"""Of a thousand steps, in dollars."""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    config: dict[str, Any] = {"price_per_thousand_steps_usd": PRICE, "book_interval_s": 0.02}
    async with open_site(tmp_path, **config) as opened:
        yield opened


def caller(site: Site, agent: Agent) -> Api:
    return site.live.api.acting_as(**{"x-ic-key": agent.ic_token})


async def budget(site: Site, agent: Agent) -> Any:
    answer = await site.live.admin.call("GET", f"/api/v1/agents/{agent.agent_id}/budget")
    assert answer.status == 200, answer
    return answer.body["path"][0]


async def spent(site: Site, agent: Agent, wanted_usd: float) -> None:
    """Wait until so much is booked."""
    for _ in range(200):
        if (await budget(site, agent))["spent_usd"] == pytest.approx(wanted_usd):
            return
        await asyncio.sleep(0.02)
    pytest.fail(f"{wanted_usd} are not booked: {await budget(site, agent)}")


async def test_an_agent_pays_for_its_steps_and_others_do_not(site: Site) -> None:
    agent = await create_agent(site.live.admin)
    api = caller(site, agent)
    for _ in range(3):
        assert (await api.call("POST", "/step", STEP)).status == 200
    batch = {"observations": [[0, 0, 0]] * 5}
    assert (await api.call("POST", "/step_batch", batch)).status == 200
    assert (await site.client.call("POST", "/step", STEP)).status == 200
    await spent(site, agent, 8 * PRICE / 1000)


async def test_steps_end_with_the_money_and_go_on_with_more(site: Site) -> None:
    agent = await create_agent(site.live.admin, budget_usd=0.02)
    api = caller(site, agent)
    for _ in range(10):
        assert (await api.call("POST", "/step", STEP)).status == 200
    refused = await api.call("POST", "/step", STEP)
    assert (refused.status, "budget" in str(refused.body).lower()) == (429, True), refused
    await spent(site, agent, 0.02)
    path = f"/api/v1/agents/{agent.agent_id}"
    raised = await site.live.admin.call("PATCH", path, {"budget_usd": 0.03})
    assert raised.status == 200, raised
    assert (await api.call("POST", "/step", STEP)).status == 200


async def test_a_stream_tells_what_is_refused_and_goes_on(site: Site) -> None:
    agent = await create_agent(site.live.admin, budget_usd=0.02)
    stream = site.stub.Stream(metadata=agent.metadata)
    await stream.write(pb.StreamRequest(open=pb.StreamOpen(agents=[pb.StreamAgent()] * 8)))
    assert (await stream.read()).HasField("opened")
    packed = pb.PackedSteps(observations=np.zeros((8, 3), "<f4").tobytes())
    await stream.write(pb.StreamRequest(packed=packed))
    assert (await stream.read()).HasField("packed")
    await stream.write(pb.StreamRequest(packed=packed))
    refusal = (await stream.read()).refusal
    assert "budget" in refusal.message.lower(), refusal
    step = pb.StreamStep(agent=0, observation=[0, 0, 0])
    for _ in range(2):
        await stream.write(pb.StreamRequest(step=step))
        assert (await stream.read()).HasField("step")
    await stream.write(pb.StreamRequest(step=step))
    assert (await stream.read()).HasField("refusal")
    await stream.done_writing()
    await spent(site, agent, 0.02)


async def test_an_agent_that_is_to_stop_steps_no_more(site: Site) -> None:
    agent = await create_agent(site.live.admin)
    api = caller(site, agent)
    assert (await api.call("POST", "/step", STEP)).status == 200
    await site.live.admin.call("POST", f"/api/v1/agents/{agent.agent_id}/stop", {})
    for _ in range(200):
        answer = await api.call("POST", "/step", STEP)
        if answer.status != 200:
            break
        await asyncio.sleep(0.02)
    assert answer.status == 400, answer
    assert "told to stop" in str(answer.body), answer


async def test_what_was_not_spent_is_given_back_when_the_server_stops(tmp_path: Path) -> None:
    config: dict[str, Any] = {"price_per_thousand_steps_usd": PRICE, "book_interval_s": 60.0}
    async with open_site(tmp_path, **config) as site:
        agent = await create_agent(site.live.admin)
        assert (await caller(site, agent).call("POST", "/step", STEP)).status == 200
        assert (await budget(site, agent))["spent_usd"] == 0
    async with open_site(tmp_path, **config) as site:
        told = await budget(site, agent)
        assert told["spent_usd"] == pytest.approx(0.002)
        assert told["available_usd"] == pytest.approx(9.998)
