"""Signals by their names, as people write them. Pure."""

from __future__ import annotations

import signal

_HIGHEST = 64  # SIGRTMAX on Linux


def signal_number(text: str) -> int | None:
    """The number of "TERM", "SIGTERM", "sigterm" or "15"; None for what is no signal."""
    word = text.strip().upper()
    if word.isdecimal() and word.isascii():
        number = int(word[:4])
        return number if 1 <= number <= _HIGHEST else None
    name = word if word.startswith("SIG") else f"SIG{word}"
    try:
        return signal.Signals[name].value
    except KeyError:
        return None


def signal_name(number: int | None) -> str:
    """Its name, as SIGTERM for 15; its number if it has none; empty for None."""
    if number is None:
        return ""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
