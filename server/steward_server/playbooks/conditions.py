"""Conditions, `when:`: one boolean expression, read into a small tree and decided. Pure.

    or, and, not, ==, !=, <, <=, >, >=, in, not in, is defined, is not defined, parentheses,
    "text", numbers, true, false, null, [lists], and references with or without their braces.

Nothing is taken for true that is not a boolean, and nothing equals a value of another type but a
whole number and a real one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from steward_server.playbooks.references import (
    BadReference,
    Reference,
    Scope,
    Unresolved,
    path_at,
)

MAX_CHARACTERS = 2_000
MAX_DEPTH = 32

_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?(?![A-Za-z0-9_])")
_TEXT = re.compile(r"\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'")
_WORD = re.compile(r"(?:and|or|not|in|is|defined|true|false|null)(?![A-Za-z0-9_.\[-])")
_SIGN = re.compile(r"==|!=|<=|>=|<|>|\(|\)|\[|\]|,")
_CONSTANTS = {"true": True, "false": False, "null": None}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_SLIPS = {"=": "==", "&&": "and", "||": "or", "!": "not"}


class BadCondition(ValueError):
    """A text is no condition.

    Attributes:
        offset: where in the text, in characters.
        hint: what was meant, where that is known.
    """

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message)
        self.offset = offset
        self.hint = hint


class Undecided(ValueError):
    """A condition compares what cannot be compared, or is no boolean."""


@dataclass(frozen=True, slots=True)
class Constant:
    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Several:
    """A list that is written out."""

    items: tuple[Tree, ...]


@dataclass(frozen=True, slots=True)
class Defined:
    """Whether a reference stands for anything."""

    reference: Reference


@dataclass(frozen=True, slots=True)
class Not:
    inner: Tree


@dataclass(frozen=True, slots=True)
class Both:
    left: Tree
    right: Tree


@dataclass(frozen=True, slots=True)
class Either:
    left: Tree
    right: Tree


@dataclass(frozen=True, slots=True)
class Compared:
    """`sign` is one of == != < <= > >= in."""

    sign: str
    left: Tree
    right: Tree


Tree = Constant | Reference | Several | Defined | Not | Both | Either | Compared


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, read.

    Attributes:
        text: as it was written; offsets of references are in it.
    """

    text: str
    tree: Tree

    @property
    def references(self) -> tuple[tuple[Reference, bool], ...]:
        """Those in it, and whether each must stand for something."""
        return tuple(_used(self.tree))

    @property
    def truths(self) -> tuple[Reference, ...]:
        """References that must stand for true or false, for they are compared with nothing."""
        return tuple(_truths(self.tree))

    def holds(self, scope: Scope) -> bool:
        """Decide it.

        Raises:
            Unresolved: a reference that is needed stands for nothing.
            Undecided: something in it is no boolean or cannot be compared.
        """
        return _boolean(_value(self.tree, scope))

    def holds_so_far(self, scope: Scope, is_known: Callable[[Reference], bool]) -> bool | None:
        """Decide it with what is known; None where that is not enough.

        The scope is not asked for references that are not known yet.
        """
        return _decided(self.tree, scope, is_known)


