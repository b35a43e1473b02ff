"""What makes a well-formed playbook wrong: names, references, values, times, nesting. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from steward_server.credential import FIELDS
from steward_server.playbooks.catalogue import CATALOGUE, MISSPELT_TYPES, NOT_AVAILABLE
from steward_server.playbooks.catalogue.binding import waits_s
from steward_server.playbooks.catalogue.forms import (
    OF_PARAMETER,
    Field,
    Kind,
    Need,
    Problem,
    StepType,
    misfit,
    misfits,
)
from steward_server.playbooks.faults import BadPlaybook, Fault, Path, nearest
from steward_server.playbooks.paths import why_unsafe
from steward_server.playbooks.playbook import (
    MAX_DEPTH,
    OnFailure,
    Parameter,
    Playbook,
    Step,
)
from steward_server.playbooks.reading import MAX_TEXT_CHARACTERS, first_there, read
from steward_server.playbooks.references import (
    Reference,
    is_name,
    templates,
    whole,
)

RUN = "playbook.run"
_SET = "utility.set_variable"
_SETS = re.compile(r"set_variable\(\s*(?:name\s*=\s*)?[\"']([A-Za-z_][A-Za-z0-9_-]*)[\"']")
"""In code: which variables it sets."""
_IN_CODE = re.compile(r"\{\{\s{0,8}(?:parameter|variable|credential|step)[.\[][^{}\n]{1,200}\}\}")
_INDEX = re.compile(r"[0-9]+")


class Library(Protocol):
    """Where the playbooks are that others run."""

    def find(self, path: str) -> Playbook | None:
        """The playbook at a path; None if there is none.

        Raises:
            BadPlaybook: it is there and cannot be used.
        """

    def paths(self) -> Iterable[str]:
        """All that there are."""


def load(
    text: str | bytes,
    *,
    path: str = "",
    library: Library | None = None,
    credentials: Collection[str] | None = None,
) -> Playbook:
    """Read and check a playbook.

    Raises:
        BadPlaybook: it cannot be used; everything that is wrong with it is told.
    """
    playbook, faults = examine(text, path=path, library=library, credentials=credentials)
    if playbook is None or faults:
        raise BadPlaybook(faults)
    return playbook


def examine(
    text: str | bytes,
    *,
    path: str = "",
    library: Library | None = None,
    credentials: Collection[str] | None = None,
) -> tuple[Playbook | None, tuple[Fault, ...]]:
    """What could be read of a playbook, and all faults of its form and its meaning."""
    reading = read(text)
    if reading.playbook is None:
        return None, reading.faults
    meant = check(reading.playbook, path=path, library=library, credentials=credentials)
    return reading.playbook, first_there(reading.faults, meant)


def check(
    playbook: Playbook,
    *,
    path: str = "",
    library: Library | None = None,
    credentials: Collection[str] | None = None,
) -> tuple[Fault, ...]:
    """What is wrong with what a playbook means, in the order of its text.

    `path` is its own in the library, by which cycles are found; without a library other playbooks
    are not looked at. `credentials` are the names of those that are stored, if that is known.
    """
    checking = _Checking(playbook, path, library, credentials)
    checking.check()
    return tuple(sorted(set(checking.faults)))


def needs(playbook: Playbook, library: Library | None = None, depth: int = 1) -> frozenset[Need]:
    """What a playbook uses of its host and its run, and those that it runs as well."""
    found: set[Need] = set()
    for step in playbook.all_steps:
        if (step_type := CATALOGUE.get(step.type)) is None:
            continue
        found |= step_type.needs
        if step.type == "fat.export_report" and step.parameters.get("format", "html") != "html":
            found.add(Need.BROWSER)
        if step.type == RUN and library is not None and depth < MAX_DEPTH:
            child = library.find(str(step.parameters.get("playbook", "")))
            if child is not None:
                found |= needs(child, library, depth + 1)
    return frozenset(found)


def field_of(parameter: Parameter) -> Field:
    """A playbook's parameter in the form of the catalogue."""
    is_text = parameter.type in ("string", "file", "credential")
    return Field(
        parameter.name,
        OF_PARAMETER[parameter.type],
        parameter.description,
        required=parameter.required,
        most=MAX_TEXT_CHARACTERS if is_text else None,
    )


def given_to_child(parameters: Mapping[str, Any]) -> dict[str, tuple[Path, Any]]:
    """What a step of `playbook.run` hands over, by name, with where in its own each stands."""
    nested = parameters.get("parameters")
    own = CATALOGUE[RUN]
    given: dict[str, tuple[Path, Any]] = {
        name: ((name,), value) for name, value in parameters.items() if own.parameter(name) is None
    }
    if isinstance(nested, Mapping):
        given |= {name: (("parameters", name), value) for name, value in nested.items()}
    return given


