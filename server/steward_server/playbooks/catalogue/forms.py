"""The form in which the catalogue declares types of steps, and whether values fit it. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Any

from steward_server.credential import Credential
from steward_server.playbooks.faults import Path, called, nearest
from steward_server.playbooks.playbook import ParameterType
from steward_server.playbooks.references import (
    BadReference,
    Reference,
    parse,
    whole,
)


class Kind(StrEnum):
    """What a value is."""

    STRING = "string"
    """Text; what a reference stands for is rendered as text."""
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    LIST = "list"
    MAP = "map"
    FILE = "file"
    """A path; text."""
    CREDENTIAL = "credential"
    """The name of one, or one whole."""
    CODE = "code"
    """Text in which references are not replaced: what they stand for would be run."""
    ANY = "any"
    """Anything but a credential."""
    GIVEN = "given"
    """Anything, a credential as well: what another playbook is given."""


OF_PARAMETER = {
    ParameterType.STRING: Kind.STRING,
    ParameterType.INTEGER: Kind.INTEGER,
    ParameterType.FLOAT: Kind.NUMBER,
    ParameterType.BOOLEAN: Kind.BOOLEAN,
    ParameterType.FILE: Kind.FILE,
    ParameterType.CREDENTIAL: Kind.CREDENTIAL,
    ParameterType.LIST: Kind.LIST,
    ParameterType.DICT: Kind.MAP,
}
"""What the types of a playbook's parameters are here."""


class Need(StrEnum):
    """What a step uses of its host or its run."""

    GATEWAY = "gateway"
    """The URL of an Ignition gateway."""
    BROWSER = "browser"
    DESIGNER = "designer"
    ENVIRONMENTS = "environments"
    INFERENCE = "inference"
    BUDGETS = "budgets"
    NETWORK = "network"
    PERSON = "person"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a text must look like.

    Attributes:
        pattern: that all of it matches; read alike by Python and JSON Schema.
        words: the same, for people.
    """

    pattern: str
    words: str


ARTIFACT_NAME = Shape(
    "[A-Za-z0-9_][A-Za-z0-9 ._-]*",
    "a name without folders: letters, digits, spaces, '.', '_' and '-'",
)
WEB_ADDRESS = Shape(r"https?://[^\s/]\S*", "an address that begins with http:// or https://")


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or an output of a step.

    Attributes:
        doc: a sentence.
        unit: `s` or `ms`, of times.
        least: of a number; of a text or list, how long it is.
        choices: the only values, if there are any.
        shape: of a text.
        item: of each in a list, or each value of a map.
        fields: of a map whose keys are known.
        nullable: whether null is a value, with a meaning of its own.
        literal: whether it must be written out, because others depend on what it is.
        secret: whether its value is never shown nor kept.
    """

    name: str
    kind: Kind
    doc: str
    _: KW_ONLY
    required: bool = False
    default: Any = None
    unit: str = ""
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    shape: Shape | None = None
    item: Field | None = None
    fields: tuple[Field, ...] = ()
    nullable: bool = False
    literal: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class StepType:
    """A kind of step.

    Attributes:
        doc: what it does; sentences.
        alternatives: parameters of which whole groups exclude each other: none or one of them.
        must_choose: whether one of the alternatives must be there.
        takes_more: whether it has parameters that are not listed: those of another playbook.
        gives_more: whether its outputs are not all listed.
        is_read_only: whether it changes nothing outside of the run.
        is_repeatable: whether it can be done again after a crash in the middle of it.
        misspelt: what others call its parameters, and what they are called here.
    """

    name: str
    doc: str
    _: KW_ONLY
    parameters: tuple[Field, ...] = ()
    outputs: tuple[Field, ...] = ()
    alternatives: tuple[tuple[str, ...], ...] = ()
    must_choose: bool = False
    takes_more: bool = False
    gives_more: bool = False
    is_read_only: bool = False
    is_repeatable: bool = False
    needs: frozenset[Need] = frozenset()
    misspelt: Mapping[str, str] = field(default_factory=dict)

    def parameter(self, name: str) -> Field | None:
        """The parameter of this name."""
        return next((each for each in self.parameters if each.name == name), None)

    def output(self, name: str) -> Field | None:
        """The output of this name."""
        return next((each for each in self.outputs if each.name == name), None)


