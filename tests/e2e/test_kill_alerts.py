"""The server is killed without warning between an alert's cause and its delivery.

What was answered is delivered at least once, each alert under one id however often it is sent.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest_asyncio
from aiohttp import web

from tests.integration.alerts.receiver import Receiver, lend, receiving, spend, until, verify
from tests.live import Api, ServerProcess, create_agent, create_provider

ENVIRON = {"STEWARD_ALERTS_ALLOW_PRIVATE": "1", "STEWARD_ALERTS_BACKOFF_S": "0.05"}


class Killer(Receiver):
    """Kills the server the moment it is told of something, before it answers."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__()
        self.server = server
        self.kills_left = 0

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        answer = await super().take(request)
        if self.kills_left:
            self.kills_left -= 1
            self.server.kill()
        return answer


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    server = ServerProcess(tmp_path, **ENVIRON)
    await server.start()
    yield server
    server.kill()


async def test_alerts_outlive_kill_9_between_cause_and_delivery(server: ServerProcess) -> None:
    draw = random.Random(7)
    killer = Killer(server)
    async with receiving(killer), aiohttp.ClientSession() as session:
        api = Api(f"http://{server.http_address}", session)
        admin = await api.sign_in()
        await create_provider(admin)
        made = await admin.call("POST", "/api/v1/webhooks", {"url": killer.url})
        assert made.status == 201, made
        warned: set[str] = set()
        refused: set[str] = set()
        for cycle in range(6):
            agents = [await create_agent(admin, budget_usd=1) for _ in range(5)]
            lease_ids = [(await lend(api, agent)).body["lease_id"] for agent in agents]
            # Half of the time in the middle of a delivery, else as soon as all is answered.
            killer.kills_left = cycle % 2 * draw.randint(1, 2)
            try:
                for agent, lease_id in zip(agents, lease_ids, strict=True):
                    await spend(api, agent, lease_id, 0.6)
                    warned.add(agent.agent_id)
                    assert (await lend(api, agent)).status == 402
                    refused.add(agent.agent_id)
            except aiohttp.ClientError:
                assert cycle % 2, "the server was gone before it was killed"
            server.kill()
            killer.kills_left = 0
            await server.start()
        assert len(warned) >= 15  # those of the cycles without a delivery in their midst

        def told(event_type: str) -> set[str]:
            return {
                body["data"]["agent_id"] for body in killer.bodies if body["type"] == event_type
            }

        await until(lambda: warned <= told("BudgetWarning"))
        await until(lambda: refused <= told("BudgetExhausted"))

        ids_of: dict[bytes, set[str]] = defaultdict(set)
        for headers, body in killer.received:
            assert verify(made.body["secret"], headers, body)
            ids_of[body].add(headers["webhook-id"])
        assert all(len(ids) == 1 for ids in ids_of.values())
        # Some were sent twice: those that were under way when the server was killed.
        assert len(killer.received) > len(ids_of)
        alerts = [(body["type"], body["data"]["agent_id"]) for body in map(json.loads, ids_of)]
        assert len(alerts) == len(set(alerts))
