"""`steward analytics`, `usage` and `traces`."""

from __future__ import annotations

import json
import urllib.request
from datetime import UTC, datetime

import pytest

from tests.integration.cli.conftest import Shell
from tests.live import ServerProcess


@pytest.fixture
async def scout(shell: Shell, server: ServerProcess) -> str:
    """An agent that told of a call that succeeded and one that failed."""
    await shell("agents", "create", "scout", "--budget", "2")
    token = (await shell("tokens", "create", "scout", "-q")).out.strip()
    told = {
        "event_type": "llm_request_completed",
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "model": "gpt-5",
        "provider": "openai",
        "input_tokens": 30,
        "output_tokens": 12,
    }
    failed = {"event_type": "llm_request_failed", "error_code": "429", "error_message": "slow down"}
    events = [told | {"event_id": "a"}, told | failed | {"event_id": "b"}]
    request = urllib.request.Request(
        f"http://{server.http_address}/api/v1/analytics/events",
        json.dumps({"events": events}).encode(),
        {"X-IC-Key": token, "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        assert json.load(answer)["accepted"] == 2
    return "scout"


async def test_what_was_told_is_printed_in_tables_and_as_json(shell: Shell, scout: str) -> None:
    requests = await shell("analytics", "requests", "--agent", scout)
    tokens = await shell("analytics", "tokens", "--json")
    models = await shell("analytics", "models", "--period", "last-7-days")
    total = await shell("analytics", "total", "--json")
    cost = await shell("analytics", "cost")
    minutes = await shell("analytics", "over-time", "--period", "last-hour", "--json")
    weeks = await shell("analytics", "over-time", "--step", "week", "--group-by", "model")
    nobody = await shell("analytics", "by-agent")
    providers = await shell("analytics", "by-provider", "--json")
    budgets = await shell("analytics", "budgets", "--risk", "low")
    usage = await shell("usage", scout)
    all_usage = await shell("usage", "--json")

    assert "1 (50.0 %)" in requests.out
    assert tokens.json["summary"]["total_tokens"] == 42
    assert "gpt-5" in models.out
    assert (total.json["total_spend_usd"], total.json["period"]) == (0, "all-time")
    assert "dearest" in cost.out
    assert (minutes.json["step"], minutes.json["total_tokens"]) == ("minute", 42)
    assert len(minutes.json["data"]) in (60, 61)
    assert "GPT-5" in weeks.out.upper()
    assert "total" in nobody.out
    assert providers.json["data"] == []
    assert "scout" in budgets.out
    assert "scout" in usage.out
    assert all_usage.json["totals"]["allocated_usd"] == 2

    listed = await shell("traces", "list", "--agent", scout, "--json")
    table = await shell("traces", "list", "--status", "failed", "--since", "2026-01-01")
    assert [trace["status"] for trace in listed.json] in (
        ["completed", "failed"],
        ["failed", "completed"],
    )
    failed = next(trace for trace in listed.json if trace["status"] == "failed")
    shown = await shell("traces", "get", failed["id"])
    assert failed["id"] in table.out
    assert "429 slow down" in shown.out


async def test_what_a_project_spends_is_chosen_by_its_name(shell: Shell) -> None:
    await shell("projects", "create", "poor", "--budget", "0")
    await shell("agents", "create", "member", "--budget", "2", "--project", "poor")
    budgets = await shell("analytics", "budgets", "--project", "poor")
    usage = await shell("usage", "--project", "poor", "--json")
    requests = await shell("analytics", "requests", "--project", "poor", "--json")
    traces = await shell("traces", "list", "--project", "poor", "--json")

    assert "scout" not in budgets.out
    assert "exhausted (project)" in " ".join(budgets.out.split())
    assert [agent["agent_name"] for agent in usage.json["agents"]] == ["member"]
    assert (requests.json["total_requests"], traces.json) == (0, [])
    assert (await shell("analytics", "total", "--project", "nowhere")).code == 5


async def test_what_is_not_there_or_not_meant_ends_with_its_code(shell: Shell) -> None:
    assert (await shell("traces", "get", "trace_none")).code == 5
    assert (await shell("analytics", "total", "--agent", "nobody")).code == 5
    wrong = await shell("analytics", "models", "--period", "ever")
    assert wrong.code == 2
    assert "last-7-days" in wrong.err
