"""Runtimes of a test's server that borrow and spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steward.budget.v1 import budget_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from tests.live import Agent, Api, Live

NANOUSD = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Spender:
    """A runtime with an open lease."""

    agent: Agent
    api: Api
    lease_id: str

    async def spend(self, request_id: str, cost_usd: float | str = "0.000001") -> None:
        """Report one call."""
        body = {
            "lease_id": self.lease_id,
            "request_id": request_id,
            "model": "own",
            "cost_usd": cost_usd,
        }
        answer = await self.api.call("POST", "/api/budget/report", body)
        assert answer.status == 200, answer


async def borrow(live: Live, agent: Agent, budget_usd: float = 1) -> Spender:
    """Open a lease; the server must have one provider."""
    api = live.api.acting_as(x_ic_key=agent.ic_token)
    body = {"requested_budget_usd": budget_usd}
    granted = await api.call("POST", "/api/budget/handshake", body)
    assert granted.status == 200, granted
    return Spender(agent, api, granted.body["lease_id"])


async def spend_in_batches(
    live: Live, spender: Spender, request_ids: Sequence[str], model: str = "own"
) -> None:
    """Report one nano-dollar for each id over a session, and wait until all are durable."""
    stub: Any = BudgetServiceStub(live.channel)
    session = stub.Session(metadata=spender.agent.metadata)
    for first in range(0, len(request_ids), 500):
        usages = [
            budget_pb2.Usage(request_id=request_id, model=model, cost_nanousd=1)
            for request_id in request_ids[first : first + 500]
        ]
        batch = budget_pb2.ReportBatch(lease_id=spender.lease_id, usages=usages)
        await session.write(budget_pb2.SessionRequest(message_id=first + 1, report_batch=batch))
    await session.done_writing()
    durable = 0
    async for answer in session:
        assert not answer.HasField("refusal"), answer
        durable = max(durable, answer.report_ack.sequence)
    assert durable >= len(request_ids)
