"""Receivers that hang, send too much or nothing, and runtimes that tell too much."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio

from steward.events.v1 import events_pb2
from steward_server.alerts.alert import MAX_TOLD
from steward_server.alerts.config import AlertsConfig
from steward_server.settings import Settings
from tests.integration.alerts.receiver import (
    WAIT_S,
    Receiver,
    deliveries,
    receiving,
    try_out,
    until_done,
    webhook,
)
from tests.integration.budget.runtime import session
from tests.live import Live, create_agent, create_provider, live_server, live_settings

CONFIG = AlertsConfig(
    allow_private=True, timeout_s=1, backoff_s=0.05, backoff_limit_s=0.2, max_attempts=2
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def serving(data_dir: Path, config: AlertsConfig = CONFIG) -> AsyncIterator[Live]:
    async with live_server(live_settings(data_dir, Settings(alerts=config))) as live:
        await create_provider(live.admin)
        yield live


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    async with serving(tmp_path_factory.mktemp("receivers") / "data") as live:
        yield live


Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answering) -> AsyncIterator[Receiver]:
    """A receiver that writes what it likes to the socket."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            await answer(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        yield Receiver(url=f"http://127.0.0.1:{port}")
    finally:
        server.close()


async def a_body_that_never_comes(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(WAIT_S)


async def a_body_without_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(bytes(65_536))
        await writer.drain()


@cache
def bomb() -> bytes:
    return gzip.compress(bytes(50_000_000))


async def a_bomb(writer: asyncio.StreamWriter) -> None:
    packed = bomb()
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n"
    writer.write(head.encode() + packed)
    await writer.drain()


@pytest.mark.parametrize("answer", [a_body_that_never_comes, a_body_without_end, a_bomb])
async def test_what_follows_the_status_is_not_waited_for(live: Live, answer: Answering) -> None:
    bomb()  # packed before anybody waits for it
    async with answering(answer) as receiver, webhook(live.admin, receiver) as made:
        await try_out(live.admin, made)
        await until_done(live.admin, made, 1)
        (delivery,) = await deliveries(live.admin, made)
        assert (delivery["attempts"], delivery["last_status_code"]) == (1, 200)


async def headers_without_end(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-more: and more\r\n" * 1_000)
        await writer.drain()


async def not_http(writer: asyncio.StreamWriter) -> None:
    writer.write(b"hello\r\n\r\n")
    await writer.drain()


async def hangs(_writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(WAIT_S)


@pytest.mark.parametrize("answer", [headers_without_end, not_http, hangs])
async def test_what_is_no_answer_is_a_failure_that_ends(live: Live, answer: Answering) -> None:
    async with answering(answer) as receiver, webhook(live.admin, receiver) as made:
        await try_out(live.admin, made)
        async with asyncio.timeout(WAIT_S):
            while (found := await deliveries(live.admin, made))[0]["status"] != "dead":
                await asyncio.sleep(0.01)
        assert (found[0]["attempts"], found[0]["last_status_code"]) == (2, 0)


async def test_a_runtime_cannot_flood_a_webhook_by_choosing_its_words(live: Live) -> None:
    agent, other = await create_agent(live.admin), await create_agent(live.admin)
    async with (
        receiving() as receiver,
        webhook(live.admin, receiver, events=["CircuitOpen"]),
    ):
        async with session(live.channel, agent) as runtime:
            for number in range(MAX_TOLD + 10):
                told = events_pb2.CircuitOpened(provider=f"p{number}", failures=1)
                await runtime.ask(circuit_opened=told)
        async with session(live.channel, other) as runtime:
            await runtime.ask(circuit_opened=events_pb2.CircuitOpened(provider="p", failures=1))
        await receiver.has(MAX_TOLD + 1)
        await asyncio.sleep(0.1)
        told_by = [body["data"]["agent_id"] for body in receiver.bodies]
        assert told_by == [agent.agent_id] * MAX_TOLD + [other.agent_id]


async def test_no_more_waits_for_a_webhook_than_is_allowed(tmp_path: Path) -> None:
    config = replace(CONFIG, max_pending=3, backoff_s=30.0, backoff_limit_s=30.0)
    async with serving(tmp_path / "data", config) as live, receiving() as receiver:
        receiver.answers = [503] * 10
        agents = [await create_agent(live.admin) for _ in range(5)]
        async with webhook(live.admin, receiver) as made:
            for agent in agents:
                async with session(live.channel, agent) as runtime:
                    told = events_pb2.CircuitOpened(provider="p", failures=1)
                    await runtime.ask(circuit_opened=told)
            async with asyncio.timeout(WAIT_S):
                while True:
                    metrics = (await live.api.call("GET", "/metrics")).body
                    if 'webhook_deliveries_total{outcome="dropped"} 2.0' in metrics:
                        break
                    await asyncio.sleep(0.02)
            assert len(await deliveries(live.admin, made)) == 3
            path = f"/api/v1/webhooks/{made['id']}"
            assert (await live.admin.call("GET", path)).body["pending_count"] == 3
