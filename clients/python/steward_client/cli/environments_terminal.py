"""The terminal somebody sits at, lent to a program elsewhere and given back as it was."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import termios
import tty
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from steward_client.cli.environments_feeding import write_all

LEAVE_AT_END = frozenset({1, 9, 47, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1047, 1049, 2004})
"""Modes a program may leave set when it is cut off: other keys, the mouse, the other screen."""
CURSOR = 25
_SET_OR_RESET = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
_UNFINISHED = re.compile(rb"\x1b(\[(\?[0-9;]{0,40})?)?\Z")
CLEAR = b"\x1b[H\x1b[2J\x1b[3J"
PLAIN = b"\x1b[0m"


class DetachKeys:
    """Finds keys that mean to leave in what is typed. Pure.

    While what was typed may still become them it is held back.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the keys were typed; then the rest is dropped."""
        passed = bytearray()
        for key in typed:
            self._held += bytes([key])
            while not self._keys.startswith(self._held):
                passed.append(self._held[0])
                self._held = self._held[1:]
            if self._held == self._keys:
                return bytes(passed), True
        return bytes(passed), False

    @staticmethod
    def parse(text: str) -> bytes:
        """`ctrl-p,ctrl-q`, or single characters.

        Raises:
            ValueError: neither.
        """
        keys = bytearray()
        for key in text.split(","):
            name = key.strip()
            found = re.fullmatch(r"ctrl-([a-z@\[\\\]^_])", name, re.IGNORECASE)
            if found:
                keys.append(ord(found[1].upper()) & 0x1F)
            elif len(name) == 1 and name.isascii():
                keys.append(ord(name))
            else:
                raise ValueError(f"{name!r} is no key; write keys as ctrl-p,ctrl-q")
        return bytes(keys)


class Modes:
    """Remembers what a program has set at a terminal, from what it wrote. Pure."""

    def __init__(self) -> None:
        self._set: set[int] = set()
        self._is_cursor_hidden = False
        self._rest = b""

    def saw(self, written: bytes) -> None:
        text = self._rest + written
        for found in _SET_OR_RESET.finditer(text):
            is_set = found[2] == b"h"
            for number in (int(each) for each in found[1].split(b";") if each):
                if number == CURSOR:
                    self._is_cursor_hidden = not is_set
                elif is_set and number in LEAVE_AT_END:
                    self._set.add(number)
                else:
                    self._set.discard(number)
        unfinished = _UNFINISHED.search(text)
        self._rest = unfinished[0] if unfinished else b""

    def undoing(self) -> bytes:
        """What to write so that the terminal is as it was."""
        undone = b"".join(b"\x1b[?%dl" % number for number in sorted(self._set))
        return PLAIN + undone + (b"\x1b[?25h" if self._is_cursor_hidden else b"")


class LentTerminal:
    """The terminal of this process, in raw mode for the block, and as it was after it.

    `on_resize` is told when it has another size. Whoever ends this process by a signal that can be
    caught ends the block.
    """

    def __init__(self, source: int, target: int, on_resize: Callable[[], None]) -> None:
        self._source = source
        self._target = target
        self._on_resize = on_resize
        self._modes = Modes()
        self._attributes: list[Any] = []
        self._handlers: dict[int, Any] = {}

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        columns, rows = os.get_terminal_size(self._target)
        return min(columns, 1_000) or 80, min(rows, 1_000) or 24

    def __enter__(self) -> Self:
        self._attributes = termios.tcgetattr(self._source)
        self._handlers = {
            signal.SIGWINCH: signal.signal(signal.SIGWINCH, self._resized),
            signal.SIGCONT: signal.signal(signal.SIGCONT, self._continued),
            signal.SIGTERM: signal.signal(signal.SIGTERM, _leave),
            signal.SIGHUP: signal.signal(signal.SIGHUP, _leave),
        }
        tty.setraw(self._source, termios.TCSADRAIN)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError, termios.error):  # it may have gone
            write_all(self._target, self._modes.undoing())
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._source, termios.TCSADRAIN, self._attributes)

    def show(self, text: str) -> None:
        data = text.encode()
        self._modes.saw(data)
        write_all(self._target, data)

    def clear(self) -> None:
        """Make room for what is shown again."""
        write_all(self._target, self._modes.undoing() + CLEAR)
        self._modes = Modes()

    def note(self, sentence: str) -> None:
        """Tell something between what the program shows."""
        write_all(self._target, f"\r\n[steward: {sentence}]\r\n".encode())

    def _resized(self, _number: int, _frame: FrameType | None) -> None:
        self._on_resize()

    def _continued(self, _number: int, _frame: FrameType | None) -> None:
        """A shell that took the terminal back meanwhile has set it as it likes it."""
        with contextlib.suppress(termios.error):
            tty.setraw(self._source, termios.TCSADRAIN)
        self._on_resize()


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
