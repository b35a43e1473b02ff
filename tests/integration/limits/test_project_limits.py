"""Limits on projects: their agents share them, and what was used in a project stays there."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.live import (
    ADMIN_PASSWORD,
    Agent,
    Answer,
    Api,
    Live,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)
from tests.people import add_person

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("project_limits") / "data"


@pytest_asyncio.fixture(loop_scope="module")
async def live(data_dir: Path) -> AsyncIterator[Live]:
    """Started anew for each test: what it knows of projects it has read from the disk."""
    async with live_server(live_settings(data_dir)) as live:
        if not (await live.admin.call("GET", "/api/v1/providers")).body["providers"]:
            await create_provider(live.admin)
        yield live


async def create_project(live: Live, **limits: Any) -> str:
    made = await live.admin.call("POST", "/api/v1/projects", {"name": "crawl"})
    assert made.status == 201, made
    project_id = str(made.body["id"])
    if limits:
        answer = await live.admin.call("PUT", f"/api/v1/limits/project:{project_id}", limits)
        assert answer.status == 200, answer
    return project_id


async def member(live: Live, project_id: str) -> Agent:
    agent = await create_agent(live.admin)
    await move(live, agent, project_id)
    return agent


async def move(live: Live, agent: Agent, project_id: str) -> None:
    path = f"/api/v1/agents/{agent.agent_id}"
    answer = await live.admin.call("PATCH", path, {"project_id": project_id})
    assert answer.status == 200, answer


def runtime(live: Live, agent: Agent) -> Api:
    return live.api.acting_as(x_ic_key=agent.ic_token)


async def lend(live: Live, agent: Agent, budget_usd: float = 1) -> Answer:
    body = {"requested_budget_usd": budget_usd}
    return await runtime(live, agent).call("POST", "/api/budget/handshake", body)


async def report(live: Live, agent: Agent, lease_id: str, request_id: str, **fields: Any) -> None:
    body = {"lease_id": lease_id, "request_id": request_id, "model": "own", "cost_usd": 0.6}
    answer = await runtime(live, agent).call("POST", "/api/budget/report", body | fields)
    assert answer.status == 200, answer


async def give_back(live: Live, agent: Agent, lease_id: str) -> None:
    answer = await runtime(live, agent).call("POST", "/api/budget/return", {"lease_id": lease_id})
    assert answer.status == 200, answer


async def limit(api: Api, project_id: str) -> Any:
    answer = await api.call("GET", "/api/limits")
    found = [each for each in answer.body["limits"] if each["scope"] == f"project:{project_id}"]
    return found[0] if found else None


async def test_the_money_of_a_month_is_shared_by_the_agents_of_a_project(live: Live) -> None:
    project = await create_project(live, max_cost_per_month_usd=1)
    first, second = await member(live, project), await member(live, project)
    stranger = await create_agent(live.admin)
    assert (await lend(live, first, 0.7)).body["budget_granted_usd"] == 0.7
    assert (await lend(live, second, 0.7)).body["budget_granted_usd"] == 0.3
    refused = await lend(live, second)
    assert refused.status == 402
    assert refused.body["error"]["reason"] == "LIMIT_COST_PER_MONTH"
    assert f"project:{project}" in refused.body["error"]["message"]
    assert (await lend(live, stranger)).body["budget_granted_usd"] == 1


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_tokens_per_day": 100}, "LIMIT_TOKENS_PER_DAY"),
        ({"max_requests_per_minute": 1}, "LIMIT_REQUESTS_PER_MINUTE"),
    ],
)
async def test_what_one_agent_called_is_missing_to_the_others_of_its_project(
    live: Live, limits: dict[str, int], reason: str
) -> None:
    project = await create_project(live, **limits)
    first, second = await member(live, project), await member(live, project)
    stranger = await create_agent(live.admin)
    lease_id = (await lend(live, first)).body["lease_id"]
    await report(live, first, lease_id, "r1", input_tokens=100)
    refused = await lend(live, second)
    assert (refused.status, refused.body["error"]["reason"]) == (429, reason)
    assert f"project:{project}" in refused.body["error"]["message"]
    assert (await lend(live, stranger)).status == 200


async def test_what_was_used_stays_with_the_project_when_the_agent_goes(live: Live) -> None:
    projects = [await create_project(live, max_cost_per_month_usd=1) for _ in range(2)]
    agent = await member(live, projects[0])
    lease_id = (await lend(live, agent)).body["lease_id"]
    await report(live, agent, lease_id, "r1")
    await give_back(live, agent, lease_id)
    await move(live, agent, projects[1])
    lease_id = (await lend(live, agent)).body["lease_id"]
    await report(live, agent, lease_id, "r1", cost_usd=0.25)
    await give_back(live, agent, lease_id)
    await live.admin.call("DELETE", f"/api/v1/agents/{agent.agent_id}")
    used = [(await limit(live.admin, project))["cost_this_month_usd"] for project in projects]
    assert used == [0.6, 0.25]
    heir = await member(live, projects[0])
    assert (await lend(live, heir)).body["budget_granted_usd"] == 0.4


async def test_a_projects_limit_is_seen_by_those_whose_agents_belong_to_it(
    live: Live, data_dir: Path
) -> None:
    project = await create_project(live, max_tokens_per_day=5)
    for name, project_id in (("ann", project), ("ben", "")):
        owner_id = add_person(data_dir, name, "user")
        body = {"name": "a", "budget_usd": 1, "owner_id": owner_id, "project_id": project_id}
        assert (await live.admin.call("POST", "/api/v1/agents", body)).status == 201
        login = {"username": name, "password": ADMIN_PASSWORD}
        token = (await live.api.call("POST", "/api/auth/login", login)).body["access_token"]
        seen = await limit(live.api.acting_as(authorization=f"Bearer {token}"), project)
        assert (seen is not None) == bool(project_id)


async def test_a_limit_on_a_project_that_is_not_there_is_refused(live: Live) -> None:
    path = "/api/v1/limits/project:project_nowhere"
    answer = await live.admin.call("PUT", path, {"max_tokens_per_day": 1})
    assert answer.status == 400
    assert "no such project" in answer.body["error"]["fields"]["scope"]
