"""Frames that are written together: one write for all that are there, and none waits for more."""

from __future__ import annotations

import asyncio
from typing import Self

from aiohttp import web

MOST_WAITING_BYTES = 65_536
"""Who has more to say waits until its reader has taken some of it."""


class JoinedWriter:
    """Writes to a response from a task of its own; use it from one task, as a context.

    What was given is written when the block ends as well, unless it ends with a cancellation.
    """

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._waiting: list[bytes] = []
        self._size_bytes = 0
        self._there, self._room = asyncio.Event(), asyncio.Event()
        self._is_ending = False
        self._error: Exception | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._write())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self._task.cancel()
            await asyncio.wait({self._task})
        else:
            self._is_ending = True
            self._there.set()
            try:
                await self._task
            finally:
                self._task.cancel()

    async def write(self, frame: bytes) -> None:
        """Give what is to be written.

        Raises:
            ConnectionError: the reader has gone.
        """
        if self._error is not None:
            raise self._error
        self._waiting.append(frame)
        self._size_bytes += len(frame)
        self._there.set()
        if self._size_bytes >= MOST_WAITING_BYTES:
            self._room.clear()
            await self._room.wait()

    async def _write(self) -> None:
        while self._waiting or not self._is_ending:
            await self._there.wait()
            self._there.clear()
            frames, self._waiting, self._size_bytes = self._waiting, [], 0
            try:
                if frames:
                    await self._response.write(b"".join(frames))
            except Exception as error:  # noqa: BLE001 - told to who writes next
                self._error = error
                return
            finally:
                self._room.set()
