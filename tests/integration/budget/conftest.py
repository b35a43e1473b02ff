"""A whole server with a clock the tests turn, a provider and its books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.budget.v1 import budget_pb2 as pb
from steward.budget.v1 import prices_pb2
from steward.budget.v1.budget_pb2_grpc import BudgetServiceStub
from steward.budget.v1.prices_pb2_grpc import PriceServiceStub
from steward.tokens.v1 import tokens_pb2
from steward.tokens.v1.tokens_pb2_grpc import TokenServiceStub
from steward_server.budget.config import BudgetConfig
from steward_server.in_process import InProcess
from steward_server.settings import Settings
from tests.books import Books, read_books, wrong_in
from tests.live import (
    Agent,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)

USD = 1_000_000_000
WAIT_S = 5.0
"""Longer than anything here takes, even on a busy machine."""

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Bank:
    """The server as the tests of this room use it."""

    live: Live
    clock: TurnedClock
    folder: Path

    @property
    def budget(self) -> Any:
        return BudgetServiceStub(self.live.channel)

    @property
    def admin(self) -> tuple[tuple[str, str], ...]:
        return tuple(self.live.admin.headers.items())

    # What an administrator does.

    async def agent(self, budget_usd: float = 10) -> Agent:
        return await create_agent(self.live.admin, budget_usd=budget_usd)

    async def has_provider(self) -> bool:
        answer = await self.live.admin.call("GET", "/api/v1/providers")
        return bool(answer.body["providers"])

    async def stop(self, agent: Agent, reason: str = "") -> None:
        request = agents_pb2.StopAgentRequest(agent_id=agent.agent_id, reason=reason)
        await self._agents.StopAgent(request, metadata=self.admin)

    async def start(self, agent: Agent) -> None:
        request = agents_pb2.StartAgentRequest(agent_id=agent.agent_id)
        await self._agents.StartAgent(request, metadata=self.admin)

    async def delete(self, agent: Agent) -> None:
        request = agents_pb2.DeleteAgentRequest(agent_id=agent.agent_id)
        await self._agents.DeleteAgent(request, metadata=self.admin)

    async def allocate(self, agent: Agent, budget_nanousd: int) -> None:
        request = agents_pb2.UpdateAgentRequest(
            agent_id=agent.agent_id, budget_nanousd=budget_nanousd
        )
        await self._agents.UpdateAgent(request, metadata=self.admin)

    async def status(self, agent: Agent) -> Any:
        request = agents_pb2.GetAgentStatusRequest(agent_id=agent.agent_id)
        return await self._agents.GetAgentStatus(request, metadata=self.admin)

    async def revoke_token(self, agent: Agent) -> None:
        request = tokens_pb2.RevokeTokenRequest(token_id=agent.token_id)
        await self._tokens.RevokeToken(request, metadata=self.admin)

    async def rotate_token(self, agent: Agent) -> None:
        request = tokens_pb2.RotateTokenRequest(token_id=agent.token_id)
        await self._tokens.RotateToken(request, metadata=self.admin)

    async def set_price(self, model: str, **rates: Any) -> Any:
        rates = {"input_picousd": 0, "output_picousd": 0} | rates
        price = prices_pb2.Price(provider="openai", model=model, **rates)
        request = prices_pb2.SetPriceRequest(price=price)
        return await self.prices.SetPrice(request, metadata=self.admin)

    async def price_version(self) -> str:
        request = prices_pb2.ListPricesRequest()
        listed = await self.prices.ListPrices(request, metadata=self.admin)
        return str(listed.version)

    @property
    def prices(self) -> Any:
        return PriceServiceStub(self.live.channel)

    # What a runtime does.

    async def handshake(self, agent: Agent, amount_nanousd: int | None = USD, **fields: Any) -> Any:
        request = pb.HandshakeRequest(requested_budget_nanousd=amount_nanousd, **fields)
        return await self.budget.Handshake(request, metadata=agent.metadata)

    async def lent(self, amount_nanousd: int = USD, *, budget_usd: float = 10) -> tuple[Agent, str]:
        """A new agent, and the id of a lease of it."""
        agent = await self.agent(budget_usd)
        granted = await self.handshake(agent, amount_nanousd)
        return agent, str(granted.lease_id)

    async def report(self, agent: Agent, lease_id: str, **fields: Any) -> Any:
        request = pb.ReportRequest(**usage_fields(lease_id=lease_id, **fields))
        return await self.budget.Report(request, metadata=agent.metadata)

    async def refresh(
        self, agent: Agent, lease_id: str, amount_nanousd: int | None = USD, **fields: Any
    ) -> Any:
        request = pb.RefreshRequest(
            lease_id=lease_id, requested_budget_nanousd=amount_nanousd, **fields
        )
        return await self.budget.Refresh(request, metadata=agent.metadata)

    async def give_back(self, agent: Agent, lease_id: str, **fields: Any) -> Any:
        request = pb.ReturnRequest(lease_id=lease_id, **fields)
        return await self.budget.Return(request, metadata=agent.metadata)

    def open_in_process(self, method: str, agent: Agent, requests: Any) -> Any:
        """Open a stream of the budget service without a socket, as the gateway does."""
        door = InProcess(self.live.running.dispatcher)
        name = f"/steward.budget.v1.BudgetService/{method}"
        return door.stream(name, requests, metadata=agent.metadata)

    # What the books say.

    def books(self) -> Books:
        return read_books(self.folder)

    def sound_books(self) -> Books:
        """The books, proven to balance and to follow from the journal."""
        books = self.books()
        assert wrong_in(books) == []
        return books

    async def pass_time(self, seconds: float, until: Callable[[Books], bool]) -> Books:
        """Turn the clock, and wait until what the server does by itself has been done."""
        self.clock.advance(seconds)
        return await self.wait(until)

    async def wait(self, until: Callable[[Books], bool]) -> Books:
        """Wait until the books are as expected."""
        async with asyncio.timeout(WAIT_S):
            while not until(books := self.books()):
                await asyncio.sleep(0.005)
        return books

    @property
    def _agents(self) -> Any:
        return AgentServiceStub(self.live.channel)

    @property
    def _tokens(self) -> Any:
        return TokenServiceStub(self.live.channel)


def lease_is(lease_id: str, *states: str) -> Callable[[Books], bool]:
    """Whether a lease is in one of these states, for `wait` and `pass_time`."""
    return lambda books: books.lease(lease_id).state in states


def usage_fields(**fields: Any) -> dict[str, Any]:
    """A usage of a tenth of a cent under an id never used before, but for what is said."""
    usual = {"request_id": f"call-{next(_numbers)}", "model": "gpt-4o", "cost_nanousd": 1_000_000}
    return {name: value for name, value in (usual | fields).items() if value is not None}


@asynccontextmanager
async def open_bank(folder: Path, **budget: Any) -> AsyncIterator[Bank]:
    """A server of one's own with one provider; `budget` sets how money is lent."""
    clock = TurnedClock()
    config = BudgetConfig(**{"sweep_interval_s": 0.01, **budget})
    settings = live_settings(folder / "data", Settings(budget=config))
    async with live_server(settings, clock) as live:
        bank = Bank(live, clock, folder / "data")
        if not await bank.has_provider():
            await create_provider(live.admin)
        yield bank


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bank(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bank]:
    """One server for all tests of a module; each makes agents of its own."""
    async with open_bank(tmp_path_factory.mktemp("bank")) as opened:
        yield opened
