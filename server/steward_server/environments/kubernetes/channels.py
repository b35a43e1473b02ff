"""The WebSocket of an exec, attach or port-forward: channels, one byte before each message.

Version 4 of the protocol knows no end of input, version 5 has a message for it; clusters before
1.30 know only the former.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import aiohttp

from steward_server.environments.kubernetes.cluster import Cluster

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
_PIECE_BYTES = 256 * 1024
"""Of what is sent at once: some API servers take no larger message than a megabyte."""


class Channel(IntEnum):
    """What a message belongs to."""

    INPUT = 0
    OUTPUT = 1
    ERROR = 2
    STATUS = 3
    RESIZE = 4
    CLOSE = 255


class Channels:
    """An open one."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    @property
    def can_close(self) -> bool:
        """Whether the end of the input can be told."""
        return self._socket.protocol == V5

    async def receive(self) -> tuple[int, bytes] | None:
        """The next message; None once the other end is done or lost."""
        while True:
            message = await self._socket.receive()
            if message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT):
                data = message.data
                content = data.encode() if isinstance(data, str) else bytes(data)
                if len(content) > 1:  # an empty one says only that the channel is there
                    return content[0], content[1:]
            elif message.type in (
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.CLOSING,
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.ERROR,
            ):
                return None

    async def send(self, channel: int, data: bytes) -> None:
        """Send data; returns once there is room for more.

        Raises:
            ConnectionError: the other end is gone.
        """
        prefix = bytes((channel,))
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                await self._socket.send_bytes(prefix + data[start : start + _PIECE_BYTES])
        except (aiohttp.ClientError, ConnectionError, RuntimeError) as error:
            raise ConnectionError("the connection to the pod is gone") from error

    async def close_input(self) -> None:
        """Tell the end of the input, where that can be told."""
        await self.send(Channel.CLOSE, bytes((Channel.INPUT,)))

    async def resize(self, columns: int, rows: int) -> None:
        """Tell the size of the terminal."""
        await self.send(Channel.RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    async def aclose(self) -> None:
        await self._socket.close()


@dataclass(frozen=True, slots=True)
class Status:
    """How the API says that a command ended."""

    code: int | None
    """None: it was not run, or nobody knows; `text` says why."""
    text: str = ""


def status(content: bytes) -> Status:
    """What stands in the message of the status channel."""
    try:
        told: Any = json.loads(content)
    except ValueError:
        return Status(None, content.decode(errors="replace"))
    if told.get("status") == "Success":
        return Status(0)
    if told.get("reason") == "NonZeroExitCode":
        for cause in (told.get("details") or {}).get("causes") or ():
            if cause.get("reason") == "ExitCode":
                return Status(int(cause["message"]))
    return Status(None, str(told.get("message") or told.get("reason") or "no reason given"))


async def exec_in(
    cluster: Cluster, path: str, argv: Sequence[str], *, has_input: bool, is_terminal: bool
) -> tuple[Channels, AsyncExitStack]:
    """Run something in a container; close what stands beside the channels.

    Raises:
        Refused, Unavailable: as `Cluster.socket`.
    """
    query = [
        ("container", "main"),
        ("stdin", _flag(has_input)),
        ("stdout", "true"),
        ("stderr", _flag(not is_terminal)),
        ("tty", _flag(is_terminal)),
        *(("command", word) for word in argv),
    ]
    stack = AsyncExitStack()
    socket = await stack.enter_async_context(cluster.socket(path, query, (V5, V4)))
    return Channels(socket), stack


@asynccontextmanager
async def forward_to(cluster: Cluster, path: str, port: int) -> AsyncIterator[Channels]:
    """A connection to a port in a pod's own network, for the block; raises as `exec_in`."""
    async with cluster.socket(path, [("ports", str(port))], (V4,)) as socket:
        yield Channels(socket)


def _flag(value: bool) -> str:  # noqa: FBT001
    return "true" if value else "false"
