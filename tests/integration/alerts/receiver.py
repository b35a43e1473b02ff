"""A receiver of webhooks, and what its tests do again and again."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.live import Agent, Answer, Api

WAIT_S = 8.0


@dataclass
class Receiver:
    """Takes deliveries, and answers them as it is told to."""

    url: str = ""
    received: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses of the next answers, then 200; 0 hangs."""
    under_way: int = 0
    most_under_way: int = 0

    async def take(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append((headers, await request.read()))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            status = self.answers.pop(0) if self.answers else 200
            if status == 0:
                await asyncio.sleep(30)
            moved = {"location": f"{self.url}/elsewhere"} if status == 302 else {}
            return web.Response(status=status, headers=moved, body=b"x" * 10_000)
        finally:
            self.under_way -= 1

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(body) for _, body in self.received]

    @property
    def types(self) -> list[str]:
        return [body["type"] for body in self.bodies]

    async def has(self, count: int) -> None:
        await until(lambda: len(self.received) >= count)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def receiving(receiver: Receiver | None = None) -> AsyncIterator[Receiver]:
    """A receiver on a free port, for as long as the block lasts."""
    receiver = receiver or Receiver()
    runner = web.ServerRunner(web.Server(receiver.take), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield receiver
    await runner.cleanup()


@asynccontextmanager
async def webhook(admin: Api, receiver: Receiver, **fields: Any) -> AsyncIterator[dict[str, Any]]:
    """A webhook to the receiver, deleted at the end."""
    answer = await admin.call("POST", "/api/v1/webhooks", {"url": receiver.url} | fields)
    assert answer.status == 201, answer
    yield answer.body
    await admin.call("DELETE", f"/api/v1/webhooks/{answer.body['id']}")


async def deliveries(admin: Api, made: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await admin.call("GET", f"/api/v1/webhooks/{made['id']}/deliveries")
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.body["deliveries"]
    return found


async def try_out(admin: Api, made: dict[str, Any]) -> Answer:
    return await admin.call("POST", f"/api/v1/webhooks/{made['id']}/test", {})


async def lend(api: Api, agent: Agent, budget_usd: float = 1) -> Answer:
    body = {"requested_budget_usd": budget_usd}
    api = api.acting_as(x_ic_key=agent.ic_token)
    return await api.call("POST", "/api/budget/handshake", body)


async def spend(api: Api, agent: Agent, lease_id: str, *costs_usd: float) -> None:
    api = api.acting_as(x_ic_key=agent.ic_token)
    for cost_usd in costs_usd:
        body = {
            "lease_id": lease_id,
            "request_id": f"r{time.monotonic_ns()}",
            "model": "own",
            "cost_usd": cost_usd,
        }
        answer = await api.call("POST", "/api/budget/report", body)
        assert answer.status == 200, answer


def verify(secret: str, headers: dict[str, str], body: bytes) -> bool:
    """As a receiver checks it, written after the specification and nothing of the server's."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = b".".join(
        [headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), body]
    )
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    is_fresh = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    given = [each.partition(",") for each in headers["webhook-signature"].split()]
    return is_fresh and any(version == "v1" and text == expected for version, _, text in given)


async def until_done(admin: Api, made: dict[str, Any], count: int) -> None:
    async with asyncio.timeout(WAIT_S):
        while [each["status"] for each in await deliveries(admin, made)] != ["delivered"] * count:
            await asyncio.sleep(0.01)
