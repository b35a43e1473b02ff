"""What is wrong with a playbook, where, and the text that this is about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

Path = tuple[str | int, ...]
"""Where a value stands: ("steps", 0, "parameters", "url")."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong, told so that it can be put right.

    Attributes:
        line: counted from 1, as is the column; in characters.
        message: what is wrong, with the values.
        hint: the word that was meant, where one is near; else empty.
    """

    line: int
    column: int
    message: str
    hint: str = ""

    @property
    def sentence(self) -> str:
        """What is wrong, without where."""
        return f"{self.message}; did you mean {self.hint!r}?" if self.hint else self.message

    def __str__(self) -> str:
        return f"{self.line}:{self.column}: {self.sentence}"


class BadPlaybook(ValueError):
    """A playbook cannot be used.

    Attributes:
        faults: everything that is wrong with it, in the order of the text; at least one.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(sorted(set(faults)))
        super().__init__("\n".join(map(str, self.faults)))


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the text: characters `start` up to `end`, from a line and column on."""

    start: int
    end: int
    line: int
    column: int


_BEGINNING = Span(0, 0, 1, 1)


@dataclass(frozen=True, slots=True)
class Source:
    """The text of a playbook, and where in it each value and each key stands."""

    text: str = ""
    values: Mapping[Path, Span] = field(default_factory=dict)
    keys: Mapping[Path, Span] = field(default_factory=dict)

    def raw(self, path: Path) -> str:
        """A value as it was written."""
        span = self.values[path]
        return self.text[span.start : span.end]

    def at(self, path: Path, message: str, hint: str = "") -> Fault:
        """A fault of a value, or of the nearest one around it that was written."""
        span = self._nearest(path)
        return Fault(span.line, span.column, message, hint)

    def at_key(self, path: Path, message: str, hint: str = "") -> Fault:
        """A fault of the key itself."""
        span = self.keys.get(path) or self._nearest(path)
        return Fault(span.line, span.column, message, hint)

    def within(self, path: Path, value: str, offset: int, message: str, hint: str = "") -> Fault:
        """A fault of a text at one of its characters, as near as its way of writing allows."""
        span = self._nearest(path)
        written = self.text[span.start : span.end]
        begins = written.find(value)
        if begins >= 0:
            index = span.start + begins + offset
        else:
            # Of a block or with escapes: the same opening of a reference, counted.
            count = value.count("{{", 0, offset + 2)
            begins = -1
            for _ in range(count):
                begins = written.find("{{", begins + 1)
            if begins < 0:
                return Fault(span.line, span.column, message, hint)
            index = span.start + begins
        line = span.line + self.text.count("\n", span.start, index)
        column = index - self.text.rfind("\n", 0, index)
        return Fault(line, column, message, hint)

    def _nearest(self, path: Path) -> Span:
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, _BEGINNING)


def called(path: Path) -> str:
    """How people write a path: `command[1]`, `metadata.tester`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in path
    ).removeprefix(".")


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that this one is a slip of; empty if there is none."""
    if len(word) > _LONGEST_WORD:
        return ""
    return str(next(iter(get_close_matches(word, list(known), 1)), ""))


_LONGEST_WORD = 100
