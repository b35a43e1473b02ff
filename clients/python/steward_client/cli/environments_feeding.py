"""What goes from this process into an environment: what is typed or piped in, and signals."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from steward_client.errors import StewardError

T = TypeVar("T")

CHUNK_BYTES = 65_536

STUCK_S = 0.5
"""Who has not taken a piece of input for so long may never take it."""


def standard_input() -> int | None:
    """The descriptor of standard input; None if there is none."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None


class Feeder:
    """Reads a descriptor on a thread of its own and gives what it reads, until it is over.

    `on_input` and the others are called on that thread. What they refuse with ends it: whoever
    reads the output is told why.
    """

    def __init__(
        self,
        source: int | None,
        *,
        on_input: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_note: Callable[[str], None],
        on_tick: Callable[[], None] = lambda: None,
        tick_s: float = 3_600.0,
    ) -> None:
        self._source = source
        self._on_input = on_input
        self._on_end = on_end
        self._on_note = on_note
        self._on_tick = on_tick
        self._tick_s = tick_s
        self._notes: deque[str] = deque()
        self._is_over = False
        self._giving_since_s: float | None = None
        self._woken, self._wakes = os.pipe()
        os.set_blocking(self._wakes, False)
        self._thread = threading.Thread(target=self._run, name="input", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._wake()
        self._thread.join(1)
        if not self._thread.is_alive():
            os.close(self._wakes)
            os.close(self._woken)

    @property
    def is_giving(self) -> bool:
        """Whether something is being given, and was not taken yet."""
        return self._giving_since_s is not None

    @property
    def is_stuck(self) -> bool:
        """Whether nobody takes what is given; notes are not told of either then."""
        since_s = self._giving_since_s
        return since_s is not None and time.monotonic() - since_s > STUCK_S

    @property
    def has_notes(self) -> bool:
        """Whether there is something that `on_note` was not told of yet."""
        return bool(self._notes)

    def note(self, what: str) -> None:
        """Have `on_note` told of something. May be called from a signal handler."""
        self._notes.append(what)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it wakes up anyway
            os.write(self._wakes, b".")

    def _run(self) -> None:
        with contextlib.suppress(StewardError):
            source, ticks_at_s = self._source, time.monotonic() + self._tick_s
            if source is None:
                self._on_end()
            while not self._is_over:
                watched = [self._woken] if source is None else [self._woken, source]
                wait_s = max(0.0, ticks_at_s - time.monotonic())
                ready, _, _ = select.select(watched, [], [], wait_s)
                if time.monotonic() >= ticks_at_s:
                    ticks_at_s = time.monotonic() + self._tick_s
                    self._on_tick()
                if self._woken in ready:
                    os.read(self._woken, CHUNK_BYTES)
                    while self._notes and not self._is_over:
                        self._give(self._on_note, self._notes[0])
                        self._notes.popleft()
                if source is None or source not in ready or self._is_over:
                    continue
                data = _read(source)
                if data:
                    self._give(self._on_input, data)
                else:
                    source = None
                    self._on_end()

    def _give(self, give: Callable[[T], None], what: T) -> None:
        self._giving_since_s = time.monotonic()
        give(what)
        self._giving_since_s = None


def _read(source: int) -> bytes:
    try:
        return os.read(source, CHUNK_BYTES)
    except OSError:  # a terminal that has gone
        return b""


def write_all(target: int, data: bytes) -> None:
    """Write to a descriptor, however little it takes at a time."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(target, left) :]
        except BlockingIOError:
            select.select([], [target], [])
