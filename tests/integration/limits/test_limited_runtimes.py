"""Limits kept by real runtimes before a call is sent: a real server, a real provider's double."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from steward_client.async_runtime import AsyncRuntime
from steward_client.errors import BudgetExceeded
from steward_client.standin import Fault, StandIn, StandInConfig
from steward_server.budget.config import BudgetConfig
from steward_server.limits.config import LimitsConfig
from steward_server.settings import Settings
from tests.integration.client.conftest import KEY, price_table
from tests.live import (
    Agent,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)

TOKEN = "sk-steward-test"
ASK = {
    "model": "gpt-4o-mini",
    "max_tokens": 5,
    "messages": [{"role": "user", "content": "What is money?"}],
}


@dataclass
class World:
    live: Live
    clock: TurnedClock
    standin: StandIn
    agent: Agent
    folder: Path

    @asynccontextmanager
    async def runtime(
        self, agent: Agent | None = None, budget: str = "0.5"
    ) -> AsyncIterator[Proxy]:
        runtime = AsyncRuntime(
            budget,
            server=self.live.running.grpc_address,
            token=(agent or self.agent).ic_token,
            state_dir=self.folder / "state",
            close_timeout_s=3,
        )
        proxy = Proxy(runtime)
        runtime._purse._clock = proxy.clock
        assert runtime._session is None
        async with runtime:
            await runtime.open()
            assert runtime._session is not None
            assert runtime._proxy is not None
            runtime._session._clock = proxy.clock
            runtime._proxy.admit(TOKEN)
            yield proxy

    async def limit(self, scope: str = "everyone", **amounts: Any) -> None:
        answer = await self.live.admin.call("PUT", f"/api/v1/limits/{scope}", amounts)
        assert answer.status == 200, answer

    async def lift(self, scope: str = "everyone") -> None:
        answer = await self.live.admin.call("DELETE", f"/api/v1/limits/{scope}")
        assert answer.status == 204, answer


@dataclass
class Proxy:
    """A runtime's proxy, called as its agent would, and the runtime's clock."""

    runtime: AsyncRuntime
    ahead_s: float = 0.0

    def clock(self) -> float:
        return time.monotonic() + self.ahead_s

    async def ask(self, **fields: Any) -> tuple[int, Any, Any]:
        assert self.runtime._proxy is not None
        url = f"http://127.0.0.1:{self.runtime._proxy.port}/v1/chat/completions"
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json=ASK | fields, headers=headers) as answer,
        ):
            return answer.status, await answer.json(), answer.headers.copy()

    async def asks(self, count: int) -> list[int]:
        return [(await self.ask())[0] for _ in range(count)]

    @property
    def share(self) -> int | None:
        return self.runtime._purse.wallet.allowance.told.requests

    async def has_share(self, share: int | None) -> None:
        async with asyncio.timeout(30):
            while self.share != share:
                await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = TurnedClock()
    day_us = 24 * 3600 * 1_000_000
    # Tomorrow at noon: no test crosses a midnight, and no credential ends by the real time.
    clock.now_us += day_us + day_us // 2 - clock.now_us % day_us
    settings = Settings(
        limits=LimitsConfig(sweep_interval_s=0.02),
        budget=BudgetConfig(sweep_interval_s=0.02, lease_ttl_s=10 * 24 * 3600),
    )
    async with (
        live_server(live_settings(tmp_path / "data", settings), clock) as live,
        StandIn(price_table(), StandInConfig(chunk_count=5)) as provider,
    ):
        await create_provider(live.admin, base_url=provider.url, key=KEY)
        agent = await create_agent(live.admin, budget_usd=1)
        yield World(live, clock, provider, agent, tmp_path)


async def test_the_eleventh_call_of_a_minute_is_refused_unsent_and_works_after_it(
    world: World,
) -> None:
    await world.limit(max_requests_per_minute=10)
    async with world.runtime() as proxy:
        assert await proxy.asks(10) == [200] * 10
        status, body, headers = await proxy.ask()
        assert status == 429
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert "10 requests per minute on 'everyone'" in body["error"]["message"]
        assert 55 <= int(headers["retry-after"]) <= 60
        assert "x-should-retry" not in headers
        assert len(world.standin.bodies) == 10

        proxy.ahead_s += 45  # and what has passed meanwhile
        assert (await proxy.ask())[0] == 429
        proxy.ahead_s += 15.5
        assert (await proxy.ask())[0] == 200


async def test_two_runtimes_share_a_limit_and_never_exceed_it_together(world: World) -> None:
    await world.limit(max_requests_per_minute=10)
    async with world.runtime() as first:
        assert first.share == 10
        assert await first.asks(3) == [200] * 3
        async with world.runtime(await create_agent(world.live.admin)) as second:
            await second.has_share(5)
            await first.has_share(5)
            assert await second.asks(7) == [200] * 5 + [429] * 2
            assert await first.asks(3) == [200] * 2 + [429]
            assert len(world.standin.bodies) == 10
        # What the second made counts on, though it is gone.
        await first.has_share(5)
        assert (await first.ask())[0] == 429
        world.clock.advance(61)
        await first.has_share(10)


async def test_what_was_started_before_is_not_given_to_another(world: World) -> None:
    await world.limit(max_requests_per_minute=4)
    async with world.runtime() as first:
        assert await first.asks(4) == [200] * 4
        async with world.runtime(await create_agent(world.live.admin)) as second:
            await first.has_share(2)
            assert second.share == 0
            status, _, headers = await second.ask()
            assert (status, headers["retry-after"]) == (429, "5")
            assert len(world.standin.bodies) == 4


async def test_a_limit_reaches_a_running_runtime_at_once(world: World) -> None:
    async with world.runtime() as proxy:
        assert await proxy.asks(2) == [200] * 2
        await world.limit(f"agent:{world.agent.agent_id}", max_requests_per_minute=3)
        await proxy.has_share(3)
        assert await proxy.asks(2) == [200, 429]
        await world.limit(f"agent:{world.agent.agent_id}", max_requests_per_minute=4)
        await proxy.has_share(4)
        assert await proxy.asks(2) == [200, 429]
        await world.lift(f"agent:{world.agent.agent_id}")
        await proxy.has_share(None)
        assert await proxy.asks(3) == [200] * 3


async def test_tokens_of_a_day_are_never_exceeded_and_answers_are_shortened_to_fit(
    world: World,
) -> None:
    await world.limit(max_tokens_per_day=1_000)
    async with world.runtime() as proxy:
        statuses = []
        for _ in range(40):
            status, body, headers = await proxy.ask(max_tokens=400)
            statuses.append(status)
            if status != 200:
                break
        assert statuses[0] == 200
        assert statuses[-1] == 429
        assert body["error"]["code"] == "rate_limit_exceeded"
        assert "1000 tokens per day on 'everyone'" in body["error"]["message"]
        assert int(headers["retry-after"]) > 3_600
        assert headers["x-should-retry"] == "false"
        limits = [each["max_tokens"] for each in world.standin.bodies]
        assert limits[0] == 400
        assert min(limits) < 400
        assert proxy.runtime._purse.wallet.allowance.tokens_used <= 1_000

        # Reported, it counts at the server; the next day all of it is there again.
        async with asyncio.timeout(30):
            while await used_today(world) != proxy.runtime._purse.wallet.allowance.tokens_used:
                await asyncio.sleep(0.01)
        world.clock.advance(12 * 3600)
        status, body, _ = await proxy.ask(max_tokens=400)
        assert status == 200, body


async def used_today(world: World) -> int:
    answer = await world.live.admin.call("GET", "/api/limits")
    return int(answer.body["limits"][0]["tokens_today"])


async def test_a_call_that_can_never_fit_into_the_tokens_is_refused_unsent(world: World) -> None:
    await world.limit(max_tokens_per_day=100)
    async with world.runtime() as proxy:
        question = [{"role": "user", "content": "x" * 500}]
        assert (await proxy.ask(messages=question))[0] == 429
        assert world.standin.bodies == []


async def test_money_of_a_month_is_never_exceeded(world: World) -> None:
    other = await create_agent(world.live.admin)
    await world.limit(max_cost_per_month_usd="0.0001")
    async with world.runtime() as proxy:
        statuses = []
        for _ in range(30):
            status, body, headers = await proxy.ask(max_tokens=60)
            statuses.append(status)
            if status != 200:
                break
        assert statuses[0] == 200
        assert status == 402
        assert "$0.0001 per month on 'everyone'" in body["error"]["message"]
        assert headers["x-should-retry"] == "false"
        assert world.standin.billed_nanousd <= 100_000
        with pytest.raises(BudgetExceeded, match="per month on 'everyone'"):
            async with world.runtime(other):
                pass


async def test_a_lowered_limit_of_a_month_takes_back_what_was_lent(world: World) -> None:
    async with world.runtime() as proxy:
        assert (await proxy.ask())[0] == 200
        lease_id = proxy.runtime._purse.wallet.lease_id
        await world.limit(max_cost_per_month_usd="0.01")
        async with asyncio.timeout(10):
            while proxy.runtime._purse.wallet.lease_id == lease_id:
                await proxy.ask()
                await asyncio.sleep(0.05)
        assert proxy.runtime._purse.wallet.granted_nanousd < 10_000_000
        assert (await proxy.ask())[0] == 200


async def test_a_runtime_tells_that_its_circuit_has_opened(world: World) -> None:
    world.standin.config = StandInConfig(fault=Fault.BROKEN)
    async with world.runtime() as proxy:
        statuses = await proxy.asks(12)
        assert 503 in statuses
        path = f"/api/v1/events?since=0&type=CircuitOpened&agent_id={world.agent.agent_id}"
        url = world.live.api.base_url + path
        async with (
            asyncio.timeout(30),
            world.live.api.session.get(url, headers=world.live.admin.headers) as events,
        ):
            event = json.loads(await events.content.readline())
        assert event["circuit_opened"]["provider"] == "openai"
        assert event["circuit_opened"]["failures"] >= 5
