"""How much of something is open at a time, bounded so that nobody takes what all have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from steward_server.errors import ResourceExhausted


class Counts:
    """Counts what each of many has open."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        """Of a refusal, such as TOO_MANY_COMMANDS."""
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, whose: str, most: int, told: str, **facts: str) -> Iterator[None]:
        """Count one more of somebody's, or of an environment's, for the block.

        Raises:
            ResourceExhausted: there are as many as there may be, as `told`.
        """
        if self._open[whose] >= most:
            raise ResourceExhausted(
                f"{told}; no more are allowed at a time", reason=self._reason, facts=facts
            )
        self._open[whose] += 1
        try:
            yield
        finally:
            self._open[whose] -= 1
            if not self._open[whose]:
                del self._open[whose]
