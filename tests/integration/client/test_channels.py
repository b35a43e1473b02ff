"""A channel to a server that is far away, or busy."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from steward_client.channels import Address
from tests.relay import Relay


async def test_a_server_that_is_slow_to_greet_is_waited_for() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        Relay(f"127.0.0.1:{port}", delay_s=0.25) as wire,
        Address.parse(wire.address).open_async() as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as answered:
            await channel.unary_unary("/steward.Nobody/Serves")(b"")
    await server.stop(None)

    assert answered.value.code() is grpc.StatusCode.UNIMPLEMENTED
