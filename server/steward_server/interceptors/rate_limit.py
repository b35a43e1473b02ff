"""Bounds how often a caller may call; tells how much is left on every answer, refusals included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grpc_interceptor.server import AsyncServerInterceptor

from steward_server.calls import Call, Metadata
from steward_server.errors import ResourceExhausted
from steward_server.peers import network_of
from steward_server.principals import Kind
from steward_server.rates import Windows
from steward_server.windows import SlidingWindow

AGENT, ANONYMOUS = Kind.AGENT, Kind.ANONYMOUS  # looking a member up costs 0.1 µs, in Python 3.11


class RateLimit(AsyncServerInterceptor):
    """Counts the calls of one method, in windows that others of its category share."""

    def __init__(self, windows: Windows, clock: Callable[[], int]) -> None:
        self._people, self._agents, self._strangers = map(_metered, windows)
        self._clock = clock

    @property
    def is_needed(self) -> bool:
        """Whether anybody is limited."""
        return any((self._people, self._agents, self._strangers))

    def intercept(
        self,
        method: Any,
        request_or_iterator: Any,
        context: Any,
        method_name: str,  # noqa: ARG002 - the shape of an interceptor
    ) -> Any:
        self.count(context)
        return method(request_or_iterator, context)

    def count(self, call: Call) -> None:
        """Count a call of whoever is known to call by now; by address if nobody is.

        Raises:
            ResourceExhausted: RATE_LIMITED, there were too many.
        """
        principal = call.principal
        if principal.kind is AGENT:
            meter = self._agents
        elif principal.kind is ANONYMOUS:
            meter = self._strangers
        else:
            meter = self._people
        if meter is None:
            return
        now_us = self._clock()
        key = principal.subject or network_of(call.peer())
        allowed, remaining, reset_us = meter.window.take(key, now_us)
        call.initial = told = meter.told(remaining, -(-(now_us + reset_us) // 1_000_000))
        call.trailing.extend(told)
        if not allowed:
            raise _too_many(meter.window, reset_us)


class _Meter:
    """A window, and its headers; those for one second are the same for many calls."""

    def __init__(self, window: SlidingWindow) -> None:
        self.window = window
        self._limit = ("x-ratelimit-limit", str(window.limit))
        self._reset_s = 0
        self._reset = ("", "")

    def told(self, remaining: int, reset_s: int) -> Metadata:
        if reset_s != self._reset_s:
            self._reset_s, self._reset = reset_s, ("x-ratelimit-reset", str(reset_s))
        return self._limit, ("x-ratelimit-remaining", str(remaining)), self._reset


def _metered(window: SlidingWindow | None) -> _Meter | None:
    return _Meter(window) if window else None


def _too_many(window: SlidingWindow, reset_us: int) -> ResourceExhausted:
    wait_s = -(-reset_us // 1_000_000)
    return ResourceExhausted(
        f"too many calls: {window.limit} a minute are allowed; try again in {wait_s} s",
        reason="RATE_LIMITED",
        retry_after_s=float(wait_s),
        facts={"limit": str(window.limit)},
    )
