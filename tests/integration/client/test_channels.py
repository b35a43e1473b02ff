"""A channel to a server that is far away, busy, or gone without a word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from steward_client import channels
from steward_client.channels import Address
from tests.relay import Relay

REQUEST: Any = b""


async def silence(_request: bytes, context: Any) -> AsyncIterator[bytes]:
    await context.send_initial_metadata(())
    await asyncio.Event().wait()
    yield b"never"


@asynccontextmanager
async def quiet_server() -> AsyncIterator[str]:
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Follow": grpc.unary_stream_rpc_method_handler(silence)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("quiet", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def test_a_server_that_is_slow_to_greet_is_waited_for() -> None:
    async with (
        quiet_server() as server,
        Relay(server, delay_s=0.25) as relay,
        Address.parse(relay.address).open_async() as channel,
    ):
        call: Any = channel.unary_stream("/quiet/Follow")(REQUEST)
        await asyncio.wait_for(call.wait_for_connection(), 30)
        call.cancel()


async def test_a_stream_ends_when_the_server_is_gone_without_a_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "PING_MS", 100)
    monkeypatch.setattr(channels, "PING_TIMEOUT_MS", 100)
    async with (
        quiet_server() as server,
        Relay(server) as relay,
        Address.parse(relay.address).open_async() as channel,
    ):
        call: Any = channel.unary_stream("/quiet/Follow")(REQUEST)
        await call.wait_for_connection()
        relay.hang()

        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(call.read(), 30)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
