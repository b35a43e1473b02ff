"""How busy a machine is: told at once, from what it has used and what was asked before. Pure."""

from __future__ import annotations

_APART_S = 0.5
"""Looks that are closer together are told of the same stretch of time."""
_LEAST_S = 0.1
"""Over less, the figure would be noise: what it has used is taken to be used in so much."""


class Meter:
    """The processor time of one machine."""

    def __init__(self, since_s: float, used_s: float = 0.0) -> None:
        """What it had used at some time, by the clock that is used later on."""
        self._looks = [(since_s, used_s)]

    def millicores(self, now_s: float, used_s: float) -> int:
        """Over the time since it was last asked, or the last half second if that is longer."""
        old = [look for look in self._looks if now_s - look[0] >= _APART_S]
        since_s, before_s = old[-1] if old else self._looks[0]
        if now_s - self._looks[-1][0] >= _APART_S or len(self._looks) == 1:
            self._looks = [*self._looks[-1:], (now_s, used_s)]
        return max(0, round((used_s - before_s) * 1000 / max(now_s - since_s, _LEAST_S)))
