"""What a run is started with: values of its parameters, or what is wrong with them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.binding import bound_so_far, references_of
from steward_server.playbooks.catalogue.forms import Problem, misfit, misfits
from steward_server.playbooks.checking import clashes, field_of
from steward_server.playbooks.faults import nearest
from steward_server.playbooks.playbook import (
    MAX_NAME_CHARACTERS,
    MAX_PARAMETERS,
    ParameterType,
    Playbook,
    Step,
)
from steward_server.playbooks.references import Reference, Scope

MAX_URL_CHARACTERS = 500

_FILLED = {
    "gateway_url": ("gateway_url", "url"),
    "username": ("username", "user", "gateway_username"),
    "password": ("password", "pass", "gateway_password"),
}
"""Parameters that take a field of the run's credential, by their names."""


class BadStart(ValueError):
    """A run cannot be started with these values.

    Attributes:
        problems: everything that is wrong, each with the parameter it is about; at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def autofilled(
    playbook: Playbook, given: Mapping[str, Any], *, gateway_url: str = "", credential: str = ""
) -> dict[str, Any]:
    """What was given, and what the run's gateway and credential add where nothing was.

    Parameters of type credential take its name; those that are called like a field of it take a
    reference to that, so that no secret is kept with the run.
    """
    filled = dict(given)
    for parameter in playbook.parameters:
        if parameter.name in given:
            continue
        if parameter.type is ParameterType.CREDENTIAL and credential:
            filled[parameter.name] = credential
        elif parameter.type is not ParameterType.STRING:
            continue
        elif gateway_url and parameter.name in _FILLED["gateway_url"]:
            filled[parameter.name] = gateway_url
        elif credential:
            for name, called in _FILLED.items():
                # What has a default needs no guess.
                if parameter.name in called and parameter.default is None:
                    filled[parameter.name] = Reference("credential", (credential, name))
    return filled


def start_values(playbook: Playbook, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all parameters of a checked playbook that have one, for a `Scope`.

    Defaults are among them. Nothing is coerced. One of type credential is a reference to the
    credential it names.

    Raises:
        BadStart: something is missing, unknown or of the wrong type, or a step cannot use it.
    """
    problems = [*_wrong(playbook, given)]
    values: dict[str, Any] = {}
    for parameter in playbook.parameters:
        value = given.get(parameter.name)
        if value is None:
            value = parameter.default
        if value is None:
            if parameter.required:
                message = f"parameter {parameter.name!r} needs a value"
                problems.append(Problem((parameter.name,), message))
            continue
        if parameter.type is ParameterType.CREDENTIAL and isinstance(value, str):
            value = Reference("credential", (value,))
        values[parameter.name] = value
    if not problems:
        problems = [*_unusable(playbook, values)]
    if problems:
        raise BadStart(problems)
    return values


def check_gateway_url(url: str) -> None:
    """Refuse what cannot be a gateway's.

    Raises:
        BadStart: it is too long, or neither http nor https.
    """
    if len(url) > MAX_URL_CHARACTERS:
        message = f"the gateway's URL has {len(url)} characters; at most {MAX_URL_CHARACTERS}"
        raise BadStart([Problem(("gateway_url",), message)])
    if not url.startswith(("http://", "https://")):
        raise BadStart(
            [Problem(("gateway_url",), "a gateway's URL begins with http:// or https://")]
        )


def _wrong(playbook: Playbook, given: Mapping[str, Any]) -> Iterator[Problem]:
    if len(given) > MAX_PARAMETERS:
        yield Problem((), f"{len(given)} parameters; at most {MAX_PARAMETERS}")
        return
    names = [each.name for each in playbook.parameters]
    for name, value in given.items():
        parameter = playbook.parameter(name)
        if parameter is None:
            shown = name[:MAX_NAME_CHARACTERS]
            known = f"there are {', '.join(names)}" if names else "it takes none"
            message = f"{playbook.name!r} has no parameter {shown!r}; {known}"
            yield Problem((shown,), message, nearest(shown, names))
        elif value is not None and not isinstance(value, Reference):
            for problem in misfit(field_of(parameter), value, (name,)):
                yield replace(problem, message=f"parameter {problem.message}")


def _unusable(playbook: Playbook, values: Mapping[str, Any]) -> Iterator[Problem]:
    """What of the steps that may be run cannot be done with these values."""
    known = {name: value for name, value in values.items() if not isinstance(value, Reference)}
    scope = Scope(parameters=known)
    for step in _may_run((*playbook.steps, *playbook.finally_), scope):
        for each in (step, *_may_run(step.undo, scope)):
            yield from _uses(playbook, each, values)
            yield from _given(playbook, each, scope)


def _may_run(steps: Iterable[Step], scope: Scope) -> Iterator[Step]:
    for step in steps:
        if step.when is None or step.when.holds_so_far(scope, _is_parameter) is not False:
            yield step


def _is_parameter(reference: Reference) -> bool:
    return reference.namespace == "parameter"


def _given(playbook: Playbook, step: Step, scope: Scope) -> Iterator[Problem]:
    """What does not fit of what a step is given, as far as that is known."""
    step_type = CATALOGUE[step.type]
    given = bound_so_far(step_type, step.parameters, scope)
    given = {name: value for name, value in given.items() if name in step.parameters}
    unknown = misfits(step_type, given, lambda _: None)
    for problem in (*unknown, *clashes(playbook, step, step_type, given)):
        yield replace(problem, message=f"step {step.id!r}: {problem.message}")


def _uses(playbook: Playbook, step: Step, values: Mapping[str, Any]) -> Iterator[Problem]:
    condition = step.when.references if step.when is not None else ()
    used = [each for each, is_needed in condition if is_needed]
    used += references_of(CATALOGUE[step.type], step.parameters)
    for name in dict.fromkeys(each.name for each in used if each.namespace == "parameter"):
        if name in values:
            continue
        where = f" in line {playbook.line(step)}"
        yield Problem(
            (name,), f"parameter {name!r} has no value, and step {step.id!r}{where} uses it"
        )
