"""A proxy on a real outbox before a real stand-in, and agents with the official packages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import orjson
import pytest

from steward.budget.v1 import budget_pb2 as pb
from steward_client.allowance import LimitReached
from steward_client.breaker import BreakerConfig
from steward_client.lent_key import LentKey
from steward_client.outbox import Outbox
from steward_client.price_snapshot import shipped_table
from steward_client.prices import PriceTable
from steward_client.proxy import MeteringProxy
from steward_client.purse import Purse, PurseConfig
from steward_client.relay import PiiSeen, RelayConfig
from steward_client.settlement import Tally
from steward_client.standin import StandIn, StandInConfig
from steward_client.wallet import Wallet

TOKEN = "sk-steward-test"
KEY = "sk-standin"


@cache
def price_table() -> PriceTable:
    return shipped_table(datetime(2026, 11, 1, tzinfo=UTC))


@dataclass
class Till:
    """Lends from its drawer, as a server would."""

    purse: Purse
    drawer_nanousd: int = 0
    asked: list[int] = field(default_factory=list)
    is_reachable: bool = True

    async def refresh(self, requested_nanousd: int) -> bool:
        if not self.is_reachable:
            return False
        self.asked.append(requested_nanousd)
        granted_nanousd = min(requested_nanousd, self.drawer_nanousd)
        self.drawer_nanousd -= granted_nanousd
        now_s = time.monotonic()
        self.purse.wallet.grow(granted_nanousd=granted_nanousd, duration_s=60, asked_at_s=now_s)
        return granted_nanousd > 0

    async def renew(self, lease_id: str) -> bool:
        return False

    async def allot(self, tokens: int) -> bool:
        return False

    @property
    def limit(self) -> LimitReached | None:
        return None

    @property
    def has_nothing_left(self) -> bool:
        return self.drawer_nanousd == 0


@dataclass
class Stall:
    """Everything between an agent and its provider, without a server."""

    standin: StandIn
    purse: Purse
    proxy: MeteringProxy
    outbox: Outbox
    till: Till
    tally: Tally
    pii: list[PiiSeen]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.port}"

    @cached_property
    def openai(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=TOKEN, max_retries=0)

    @cached_property
    def anthropic(self) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(base_url=self.url, api_key=TOKEN, max_retries=0)

    async def close_agents(self) -> None:
        for name in ("openai", "anthropic"):
            if name in self.__dict__:
                await self.__dict__[name].close()

    async def post(self, path: str, body: Any, *, token: str = TOKEN, **headers: str) -> Answer:
        """Call the proxy; header names are given with underscores."""
        return await _post(self.url + path, body, token, headers)

    async def post_directly(self, path: str, body: Any) -> Answer:
        """Call the provider."""
        return await _post(self.standin.url + path, body, KEY, {})

    async def reports(self) -> list[pb.Usage]:
        """What is owed, in order."""
        await self.outbox.flush()
        bodies = self.outbox.reports(self.purse.wallet.lease_id, after=0, limit=10_000)
        return [pb.Usage.FromString(report.body) for report in bodies]


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Any


async def _post(url: str, body: Any, token: str, headers: dict[str, str]) -> Answer:
    sent = {"authorization": f"Bearer {token}"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    text = body if isinstance(body, bytes) else orjson.dumps(body)
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, data=text, headers=sent) as response,
    ):
        return Answer(response.status, await response.read(), response.headers.copy())


@asynccontextmanager
async def open_stall(
    path: Path,
    *,
    granted_nanousd: int = 1_000_000_000,
    budget_nanousd: int = 10**12,
    drawer_nanousd: int = 0,
    kind: str = "openai",
    standin: StandInConfig | None = None,
    relay: RelayConfig | None = None,
    breaker: BreakerConfig | None = None,
    purse: dict[str, Any] | None = None,
) -> AsyncIterator[Stall]:
    """A stall with so much money in its purse, and so much more to be had."""
    outbox = Outbox.open(path / "outbox.sqlite")
    outbox.start()
    spending = Purse(
        PurseConfig(budget_nanousd=budget_nanousd, tranche_nanousd=10_000_000, **(purse or {}))
    )
    till = Till(spending, drawer_nanousd)
    spending.attach(till)
    spending.open_lease(
        Wallet.of_lease(
            "lease_1",
            granted_nanousd=granted_nanousd,
            duration_s=600,
            asked_at_s=time.monotonic(),
        ),
        outbox,
    )
    pii: list[PiiSeen] = []
    async with StandIn(price_table(), standin) as provider:
        proxy = MeteringProxy(
            spending,
            key=LentKey(kind, provider.url, KEY),
            prices=price_table(),
            config=relay,
            breaker=breaker,
            on_pii=lambda _tally, seen: pii.append(seen),
        )
        await proxy.start()
        stall = Stall(provider, spending, proxy, outbox, till, proxy.admit(TOKEN), pii)
        try:
            yield stall
        finally:
            await stall.close_agents()
            await proxy.close()
            await outbox.close()


StallOf = Callable[..., Any]


@pytest.fixture
def stall_of(tmp_path: Path) -> StallOf:
    """Opens a stall; see `open_stall` for what can be set."""
    return lambda **settings: open_stall(tmp_path, **settings)


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)