def clashes(
    playbook: Playbook, step: Step, step_type: StepType, values: Mapping[str, Any]
) -> Iterator[Problem]:
    """Waits that the timeout around them would end before."""
    for declared, wait_s in waits_s(step_type, values):
        limits = ("step", step.timeout_s), ("run", playbook.timeout_s)
        for whose, limit_s in limits:
            if limit_s is not None and limit_s < wait_s:
                yield Problem(
                    (declared.name,),
                    f"{declared.name!r} is {values[declared.name]:g} {declared.unit}, but the "
                    f"{whose}'s timeout of {limit_s:g} s ends it before",
                )
                break


@dataclass(frozen=True, slots=True)
class _Known:
    """What references may stand for where a step is."""

    steps: Mapping[str, StepType | None] = field(default_factory=dict)
    """None: of a type that is not known."""
    variables: frozenset[str] = frozenset()

    def after(self, step: Step) -> _Known:
        variables = self.variables
        if step.type == _SET and isinstance(name := step.parameters.get("name"), str):
            variables |= {name}
        if isinstance(script := step.parameters.get("script"), str):
            variables |= {*_SETS.findall(script)}
        return _Known({**self.steps, step.id: CATALOGUE.get(step.type)}, variables)


@dataclass(slots=True)
class _Checking:
    playbook: Playbook
    path: str
    library: Library | None
    credentials: Collection[str] | None
    faults: list[Fault] = field(default_factory=list)
    _later: frozenset[str] = frozenset()
    """Steps there are at all, so that one used too early is told apart from none."""
    _looked_at: set[tuple[str, int]] = field(default_factory=set)
    _children: dict[str, tuple[Fault, ...]] = field(default_factory=dict)

    def check(self) -> None:
        playbook = self.playbook
        self._later = frozenset(step.id for step in playbook.all_steps)
        for index, parameter in enumerate(playbook.parameters):
            self._default(("parameters", index, "default"), parameter)
        known = _Known()
        undoable = False
        for step in playbook.steps:
            self._step(step, known)
            known = known.after(step)
            if step.on_failure is OnFailure.ROLLBACK and not undoable:
                self._at(
                    (*step.path, "on_failure"),
                    "there is nothing to roll back: no step before this one has 'undo'",
                )
            undoable = undoable or bool(step.undo)
            undone = known
            for undo in step.undo:
                self._step(undo, undone)
                undone = undone.after(undo)
        for step in playbook.finally_:
            self._step(step, known)
            known = known.after(step)

    def _default(self, path: Path, parameter: Parameter) -> None:
        if parameter.default is None:
            return
        declared = replace(field_of(parameter), name="default")
        for problem in misfit(declared, parameter.default, ("default",)):
            self._at((*path, *problem.path[1:]), problem.message, problem.hint)
        for where, text, _, _ in templates(parameter.default):
            if "{{" in text:
                self._at((*path, *where), "references in defaults are not replaced")

    def _step(self, step: Step, known: _Known) -> None:
        self._condition(step, known)
        step_type = CATALOGUE.get(step.type)
        for name, value in step.parameters.items():
            declared = step_type and step_type.parameter(name)
            if declared and declared.kind is Kind.CODE:
                self._code((*step.path, "parameters", name), value)
            else:
                self._references((*step.path, "parameters", name), value, known)
        if step_type is None:
            self._type(step)
            return

        def kind_of(reference: Reference) -> Kind | None:
            return self._meaning(reference, known)[0]

        for problem in misfits(step_type, step.parameters, kind_of):
            self._problem(step, problem)
        for problem in clashes(self.playbook, step, step_type, step.parameters):
            self._problem(step, problem)
        if step.type == RUN:
            self._child(step, kind_of)
        variable = step.parameters.get("name")
        if step.type == _SET and isinstance(variable, str) and not _is_variable(variable):
            self._at(
                (*step.path, "parameters", "name"),
                f"{variable!r} cannot name a variable: that is letters, digits, _ and -, no digit "
                "first",
            )

    def _type(self, step: Step) -> None:
        if not step.type:
            return
        path = (*step.path, "type")
        if (why := NOT_AVAILABLE.get(step.type)) is not None:
            self._at(path, f"{step.type!r} is not available: {why}")
            return
        meant = MISSPELT_TYPES.get(step.type) or nearest(step.type, CATALOGUE)
        self._at(path, f"there is no type of step {step.type!r}", meant)

    def _condition(self, step: Step, known: _Known) -> None:
        if step.when is None:
            return
        path = (*step.path, "when")
        for reference, is_needed in step.when.references:
            kind, message, hint = self._meaning(reference, known)
            if kind is Kind.CREDENTIAL and is_needed:
                message = f"{reference} is a whole credential; compare a field of it"
            elif not message and kind not in (None, Kind.BOOLEAN) and reference in step.when.truths:
                message = (
                    f"{reference} is {kind}, neither true nor false; compare it with something"
                )
            if message:
                self._within(path, step.when.text, reference.offset, message, hint)

    def _references(self, path: Path, value: Any, known: _Known) -> None:
        for where, text, template, bad in templates(value, path):
            for error in bad:
                self._within(where, text, error.offset, str(error), error.hint)
            alone = whole(template)
            for each in template:
                if isinstance(each, str):
                    continue
                kind, message, hint = self._meaning(each, known)
                if kind is Kind.CREDENTIAL and alone is None:
                    message = f"{each} is a whole credential, which has no text; name a field of it"
                if message:
                    self._within(where, text, each.offset, message, hint)
        for where in _templated_keys(value, path):
            self.faults.append(
                self.playbook.source.at_key(where, "references in keys are not replaced")
            )

    def _code(self, path: Path, value: Any) -> None:
        if isinstance(value, str) and (found := _IN_CODE.search(value)):
            self._within(
                path,
                value,
                found.start(),
                "references in code are not replaced, or what they stand for would be run; hand it "
                "over in 'inputs'",
            )

    def _meaning(self, reference: Reference, known: _Known) -> tuple[Kind | None, str, str]:
        """What kind of value it stands for, if known; what is wrong with it; and what was meant."""
        name, rest = reference.name, reference.parts[1:]
        match reference.namespace:
            case "parameter":
                return self._parameter(name, rest)
            case "variable":
                if name in known.variables:
                    return None, "", ""
                return (
                    None,
                    f"no step before sets the variable {name!r}",
                    nearest(name, known.variables),
                )
            case "credential":
                if self.credentials is not None and name not in self.credentials:
                    hint = nearest(name, self.credentials)
                    return None, f"there is no credential {name!r}", hint
                return _of_credential(name, rest)
        return self._output(name, rest, known)

    def _parameter(self, name: str, rest: tuple[str, ...]) -> tuple[Kind | None, str, str]:
        parameter = self.playbook.parameter(name)
        names = [each.name for each in self.playbook.parameters]
        if parameter is None:
            if "" in names:
                return None, "", ""  # one could not be read, and may be this
            return None, f"there is no parameter {name!r}", nearest(name, names)
        kind = OF_PARAMETER[parameter.type]
        if kind is Kind.CREDENTIAL:
            return _of_credential(name, rest)
        if rest and kind not in (Kind.LIST, Kind.MAP):
            return None, f"parameter {name!r} is {kind}; it has no {rest[0]!r}", ""
        return (None if rest else kind), "", ""

    def _output(
        self, name: str, rest: tuple[str, ...], known: _Known
    ) -> tuple[Kind | None, str, str]:
        if name not in known.steps:
            if name in self._later:
                return None, f"step {name!r} has not run by then", ""
            if "" in known.steps:
                return None, "", ""  # one could not be read, and may be this
            return None, f"there is no step {name!r} before", nearest(name, known.steps)
        step_type = known.steps[name]
        if step_type is None:
            return None, "", ""
        if not rest:
            return Kind.MAP, "", ""
        output = step_type.output(rest[0])
        if output is None:
            if step_type.gives_more:
                return None, "", ""
            outputs = [each.name for each in step_type.outputs]
            message = f"{step_type.name} gives no {rest[0]!r}, but {', '.join(outputs)}"
            return None, message, nearest(rest[0], outputs)
        return _of_field(output, rest[1:])

    def _child(self, step: Step, kind_of: Any) -> None:
        target = step.parameters.get("playbook")
        if not isinstance(target, str) or not target or "{{" in target:
            return
        at = (*step.path, "parameters", "playbook")
        if why := why_unsafe(target):
            self._at(at, f"{target[:100]!r} is no path of a playbook: {why}")
            return
        nested = step.parameters.get("parameters")
        for name in nested if isinstance(nested, Mapping) else ():
            if name in step.parameters and CATALOGUE[RUN].parameter(name) is None:
                path = (*step.path, "parameters", name)
                self.faults.append(
                    self.playbook.source.at_key(path, f"{name!r} is given twice to {target!r}")
                )
        if self.library is None:
            return
        if problem := self._nesting(target, (self.path,) if self.path else ("this playbook",)):
            self._at(at, problem[0], problem[1])
            return
        child = self.library.find(target)
        if child is None:
            return
        self._hand_over(step, child, target, kind_of)
        if target not in self._children:
            # There is no circle, so this comes to an end.
            self._children[target] = check(child, path=target, library=self.library)
        if wrong := self._children[target]:
            self._at(at, f"playbook {target!r} cannot be used: {wrong[0]}")

    def _hand_over(self, step: Step, child: Playbook, target: str, kind_of: Any) -> None:
        given = given_to_child(step.parameters)
        names = [each.name for each in child.parameters]
        for name, (where, value) in given.items():
            parameter = child.parameter(name)
            if parameter is None:
                problem = Problem(
                    where,
                    f"{target!r} has no parameter {name!r}",
                    nearest(name, names),
                    of_key=True,
                )
                self._problem(step, problem)
                continue
            for problem in misfit(field_of(parameter), value, where, kind_of):
                self._problem(step, problem)
        for parameter in child.parameters:
            if parameter.required and parameter.default is None and parameter.name not in given:
                self._problem(
                    step, Problem((), f"{target!r} needs the parameter {parameter.name!r}")
                )

    def _nesting(self, target: str, chain: tuple[str, ...]) -> tuple[str, str] | None:
        """What is wrong with running a playbook from the last of a chain; and what was meant."""
        library = self.library
        if library is None or (target, len(chain)) in self._looked_at:
            return None
        shown = " -> ".join([*chain, target])
        if target in chain:
            return f"playbooks run each other in a circle: {shown}", ""
        if len(chain) >= MAX_DEPTH:
            return f"playbooks run each other more than {MAX_DEPTH} deep: {shown}", ""
        try:
            child = library.find(target)
        except BadPlaybook as error:
            return f"playbook {target!r} cannot be used: {error.faults[0]}", ""
        if child is None:
            hint = nearest(target, library.paths()) if len(chain) == 1 else ""
            return f"there is no playbook {target!r}", hint
        for step in child.all_steps:
            inner = step.parameters.get("playbook")
            if step.type != RUN or not isinstance(inner, str):
                continue
            if problem := self._nesting(inner, (*chain, target)):
                return problem
        self._looked_at.add((target, len(chain)))
        return None

    def _problem(self, step: Step, problem: Problem) -> None:
        path = (*step.path, "parameters", *problem.path)
        source = self.playbook.source
        if not problem.path:
            path = step.path
        at = source.at_key if problem.of_key else source.at
        self.faults.append(at(path, problem.message, problem.hint))

    def _at(self, path: Path, message: str, hint: str = "") -> None:
        self.faults.append(self.playbook.source.at(path, message, hint))

    def _within(self, path: Path, text: str, offset: int, message: str, hint: str = "") -> None:
        self.faults.append(self.playbook.source.within(path, text, offset, message, hint))


