"""How soon an approval is felt by a runtime that was refused."""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import pytest

from steward_client.async_runtime import AsyncRuntime
from steward_client.call_bound import CallBound
from steward_client.lending import OutOfMoney
from steward_client.purse import happens
from tests.integration.budget.runtime import session
from tests.integration.client.conftest import price_table
from tests.live import (
    Live,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)

WHY = "The crawl has grown to twice its size."


async def approve_next(live: Live, agent_id: str, budget_usd: int) -> float:
    """Ask for a budget and approve it; when the approval was sent."""
    body = {
        "agent_id": agent_id,
        "requested_budget_usd": budget_usd,
        "justification": WHY,
    }
    asked = await live.admin.call("POST", "/api/v1/budget/requests", body)
    assert asked.status == 201, asked
    path = f"/api/v1/budget/requests/{asked.body['id']}/approve"
    sent_s = time.perf_counter()
    answer = await live.admin.call("PATCH", path, {})
    assert answer.status == 200, answer
    return sent_s


def call_of(nanousd: int) -> CallBound:
    """A call that costs so much, and cannot be made to cost less."""
    tariff = price_table().find("openai", "gpt-4o-mini")
    assert tariff is not None
    tokens = nanousd * 1_000_000 // tariff.bound_nanousd(input_tokens=0, output_tokens=1_000_000)
    return CallBound("gpt-4o-mini", tariff, 0, tokens, tokens)


async def measure(folder: Path, count: int) -> tuple[list[float], list[float]]:
    """Seconds from an approval to what is told on the stream, and to the first grant after it."""
    told_s, granted_s = [], []
    async with live_server(live_settings(folder / "data")) as live:
        await create_provider(live.admin)
        agent = await create_agent(live.admin, budget_usd=1)
        runtime = AsyncRuntime(
            10_000,
            server=live.running.grpc_address,
            token=agent.ic_token,
            tranche=1,
            state_dir=folder / "state",
        )
        async with runtime, session(live.channel, agent) as stream:
            purse = runtime._purse
            for number in range(1, count + 1):
                # Refused, as a call would be.
                granted_nanousd = purse.granted_nanousd
                with pytest.raises(OutOfMoney):
                    await purse.hold(call_of(granted_nanousd + 500_000_000))
                assert purse.granted_nanousd == granted_nanousd

                async def told() -> float:
                    await stream.control(lambda each: each.HasField("budget_remaining_nanousd"))
                    return time.perf_counter()

                telling = asyncio.create_task(told())

                async def grant(before: int = granted_nanousd) -> float:
                    while purse.granted_nanousd == before:
                        await happens(purse._settled, 10)
                    return time.perf_counter()

                granting = asyncio.create_task(grant())
                sent_s = await approve_next(live, agent.agent_id, number + 1)
                granted_s.append(await asyncio.wait_for(granting, 10) - sent_s)
                told_s.append(await asyncio.wait_for(telling, 10) - sent_s)
    return told_s, granted_s


def figures(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    return (
        f"median {statistics.median(ordered) * 1e3:.1f} ms, "
        f"p99 {ordered[int(len(ordered) * 0.99) - 1] * 1e3:.1f} ms"
    )


async def test_an_approval_reaches_a_runtime_that_was_refused(tmp_path: Path) -> None:
    told_s, granted_s = await measure(tmp_path, 5)
    assert len(told_s) == len(granted_s) == 5


@pytest.mark.proof
async def test_an_approval_is_felt_within_a_tenth_of_a_second(tmp_path: Path) -> None:
    told_s, granted_s = await measure(tmp_path, 200)
    print(f"\napproval to control: {figures(told_s)}; to grant: {figures(granted_s)}")
    assert statistics.median(told_s) < 0.1
    assert statistics.median(granted_s) < 0.2
