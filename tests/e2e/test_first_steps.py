"""The shortest path from nothing to money spent, over REST."""

from __future__ import annotations

from tests.live import Live, create_agent, create_provider


async def test_an_agent_borrows_spends_and_gives_back(live: Live) -> None:
    await create_provider(live.admin)
    agent = await create_agent(live.admin, budget_usd=5)
    runtime = live.api.acting_as(x_ic_key=agent.ic_token)

    granted = await runtime.call("POST", "/api/budget/handshake", {"requested_budget_usd": 2})
    lease_id = granted.body["lease_id"]
    report = {
        "lease_id": lease_id,
        "request_id": "call-1",
        "model": "gpt-4o",
        "input_tokens": 1_000,
        "output_tokens": 500,
    }
    booked = await runtime.call("POST", "/api/budget/report", report)
    returned = await runtime.call("POST", "/api/budget/return", {"lease_id": lease_id})
    status = await live.admin.call("GET", f"/api/agents/{agent.agent_id}/status")

    assert granted.body["budget_granted_usd"] == 2
    assert booked.body["cost_usd"] == 0.0075
    assert returned.body["returned_usd"] == 1.9925
    assert status.body["budget"]["spent_usd"] == 0.0075
    assert status.body["budget"]["available_usd"] == 4.9925
