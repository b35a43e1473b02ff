"""Selectors of labels, in the grammar of Kubernetes: "a=b,c!=d,e in (x,y),!f". Pure.

https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

MAX_REQUIREMENTS = 20
"""Each is a look at a table."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?"
_PREFIX = r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/"
_KEY = re.compile(rf"(?:{_PREFIX})?{_NAME}")
_VALUE = re.compile(rf"(?:{_NAME})?")
_TOKEN = re.compile(r"\s*(?:(?P<word>[^\s=!,()]+)|(?P<sign>==|!=|[=!,()]))")


class Operator(StrEnum):
    """What a requirement asks of a label."""

    IN = "in"
    NOT_IN = "notin"
    """Also true of what does not have the label."""
    EXISTS = "exists"
    NOT_EXISTS = "!"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition; a selector is all of its own together."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class BadSelector(ValueError):
    """A text is no selector; the message says where it stops being one."""


def label_fault(key: str, value: str) -> str:
    """What is wrong with a label; empty if nothing is."""
    if _KEY.fullmatch(key) is None:
        return (
            f"has the key {key!r}; one is up to 63 letters, digits and '-_.' with a letter or "
            "digit at both ends, after a domain and '/' if it has one"
        )
    if _VALUE.fullmatch(value) is None:
        return (
            f"has the value {value!r} of {key!r}; one is empty, or up to 63 letters, digits and "
            "'-_.' with a letter or digit at both ends"
        )
    return ""


def parse_selector(text: str) -> tuple[Requirement, ...]:
    """The requirements of a selector; none of an empty text.

    Raises:
        BadSelector: it is not of the grammar.
    """
    if not text.strip():
        return ()
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, int]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None:
                raise BadSelector(f"cannot be read from {text[at:]!r} on")
            self._tokens.append((found["word"] or found["sign"], found.end()))
            at = found.end()
        self._next = 0

    def parse(self) -> tuple[Requirement, ...]:
        requirements = [self._requirement()]
        while self._peek() == ",":
            self._take()
            requirements.append(self._requirement())
        if self._peek():
            raise self._wrong("',' or the end")
        if len(requirements) > MAX_REQUIREMENTS:
            raise BadSelector(
                f"has {len(requirements)} requirements; at most {MAX_REQUIREMENTS} are allowed"
            )
        return tuple(requirements)

    def _requirement(self) -> Requirement:
        if self._peek() == "!":
            self._take()
            return Requirement(self._key(), Operator.NOT_EXISTS)
        key = self._key()
        match self._peek():
            case "=" | "==":
                self._take()
                return Requirement(key, Operator.IN, (self._value(),))
            case "!=":
                self._take()
                return Requirement(key, Operator.NOT_IN, (self._value(),))
            case "in" | "notin" as word:
                self._take()
                return Requirement(key, Operator(word), self._values())
        return Requirement(key, Operator.EXISTS)

    def _key(self) -> str:
        key = self._peek()
        if _KEY.fullmatch(key) is None:
            raise self._wrong("the key of a label")
        self._take()
        return key

    def _value(self) -> str:
        if self._peek() in (",", ")", ""):
            return ""
        value = self._peek()
        if _VALUE.fullmatch(value) is None:
            raise self._wrong("the value of a label")
        self._take()
        return value

    def _values(self) -> tuple[str, ...]:
        self._expect("(")
        values = [self._value()]
        while self._peek() == ",":
            self._take()
            values.append(self._value())
        self._expect(")")
        return tuple(values)

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    def _take(self) -> None:
        self._next += 1

    def _expect(self, sign: str) -> None:
        if self._peek() != sign:
            raise self._wrong(repr(sign))
        self._take()

    def _wrong(self, wanted: str) -> BadSelector:
        before = self._tokens[self._next - 1][1] if self._next else 0
        found = self._peek()
        shown = repr(found) if found else "the end"
        return BadSelector(f"has {shown} where {wanted} is wanted, after {self._text[:before]!r}")
