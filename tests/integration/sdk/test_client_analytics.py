"""Figures and traces as both clients read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from steward_client.errors import InvalidRequest, NotFound
from tests.integration.sdk.conftest import Call
from tests.live import Live, create_agent, create_provider
from tests.spending import borrow


async def test_figures_are_exact_dollars(call: Call, live: Live) -> None:
    await create_provider(live.admin)
    spender = await borrow(live, await create_agent(live.admin, budget_usd=2))
    await spender.spend("a", "0.000000001")
    await spender.spend("b", "0.5")
    chosen: dict[str, Any] = {"agent_id": spender.agent.agent_id, "period": "last-7-days"}

    total = await call("analytics.total_spending", **chosen)
    agents = await call("analytics.spending_by_agent", **chosen)
    providers = await call("analytics.spending_by_provider", provider="openai")
    cost = await call("analytics.cost_per_request", model="own")
    requests = await call("analytics.request_usage")
    tokens = await call("analytics.tokens_by_agent")
    models = await call("analytics.models")
    budgets = await call("analytics.budget_status", threshold=10, risk_level="low")
    usage = await call("usage.show")

    assert total.total_spend_usd == Decimal("0.500000001")
    assert total.period == "last-7-days"
    assert agents.data[0].spending_usd == agents.summary.total_spend_usd == total.total_spend_usd
    assert (providers.data[0].provider, providers.data[0].agent_count) == ("openai", 1)
    assert cost.average_cost_per_request_usd == Decimal("0.25")
    assert cost.min_cost_per_request_usd == Decimal("0.000000001")
    assert (requests.total_requests, requests.success_rate, requests.period) == (2, 100, "today")
    assert tokens.data[0].total_tokens == 0
    assert (models.data[0].model, models.summary.unique_models) == ("own", 1)
    assert budgets.data[0].remaining_usd == Decimal("1.499999999")
    assert (budgets.data[0].risk_level, budgets.data[0].status) == ("low", "active")
    assert usage.agents[0].spent_usd == usage.totals.spent_usd == total.total_spend_usd
    assert usage.calculated_at.utcoffset() == timedelta(0)


async def test_all_pages_are_one_answer(call: Call, live: Live) -> None:
    for number in range(101):
        body = {"name": f"agent-{number}", "budget_usd": 1}
        assert (await live.admin.call("POST", "/api/v1/agents", body)).status == 201

    usage = await call("usage.show")
    budgets = await call("analytics.budget_status")

    assert len({agent.agent_id for agent in usage.agents}) == 101
    assert usage.totals.agents == len(budgets.data) == budgets.summary.total_agents == 101


async def test_a_call_is_found_by_its_trace(call: Call, live: Live) -> None:
    await create_provider(live.admin)
    spender = await borrow(live, await create_agent(live.admin))
    began = datetime.now(UTC) - timedelta(minutes=1)
    for name in "abc":
        await spender.spend(name, "0.25")

    listed = await call("traces.list", since=began, status="completed", limit=2)
    shown = await call("traces.get", listed[0].id)

    assert [trace.request_id for trace in listed] == ["c", "b"]
    assert shown == listed[0]
    assert (shown.cost_usd, shown.status, shown.duration_ms) == (Decimal("0.25"), "completed", None)
    assert await call("traces.list", until=began) == ()


async def test_what_is_not_there_or_not_meant_is_an_error(call: Call) -> None:
    with pytest.raises(NotFound):
        await call("analytics.total_spending", agent_id="agent_none")
    with pytest.raises(NotFound):
        await call("traces.get", "trace_none")
    with pytest.raises(InvalidRequest) as wrong:
        await call("analytics.models", period="ever")
    assert wrong.value.reason == "INVALID_PERIOD"
