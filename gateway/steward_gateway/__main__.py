"""A gateway in a process of its own: `python -m steward_gateway --core localhost:50051`."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from steward_gateway.app import build_app, serve_gateway
from steward_gateway.channel import ChannelTransport, open_channel
from steward_gateway.config import GatewayConfig
from steward_gateway.contracts import load_contracts


def main() -> None:
    """Serve until told to stop by SIGINT or SIGTERM."""
    arguments = argparse.ArgumentParser(prog="steward_gateway", description=__doc__)
    arguments.add_argument("--core", required=True, metavar="HOST:PORT", help="the gRPC server")
    arguments.add_argument("--host", default="127.0.0.1", help="address to listen at")
    arguments.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    arguments.add_argument(
        "--descriptors", type=Path, help="a descriptor set other than the one that ships"
    )
    given = arguments.parse_args()
    uvloop.run(serve(given.core, given.host, given.port, given.descriptors))


async def serve(core: str, host: str, port: int, descriptors: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    contracts = load_contracts(descriptors)
    async with open_channel(core) as channel:
        transport = ChannelTransport(channel, contracts)
        gateway = build_app(transport, contracts=contracts, config=GatewayConfig())
        running = await serve_gateway(gateway, host=host, port=port)
        await stop.wait()
        await running.stop()


if __name__ == "__main__":
    main()