def _of_credential(name: str, rest: tuple[str, ...]) -> tuple[Kind | None, str, str]:
    if not rest:
        return Kind.CREDENTIAL, "", ""
    if rest[0] not in FIELDS:
        return (
            None,
            f"a credential has no {rest[0]!r}, but {', '.join(FIELDS)}",
            nearest(rest[0], FIELDS),
        )
    if len(rest) > 1:
        return None, f"{rest[0]!r} of credential {name!r} is text; it has no {rest[1]!r}", ""
    return Kind.STRING, "", ""


def _of_field(given: Field, rest: tuple[str, ...]) -> tuple[Kind | None, str, str]:
    """The kind of what is inside of an output."""
    for part in rest:
        match given.kind:
            case Kind.LIST if not _INDEX.fullmatch(part):
                return None, f"{given.name!r} is a list; {part!r} is no index of it", ""
            case Kind.LIST | Kind.MAP if not given.fields:
                if given.item is None:
                    return None, "", ""
                given = given.item
            case Kind.MAP:
                known = {each.name: each for each in given.fields}
                if part not in known:
                    names = ", ".join(known)
                    message = f"{given.name!r} has no {part!r}, but {names}"
                    return None, message, nearest(part, known)
                given = known[part]
            case Kind.ANY:
                return None, "", ""
            case _:
                return None, f"{given.name!r} is {given.kind}; it has no {part!r}", ""
    return (None if given.kind is Kind.ANY or given.nullable else given.kind), "", ""


def _templated_keys(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if "{{" in key:
                yield (*path, key)
            yield from _templated_keys(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from _templated_keys(each, (*path, index))


def _is_variable(name: str) -> bool:
    return "{{" in name or is_name(name)
