"""What a runtime sent and has not been looked at: bounded, so that it has to wait instead."""

from __future__ import annotations

import asyncio

from steward.budget.v1 import budget_pb2 as pb

MAX_MESSAGES = 256
MAX_BYTES = 4 * 1024 * 1024
"""One message may be as large, and is then alone."""

Incoming = pb.SessionRequest | None
"""None stands for the end of what the runtime sends."""


class Inbox:
    """A queue for one writer and one reader; `put` waits while there is no room."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[tuple[Incoming, int]] = asyncio.Queue(MAX_MESSAGES)
        self._bytes = 0
        self._taken = asyncio.Event()

    async def put(self, request: Incoming) -> None:
        """Add a message once there is room for it."""
        size = 0 if request is None else request.ByteSize()
        while self._bytes and self._bytes + size > MAX_BYTES:
            self._taken.clear()
            await self._taken.wait()
        self._bytes += size
        await self._waiting.put((request, size))

    async def get(self) -> Incoming:
        """The next message, when there is one."""
        return self._open(await self._waiting.get())

    def get_nowait(self) -> Incoming:
        """The next message of an inbox that is not empty."""
        return self._open(self._waiting.get_nowait())

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._waiting.empty()

    def _open(self, taken: tuple[Incoming, int]) -> Incoming:
        request, size = taken
        self._bytes -= size
        self._taken.set()
        return request
