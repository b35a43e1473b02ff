"""A whole server with the people and agents that requests are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from steward.requests.v1 import requests_pb2 as pb
from steward.requests.v1.requests_pb2_grpc import BudgetRequestServiceStub
from steward_server.auth.accounts import Role
from tests.books import read_books, wrong_in
from tests.integration.conftest import Metadata, Server, ic_key

USD = 1_000_000_000
WHY = "The crawl has grown to twice its size."
NO = "There is no money left this quarter."


@dataclass(frozen=True, slots=True)
class Desk:
    """Calls the service as the people of a small house."""

    server: Server
    ann: Metadata
    """An administrator beside the first one."""
    owner_id: str
    owner: Metadata
    """A user, who owns the agent."""
    agent_id: str
    runtime: Metadata

    @property
    def admin(self) -> Metadata:
        return self.server.admin

    @property
    def stub(self) -> Any:
        return BudgetRequestServiceStub(self.server.channel)

    async def ask(self, budget_usd: float = 8, *, by: Metadata = (), **fields: Any) -> Any:
        wanted: dict[str, Any] = {
            "agent_id": self.agent_id,
            "requested_budget_nanousd": round(budget_usd * USD),
            "justification": WHY,
        }
        request = pb.CreateBudgetRequestRequest(**(wanted | fields))
        answer = await self.stub.CreateBudgetRequest(request, metadata=by or self.owner)
        return answer.budget_request

    async def get(self, request_id: str, by: Metadata = ()) -> Any:
        request = pb.GetBudgetRequestRequest(budget_request_id=request_id)
        answer = await self.stub.GetBudgetRequest(request, metadata=by or self.admin)
        return answer.budget_request

    async def list(self, by: Metadata = (), **fields: Any) -> Any:
        request = pb.ListBudgetRequestsRequest(**fields)
        return await self.stub.ListBudgetRequests(request, metadata=by or self.admin)

    async def approve(self, request_id: str, /, by: Metadata = (), **fields: Any) -> Any:
        request = pb.ApproveBudgetRequestRequest(budget_request_id=request_id, **fields)
        answer = await self.stub.ApproveBudgetRequest(request, metadata=by or self.admin)
        return answer.budget_request

    async def reject(self, request_id: str, by: Metadata = (), reason: str = NO) -> Any:
        request = pb.RejectBudgetRequestRequest(
            budget_request_id=request_id, rejection_reason=reason
        )
        answer = await self.stub.RejectBudgetRequest(request, metadata=by or self.admin)
        return answer.budget_request

    async def cancel(self, request_id: str, by: Metadata = ()) -> None:
        request = pb.CancelBudgetRequestRequest(budget_request_id=request_id)
        await self.stub.CancelBudgetRequest(request, metadata=by or self.owner)

    async def history(self, by: Metadata = (), **fields: Any) -> Any:
        request = pb.ListBudgetChangesRequest(**({"agent_id": self.agent_id} | fields))
        return await self.stub.ListBudgetChanges(request, metadata=by or self.admin)

    async def allocated(self) -> int:
        balances = await self.server.desk.balances(
            self.server.database, [self.agent_id], self.server.clock()
        )
        return balances[self.agent_id].allocated_nanousd

    async def sweep(self) -> None:
        now_us = self.server.clock()
        database, desk = self.server.database, self.server.desk
        await database.run(lambda transaction: desk.sweep(transaction, now_us))

    def check_books(self) -> None:
        assert wrong_in(read_books(self.server.folder)) == []


@pytest.fixture
async def desk(server: Server) -> Desk:
    """An agent with 5 dollars, its owner, and two administrators."""
    _, ann = await server.enter("ann", Role.ADMIN)
    owner_id, owner = await server.enter("olga", Role.USER)
    agent = await server.create_agent(owner_id=owner_id)
    token = (await server.create_token(agent.id)).token
    return Desk(server, ann, owner_id, owner, agent.id, ic_key(token))
