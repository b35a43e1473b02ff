"""Events as they happen, over streams that are cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from steward_client import AsyncClient, Client
from steward_client.client.events import AgentStopped, BudgetWarning, CostUpdate
from steward_client.errors import NotFound, StewardError, Unauthorized
from tests.live import (
    ADMIN_PASSWORD,
    Agent,
    Api,
    Live,
    ServerProcess,
    create_agent,
    create_provider,
)


class Spender:
    """An agent's runtime that reports a cent each time."""

    def __init__(self, api: Api, agent: Agent) -> None:
        self.agent_id = agent.agent_id
        self._api = api.acting_as(x_ic_key=agent.ic_token)
        self._lease_id = ""
        self._reports = 0

    async def spend(self) -> None:
        if not self._lease_id:
            lent = await self._api.call(
                "POST", "/api/budget/handshake", {"requested_budget_usd": 0.1}
            )
            self._lease_id = lent.body["lease_id"]
        self._reports += 1
        report = {
            "lease_id": self._lease_id,
            "request_id": f"call-{self._reports}",
            "model": "gpt-4o",
            "input_tokens": 1,
            "output_tokens": 1,
            "cost_usd": 0.01,
        }
        answer = await self._api.call("POST", "/api/budget/report", report)
        assert answer.status == 200, answer


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    process = await ServerProcess(tmp_path / "data").start()
    yield process
    process.stop()


async def spender_at(api: Api, *, budget_usd: float = 0.1, name: str = "test") -> Spender:
    return Spender(api, await create_agent(api, budget_usd=budget_usd, name=name))


async def test_what_happens_after_subscribing_is_told(live: Live) -> None:
    await create_provider(live.admin)
    spender = await spender_at(live.admin)
    async with AsyncClient(live.running.grpc_address) as client:
        await client.login("admin", ADMIN_PASSWORD)
        async with await client.events.subscribe(agent_id=spender.agent_id) as events:
            for _ in range(5):
                await spender.spend()
            told = [await anext(events) for _ in range(6)]

    costs = [event.data for event in told if isinstance(event.data, CostUpdate)]
    warnings = [event.data for event in told if isinstance(event.data, BudgetWarning)]
    assert [cost.spent_usd for cost in costs] == [Decimal(n) / 100 for n in range(1, 6)]
    assert [warning.threshold_percent for warning in warnings] == [50]
    assert [event.sequence for event in told] == sorted({event.sequence for event in told})
    assert {event.agent_id for event in told} == {spender.agent_id}


async def test_a_thread_reads_the_past_and_is_woken_when_it_is_closed(live: Live) -> None:
    await create_provider(live.admin)
    spender, other = await spender_at(live.admin), await spender_at(live.admin, name="other")
    await other.spend()
    await spender.spend()
    await spender.spend()
    with Client(live.running.grpc_address) as client:
        await asyncio.to_thread(client.login, "admin", ADMIN_PASSWORD)
        events = await asyncio.to_thread(
            client.events.subscribe, agent_id=spender.agent_id, types=["CostUpdate"], since=0
        )
        past = [await asyncio.to_thread(next, events) for _ in range(2)]
        rest = asyncio.create_task(asyncio.to_thread(list, events))
        await asyncio.to_thread(events.close)

        assert await rest == []
        since = past[0].sequence
        with await asyncio.to_thread(
            client.events.subscribe, types=["CostUpdate"], since=since
        ) as later:
            assert await asyncio.to_thread(next, later) == past[1]


async def test_a_task_that_waits_for_an_event_hears_of_the_end(live: Live) -> None:
    async with AsyncClient(live.running.grpc_address) as client:
        await client.login("admin", ADMIN_PASSWORD)
        events = await client.events.subscribe()
        waiting = asyncio.create_task(anext(events, None))
        await asyncio.sleep(0.05)
        events.close()

        (heard,) = await asyncio.wait_for(asyncio.gather(waiting, return_exceptions=True), 30)
        assert heard is None


async def test_a_subscription_goes_on_where_a_killed_server_left_off(
    process: ServerProcess,
) -> None:
    cuts: list[StewardError] = []
    async with aiohttp.ClientSession() as http, AsyncClient(process.grpc_address) as client:
        api = await Api(f"http://{process.http_address}", http).sign_in()
        await create_provider(api)
        spender = await spender_at(api)
        await client.login("admin", ADMIN_PASSWORD)
        events = await client.events.subscribe(types=["CostUpdate"], on_cut=cuts.append)
        await spender.spend()
        before = await anext(events)
        await spender.spend()
        process.kill()
        following = asyncio.create_task(anext(events))
        await process.start()
        await spender.spend()
        after = [await following, await anext(events)]
        events.close()

    spent = [event.data.spent_usd for event in [before, *after] if type(event.data) is CostUpdate]
    assert spent == [Decimal("0.01"), Decimal("0.02"), Decimal("0.03")]


async def test_a_subscription_ends_with_the_sign_in_it_was_opened_by(live: Live) -> None:
    async with AsyncClient(live.running.grpc_address) as client:
        signed_in = await client.login("admin", ADMIN_PASSWORD)
        events = await client.events.subscribe()
        waiting = asyncio.create_task(anext(events))
        async with AsyncClient(live.running.grpc_address, token=signed_in.access_token) as other:
            await other.logout()
        with pytest.raises(Unauthorized):
            await waiting


async def test_a_subscription_that_is_refused_is_not_tried_again(live: Live) -> None:
    async with AsyncClient(live.running.grpc_address) as client:
        with pytest.raises(Unauthorized):
            await client.events.subscribe()
        await client.login("admin", ADMIN_PASSWORD)
        with pytest.raises(NotFound):
            await anext(await client.events.subscribe(agent_id="agent_none"))


async def test_an_agents_own_token_follows_its_own_events(live: Live) -> None:
    await create_provider(live.admin)
    agent, other = await create_agent(live.admin), await create_agent(live.admin, name="other")
    spender, noise = Spender(live.api, agent), Spender(live.api, other)
    async with AsyncClient(live.running.grpc_address, token=agent.ic_token) as client:
        events = await client.events.subscribe()
        await noise.spend()
        await spender.spend()
        told = await anext(events)

    assert told.agent_id == agent.agent_id
    assert not isinstance(told.data, AgentStopped)
