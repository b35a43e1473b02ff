"""Connections to ports of pods, by way of the API: they end in the pod's own network."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

from steward_server.environments.driver import Unusable
from steward_server.environments.kubernetes.channels import Channels, forward_to
from steward_server.environments.kubernetes.cluster import Cluster

_DATA, _ERROR = 0, 1
_FIRST_BYTES = 2
"""Each of the two channels begins with the number of the port."""
_REFUSAL_S = 0.15
"""How long a refusal is waited for: that a port is open is not told."""


class Forward:
    """One of them, both halves at once."""

    def __init__(self, told: Channels, stack: AsyncExitStack, port: int) -> None:
        self._channels = told
        self._stack = stack
        self._port = port
        self._heads = {_DATA, _ERROR}
        self._pending: asyncio.Task[bytes | None] | None = None

    async def begin(self) -> None:
        """Wait a moment whether it is refused.

        Raises:
            Unusable: reason PORT_REFUSED; nobody listens there.
        """
        self._pending = asyncio.create_task(self._receive())
        done, _ = await asyncio.wait({self._pending}, timeout=_REFUSAL_S)
        if done:
            self._pending.result()

    async def _receive(self) -> bytes | None:
        while (message := await self._channels.receive()) is not None:
            channel, data = message
            if channel in self._heads:
                self._heads.discard(channel)
                data = data[_FIRST_BYTES:]
            if not data:
                continue
            if channel == _ERROR:
                raise Unusable(
                    "PORT_REFUSED",
                    f"nothing answers on port {self._port}: {data.decode(errors='replace')}",
                )
            return data
        return None

    def __aiter__(self) -> Forward:
        return self

    async def __anext__(self) -> bytes:
        data = None
        with suppress(Unusable):  # it was open and is not any more
            data = await (self._pending or self._receive())
        self._pending = None
        if data is None:
            await self.aclose()
            raise StopAsyncIteration
        return data

    async def write(self, data: bytes) -> None:
        await self._channels.send(_DATA, data)

    async def close(self) -> None:
        """Nothing: the API knows no end of one direction alone, and the other one may go on."""

    async def aclose(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        await self._stack.aclose()


async def open_port(cluster: Cluster, path: str, port: int) -> Forward:
    """A connection to a port; close it.

    Raises:
        Unusable: reason PORT_REFUSED.
        Refused, Unavailable: as `Cluster.socket`.
    """
    stack = AsyncExitStack()
    try:
        told = await stack.enter_async_context(forward_to(cluster, path, port))
        forward = Forward(told, stack, port)
        await forward.begin()
    except BaseException:
        await stack.aclose()
        raise
    return forward
