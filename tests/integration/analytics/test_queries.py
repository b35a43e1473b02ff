"""What people are told about spending and usage."""

from __future__ import annotations

import sqlite3
from decimal import Decimal

import pytest

from steward_server.analytics.periods import DAY_US, HOUR_US
from tests.integration.analytics.conftest import House
from tests.live import create_agent

OF_A_PERIOD = (
    "spending/total",
    "spending/by-agent",
    "spending/by-provider",
    "spending/avg-per-request",
    "usage/requests",
    "usage/tokens/by-agent",
    "usage/models",
)
LISTS = (
    "spending/by-agent",
    "spending/by-provider",
    "usage/tokens/by-agent",
    "usage/models",
    "budget/status",
    "/api/usage",
)


def to_midnight(house: House) -> None:
    """Turn the clock to a minute after the next midnight."""
    house.clock.now_us = (house.clock.now_us // DAY_US + 1) * DAY_US + 60 * 1_000_000


async def test_nothing_is_told_as_zeros(house: House) -> None:
    for path in OF_A_PERIOD:
        body = await house.ask(path)
        assert body.get("data", []) == []
        assert body["period"] == ("today" if path == "usage/requests" else "all-time")
    requests = await house.ask("usage/requests")
    assert (requests["total_requests"], requests["success_rate"]) == (0, 0)
    cost = await house.ask("spending/avg-per-request")
    assert (cost["min_cost_per_request"], cost["max_cost_per_request"]) == (0, 0)


async def test_spending_is_what_the_ledger_booked_overrun_included(house: House) -> None:
    within, beyond = await house.spender(), await house.spender(lent_usd=0.5)
    await within.spend("a", "0.000000003")
    await within.spend("b", "0.100000001")
    await beyond.spend("c", "0.75")
    total = await house.ask("spending/total")
    assert Decimal(str(total["total_spend"])) == house.ledger_used() == Decimal("0.850000004")
    by_agent = await house.ask("spending/by-agent")
    assert [row["spending"] for row in by_agent["data"]] == [0.75, 0.100000004]
    assert by_agent["data"][0] == {
        "agent_id": beyond.agent.agent_id,
        "agent_name": "test",
        "spending": 0.75,
        "budget": 10,
        "percent_used": 7.5,
        "request_count": 1,
    }
    assert by_agent["summary"]["total_spend"] == 0.850000004
    assert by_agent["summary"]["total_budget"] == 20
    cost = await house.ask("spending/avg-per-request")
    assert cost["min_cost_per_request"] == 0.000000003
    assert cost["max_cost_per_request"] == 0.75
    assert cost["average_cost_per_request"] == 0.283333335
    assert cost["total_requests"] == 3


async def test_a_period_begins_and_ends_to_the_moment(house: House) -> None:
    async def sign_in_again() -> None:
        house.live.admin.headers.update((await house.live.api.sign_in()).headers)

    to_midnight(house)
    await sign_in_again()
    spender = await house.spender()
    await spender.spend("a", "0.5")
    booked_us = house.clock.now_us

    async def spent(period: str) -> float:
        return float((await house.ask(f"spending/total?period={period}"))["total_spend"])

    assert [await spent(period) for period in ("today", "yesterday", "last-7-days")] == [
        0.5,
        0,
        0.5,
    ]
    house.clock.now_us = booked_us + DAY_US
    await sign_in_again()
    assert [await spent(period) for period in ("today", "yesterday")] == [0, 0.5]
    for days, period in ((7, "last-7-days"), (30, "last-30-days")):
        house.clock.now_us = booked_us + days * DAY_US
        await sign_in_again()
        assert await spent(period) == 0.5
        house.clock.now_us += 1
        assert await spent(period) == 0
    assert await spent("all-time") == 0.5


async def test_an_unknown_period_is_refused_with_those_there_are(house: House) -> None:
    for path in OF_A_PERIOD:
        for period in ("last7-days", "ever", "TODAY"):
            where = f"/api/v1/analytics/{path}?period={period}"
            answer = await house.live.admin.call("GET", where)
            assert (answer.status, answer.body["error"]["reason"]) == (400, "INVALID_PERIOD")
            assert "last-7-days, last-30-days" in answer.body["error"]["fields"]["period"]


async def test_what_belongs_to_others_is_not_there(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a", "0.5")
    await house.tell(spender.agent, house.event())
    ann_id, ann = await house.enter("ann")
    body = {"name": "hers", "budget_usd": 3, "owner_id": ann_id}
    hers = (await house.live.admin.call("POST", "/api/v1/agents", body)).body["id"]
    for path in OF_A_PERIOD:
        answer = await ann.call(
            "GET", f"/api/v1/analytics/{path}?agent_id={spender.agent.agent_id}"
        )
        assert (answer.status, answer.body["error"]["reason"]) == (404, "AGENT_NOT_FOUND"), path
        assert (await house.ask(f"{path}?agent_id={hers}", ann)).get("data", []) == []
    assert (await house.ask("spending/total", ann))["total_spend"] == 0
    assert (await house.ask("usage/requests", ann))["total_requests"] == 0
    status = await house.ask("budget/status", ann)
    assert [row["agent_id"] for row in status["data"]] == [hers]
    usage = await house.ask("/api/usage", ann)
    assert [row["agent_id"] for row in usage["agents"]] == [hers]
    assert usage["totals"]["allocated"] == 3
    for path in ("/api/usage", "/api/v1/analytics/budget/status", "/api/v1/traces"):
        answer = await ann.call("GET", f"{path}?agent_id={spender.agent.agent_id}")
        assert answer.status == 404


async def test_filters_choose_and_are_told_again(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a", "0.5")
    await house.tell(spender.agent, house.event("b", provider="anthropic", model="claude"))
    listed = await house.live.admin.call("GET", "/api/v1/providers")
    provider_id = listed.body["providers"][0]["id"]
    chosen = await house.ask(
        f"usage/models?provider_id={provider_id}&model=own&agent_id={spender.agent.agent_id}"
    )
    assert [row["model"] for row in chosen["data"]] == ["own"]
    assert chosen["filters"] == {
        "agent_id": spender.agent.agent_id,
        "provider_id": provider_id,
        "provider": None,
        "model": "own",
        "project_id": None,
    }
    models = await house.ask("usage/models?provider=anthropic")
    assert [(row["model"], row["unbilled_requests"]) for row in models["data"]] == [("claude", 1)]
    assert (await house.ask("spending/total?provider=anthropic"))["total_spend"] == 0
    neither = await house.ask(f"spending/total?provider_id={provider_id}&provider=anthropic")
    assert neither["total_spend"] == 0
    missing = await house.live.admin.call(
        "GET", "/api/v1/analytics/spending/total?provider_id=ip_none"
    )
    assert (missing.status, missing.body["error"]["reason"]) == (404, "PROVIDER_NOT_FOUND")


async def test_providers_tell_how_many_agents_paid_them(house: House) -> None:
    for _ in range(2):
        spender = await house.spender()
        await spender.spend("a", "0.5")
    body = await house.ask("spending/by-provider")
    (row,) = body["data"]
    assert (row["provider"], row["agent_count"], row["request_count"]) == ("openai", 2, 2)
    assert row["provider_id"].startswith("ip_")
    assert (row["spending"], row["avg_cost_per_request"]) == (1, 0.5)
    assert body["summary"] == {
        "total_spend": 1,
        "total_requests": 2,
        "providers_count": 1,
        "average_cost_per_request": 0.5,
    }


@pytest.mark.parametrize("path", LISTS)
async def test_totals_count_all_pages(house: House, path: str) -> None:
    for number in range(3):
        spender = await house.spender()
        body = {
            "lease_id": spender.lease_id,
            "request_id": "a",
            "model": f"model-{number}",
            "provider": f"provider-{number}",
            "input_tokens": 7,
            "cost_usd": 0.25,
        }
        assert (await spender.api.call("POST", "/api/budget/report", body)).status == 200
    rows = "agents" if path == "/api/usage" else "data"
    pages = [await house.ask(f"{path}?per_page=2&page={page}") for page in (1, 2, 3)]
    assert [len(page[rows]) for page in pages] == [2, 1, 0]
    for number, page in enumerate(pages, 1):
        assert page["pagination"] == {
            "page": number,
            "per_page": 2,
            "total": 3,
            "total_pages": 2,
        }
        sums = page["totals"] if path == "/api/usage" else page["summary"]
        assert sums == (pages[0]["totals"] if path == "/api/usage" else pages[0]["summary"])
        assert 3 in sums.values() or 0.75 in sums.values()
    where = path if path.startswith("/api") else f"/api/v1/analytics/{path}"
    for bad in ("page=0", "page=-1", "per_page=0", "per_page=101", "per_page=x"):
        answer = await house.live.admin.call("GET", f"{where}?{bad}")
        assert answer.status == 400
        assert list(answer.body["error"]["fields"]) == [bad.partition("=")[0]]


async def test_risk_follows_what_is_used(house: House) -> None:
    for spent in ("0.49", "0.5", "0.8", "0.95", "1"):
        spender = await house.spender(budget_usd=1, lent_usd=1)
        await spender.spend("a", spent)
    idle = await create_agent(house.live.admin, budget_usd=1)
    await house.live.admin.call("POST", f"/api/agents/{idle.agent_id}/stop", {})
    body = await house.ask("budget/status")
    assert [(row["risk_level"], row["status"], row["remaining"]) for row in body["data"]] == [
        ("exhausted", "exhausted", 0),
        ("critical", "active", 0.05),
        ("high", "active", 0.2),
        ("medium", "active", 0.5),
        ("low", "active", 0.51),
        ("low", "inactive", 1),
    ]
    assert body["summary"] == {
        "total_agents": 6,
        "active": 4,
        "inactive": 1,
        "exhausted": 1,
        "critical": 1,
        "high": 1,
        "medium": 1,
        "low": 2,
    }
    above = await house.ask("budget/status?threshold=80")
    assert [row["percent_used"] for row in above["data"]] == [100, 95]
    assert above["summary"]["total_agents"] == 2
    assert len((await house.ask("budget/status?status=exhausted"))["data"]) == 1
    assert len((await house.ask("budget/status?risk_level=low&status=active"))["data"]) == 1
    for bad in ("threshold=-1", "threshold=NaN", "status=tired", "risk_level=huge"):
        answer = await house.live.admin.call("GET", f"/api/v1/analytics/budget/status?{bad}")
        assert answer.status == 400


async def test_usage_is_the_ledger_and_what_was_asked_for_it(house: House) -> None:
    spender = await house.spender(budget_usd=10, lent_usd=5)
    body = {
        "lease_id": spender.lease_id,
        "request_id": "a",
        "model": "own",
        "input_tokens": 10,
        "cache_read_tokens": 5,
        "cost_usd": 6,
    }
    await spender.api.call("POST", "/api/budget/report", body)
    failed = house.event("f", event_type="llm_request_failed", error_code="500")
    await house.tell(spender.agent, failed)
    for path in ("/api/usage", "/api/v1/usage"):
        usage = await house.ask(path)
        row = {
            "allocated": 10,
            "reserved": 0,
            "spent": 6,
            "overrun": 1,
            "available": 4,
            "percent_used": 60,
            "requests": 2,
            "tokens": 15,
        }
        assert usage["agents"] == [
            row
            | {
                "agent_id": spender.agent.agent_id,
                "agent_name": "test",
                "risk_level": "medium",
                "risk_scope": f"agent:{spender.agent.agent_id}",
            }
        ]
        assert usage["totals"] == row | {"agents": 1}


async def test_a_deleted_agent_is_still_what_was_spent(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a", "0.5")
    await spender.api.call("POST", "/api/budget/return", {"lease_id": spender.lease_id})
    gone = await house.live.admin.call("DELETE", f"/api/v1/agents/{spender.agent.agent_id}")
    assert gone.status == 204
    assert (await house.ask("spending/total"))["total_spend"] == 0.5
    assert (await house.ask("spending/by-agent"))["data"][0]["agent_name"] == "test"
    assert (await house.ask("budget/status"))["data"] == []
    assert (await house.ask("/api/usage"))["agents"] == []
    where = f"/api/v1/analytics/spending/total?agent_id={spender.agent.agent_id}"
    assert (await house.live.admin.call("GET", where)).status == 404


async def test_sums_are_read_by_an_index_however_long_their_history(house: House) -> None:
    spender = await house.spender()
    await spender.spend("a")
    connection = sqlite3.connect(house.folder / "steward.db")
    hour = house.clock.now_us // HOUR_US
    for table, place in (
        ("usage_week", hour // 168),
        ("usage_day", hour // 24),
        ("usage_hour", hour),
    ):
        plan = connection.execute(
            f"EXPLAIN QUERY PLAN SELECT series_id, sum(cost) FROM (SELECT series_id,"
            f" {table}.cost_nanousd AS cost FROM usage_series JOIN {table}"
            f" ON {table}.place >= series_id * 1048576 + ?"
            f" AND {table}.place < series_id * 1048576 + ? WHERE grain = ?) GROUP BY series_id",
            (place, place + 1, "agent"),
        ).fetchall()
        steps = [str(row[3]) for row in plan]
        assert any(f"SEARCH {table} USING INTEGER PRIMARY KEY" in step for step in steps), steps
        assert any("usage_series_by_grain" in step for step in steps), steps
        assert not any("TEMP B-TREE" in step for step in steps), steps
    connection.close()
