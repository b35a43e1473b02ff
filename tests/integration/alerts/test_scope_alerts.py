"""Alerts of budgets that agents share: each scope's and each period's is news of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from steward_server.alerts.config import AlertsConfig
from steward_server.settings import Settings
from tests.integration.alerts.receiver import Receiver, lend, receiving, spend, webhook
from tests.live import (
    Agent,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY_S = 86_400


@pytest.fixture(scope="module")
def clock() -> TurnedClock:
    return TurnedClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory, clock: TurnedClock) -> AsyncIterator[Live]:
    settings = Settings(alerts=AlertsConfig(allow_private=True, repeat_window_s=10 * DAY_S))
    data_dir = tmp_path_factory.mktemp("scopes") / "data"
    async with live_server(live_settings(data_dir, settings), clock) as live:
        await create_provider(live.admin)
        yield live


@pytest_asyncio.fixture(loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


async def create_project(live: Live, name: str, **terms: Any) -> str:
    made = await live.admin.call("POST", "/api/v1/projects", {"name": name} | terms)
    assert made.status == 201, made
    return str(made.body["id"])


async def create_member(live: Live, project_id: str, budget_usd: float = 100) -> Agent:
    agent = await create_agent(live.admin, budget_usd=budget_usd)
    path = f"/api/v1/agents/{agent.agent_id}"
    moved = await live.admin.call("PATCH", path, {"project_id": project_id})
    assert moved.status == 200, moved
    return agent


async def test_a_warning_of_one_project_does_not_silence_anothers(
    live: Live, receiver: Receiver
) -> None:
    projects = [await create_project(live, name, budget_usd=1) for name in ("one", "two")]
    members = [await create_member(live, project) for project in projects]
    async with webhook(live.admin, receiver, events=["BudgetWarning"]):
        for member in members:
            lease_id = (await lend(live.api, member)).body["lease_id"]
            await spend(live.api, member, lease_id, 0.6)
        await receiver.has(2)
        told = [body["data"] for body in receiver.bodies]
        assert [each["scope"] for each in told] == [f"project:{each}" for each in projects]
        assert {each["threshold_percent"] for each in told} == {50}


async def test_members_of_a_project_without_money_are_one_alert_that_names_it(
    live: Live, receiver: Receiver
) -> None:
    project = await create_project(live, "poor", budget_usd=1)
    members = [await create_member(live, project) for _ in range(3)]
    alone = await create_agent(live.admin, budget_usd=1)
    async with webhook(live.admin, receiver, events=["BudgetExhausted"]):
        assert [(await lend(live.api, each)).status for each in members] == [200, 402, 402]
        assert [(await lend(live.api, alone)).status for _ in range(2)] == [200, 402]
        await receiver.has(2)
        scopes = [body["data"]["scope"] for body in receiver.bodies]
        assert scopes == [f"project:{project}", f"agent:{alone.agent_id}"]


async def test_each_period_and_each_limit_warns_anew(
    live: Live, receiver: Receiver, clock: TurnedClock
) -> None:
    body = {"name": "daily", "budget_usd": 1, "budget_period": "day"}
    made = (await live.admin.call("POST", "/api/v1/agents", body)).body
    token = (await live.admin.call("POST", "/api/tokens", {"agent_id": made["id"]})).body
    agent = Agent(made["id"], token["id"], token["token"])
    async with webhook(live.admin, receiver, events=["BudgetWarning"]):
        for count in (1, 2):
            lease_id = (await lend(live.api, agent)).body["lease_id"]
            await spend(live.api, agent, lease_id, 0.6)
            await receiver.has(count)
            clock.advance(DAY_S)
        path = f"/api/v1/agents/{agent.agent_id}"
        live.admin.headers.update((await live.api.sign_in()).headers)
        assert (await live.admin.call("PATCH", path, {"budget_usd": 2})).status == 200
        lease_id = (await lend(live.api, agent, 2)).body["lease_id"]
        await spend(live.api, agent, lease_id, 1)
        await receiver.has(3)
        limits = [body["data"]["limit_usd"] for body in receiver.bodies]
        assert limits == [1, 1, 2]


async def test_a_lease_that_cannot_grow_names_the_budget_that_lacks(
    live: Live, receiver: Receiver
) -> None:
    project = await create_project(live, "small", budget_usd=1)
    member = await create_member(live, project)
    lease_id = (await lend(live.api, member)).body["lease_id"]
    async with webhook(live.admin, receiver, events=["BudgetExhausted"]):
        api = live.api.acting_as(x_ic_key=member.ic_token)
        refreshed = await api.call("POST", "/api/budget/refresh", {"lease_id": lease_id})
        assert refreshed.body["status"] == "denied"
        await receiver.has(1)
        assert receiver.bodies[0]["data"]["scope"] == f"project:{project}"
