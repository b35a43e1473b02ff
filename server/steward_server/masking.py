"""Takes the secrets of a run out of what it says. Pure.

Every spelling of every secret is looked for at once, by the automaton of Aho and Corasick: one step
a character, however many there are and whatever the text is. What overlaps is masked together. A
secret in the middle of another word is masked too, so that one of a few characters would leave
nothing readable: below `SHORTEST` a secret is masked only where it is a whole value.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import TypeAlias

from steward_server.automaton import Automaton
from steward_server.spellings import spellings

MARKER = "***"
"""The same for every secret: its width tells nothing of theirs."""

SHORTEST = 4
"""Characters of a secret that is looked for inside a text."""

MAX_DEPTH = 200
"""Of lists and objects in one another; what lies deeper is masked unseen."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class Taint:
    """The secrets of one run."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = frozenset(secrets) - {""}

    def __repr__(self) -> str:
        return f"Taint({len(self._secrets)} secrets)"

    def including(self, *secrets: str) -> Taint:
        """These secrets too."""
        return Taint(self._secrets.union(secrets))

    def mask(self, text: str) -> str:
        """A text with every secret in it replaced."""
        if not self._secrets or not self._automaton.may_find(text):
            return text
        stream = self.stream()
        return stream.feed(text) + stream.flush()

    def mask_value(self, value: Json) -> Json:
        """A value of JSON with every secret replaced in its texts, the keys among them.

        A number whose digits hold a secret becomes the marker; true, false and null are nobody's.

        Raises:
            TypeError: it is no value of JSON: what is not understood is not let through.
        """
        return self._masked(value, MAX_DEPTH)

    def stream(self) -> MaskedStream:
        """Masks a text that comes in pieces."""
        return MaskedStream(self._automaton)

    @cached_property
    def _automaton(self) -> Automaton:
        long_enough = [each for each in self._secrets if len(each) >= SHORTEST]
        return Automaton({text for each in long_enough for text in spellings(each)})

    def _masked(self, value: Json, depth: int) -> Json:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int | float):
            if not self._secrets:
                return value
            return value if self._whole(str(value)) == str(value) else MARKER
        if isinstance(value, str):
            return self._whole(value)
        if depth == 0:
            return MARKER
        if isinstance(value, dict):
            masked: dict[str, Json] = {}
            for key, each in value.items():
                masked[_free(self._whole(key), masked)] = self._masked(each, depth - 1)
            return masked
        if not isinstance(value, list):
            raise TypeError(f"{type(value).__name__} is no value of JSON")
        return [self._masked(each, depth - 1) for each in value]

    def _whole(self, text: str) -> str:
        return MARKER if text in self._secrets else self.mask(text)


class MaskedStream:
    """A text that comes in pieces, cut anywhere; what may begin a secret waits for the next one."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        self._state = 0
        self._held = ""
        self._found: list[tuple[int, int]] = []
        """Where there are secrets in what is held, apart from one another and in order."""
        self._is_marked = False
        """Whether the marker for a secret at the beginning of what is held has been told."""

    def feed(self, piece: str) -> str:
        """The text as far as it is certain by now."""
        begin = len(self._held)
        self._held += piece
        self._state, ends = self._automaton.scan(self._held, begin, self._state)
        for end, length in ends:
            start = end - length
            while self._found and self._found[-1][1] > start:
                start = min(start, self._found.pop()[0])
            self._found.append((start, end))
        return self._told(len(self._held) - self._automaton.awaited(self._state))

    def flush(self) -> str:
        """What was held back: the text has ended."""
        self._state = 0
        return self._told(len(self._held))

    def _told(self, until: int) -> str:
        """Let go of what is held up to where a secret may still begin."""
        if not until:
            return ""
        parts, position, left = [], 0, list[tuple[int, int]]()
        for start, end in self._found:
            if start >= until:
                left.append((start - until, end - until))
                continue
            parts.append(self._held[position:start])
            if not (self._is_marked and start == 0):
                parts.append(MARKER)
            position = end
        reaches_over = position > until
        if reaches_over:
            left.insert(0, (0, position - until))
        else:
            parts.append(self._held[position:until])
        self._held, self._found, self._is_marked = self._held[until:], left, reaches_over
        return "".join(parts)


def _free(key: str, taken: Collection[str]) -> str:
    """A key, told apart from others that look the same when they are masked."""
    free, number = key, 2
    while free in taken:
        free, number = f"{key} ({number})", number + 1
    return free
