"""Both clients against a whole server: calls of the blocking one are made on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from steward_client import AsyncClient, Client
from tests.live import ADMIN_PASSWORD, Live

Call = Callable[..., Any]


@pytest.fixture(params=["blocking", "awaited"])
async def call(live: Live, request: pytest.FixtureRequest) -> AsyncIterator[Call]:
    """Calls `agents.create` and the like, by name, on a client signed in as the administrator."""
    address = live.running.grpc_address
    if request.param == "blocking":
        with Client(address) as client:

            async def on_a_thread(name: str, /, *args: Any, **named: Any) -> Any:
                return await asyncio.to_thread(_method(client, name), *args, **named)

            await on_a_thread("login", "admin", ADMIN_PASSWORD)
            yield on_a_thread
        return
    async with AsyncClient(address) as waiting:

        async def awaited(name: str, /, *args: Any, **named: Any) -> Any:
            return await _method(waiting, name)(*args, **named)

        await awaited("login", "admin", ADMIN_PASSWORD)
        yield awaited


def _method(client: Any, name: str) -> Any:
    found = client
    for part in name.split("."):
        found = getattr(found, part)
    return found
