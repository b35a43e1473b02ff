"""Path templates of `google.api.http` and a trie that matches raw paths against many. Pure.

Template = "/" Segments [ ":" LITERAL ]        Segment  = "*" | "**" | LITERAL | Variable
Segments = Segment { "/" Segment }             Variable = "{" FieldPath [ "=" Segments ] "}"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote_to_bytes

_LITERAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()+,;@-]|%[0-9A-Fa-f]{2})+")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"(%2[fF])")

Target = TypeVar("Target")


class BadTemplate(ValueError):
    """The template breaks the grammar; says where."""


class BadPath(ValueError):
    """The path of a request is broken: an escape that is none, or bytes that are no UTF-8."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable and the segments it covers, as a slice of the template's.

    Attributes:
        end: the first segment after it; None if it covers everything that is left.
        multi: whether it may cover another number of segments than one: `%2F` is then kept.
    """

    field_path: tuple[str, ...]
    start: int
    end: int | None
    multi: bool


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template.

    Attributes:
        segments: literals (decoded), "*" and, only as the last, "**"; a literal star is "%2A".
        verb: what follows the colon at the end, or "".
    """

    text: str
    segments: tuple[str, ...]
    verb: str
    variables: tuple[Variable, ...]

    @property
    def shape(self) -> str:
        """The same for two templates that match the same paths."""
        return "/".join(self.segments) + (f":{self.verb}" if self.verb else "")

    def values(self, segments: list[str]) -> list[str]:
        """The decoded value of each variable in a matching raw path.

        Raises:
            BadPath: an escape is broken or does not decode to UTF-8.
        """
        return [
            _decode_kept("/".join(segments[variable.start : variable.end]))
            if variable.multi
            else decode(segments[variable.start])
            for variable in self.variables
        ]


