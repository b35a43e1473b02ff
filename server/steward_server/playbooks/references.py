"""References, `{{ namespace.name.field }}`: read, and replaced by what they stand for. Pure.

A text that is one reference becomes its value with its type; within more text a reference is
rendered as text. A reference that is malformed or stands for nothing is an error, never left as it
was written. `{{ "…" }}` is that text itself, for one that has two braces in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steward_server.credential import FIELDS, Credential
from steward_server.playbooks.faults import Path, nearest

NAMESPACES = ("parameter", "variable", "credential", "step")
MAX_PARTS = 32
MAX_IN_ONE_TEXT = 200

_SPACE = re.compile(r"[ \t\r\n]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_QUOTED = re.compile(r"\"((?:[^\"\\]|\\[\"\\])*)\"|'((?:[^'\\]|\\['\\])*)'")
_INDEX = re.compile(r"[0-9]{1,9}")
_ESCAPE = re.compile(r"\\(.)")
_TO_ESCAPE = re.compile(r"([\"\\])")
_ESCAPED = r"\\\1"


class BadReference(ValueError):
    """A text has two braces and no reference.

    Attributes:
        offset: of the reference in the text, in characters.
        hint: what was meant, where that is known.
    """

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.hint = hint


class Unresolved(LookupError):
    """A reference stands for nothing.

    Attributes:
        path: where in the value that was resolved it stands.
        hint: the name that was meant, where one is near.
    """

    def __init__(self, message: str, path: Path = (), hint: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Reference:
    """A name in a namespace, and what of it is meant.

    Attributes:
        parts: the name, then fields and indexes; at least one.
        offset: of its braces in the text it was read from.
    """

    namespace: str
    parts: tuple[str, ...]
    offset: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        return self.parts[0]

    def __str__(self) -> str:
        return self.namespace + "".join(
            f".{part}" if _PART.fullmatch(part) else f'["{_TO_ESCAPE.sub(_ESCAPED, part)}"]'
            for part in self.parts
        )


Template = tuple[str | Reference, ...]
"""Text and references in turns; two texts never follow each other, and none is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What references stand for.

    Attributes:
        parameters: a value that is itself a reference stands for what that stands for: so the
            parameters of a run can be kept without the secrets in them.
        steps: by id, what each gave.
    """

    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def look_up(self, reference: Reference) -> Any:
        """What a reference stands for.

        Raises:
            Unresolved: nothing.
        """
        known: Mapping[str, Any] = {
            "parameter": self.parameters,
            "variable": self.variables,
            "credential": self.credentials,
            "step": self.steps,
        }[reference.namespace]
        if reference.name not in known:
            if reference.namespace == "step":
                # Checked before the run: there is such a step, and it comes before.
                raise Unresolved(f"step {reference.name!r} gave nothing: it was not completed")
            raise Unresolved(
                f"there is no {reference.namespace} {reference.name!r}",
                hint=nearest(reference.name, known),
            )
        value = known[reference.name]
        if isinstance(value, Reference):
            value = self.look_up(value)
        for count, part in enumerate(reference.parts[1:], 1):
            so_far = Reference(reference.namespace, reference.parts[:count])
            value = _part(value, part, so_far)
        return value


def is_name(text: str) -> bool:
    """Whether it can name a parameter, variable or step: letters, digits, `_`, `-`."""
    return _NAME.fullmatch(text) is not None


def parse(text: str) -> Template:
    """Find the references in a text.

    Raises:
        BadReference: there are two braces and no reference.
    """
    template, bad = _read(text)
    if bad:
        raise bad[0]
    return template


def whole(template: Template) -> Reference | None:
    """The reference that is all of a text."""
    return template[0] if len(template) == 1 and isinstance(template[0], Reference) else None


def path_at(text: str, begins: int, shown_at: int | None = None) -> tuple[Reference, int]:
    """Read a path such as `step.ping.items[0]`, without braces; and where it ends.

    Raises:
        BadReference: there is none.
    """
    shown_at = begins if shown_at is None else shown_at
    first = _NAME.match(text, begins)
    if first is None:
        raise BadReference("no name where a reference begins", shown_at)
    parts, end = _parts(text, first.end(), shown_at)
    namespace = first[0]
    if not parts:
        if namespace in NAMESPACES:
            raise BadReference(f"{namespace!r} needs a name after it: {namespace}.name", shown_at)
        return Reference("parameter", (namespace,), shown_at), end
    if namespace not in NAMESPACES:
        meant = nearest(namespace, NAMESPACES)
        rest = text[first.end() : end]
        raise BadReference(
            f"there is no namespace {namespace!r}, only {', '.join(NAMESPACES)}",
            shown_at,
            f"{meant or f'parameter.{namespace}'}{rest}",
        )
    if len(parts) > MAX_PARTS:
        raise BadReference(f"a reference goes at most {MAX_PARTS} deep", shown_at)
    return Reference(namespace, tuple(parts), shown_at), end


def references(value: Any) -> Iterator[Reference]:
    """Every reference in a value; of text that is malformed `templates` tells."""
    for _, _, template, _ in templates(value):
        yield from (each for each in template if isinstance(each, Reference))


def templates(
    value: Any, path: Path = ()
) -> Iterator[tuple[Path, str, Template, Sequence[BadReference]]]:
    """Every text in a value and where it stands, read, and what is malformed in it."""
    if isinstance(value, str):
        yield path, value, *_read(value)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from templates(each, (*path, key))
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from templates(each, (*path, index))


def resolve(value: Any, scope: Scope) -> Any:
    """The value with every reference in it replaced.

    Raises:
        Unresolved: one stands for nothing, or cannot be text where it is within text.
        BadReference: one is malformed, which checking would have told.
    """
    return _replaced(value, (), lambda _, template: _filled(template, scope))


def resolve_known(value: Any, scope: Scope) -> Any:
    """The same, with what stands for nothing yet left as it is written, for showing."""

    def fill(text: str, template: Template) -> Any:
        try:
            return _filled(template, scope)
        except Unresolved:
            return text

    return _replaced(value, (), fill)


def rendered(value: Any) -> str:
    """A value within text: text as it is, anything else as JSON.

    Raises:
        Unresolved: it is null, or has a credential in it.
    """
    if isinstance(value, str):
        return value
    if value is None:
        raise Unresolved("it is null, which is no text")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_no_text)
    except ValueError:
        raise Unresolved("it is no number that JSON has") from None


def _no_text(value: Any) -> Any:
    if isinstance(value, Credential):
        raise Unresolved(
            f"credential {value.name!r} has no text of its own; name a field of it, such as "
            "username"
        )
    raise Unresolved(f"a {type(value).__name__} has no text")


def _replaced(value: Any, path: Path, fill: Callable[[str, Template], Any]) -> Any:
    if isinstance(value, str):
        if "{{" not in value:
            return value
        try:
            return fill(value, parse(value))
        except Unresolved as error:
            raise Unresolved(str(error), path, error.hint) from None
    if isinstance(value, Mapping):
        return {key: _replaced(each, (*path, key), fill) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(each, (*path, index), fill) for index, each in enumerate(value)]
    return value


def _filled(template: Template, scope: Scope) -> Any:
    if (alone := whole(template)) is not None:
        return scope.look_up(alone)
    texts = []
    for each in template:
        if isinstance(each, str):
            texts.append(each)
            continue
        value = scope.look_up(each)
        try:
            texts.append(rendered(value))
        except Unresolved as error:
            raise Unresolved(f"{{{{ {each} }}}} within text: {error}") from None
    return "".join(texts)


def _part(value: Any, part: str, so_far: Reference) -> Any:
    if isinstance(value, Credential):
        if part in FIELDS:
            return getattr(value, part)
        raise Unresolved(f"a credential has no {part!r}", hint=nearest(part, FIELDS))
    if isinstance(value, Mapping):
        if part in value:
            return value[part]
        raise Unresolved(f"{so_far} has no {part!r}", hint=nearest(part, map(str, value)))
    if isinstance(value, list | tuple):
        if not _INDEX.fullmatch(part):
            raise Unresolved(f"{so_far} is a list; {part!r} is no index of it")
        if int(part) >= len(value):
            raise Unresolved(f"{so_far} has {len(value)} items; there is no [{part}]")
        return value[int(part)]
    kind = "null" if value is None else "a single value"
    raise Unresolved(f"{so_far} is {kind}; it has no {part!r}")


def _read(text: str) -> tuple[Template, Sequence[BadReference]]:
    found: list[str | Reference] = []
    bad: list[BadReference] = []
    plain, end, seen = "", 0, 0
    while (begins := text.find("{{", end)) >= 0:
        plain += text[end:begins]
        seen += 1
        if seen > MAX_IN_ONE_TEXT:
            bad.append(BadReference(f"more than {MAX_IN_ONE_TEXT} references in a text", begins))
            return tuple(found), bad
        try:
            one, end = _one(text, begins)
        except BadReference as error:
            bad.append(error)
            closes = text.find("}}", begins)
            end = closes + 2 if closes >= 0 else len(text)
            continue
        if isinstance(one, str):
            plain += one
            continue
        if plain:
            found.append(plain)
        found.append(one)
        plain = ""
    plain += text[end:]
    return (*found, plain) if plain else tuple(found), bad


def _one(text: str, begins: int) -> tuple[str | Reference, int]:
    """The reference or quoted text whose braces begin here, and where they end."""
    at = _skip(text, begins + 2)
    if text.find("}}", at) < 0:
        raise BadReference("'{{' without '}}'", begins)
    one: str | Reference
    if quoted := _QUOTED.match(text, at):
        one, at = _unquoted(quoted), quoted.end()
    elif text.startswith("}}", at):
        raise BadReference("'{{ }}' is empty", begins)
    else:
        one, at = path_at(text, at, begins)
    at = _skip(text, at)
    if not text.startswith("}}", at):
        rest = text[at : text.find("}}", at)].strip()
        if not rest:
            raise BadReference("'{{' without '}}'", begins)
        why = "; there are no filters" if rest.startswith("|") else ""
        raise BadReference(f"{rest[:40]!r} cannot follow a reference{why}", begins)
    return one, at + 2


def _parts(text: str, at: int, shown_at: int) -> tuple[list[str], int]:
    parts: list[str] = []
    while at < len(text) and text[at] in ".[":
        if text[at] == ".":
            named = _PART.match(text, at + 1)
            if named is None:
                raise BadReference("no name after '.'", shown_at)
            parts.append(named[0])
            at = named.end()
            continue
        at += 1
        if quoted := _QUOTED.match(text, at):
            parts.append(_unquoted(quoted))
            at = quoted.end()
        elif index := _INDEX.match(text, at):
            parts.append(index[0])
            at = index.end()
        else:
            raise BadReference("'[' takes a number, or a name in quotes", shown_at)
        if not text.startswith("]", at):
            raise BadReference("'[' without ']'", shown_at)
        at += 1
    return parts, at


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _unquoted(quoted: re.Match[str]) -> str:
    text = quoted[1] if quoted[1] is not None else quoted[2]
    return _ESCAPE.sub(r"\1", text)