@dataclass(frozen=True, slots=True)
class Problem:
    """A value that does not fit.

    Attributes:
        path: where, from the step's parameters on.
        of_key: whether the key itself is wrong.
    """

    path: Path
    message: str
    hint: str = ""
    of_key: bool = False

    def __str__(self) -> str:
        return f"{self.message}; did you mean {self.hint!r}?" if self.hint else self.message


KindOf = Callable[[Reference], Kind | None]
"""What a reference will give; None where that is not known."""


def misfits(
    step_type: StepType, values: Mapping[str, Any], kind_of: KindOf | None = None
) -> Iterator[Problem]:
    """What does not fit; `kind_of` if the values still have references in them."""
    known = {each.name: each for each in step_type.parameters}
    meant = set()
    for name, value in values.items():
        if (declared := known.get(name)) is not None:
            yield from misfit(declared, value, (name,), kind_of)
        elif not step_type.takes_more:
            unknown = _unknown(step_type, name)
            meant.add(unknown.hint)
            yield unknown
    for declared in step_type.parameters:
        if declared.required and declared.name not in {*values, *meant}:
            yield Problem((), f"{step_type.name} needs the parameter {declared.name!r}")
    yield from _alternatives(step_type, {*values, *meant})


def misfit(
    declared: Field, value: Any, path: Path, kind_of: KindOf | None = None
) -> Iterator[Problem]:
    """What of a value does not fit."""
    if value is None:
        if declared.nullable or declared.kind in (Kind.ANY, Kind.GIVEN):
            return
        yield Problem(path, f"{called(path)!r} must be {_wanted(declared)}, not null")
        return
    if isinstance(value, str) and kind_of is not None and _is_templated(declared, value):
        yield from _templated(declared, value, path, kind_of)
        return
    if not _is(declared.kind, value):
        message = f"{called(path)!r} must be {_wanted(declared)}, not {_shown(value)}"
        if _is_quoted_number(declared, value):
            message += "; write it without quotes"
        yield Problem(path, message, _meant(declared, value))
        return
    yield from _bounds(declared, value, path)
    if isinstance(value, Mapping):
        yield from _entries(declared, value, path, kind_of)
    elif isinstance(value, list | tuple):
        inner = declared.item or (_GIVEN if declared.kind is Kind.GIVEN else _ANYTHING)
        for index, each in enumerate(value):
            yield from misfit(inner, each, (*path, index), kind_of)


def _is_templated(declared: Field, value: str) -> bool:
    """Whether there are references in it, that can be read or not."""
    if declared.kind is Kind.CODE:
        return False
    try:
        return any(isinstance(each, Reference) for each in parse(value))
    except BadReference:
        return True


def _templated(declared: Field, value: str, path: Path, kind_of: KindOf) -> Iterator[Problem]:
    if declared.literal:
        yield Problem(path, f"{called(path)!r} must be written out, without references")
        return
    try:
        alone = whole(parse(value))
    except BadReference:
        return  # told by whoever looks at all references
    given = Kind.STRING if alone is None else kind_of(alone)
    if given is not None and not _may_be(given, declared.kind):
        what = "text with a reference in it" if alone is None else f"{given} {{{{ {alone} }}}}"
        yield Problem(path, f"{called(path)!r} must be {_wanted(declared)}, not {what}")


def _may_be(given: Kind, wanted: Kind) -> bool:
    if wanted is Kind.GIVEN:
        return True
    if wanted is Kind.ANY:
        return given is not Kind.CREDENTIAL
    if given is Kind.ANY or given is wanted:
        return True
    if wanted is Kind.STRING:
        return given is not Kind.CREDENTIAL  # it is rendered, as within text
    if given in (Kind.STRING, Kind.FILE) and wanted in (Kind.FILE, Kind.CREDENTIAL):
        return True
    return given is Kind.INTEGER and wanted is Kind.NUMBER


def _is(kind: Kind, value: Any) -> bool:
    match kind:
        case Kind.STRING | Kind.FILE | Kind.CODE:
            return isinstance(value, str)
        case Kind.CREDENTIAL:
            return isinstance(value, str | Credential)
        case Kind.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.NUMBER:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number and math.isfinite(value)
        case Kind.BOOLEAN:
            return isinstance(value, bool)
        case Kind.LIST:
            return isinstance(value, list | tuple)
        case Kind.MAP:
            return isinstance(value, Mapping)
        case Kind.ANY:
            return not isinstance(value, Credential)
        case Kind.GIVEN:
            return True


