"""What open sessions are told of budgets that agents share, so that nobody waits for nothing."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward.budget.v1 import budget_pb2 as pb
from steward_client.async_runtime import AsyncRuntime
from steward_server.budget.config import BudgetConfig
from steward_server.budget.period import DAY_US
from steward_server.db import now_us
from steward_server.settings import Settings
from tests.integration.budget.conftest import USD, Bank, open_bank
from tests.integration.budget.runtime import Runtime, session
from tests.integration.budget.test_budget_periods import end_us, turn_to_noon
from tests.live import Agent, Api, Live, create_provider, live_server, live_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    """Of its own: its clock is turned, and its organisation has a limit at times."""
    async with open_bank(tmp_path_factory.mktemp("bank")) as opened:
        turn_to_noon(opened)
        yield opened


async def change(admin: Api, path: str, **fields: Any) -> Any:
    answer = await admin.call("PATCH", path, fields)
    assert answer.status == 200, answer
    return answer.body


async def create(admin: Api, path: str, **fields: Any) -> Any:
    answer = await admin.call("POST", path, fields)
    assert answer.status == 201, answer
    return answer.body


async def project_of(admin: Api, **fields: Any) -> str:
    return str((await create(admin, "/api/v1/projects", **({"name": "crawl"} | fields)))["id"])


async def agent_in(admin: Api, project_id: str, **fields: Any) -> Agent:
    wanted = {"name": "scout", "budget_usd": 10, "project_id": project_id} | fields
    agent_id = (await create(admin, "/api/v1/agents", **wanted))["id"]
    token = await create(admin, "/api/tokens", agent_id=agent_id)
    return Agent(agent_id, token["id"], token["token"])


async def is_refused(runtime: Runtime) -> bool:
    answer = await runtime.ask(handshake=pb.HandshakeRequest(requested_budget_nanousd=USD))
    return not isinstance(answer, pb.HandshakeResponse)


async def budget_told(runtime: Runtime) -> pb.Control:
    return await runtime.control(lambda each: each.HasField("budget_remaining_nanousd"))


async def test_a_projects_budget_that_is_raised_is_told_to_its_agents_and_to_no_others(
    bank: Bank,
) -> None:
    admin = await bank.live.api.sign_in()
    project, other = [await project_of(admin, budget_usd=0) for _ in range(2)]
    agent, stranger = await agent_in(admin, project), await agent_in(admin, other)
    channel = bank.live.channel
    async with session(channel, agent) as waiting, session(channel, stranger) as apart:
        assert await is_refused(waiting)
        assert await is_refused(apart)
        await change(admin, f"/api/v1/projects/{project}", budget_usd=3)
        told = await budget_told(waiting)
        assert told.budget_remaining_nanousd == 3 * USD
        assert told.reason == f"the budget of 'project:{project}' was changed"
        assert not await is_refused(waiting)
        await apart.ask(heartbeat=pb.SessionHeartbeat())
        assert not apart.controls
    bank.sound_books()


async def test_a_project_that_blocks_no_longer_is_told(bank: Bank) -> None:
    admin = await bank.live.api.sign_in()
    project = await project_of(admin, budget_usd=0)
    async with session(bank.live.channel, await agent_in(admin, project)) as waiting:
        assert await is_refused(waiting)
        await change(admin, f"/api/v1/projects/{project}", mode="informative")
        assert (await budget_told(waiting)).budget_remaining_nanousd == 10 * USD


async def test_the_organisations_budget_is_told_to_every_agent(bank: Bank) -> None:
    admin = await bank.live.api.sign_in()
    agents = [await agent_in(admin, project) for project in ("", await project_of(admin))]
    channel = bank.live.channel
    async with session(channel, agents[0]) as one, session(channel, agents[1]) as another:
        for runtime in (one, another):
            await runtime.ask(heartbeat=pb.SessionHeartbeat())
        await change(admin, "/api/v1/organisation", budget_usd=10_000)
        for runtime in (one, another):
            told = await budget_told(runtime)
            assert told.reason == "the budget of 'organisation' was changed"
        await change(admin, "/api/v1/organisation", unlimited=True)


async def test_a_new_period_of_an_agent_and_of_its_project_is_told(bank: Bank) -> None:
    admin = await bank.live.api.sign_in()
    project = await project_of(admin, budget_usd=1, period="day")
    daily = await agent_in(admin, "", budget_usd=1, budget_period="day")
    for agent, whose in (
        (await agent_in(admin, project), f"'project:{project}'"),
        (daily, "the agent"),
    ):
        async with session(bank.live.channel, agent) as runtime:
            await runtime.handshake(USD)
            assert await is_refused(runtime)
            bank.clock.now_us = end_us(bank)
            told = await budget_told(runtime)
            assert told.reason == f"a new period of {whose} began"
            assert told.budget_remaining_nanousd == USD


async def test_a_period_begins_at_its_moment_however_seldom_the_server_looks(
    tmp_path: Path,
) -> None:
    settings = live_settings(tmp_path / "data", Settings(budget=BudgetConfig(sweep_interval_s=2.0)))
    midnight_us = (now_us() // DAY_US + 1) * DAY_US
    early_us = 3_600_000_000

    def clock() -> int:
        return now_us() + offset_us

    offset_us = midnight_us - early_us - now_us()
    async with live_server(settings, clock) as live:
        await create_provider(live.admin)
        agent = await agent_in(live.admin, "", budget_usd=1, budget_period="day")
        async with session(live.channel, agent) as runtime:
            await runtime.handshake(USD)
            offset_us = midnight_us - 3_000_000 - now_us()  # three seconds are left of the day
            told = await runtime.control(lambda each: each.budget_remaining_nanousd == USD)
            late_us = clock() - midnight_us
    assert told.reason == "a new period of the agent began"
    assert 0 <= late_us < 500_000


async def test_an_agent_that_moves_hears_of_its_new_project_from_then_on(bank: Bank) -> None:
    admin = await bank.live.api.sign_in()
    poor, rich = await project_of(admin, budget_usd=0), await project_of(admin, budget_usd=2)
    agent = await agent_in(admin, poor)
    async with session(bank.live.channel, agent) as waiting:
        assert await is_refused(waiting)
        await change(admin, f"/api/v1/agents/{agent.agent_id}", project_id=rich)
        assert (await budget_told(waiting)).budget_remaining_nanousd == 2 * USD
        await change(admin, f"/api/v1/projects/{poor}", budget_usd=7)
        await change(admin, f"/api/v1/projects/{rich}", budget_usd=4)
        assert (await budget_told(waiting)).budget_remaining_nanousd == 4 * USD


class Waiting(AsyncRuntime):
    """A runtime that says when it waits for money."""

    waits: asyncio.Event

    def _say(self, sentence: str) -> None:
        if sentence.startswith("waiting for the budget"):
            self.waits.set()


async def measure(live: Live, folder: Path, count: int) -> list[float]:
    """Seconds from the raise of a project's budget to the first grant of who waits for it."""
    granted_s = []
    for number in range(count):
        project = await project_of(live.admin, budget_usd=0)
        agent = await agent_in(live.admin, project)
        runtime = Waiting(
            5,
            server=live.running.grpc_address,
            token=agent.ic_token,
            state_dir=folder / str(number),
            wait_for_budget_s=10,
        )
        runtime.waits = asyncio.Event()
        opening = asyncio.create_task(runtime.open())
        await asyncio.wait_for(runtime.waits.wait(), 10)
        sent_s = time.perf_counter()
        await change(live.admin, f"/api/v1/projects/{project}", budget_usd=3)
        await asyncio.wait_for(opening, 10)
        granted_s.append(time.perf_counter() - sent_s)
        await runtime.close()
    return granted_s


@pytest.mark.parametrize(
    ("count", "within_s"),
    [
        pytest.param(3, 5, id="few, on a machine that may have much else to do"),
        pytest.param(100, 0.1, id="many", marks=pytest.mark.proof),
    ],
)
async def test_a_runtime_that_waits_for_its_project_goes_on_at_once(
    tmp_path: Path, count: int, within_s: float
) -> None:
    async with live_server(live_settings(tmp_path / "data")) as live:
        await create_provider(live.admin)
        granted_s = await measure(live, tmp_path, count)
    print(f"\nraise of a project to grant: median {statistics.median(granted_s) * 1e3:.1f} ms")
    assert statistics.median(granted_s) < within_s
