"""`Runtime`: `AsyncRuntime` on a thread of its own, for code without an event loop."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from steward_client.async_runtime import AsyncRuntime
from steward_client.client.projects import Usd
from steward_client.client.values import BudgetRequest
from steward_client.environment_run import EnvironmentSpec
from steward_client.money import usd
from steward_client.runs import Metrics, RunId

__all__ = ["Metrics", "RunId", "Runtime"]

T = TypeVar("T")


class Runtime:
    """`AsyncRuntime` for code without an event loop; it takes the same arguments.

    >>> with Runtime(budget=50) as runtime:  # doctest: +SKIP
    ...     run_id = runtime.start_agent("agent.py")
    ...     runtime.wait(run_id)
    ...     runtime.get_metrics(run_id)["spent"]
    Decimal('0.0031')

    It works on a thread of its own, opens with the first agent, and closes with the context, with
    `close`, or with the program. Its methods may be called from any thread.
    """

    def __init__(
        self,
        budget: str | Decimal | float = 50,
        verbose: bool = False,  # noqa: FBT001, FBT002 - positional in the documented interface
        **settings: Any,
    ) -> None:
        self._runtime = AsyncRuntime(budget, verbose, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._do(self._runtime.open)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def budget(self) -> Decimal:
        """The most it takes in all, in dollars."""
        return usd(self._runtime.budget_nanousd)

    @property
    def agent_id(self) -> str:
        """The agent this runtime is; "" before the first lease."""
        return self._runtime.agent_id

    def start_agent(
        self,
        path: str | Path,
        args: Sequence[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        environment: str | EnvironmentSpec | None = None,
        files: Sequence[str | Path] = (),
        packages: Sequence[str] = (),
    ) -> RunId:
        """As `AsyncRuntime.start_agent`."""
        return self._do(
            lambda: self._runtime.start_agent(
                path, args, env=env, environment=environment, files=files, packages=packages
            )
        )

    def stop_agent(self, run_id: str) -> None:
        """As `AsyncRuntime.stop_agent`."""
        self._do(lambda: self._runtime.stop_agent(run_id))

    def get_metrics(self, run_id: str) -> Metrics:
        """As `AsyncRuntime.get_metrics`."""
        return self._do(lambda: self._runtime.get_metrics(run_id))

    def wait(self, run_id: str, *, timeout_s: float | None = None) -> int:
        """As `AsyncRuntime.wait`."""
        return self._do(lambda: self._runtime.wait(run_id, timeout_s=timeout_s))

    def request_budget(
        self, budget: Usd, justification: str, *, expires_in_s: int | None = None
    ) -> BudgetRequest:
        """As `AsyncRuntime.request_budget`."""
        return self._do(
            lambda: self._runtime.request_budget(budget, justification, expires_in_s=expires_in_s)
        )

    def close(self) -> None:
        """As `AsyncRuntime.close`; also ends the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
            thread, self._thread = self._thread, None
        if loop is None or thread is None:
            return
        atexit.unregister(self.close)
        try:
            asyncio.run_coroutine_threadsafe(self._runtime.close(), loop).result()
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _do(self, work: Callable[[], Awaitable[T]]) -> T:
        async def do() -> T:
            return await work()

        waiting = asyncio.run_coroutine_threadsafe(do(), self._running_loop())
        try:
            return waiting.result()
        except BaseException:
            waiting.cancel()
            raise

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = _new_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="steward-runtime", daemon=True
                )
                self._thread.start()
                atexit.register(self.close)
            return self._loop


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