def _bounds(declared: Field, value: Any, path: Path) -> Iterator[Problem]:
    if declared.choices and value not in declared.choices:
        choices = ", ".join(declared.choices)
        hint = nearest(value, declared.choices)
        yield Problem(path, f"{called(path)!r} must be one of {choices}, not {value!r}", hint)
    if declared.shape is not None and not re.fullmatch(declared.shape.pattern, value):
        yield Problem(path, f"{called(path)!r} must be {declared.shape.words}")
    if isinstance(value, Credential | bool):
        return
    is_number = isinstance(value, int | float)
    size = value if is_number else len(value) if hasattr(value, "__len__") else 0
    what = declared.unit and f" {declared.unit}"
    if not is_number:
        what = " characters" if isinstance(value, str) else " items"
    name = f"{called(path)!r}" if is_number else f"the length of {called(path)!r}"
    if declared.least is not None and size < declared.least:
        yield Problem(path, f"{name} must be at least {declared.least:g}{what}, not {size}")
    if declared.most is not None and size > declared.most:
        yield Problem(path, f"{name} must be at most {declared.most:g}{what}, not {size}")


def _entries(
    declared: Field, value: Mapping[str, Any], path: Path, kind_of: KindOf | None
) -> Iterator[Problem]:
    if not declared.fields:
        inner = declared.item or (_GIVEN if declared.kind is Kind.GIVEN else _ANYTHING)
        for key, each in value.items():
            yield from misfit(inner, each, (*path, key), kind_of)
        return
    known = {each.name: each for each in declared.fields}
    for key, each in value.items():
        if key in known:
            yield from misfit(known[key], each, (*path, key), kind_of)
        else:
            message = f"{declared.name} has no key {key!r}"
            yield Problem((*path, key), message, nearest(key, known), of_key=True)
    for each in declared.fields:
        if each.required and each.name not in value:
            yield Problem(path, f"{declared.name} needs the key {each.name!r}")


def _unknown(step_type: StepType, name: str) -> Problem:
    message = f"{step_type.name} has no parameter {name!r}"
    known = [each.name for each in step_type.parameters]
    if name in step_type.misspelt:
        return Problem((name,), message, step_type.misspelt[name], of_key=True)
    return Problem((name,), message, nearest(name, known), of_key=True)


def _alternatives(step_type: StepType, values: Collection[str]) -> Iterator[Problem]:
    if not step_type.alternatives:
        return
    groups = " or ".join("+".join(group) for group in step_type.alternatives)
    begun = [group for group in step_type.alternatives if any(each in values for each in group)]
    if not begun:
        if step_type.must_choose:
            yield Problem((), f"{step_type.name} needs {groups}")
        return
    if len(begun) > 1:
        yield Problem((), f"{step_type.name} takes {groups}, not both")
    for name in begun[0]:
        if len(begun) == 1 and name not in values:
            other = next(each for each in begun[0] if each in values)
            yield Problem((), f"{step_type.name} needs {name!r} beside {other!r}")


def _meant(declared: Field, value: Any) -> str:
    """The boolean that a word was meant to be."""
    if declared.kind is not Kind.BOOLEAN or not isinstance(value, str):
        return ""
    word = value.lower()
    return "true" if word in _YES else "false" if word in _NO else ""


def _is_quoted_number(declared: Field, value: Any) -> bool:
    return (
        declared.kind in (Kind.INTEGER, Kind.NUMBER)
        and isinstance(value, str)
        and value.strip().lstrip("-").isdecimal()
    )


_YES = ("yes", "on", "true")
_NO = ("no", "off", "false")
_ARTICLES = {
    Kind.STRING: "text",
    Kind.INTEGER: "a whole number",
    Kind.NUMBER: "a number",
    Kind.BOOLEAN: "true or false",
    Kind.LIST: "a list",
    Kind.MAP: "a map",
    Kind.FILE: "the path of a file",
    Kind.CREDENTIAL: "a credential",
    Kind.CODE: "code",
    Kind.ANY: "a value",
    Kind.GIVEN: "a value",
}


def _wanted(declared: Field) -> str:
    return _ARTICLES[declared.kind]


def _shown(value: Any) -> str:
    """What was given instead, without telling long or secret things."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case Credential():
            return f"credential {value.name!r}; name a field of it, such as username"
        case str():
            return "text"
        case Mapping():
            return "a map"
        case list() | tuple():
            return "a list"
    return type(value).__name__


_ANYTHING = Field("value", Kind.ANY, "Anything.")
_GIVEN = Field("value", Kind.GIVEN, "Anything.")
