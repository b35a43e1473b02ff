"""Finds many texts in one at once: the automaton of Aho and Corasick. Pure.

Its states are the beginnings of the wanted texts. After each character it is in the longest one
that the text read so far ends with, so that nothing is ever read twice. Where it is in none, a
regular expression, which is faster while there are few texts, looks for how one may begin.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection

PEEKED = 4  # characters; more make the expression larger and hardly faster


class Automaton:
    """Looks for texts of at least one character. State 0 is where none has begun."""

    def __init__(self, wanted: Collection[str]) -> None:
        self._peeked = min([PEEKED, *map(len, wanted)])
        self._begins = re.compile(_any_of({text[: self._peeked] for text in wanted}) or "(?!)")
        self._next: list[dict[str, int]] = [{}]
        self._length = [0]
        """Of the longest wanted text that ends in a state."""
        self._depth = [0]
        for text in wanted:
            self._length[self._grown(text)] = len(text)
        self._suffix = [0] * len(self._next)
        """The longest state that another one ends with."""
        self._awaited = [0] * len(self._next)
        self._link()

    def scan(self, text: str, begin: int, state: int) -> tuple[int, list[tuple[int, int]]]:
        """Read on from `begin`: the state after, and the end and length of each text found.

        Of those that end at the same place only the longest is told.
        """
        following, suffix, length = self._next, self._suffix, self._length
        found: list[tuple[int, int]] = []
        position, size = begin, len(text)
        while position < size:
            if not state:
                begun = self._begins.search(text, position)
                # What is left may be too short to show that a text begins in it.
                position = begun.start() if begun else max(position, size - self._peeked + 1)
                if position == size:
                    break
            character = text[position]
            position += 1
            while (after := following[state].get(character)) is None and state:
                state = suffix[state]
            state = after or 0
            if length[state]:
                found.append((position, length[state]))
        return state, found

    def may_find(self, text: str) -> bool:
        """Whether a wanted text begins anywhere in a text that is all there is: a quick look."""
        return self._begins.search(text) is not None

    def awaited(self, state: int) -> int:
        """How many of the characters read last may be the beginning of a wanted text."""
        return self._awaited[state]

    def _grown(self, text: str) -> int:
        """The state for a text, made where it was missing."""
        state = 0
        for character in text:
            after = self._next[state].setdefault(character, len(self._next))
            if after == len(self._next):
                self._next.append({})
                self._length.append(0)
                self._depth.append(self._depth[state] + 1)
            state = after
        return state

    def _link(self) -> None:
        """Find the suffix of every state, the shorter ones first."""
        waiting = deque([0])
        while waiting:
            state = waiting.popleft()
            for character, after in self._next[state].items():
                if state:
                    shorter = self._suffix[state]
                    while shorter and character not in self._next[shorter]:
                        shorter = self._suffix[shorter]
                    self._suffix[after] = self._next[shorter].get(character, 0)
                suffix = self._suffix[after]
                self._length[after] = self._length[after] or self._length[suffix]
                self._awaited[after] = (
                    self._depth[after] if self._next[after] else self._awaited[suffix]
                )
                waiting.append(after)


def _any_of(texts: Collection[str]) -> str:
    """An expression for any of these texts, all of one length."""
    rest: dict[str, set[str]] = {}
    for text in texts:
        rest.setdefault(text[:1], set()).add(text[1:])
    if not rest.keys() - {""}:
        return ""
    return f"(?:{'|'.join(re.escape(each) + _any_of(rest[each]) for each in sorted(rest))})"
