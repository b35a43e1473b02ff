"""Counting how often something happened lately. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TypeAlias

Taken: TypeAlias = tuple[bool, int, int]
"""What became of an attempt: whether it was let in; how many more would be now; and how long until
the next one is, or, if one is, until all are, in microseconds. Plain, as it is made at every call.
"""


class _Run:
    """What happened within one slot."""

    __slots__ = ("count", "slot")

    def __init__(self, slot: int, count: int) -> None:
        self.slot = slot
        self.count = count


class _Recent:
    """What one key did within the window, and perhaps a slot longer."""

    __slots__ = ("count", "runs")

    def __init__(self) -> None:
        self.count = 0
        self.runs: deque[_Run] = deque()


class SlidingWindow:
    """At most `limit` in any span of `window_us`, for each key. Reads no clock.

    Times are told apart by slots of `slot_us`, so that a key costs `window_us / slot_us + 1` counts
    at most, whatever its limit is. Something counts until the end of its slot has left the window:
    up to a slot longer than it should, and never shorter. With slots of 1 µs that is exact.

    Refused attempts do not count. Memory is bounded: of too many keys the one unseen for longest is
    forgotten.
    """

    def __init__(
        self, limit: int, window_us: int, *, slot_us: int = 1, most_keys: int = 20_000
    ) -> None:
        self.limit = limit
        self._window_us = window_us
        self._slot_us = slot_us
        self._most_keys = most_keys
        self._recent: OrderedDict[str, _Recent] = OrderedDict()

    def take(self, key: str, now_us: int) -> Taken:
        """Count an attempt, if there is room for it."""
        recent = self._recent.get(key)
        if recent is None:
            recent = self._add(key)
        else:
            self._recent.move_to_end(key)
        runs, slot_us = recent.runs, self._slot_us
        first_slot = (now_us - self._window_us + 1) // slot_us
        while runs and runs[0].slot < first_slot:
            recent.count -= runs.popleft().count
        remaining = self.limit - recent.count - 1
        if remaining < 0:
            return False, 0, self._left_us(runs[0].slot) - now_us
        recent.count += 1
        slot = now_us // slot_us
        if runs and runs[-1].slot >= slot:  # later than now, if the clock was set back
            runs[-1].count += 1
        else:
            runs.append(_Run(slot, 1))
        awaited = runs[-1] if remaining else runs[0]
        return True, remaining, self._left_us(awaited.slot) - now_us

    def _add(self, key: str) -> _Recent:
        recent = self._recent[key] = _Recent()
        if len(self._recent) > self._most_keys:
            self._recent.popitem(last=False)
        return recent

    def _left_us(self, slot: int) -> int:
        """When a slot no longer counts."""
        return (slot + 1) * self._slot_us - 1 + self._window_us
