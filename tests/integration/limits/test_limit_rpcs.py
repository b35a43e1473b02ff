"""Limits as people set and see them, and as callers without a runtime meet them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward_server.budget.config import BudgetConfig
from steward_server.limits.config import LimitsConfig
from steward_server.settings import Settings
from tests.live import (
    Agent,
    Answer,
    Api,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)
from tests.people import add_person

NOON_US = 1_795_608_000_000_000  # 2026-11-25T12:00:00Z
DAY_US = 24 * 3600 * 1_000_000

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def open_live(data_dir: Path, clock: TurnedClock) -> AsyncIterator[Live]:
    settings = Settings(
        limits=LimitsConfig(sweep_interval_s=0.02), budget=BudgetConfig(sweep_interval_s=0.01)
    )
    async with live_server(live_settings(data_dir, settings), clock) as live:
        yield live


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("limits") / "data"


@pytest.fixture(scope="module")
def clock() -> TurnedClock:
    clock = TurnedClock()
    clock.now_us = NOON_US
    return clock


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(data_dir: Path, clock: TurnedClock) -> AsyncIterator[Live]:
    async with open_live(data_dir, clock) as live:
        await create_provider(live.admin)
        yield live


@pytest_asyncio.fixture(loop_scope="module")
async def live(served: Live, data_dir: Path, clock: TurnedClock) -> AsyncIterator[Live]:
    """The server at noon, years later in each test, with no limit and nothing lent."""
    clock.now_us += 366 * DAY_US - clock.now_us % DAY_US + DAY_US // 2
    yield replace(served, admin=await served.api.sign_in())
    await end_leases(data_dir, clock)
    admin = await served.api.sign_in()
    for scope in await limits(admin):
        await admin.call("DELETE", f"/api/v1/limits/{scope}")


async def end_leases(data_dir: Path, clock: TurnedClock) -> None:
    """Let every lease run out."""
    with closing(sqlite3.connect(data_dir / "steward.db", timeout=10)) as connection:
        count = "SELECT count(*) FROM lease WHERE state IN ('active', 'draining')"
        while connection.execute(count).fetchone() != (0,):
            clock.advance(1_000)
            await asyncio.sleep(0.02)


async def set_limit(live: Live, scope: str, **amounts: Any) -> Answer:
    return await live.admin.call("PUT", f"/api/v1/limits/{scope}", amounts)


async def limits(api: Api) -> dict[str, Any]:
    answer = await api.call("GET", "/api/limits")
    assert answer.status == 200, answer
    return {each["scope"]: each for each in answer.body["limits"]}


def runtime(live: Live, agent: Agent) -> Api:
    return live.api.acting_as(x_ic_key=agent.ic_token)


async def handshake(live: Live, agent: Agent, budget_usd: float = 1, **fields: Any) -> Answer:
    body = {"requested_budget_usd": budget_usd, **fields}
    return await runtime(live, agent).call("POST", "/api/budget/handshake", body)


async def report(live: Live, agent: Agent, lease_id: str, number: int, **fields: Any) -> Answer:
    body = {"lease_id": lease_id, "request_id": f"r{number}", "model": "own", "cost_usd": 0.01}
    return await runtime(live, agent).call("POST", "/api/budget/report", body | fields)


async def test_a_limit_is_set_shown_replaced_and_lifted(live: Live) -> None:
    made = await set_limit(live, "everyone", max_requests_per_minute=10, max_tokens_per_day=5_000)
    again = await set_limit(live, "everyone", max_cost_per_month_usd=2.5)
    shown = await limits(live.admin)
    lifted = await live.admin.call("DELETE", "/api/v1/limits/everyone")
    nothing = await live.admin.call("DELETE", "/api/v1/limits/everyone")

    assert made.status == again.status == 200
    assert made.body["max_tokens_per_day"] == 5_000
    assert made.body["max_cost_per_month_usd"] is None
    assert again.body == shown["everyone"]
    assert again.body["max_requests_per_minute"] is None
    assert again.body["max_cost_per_month_usd"] == 2.5
    assert again.body["tokens_reset_at"].endswith("T00:00:00Z")
    assert again.body["cost_reset_at"].endswith("-01T00:00:00Z")
    assert (lifted.status, nothing.status) == (204, 404)
    assert nothing.body["error"]["reason"] == "LIMIT_NOT_FOUND"
    assert await limits(live.admin) == {}


@pytest.mark.parametrize(
    ("scope", "amounts", "fields"),
    [
        ("nobody", {"max_requests_per_minute": 0}, {"scope", "max_requests_per_minute"}),
        ("user:", {"max_tokens_per_day": -1}, {"scope", "max_tokens_per_day"}),
        ("everyone", {"max_cost_per_month_usd": 0}, {"max_cost_per_month_usd"}),
        ("everyone", {"max_requests_per_minute": 10**10}, {"max_requests_per_minute"}),
        ("everyone", {}, {"max_requests_per_minute"}),
        ("agent:agent_none", {"max_tokens_per_day": 1}, {"scope"}),
        ("user:user_none", {"max_tokens_per_day": 1}, {"scope"}),
    ],
)
async def test_a_limit_that_cannot_be_meant_is_refused(
    live: Live, scope: str, amounts: dict[str, Any], fields: set[str]
) -> None:
    answer = await set_limit(live, scope, **amounts)
    assert answer.status == 400
    assert set(answer.body["error"]["fields"]) == fields
    assert await limits(live.admin) == {}


async def test_people_see_the_limits_that_concern_them_and_change_none(
    live: Live, data_dir: Path
) -> None:
    agent = await create_agent(live.admin)
    user_id = add_person(data_dir, "ann", "user")
    login = await live.api.call(
        "POST", "/api/auth/login", {"username": "ann", "password": "a long walk in the rain"}
    )
    ann = live.api.acting_as(authorization=f"Bearer {login.body['access_token']}")
    for scope in ("everyone", f"user:{user_id}", f"agent:{agent.agent_id}"):
        assert (await set_limit(live, scope, max_tokens_per_day=1_000)).status == 200

    seen = await limits(ann)
    refused = await ann.call("PUT", "/api/v1/limits/everyone", {"max_tokens_per_day": 2})
    of_agent = await runtime(live, agent).call("GET", "/api/limits")

    assert set(seen) == {"everyone", f"user:{user_id}"}
    assert refused.status == 403
    assert of_agent.status == 403
    assert len(await limits(live.admin)) == 3


async def test_limits_come_in_pages(live: Live) -> None:
    agents = [await create_agent(live.admin) for _ in range(3)]
    for agent in agents:
        await set_limit(live, f"agent:{agent.agent_id}", max_tokens_per_day=1)
    first = (await live.admin.call("GET", "/api/limits?page_size=2")).body
    token = first["next_page_token"]
    second = (await live.admin.call("GET", f"/api/limits?page_size=2&page_token={token}")).body

    seen = [each["scope"] for each in [*first["limits"], *second["limits"]]]
    assert seen == sorted(f"agent:{agent.agent_id}" for agent in agents)
    assert second["next_page_token"] == ""


async def test_a_month_lends_no_more_than_its_limit(
    live: Live, data_dir: Path, clock: TurnedClock
) -> None:
    first, second = [await create_agent(live.admin) for _ in range(2)]
    await set_limit(live, "everyone", max_cost_per_month_usd=1.5)
    whole = await handshake(live, first, 1)
    part = await handshake(live, second, 1)
    minimum = await handshake(live, second, 1, minimum_budget_usd=0.5)
    refused = await handshake(live, first, 1)
    grown = await runtime(live, first).call(
        "POST", "/api/budget/refresh", {"lease_id": whole.body["lease_id"]}
    )

    assert whole.body["budget_granted_usd"] == 1
    assert part.body["budget_granted_usd"] == 0.5
    assert part.body["partial"]
    for answer in (minimum, refused, grown):
        assert answer.status == 402
        error = answer.body["error"]
        assert (error["code"], error["reason"]) == ("BUDGET_EXCEEDED", "LIMIT_COST_PER_MONTH")
        assert error["details"]["scope"] == "everyone"

    # What is spent and what is lent both count; what is given back may be lent again.
    await report(live, first, whole.body["lease_id"], 1, cost_usd=0.25)
    await runtime(live, first).call(
        "POST", "/api/budget/return", {"lease_id": whole.body["lease_id"]}
    )
    shown = (await limits(live.admin))["everyone"]
    assert (shown["cost_this_month_usd"], shown["leased_usd"]) == (0.25, 0.5)
    assert (await handshake(live, first, 5)).body["budget_granted_usd"] == 0.75

    clock.advance(40 * 24 * 3600)
    await end_leases(data_dir, clock)
    new_month = await handshake(live, second, 5)
    assert new_month.body["budget_granted_usd"] == 1.5
    assert (await handshake(live, second, 5)).status == 402


async def test_the_tightest_limit_decides_and_is_named(live: Live) -> None:
    agent = await create_agent(live.admin)
    scope = f"agent:{agent.agent_id}"
    await set_limit(live, "everyone", max_cost_per_month_usd=5)
    await set_limit(live, scope, max_cost_per_month_usd=0.2)
    granted = await handshake(live, agent, 1)
    refused = await handshake(live, agent, 1)
    assert granted.body["budget_granted_usd"] == 0.2
    assert refused.body["error"]["details"]["scope"] == scope


async def test_a_repeated_handshake_is_answered_although_the_limit_is_used_up(live: Live) -> None:
    agent = await create_agent(live.admin)
    await set_limit(live, "everyone", max_cost_per_month_usd=1)
    first = await handshake(live, agent, 1, request_id="once")
    again = await handshake(live, agent, 1, request_id="once")
    assert again.status == 200
    assert again.body["lease_id"] == first.body["lease_id"]


async def test_reports_past_a_limit_are_booked_and_block_the_next_grants(
    live: Live, clock: TurnedClock
) -> None:
    agent = await create_agent(live.admin)
    await set_limit(live, f"agent:{agent.agent_id}", max_requests_per_minute=3)
    granted = await handshake(live, agent, 1)
    lease_id = granted.body["lease_id"]
    assert granted.body["allotment"]["requests_per_minute"] == 3
    for number in range(5):
        clock.advance(1)
        assert (await report(live, agent, lease_id, number)).status == 200

    refused = [
        await handshake(live, agent, 1),
        await runtime(live, agent).call("POST", "/api/budget/refresh", {"lease_id": lease_id}),
    ]
    for answer in refused:
        assert answer.status == 429
        error = answer.body["error"]
        assert (error["code"], error["reason"]) == ("RATE_LIMITED", "LIMIT_REQUESTS_PER_MINUTE")
        assert 1 <= int(answer.headers["Retry-After"]) <= 61
    shown = (await limits(live.admin))[f"agent:{agent.agent_id}"]
    assert shown["requests_last_minute"] == 5

    clock.advance(62)
    assert (await handshake(live, agent, 1)).status == 200


async def test_tokens_of_a_day_block_the_next_grants_until_midnight(
    live: Live, clock: TurnedClock
) -> None:
    agent = await create_agent(live.admin)
    await set_limit(live, "everyone", max_tokens_per_day=1_000)
    lease_id = (await handshake(live, agent, 1)).body["lease_id"]
    tokens = {"input_tokens": 700, "output_tokens": 200, "cache_read_tokens": 100}
    assert (await report(live, agent, lease_id, 1, **tokens)).status == 200

    refused = await handshake(live, agent, 1)
    assert refused.status == 429
    assert refused.body["error"]["reason"] == "LIMIT_TOKENS_PER_DAY"
    assert int(refused.headers["Retry-After"]) == 12 * 3600
    clock.advance(12 * 3600 + 1)
    assert (await handshake(live, agent, 1)).status == 200


async def test_what_was_used_is_known_after_a_restart(tmp_path: Path, clock: TurnedClock) -> None:
    async with open_live(tmp_path / "data", clock) as live:
        await create_provider(live.admin)
        agent = await create_agent(live.admin)
        await set_limit(live, "everyone", max_requests_per_minute=2, max_tokens_per_day=100)
        lease_id = (await handshake(live, agent, 1)).body["lease_id"]
        for number in range(2):
            await report(live, agent, lease_id, number, input_tokens=30)
        before = await limits(live.admin)
    async with open_live(tmp_path / "data", clock) as live:
        assert await limits(live.admin) == before
        assert before["everyone"]["tokens_today"] == 60
        assert before["everyone"]["requests_last_minute"] == 2
        assert (await handshake(live, agent, 1)).status == 429


async def test_a_repeated_report_counts_once(live: Live) -> None:
    agent = await create_agent(live.admin)
    await set_limit(live, "everyone", max_requests_per_minute=9)
    lease_id = (await handshake(live, agent, 1)).body["lease_id"]
    for _ in range(3):
        await report(live, agent, lease_id, 1, output_tokens=5)
    shown = (await limits(live.admin))["everyone"]
    assert (shown["requests_last_minute"], shown["tokens_today"]) == (1, 5)


async def test_changes_of_limits_are_in_the_audit_log(live: Live, data_dir: Path) -> None:
    await set_limit(live, "everyone", max_tokens_per_day=7)
    await live.admin.call("DELETE", "/api/v1/limits/everyone")
    with sqlite3.connect(data_dir / "steward.db", timeout=10) as connection:
        rows = connection.execute(
            "SELECT action, resource_id, before, after FROM audit_entry"
            " WHERE resource_type = 'limit' ORDER BY number"
        ).fetchall()
    assert rows[-2:] == [
        ("limit.set", "everyone", None, '{"max_tokens_per_day":7}'),
        ("limit.deleted", "everyone", '{"max_tokens_per_day":7}', None),
    ]