def parse_template(text: str) -> Template:
    """Parse a path template.

    Raises:
        BadTemplate: says what is wrong at which position.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._segments: list[str] = []
        self._variables: list[Variable] = []

    def parse(self) -> Template:
        self._expect("/")
        if self._text == "/":
            return Template(self._text, (), "", ())
        self._read_segments(inside=False)
        verb = ""
        if self._take(":"):
            verb = decode(self._literal())
        if self._at < len(self._text):
            raise self._bad(f"has an unexpected {self._text[self._at]!r}")
        if "**" in self._segments[:-1]:
            raise BadTemplate("has something after `**`, which must be last")
        paths = [variable.field_path for variable in self._variables]
        if len(set(paths)) < len(paths):
            raise BadTemplate("names a variable twice")
        return Template(self._text, tuple(self._segments), verb, tuple(self._variables))

    def _read_segments(self, *, inside: bool) -> None:
        self._read_segment(inside=inside)
        while self._take("/"):
            self._read_segment(inside=inside)

    def _read_segment(self, *, inside: bool) -> None:
        if self._take("**"):
            self._segments.append("**")
        elif self._take("*"):
            self._segments.append("*")
        elif self._text.startswith("{", self._at):
            if inside:
                raise self._bad("has a variable inside a variable")
            self._read_variable()
        else:
            self._segments.append(decode(self._literal()).replace("*", "%2A"))

    def _read_variable(self) -> None:
        self._expect("{")
        names = [self._identifier()]
        while self._take("."):
            names.append(self._identifier())
        start = len(self._segments)
        if self._take("="):
            self._read_segments(inside=True)
        else:
            self._segments.append("*")
        self._expect("}")
        covered = self._segments[start:]
        self._variables.append(
            Variable(
                field_path=tuple(names),
                start=start,
                end=None if covered[-1] == "**" else len(self._segments),
                multi=len(covered) > 1 or covered[-1] == "**",
            )
        )

    def _literal(self) -> str:
        return self._match(_LITERAL, "a path segment")

    def _identifier(self) -> str:
        return self._match(_IDENTIFIER, "a field name")

    def _match(self, pattern: re.Pattern[str], what: str) -> str:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise self._bad(f"lacks {what}")
        self._at = found.end()
        return found[0]

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise self._bad(f"lacks {token!r}")

    def _bad(self, what: str) -> BadTemplate:
        return BadTemplate(f"{what} at position {self._at}")


def decode(raw: str) -> str:
    """Undo the percent-encoding of a segment.

    Raises:
        BadPath: an escape is broken or does not decode to UTF-8.
    """
    if "%" not in raw:
        return raw
    if _BROKEN_ESCAPE.search(raw):
        raise BadPath("the path holds a `%` that begins no escape")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadPath("the path does not decode to UTF-8") from None


def _decode_kept(raw: str) -> str:
    """Undo the percent-encoding of several segments but keep `%2F`, which is no separator."""
    if "%" not in raw:
        return raw
    parts = _ESCAPED_SLASH.split(raw)
    return "".join(part if index % 2 else decode(part) for index, part in enumerate(parts))


@dataclass(slots=True)
class _Node(Generic[Target]):
    literals: dict[str, _Node[Target]] = field(default_factory=dict)
    star: _Node[Target] | None = None
    ends: dict[str, dict[str, Target]] = field(default_factory=dict)
    """What ends here: HTTP method to target, by custom verb ("" for none)."""
    rest: dict[str, dict[str, Target]] = field(default_factory=dict)
    """The same for templates that go on with `**`."""


@dataclass(frozen=True, slots=True)
class Found(Generic[Target]):
    """What a path leads to: targets by HTTP method, and the raw segments without a custom verb."""

    targets: dict[str, Target]
    segments: list[str]


class Trie(Generic[Target]):
    """Finds the most specific template that matches a path: literals before `*` before `**`."""

    def __init__(self) -> None:
        self._root: _Node[Target] = _Node()
        self._verbs: set[str] = set()
        self._plain: dict[str, Found[Target]] = {}
        """What templates of literals alone lead to, by the path they are most often sent as."""

    def add(self, template: Template, method: str, target: Target) -> None:
        """Add a target; the caller has seen to it that no two share template and method."""
        node = self._root
        for segment in template.segments:
            if segment == "**":
                node.rest.setdefault(template.verb, {})[method] = target
                break
            if segment == "*":
                node.star = node.star or _Node()
                node = node.star
            else:
                node = node.literals.setdefault(segment, _Node())
        else:
            node.ends.setdefault(template.verb, {})[method] = target
        if template.verb:
            self._verbs.add(template.verb)
        elif "*" not in template.segments and "**" not in template.segments:
            path = "/" + "/".join(template.segments)
            self._plain[path] = Found(node.ends[""], list(template.segments))

    def find(self, raw_path: str, method: str) -> Found[Target] | None:
        """Find what serves a method at a raw path (as sent, with a leading slash, no query).

        The targets hold `method` (or "*") if any matching template serves it; else they are those
        of the most specific match, for `Allow`.

        Raises:
            BadPath: a segment is not decodable.
        """
        plain = self._plain.get(raw_path)
        if plain is not None and method in plain.targets:
            return plain
        other: Found[Target] | None = None
        for found in self._matches(raw_path):
            if method in found.targets or "*" in found.targets:
                return found
            other = other or found
        return other

    def _matches(self, raw_path: str) -> Iterator[Found[Target]]:
        segments = raw_path[1:].split("/") if len(raw_path) > 1 else []
        if segments and self._verbs:
            last, colon, verb = segments[-1].rpartition(":")
            if colon and decode(verb) in self._verbs:
                bare = [*segments[:-1], last]
                for targets in _walk(self._root, _decoded(bare), 0, decode(verb)):
                    yield Found(targets, bare)
        for targets in _walk(self._root, _decoded(segments), 0, ""):
            yield Found(targets, segments)

    def nearest(self, raw_path: str) -> list[Target]:
        """Every target below the longest known beginning of a path."""
        node = self._root
        for segment in raw_path[1:].split("/"):
            deeper = node.literals.get(segment) or node.star
            if deeper is None:
                break
            node = deeper
        return list(_targets(node))


def _decoded(segments: list[str]) -> list[str]:
    # A literal in a template may be written with escapes, and so may the same one in a path.
    return [
        decode(segment).replace("*", "%2A") if "%" in segment or "*" in segment else segment
        for segment in segments
    ]


def _walk(
    node: _Node[Target], segments: list[str], at: int, verb: str
) -> Iterator[dict[str, Target]]:
    if at == len(segments):
        if verb in node.ends:
            yield node.ends[verb]
    else:
        segment = segments[at]
        literal = node.literals.get(segment)
        if literal is not None:
            yield from _walk(literal, segments, at + 1, verb)
        if node.star is not None and segment:
            yield from _walk(node.star, segments, at + 1, verb)
    if verb in node.rest:
        yield node.rest[verb]


def _targets(node: _Node[Target]) -> Iterator[Target]:
    for table in (node.ends, node.rest):
        for by_method in table.values():
            yield from by_method.values()
    for child in node.literals.values():
        yield from _targets(child)
    if node.star is not None:
        yield from _targets(node.star)
