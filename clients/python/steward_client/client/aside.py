"""What lives on an event loop, for code that has none: on a thread of its own, with a client."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from steward_client.errors import Unavailable

if TYPE_CHECKING:
    from steward_client.client.awaiting import AsyncClient


class Lasting(Protocol):
    """What is opened once, and is there until it is closed or ends by itself."""

    async def open(self) -> None: ...

    async def wait(self) -> None:
        """Wait until it is closed; raises if it has ended by itself."""
        ...

    async def close(self) -> None:
        """Close it; may be called twice."""
        ...


L = TypeVar("L", bound=Lasting)
T = TypeVar("T")


class Aside(Generic[L]):
    """Something lasting, on a thread; a context manager."""

    def __init__(
        self, open_client: Callable[[], AsyncClient], build: Callable[[AsyncClient], L]
    ) -> None:
        """Open it, and return once it is open.

        Raises:
            StewardError, OSError: as opening it does.
        """
        self._open_client = open_client
        self._build = build
        self._is_open, self._error = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._run, name="steward-aside", daemon=True)
        self._thread.start()
        self._is_open.wait()
        if self._error:
            self._thread.join()
            raise self._error.pop()

    def close(self) -> None:
        """Close it, with everything that goes through it; may be called twice."""
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it has ended meanwhile
                asyncio.run_coroutine_threadsafe(self._lasting.close(), self._loop)
            self._thread.join()

    def _do(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Have something done on the thread.

        Raises:
            Unavailable: it is closed.
        """
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it has ended meanwhile
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise Unavailable("it is closed; open another")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - raised on the caller's thread
            self._error.append(error)
        finally:
            self._is_open.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._open_client() as client:
            self._lasting = self._build(client)
            try:
                await self._lasting.open()
                self._is_open.set()
                await self._lasting.wait()
            finally:
                await self._lasting.close()
