"""Bounds how often a caller may use what is costly or worth guessing."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from grpc_interceptor.server import AsyncServerInterceptor

from steward_server.calls import Call
from steward_server.errors import ResourceExhausted
from steward_server.peers import network_of

MAX_CALLERS = 20_000
"""Remembered at once; each holds at most as many times as its limit."""

MINUTE_US = 60 * 1_000_000


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one attempt."""

    allowed: bool
    remaining: int
    """How many more are allowed now."""
    reset_us: int
    """Until the next one is allowed, or, if one is, until all are."""


class SlidingWindow:
    """At most `limit` in any span of `window_us`, for each key. Reads no clock.

    Refused attempts do not count. Memory is bounded: of too many keys the one unseen for longest is
    forgotten.
    """

    def __init__(self, limit: int, window_us: int, most_keys: int = MAX_CALLERS) -> None:
        self.limit = limit
        self._window_us = window_us
        self._most_keys = most_keys
        self._times_us: OrderedDict[str, deque[int]] = OrderedDict()

    def take(self, key: str, now_us: int) -> Taken:
        """Count an attempt, if there is room for it."""
        times_us = self._times_us.setdefault(key, deque())
        self._times_us.move_to_end(key)
        while times_us and times_us[0] <= now_us - self._window_us:
            times_us.popleft()
        if len(times_us) >= self.limit:
            return Taken(allowed=False, remaining=0, reset_us=self._until(times_us[0], now_us))
        times_us.append(now_us)
        while len(self._times_us) > self._most_keys:
            self._times_us.popitem(last=False)
        remaining = self.limit - len(times_us)
        awaited_us = times_us[-1] if remaining else times_us[0]
        return Taken(allowed=True, remaining=remaining, reset_us=self._until(awaited_us, now_us))

    def _until(self, at_us: int, now_us: int) -> int:
        return max(0, at_us + self._window_us - now_us)


class RateLimit(AsyncServerInterceptor):
    """Limits one category of methods: per principal, or per address where there is none."""

    def __init__(self, window: SlidingWindow, clock: Callable[[], int]) -> None:
        self._window = window
        self._clock = clock

    async def intercept(
        self,
        method: Any,
        request_or_iterator: Any,
        context: Any,
        method_name: str,  # noqa: ARG002 - the shape of an interceptor
    ) -> Any:
        call: Call = context
        key = call.principal.subject or network_of(call.peer())
        now_us = self._clock()
        taken = self._window.take(key, now_us)
        wait_s = -(-taken.reset_us // 1_000_000)
        call.trailing.extend(
            [
                ("x-ratelimit-limit", str(self._window.limit)),
                ("x-ratelimit-remaining", str(taken.remaining)),
                ("x-ratelimit-reset", str(-(-(now_us + taken.reset_us) // 1_000_000))),
            ]
        )
        if not taken.allowed:
            raise ResourceExhausted(
                f"too many attempts: {self._window.limit} a minute are allowed; "
                f"try again in {wait_s} s",
                reason="RATE_LIMITED",
                retry_after_s=float(wait_s),
                facts={"limit": str(self._window.limit)},
            )
        return await method(request_or_iterator, context)


def logins(per_minute: int) -> SlidingWindow:
    """The window of RATE_CATEGORY_LOGIN; one for all its methods."""
    return SlidingWindow(per_minute, MINUTE_US)
