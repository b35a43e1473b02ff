"""When waiting ends."""

from __future__ import annotations

import asyncio


class Deadline:
    """The end of a time that begins now."""

    def __init__(self, timeout_ms: float) -> None:
        self._timeout_ms = timeout_ms
        self._end_s = asyncio.get_running_loop().time() + timeout_ms / 1_000

    def __str__(self) -> str:
        return f"within {self._timeout_ms / 1_000:g} s"

    @property
    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._end_s

    @property
    def left_ms(self) -> float:
        """Never 0: to Playwright that is for ever."""
        return max(1.0, (self._end_s - asyncio.get_running_loop().time()) * 1_000)