def parse_condition(text: str) -> Condition:
    """Read a condition.

    Raises:
        BadCondition: it is none; the message says why, the offset where.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadCondition(f"a condition has at most {MAX_CHARACTERS} characters", 0)
    return Condition(text, _Parser(text).tree())


def _used(tree: Tree) -> Iterator[tuple[Reference, bool]]:
    match tree:
        case Reference():
            yield tree, True
        case Defined(reference):
            yield reference, False
        case Several(items):
            for each in items:
                yield from _used(each)
        case Not(inner):
            yield from _used(inner)
        case Both(left, right) | Either(left, right) | Compared(_, left, right):
            yield from _used(left)
            yield from _used(right)


def _truths(tree: Tree) -> Iterator[Reference]:
    match tree:
        case Reference():
            yield tree
        case Not(inner):
            yield from _truths(inner)
        case Both(left, right) | Either(left, right):
            yield from _truths(left)
            yield from _truths(right)


def _decided(tree: Tree, scope: Scope, is_known: Callable[[Reference], bool]) -> bool | None:
    match tree:
        case Not(inner):
            decided = _decided(inner, scope, is_known)
            return None if decided is None else not decided
        case Both(left, right):
            first = _decided(left, scope, is_known)
            if first is False:
                return False
            second = _decided(right, scope, is_known)
            return second if first or second is False else None
        case Either(left, right):
            first = _decided(left, scope, is_known)
            if first is True:
                return True
            second = _decided(right, scope, is_known)
            return second if first is False or second is True else None
    if not all(is_known(each) for each, _ in _used(tree)):
        return None
    try:
        return _boolean(_value(tree, scope))
    except (Unresolved, Undecided):
        return None


def _value(tree: Tree, scope: Scope) -> Any:
    match tree:
        case Constant(value):
            return value
        case Reference():
            return scope.look_up(tree)
        case Several(items):
            return [_value(each, scope) for each in items]
        case Defined(reference):
            try:
                return scope.look_up(reference) is not None
            except Unresolved:
                return False
        case Not(inner):
            return not _boolean(_value(inner, scope))
        case Both(left, right):
            return _boolean(_value(left, scope)) and _boolean(_value(right, scope))
        case Either(left, right):
            return _boolean(_value(left, scope)) or _boolean(_value(right, scope))
        case Compared(sign, left, right):
            return _compared(sign, _value(left, scope), _value(right, scope))


def _compared(sign: str, left: Any, right: Any) -> bool:
    if sign == "==":
        return _equal(left, right)
    if sign == "!=":
        return not _equal(left, right)
    if sign == "in":
        if isinstance(right, str) and isinstance(left, str):
            return left in right
        if isinstance(right, Mapping):
            return isinstance(left, str) and left in right
        if isinstance(right, list | tuple):
            return any(_equal(left, each) for each in right)
        raise Undecided(f"{_shown(left)} cannot be 'in' {_shown(right)}")
    comparable = (_is_number(left) and _is_number(right)) or (
        isinstance(left, str) and isinstance(right, str)
    )
    if not comparable:
        raise Undecided(f"{_shown(left)} and {_shown(right)} have no order")
    return bool(_ORDER[sign](left, right))


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_equal, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    return bool(left == right)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise Undecided(f"{_shown(value)} is neither true nor false; compare it with something")


def _shown(value: Any) -> str:
    """Its kind, not its value, which may be secret."""
    if value is None:
        return "null"
    kinds = {str: "a text", bool: "a boolean", list: "a list", dict: "a map"}
    return "a number" if _is_number(value) else kinds.get(type(value), "this")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    """`word`, `sign`, `constant`, `reference`, `end`."""
    value: Any
    offset: int


def _tokens(text: str) -> Iterator[_Token]:
    at = _past_space(text, 0)
    while at < len(text):
        if found := _TEXT.match(text, at):
            inner = found[1] if found[1] is not None else found[2]
            yield _Token("constant", re.sub(r"\\(.)", r"\1", inner), at)
            end = found.end()
        elif found := _NUMBER.match(text, at):
            yield _Token("constant", _number(found, at), at)
            end = found.end()
        elif found := _WORD.match(text, at):
            word = found[0]
            constant = word in _CONSTANTS
            value = _CONSTANTS[word] if constant else word
            yield _Token("constant" if constant else "word", value, at)
            end = found.end()
        elif found := _SIGN.match(text, at):
            yield _Token("sign", found[0], at)
            end = found.end()
        else:
            reference, end = _reference(text, at)
            yield _Token("reference", reference, at)
        at = _past_space(text, end)
    yield _Token("end", "the end", len(text))


def _past_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _number(found: re.Match[str], at: int) -> float:
    if len(found[0]) > 40:
        raise BadCondition("a number of more than 40 characters", at)
    return float(found[0]) if found[1] or found[2] else int(found[0])


def _reference(text: str, at: int) -> tuple[Reference, int]:
    for slip, meant in _SLIPS.items():
        if text.startswith(slip, at):
            raise BadCondition(f"{slip!r} is no operator", at, meant)
    braces = text.startswith("{{", at)
    if not braces and not (text[at].isascii() and (text[at].isalpha() or text[at] == "_")):
        raise BadCondition(f"{text[at]!r} cannot stand here", at)
    try:
        reference, end = path_at(text, _past_space(text, at + 2) if braces else at, at)
    except BadReference as error:
        raise BadCondition(str(error), error.offset, error.hint) from None
    if braces:
        end = _past_space(text, end)
        if not text.startswith("}}", end):
            raise BadCondition("'{{' without '}}'", at)
        end += 2
    return reference, end


@dataclass(slots=True)
class _Parser:
    text: str
    _left: list[_Token] = field(default_factory=list)
    _depth: int = 0

    def tree(self) -> Tree:
        self._left = [*_tokens(self.text)][::-1]
        tree = self._either()
        if self._next.kind != "end":
            raise BadCondition(f"{self._shown()} cannot stand here", self._next.offset)
        _must_be_boolean(tree, 0)
        return tree

    @property
    def _next(self) -> _Token:
        return self._left[-1]

    def _is(self, *values: str) -> bool:
        return self._next.kind in ("word", "sign") and self._next.value in values

    def _take(self) -> _Token:
        return self._left.pop()

    def _shown(self) -> str:
        value = self._next.value
        if self._next.kind == "end":
            return "the end"
        return f"'{value}'" if self._next.kind != "constant" else repr(value)

    def _either(self) -> Tree:
        tree = self._both()
        while self._is("or"):
            at = self._take().offset
            right = self._both()
            _must_be_boolean(tree, at)
            _must_be_boolean(right, at)
            tree = Either(tree, right)
        return tree

    def _both(self) -> Tree:
        tree = self._not()
        while self._is("and"):
            at = self._take().offset
            right = self._not()
            _must_be_boolean(tree, at)
            _must_be_boolean(right, at)
            tree = Both(tree, right)
        return tree

    def _not(self) -> Tree:
        if not self._is("not"):
            return self._comparison()
        at = self._deeper()
        inner = self._not()
        _must_be_boolean(inner, at)
        self._depth -= 1
        return Not(inner)

    def _comparison(self) -> Tree:
        left = self._primary()
        if self._is("is"):
            return self._defined(left)
        negated = self._is("not")
        if not negated and not self._is("==", "!=", "in", *_ORDER):
            return left
        sign = self._take()
        if negated:
            if not self._is("in"):
                raise BadCondition("'not' after a value needs 'in' after it", sign.offset)
            self._take()
            return Not(self._compare("in", left, sign.offset))
        return self._compare(sign.value, left, sign.offset)

    def _compare(self, sign: str, left: Tree, at: int) -> Tree:
        right = self._primary()
        if self._is("==", "!=", "in", *_ORDER):
            raise BadCondition(
                "comparisons cannot be chained; join two of them with 'and'", self._next.offset
            )
        if isinstance(left, Constant) and isinstance(right, Constant):
            try:
                _compared(sign, left.value, right.value)
            except Undecided as error:
                raise BadCondition(str(error), at) from None
        return Compared(sign, left, right)

    def _defined(self, left: Tree) -> Tree:
        at = self._take().offset
        negated = self._is("not")
        if negated:
            self._take()
        if not self._is("defined"):
            raise BadCondition(
                "'is' needs 'defined' or 'not defined' after it", self._next.offset, "=="
            )
        self._take()
        if not isinstance(left, Reference):
            raise BadCondition("only a reference can be defined", at)
        return Not(Defined(left)) if negated else Defined(left)

    def _primary(self) -> Tree:
        token = self._next
        if token.kind == "constant":
            self._take()
            return Constant(token.value)
        if token.kind == "reference":
            self._take()
            reference: Reference = token.value
            return reference
        if self._is("("):
            self._deeper()
            tree = self._either()
            self._closed(")", token)
            return tree
        if self._is("["):
            self._deeper()
            items: list[Tree] = []
            while not self._is("]"):
                items.append(self._primary())
                if not self._is(","):
                    break
                self._take()
            self._closed("]", token)
            return Several(tuple(items))
        raise BadCondition(f"a value is missing before {self._shown()}", token.offset)

    def _deeper(self) -> int:
        token = self._take()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise BadCondition(f"a condition is at most {MAX_DEPTH} deep", token.offset)
        return token.offset

    def _closed(self, sign: str, opened: _Token) -> None:
        if not self._is(sign):
            raise BadCondition(f"{opened.value!r} without {sign!r}", opened.offset)
        self._take()
        self._depth -= 1


def _must_be_boolean(tree: Tree, at: int) -> None:
    if isinstance(tree, Several) or (
        isinstance(tree, Constant) and not isinstance(tree.value, bool)
    ):
        raise BadCondition("a condition is true or false; compare the value with something", at)
