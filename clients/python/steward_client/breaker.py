"""A circuit breaker: stops asking a provider that keeps failing, and tries again with one probe.

Pure but for the clock handed to it. Tickets carry a generation, so that a call begun before the
circuit opened cannot close it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    window_s: float = 30.0
    """Outcomes older than this are forgotten."""
    minimum_calls: int = 10
    """Fewer outcomes in the window than this never open the circuit."""
    failure_share: float = 0.5
    """Of the outcomes in the window, how many must have failed to open it."""
    open_s: float = 10.0
    """How long it stays open before one probe is let through."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """Leave for one call; hand it back with `record` or `forget`."""

    generation: int
    probe: bool


class CircuitOpen(Exception):
    """The provider is not asked now; `retry_after_s` says when it may be."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the provider keeps failing; ask again in {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


class CircuitBreaker:
    """One provider's circuit. Not for use from several threads."""

    def __init__(
        self,
        clock: Callable[[], float],
        config: BreakerConfig | None = None,
        *,
        on_open: Callable[[int, float], None] | None = None,
    ) -> None:
        """`on_open` is told how many calls had failed, and how long nothing is asked.

        A probe that fails only keeps the circuit open, which is not told again.
        """
        self._clock = clock
        self._on_open = on_open
        self._config = config or BreakerConfig()
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._failed = 0
        self._generation = 0
        self._opened_at_s: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        if self._opened_at_s is None:
            return BreakerState.CLOSED
        if self._probing or self._clock() >= self._opened_at_s + self._config.open_s:
            return BreakerState.HALF_OPEN
        return BreakerState.OPEN

    def admit(self) -> Ticket:
        """Leave to call now.

        Raises:
            CircuitOpen: the circuit is open, or its one probe is under way.
        """
        if self._opened_at_s is None:
            return Ticket(self._generation, probe=False)
        now_s = self._clock()
        opens_at_s = self._opened_at_s + self._config.open_s
        if now_s < opens_at_s:
            raise CircuitOpen(opens_at_s - now_s)
        if self._probing:
            raise CircuitOpen(1.0)
        self._probing = True
        return Ticket(self._generation, probe=True)

    def record(self, ticket: Ticket, *, ok: bool) -> None:
        """Tell how the call went; what belongs to an earlier generation is ignored."""
        if ticket.generation != self._generation:
            return
        now_s = self._clock()
        if ticket.probe:
            self._turn(None if ok else now_s)
            return
        self._forget_before(now_s - self._config.window_s)
        self._outcomes.append((now_s, ok))
        self._failed += not ok
        calls = len(self._outcomes)
        if calls < self._config.minimum_calls:
            return
        if self._failed >= self._config.failure_share * calls:
            failures = self._failed
            self._turn(now_s)
            if self._on_open is not None:
                self._on_open(failures, self._config.open_s)

    def forget(self, ticket: Ticket) -> None:
        """Hand the ticket back without an outcome: the call told nothing about the provider."""
        if ticket.probe and ticket.generation == self._generation:
            self._probing = False

    def _turn(self, opened_at_s: float | None) -> None:
        self._opened_at_s = opened_at_s
        self._generation += 1
        self._probing = False
        self._outcomes.clear()
        self._failed = 0

    def _forget_before(self, time_s: float) -> None:
        while self._outcomes and self._outcomes[0][0] < time_s:
            _, ok = self._outcomes.popleft()
            self._failed -= not ok
