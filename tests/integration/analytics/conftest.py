"""A whole server with a clock the tests turn, and agents that spend and tell."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from steward_server.settings import Settings
from tests.live import (
    ADMIN_PASSWORD,
    Agent,
    Api,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)
from tests.people import add_person
from tests.spending import Spender, borrow


@dataclass(frozen=True, slots=True)
class House:
    """The server as the tests of this room use it."""

    live: Live
    clock: TurnedClock
    folder: Path

    async def spender(self, budget_usd: float = 10, lent_usd: float = 5, **named: Any) -> Spender:
        agent = await create_agent(self.live.admin, budget_usd=budget_usd, **named)
        return await borrow(self.live, agent, lent_usd)

    def runtime(self, agent: Agent) -> Api:
        return self.live.api.acting_as(x_ic_key=agent.ic_token)

    async def enter(self, username: str, role: str = "user") -> tuple[str, Api]:
        """Someone else, signed in: their id, and the server as they call it."""
        user_id = add_person(self.folder, username, role)
        login = {"username": username, "password": ADMIN_PASSWORD}
        answer = await self.live.api.call("POST", "/api/auth/login", login)
        token = answer.body["access_token"]
        return user_id, self.live.api.acting_as(authorization=f"Bearer {token}")

    async def ask(self, path: str, api: Api | None = None) -> Any:
        """What an analytics path, or another one below /api, answers."""
        where = path if path.startswith("/api") else f"/api/v1/analytics/{path}"
        answer = await (api or self.live.admin).call("GET", where)
        assert answer.status == 200, answer
        return answer.body

    def event(self, name: str = "event-1", **changes: Any) -> dict[str, Any]:
        at = datetime.fromtimestamp(self.clock.now_us / 1e6, UTC)
        return {
            "event_id": name,
            "event_type": "llm_request_completed",
            "timestamp": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "model": "gpt-5",
            "provider": "openai",
            "input_tokens": 100,
            "output_tokens": 20,
        } | changes

    async def tell(self, agent: Agent, body: Any) -> Any:
        """Send events as the agent's runtime; the answer's body."""
        answer = await self.runtime(agent).call("POST", "/api/v1/analytics/events", body)
        assert answer.status == 202, answer
        return answer.body

    def ledger_used(self) -> Decimal:
        """What all agents have used, in dollars, by the ledger's own tables."""
        connection = sqlite3.connect(self.folder / "steward.db")
        (used,) = connection.execute(
            "SELECT sum(spent_nanousd + overrun_nanousd) FROM account WHERE scope_id LIKE 'agent:%'"
        ).fetchone()
        connection.close()
        return Decimal(used).scaleb(-9)


@pytest.fixture
async def house(tmp_path: Path, clock: TurnedClock) -> AsyncIterator[House]:
    folder = tmp_path / "data"
    async with live_server(live_settings(folder, Settings()), clock) as live:
        await create_provider(live.admin)
        yield House(live, clock, folder)
