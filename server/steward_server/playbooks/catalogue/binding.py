"""What a step is really given: references replaced, values checked, defaults added. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from steward_server.credential import Credential
from steward_server.playbooks.catalogue.forms import Field, Kind, Problem, StepType, misfits
from steward_server.playbooks.faults import Path, called
from steward_server.playbooks.playbook import DEFAULT_STEP_TIMEOUT_S, Step
from steward_server.playbooks.references import (
    Reference,
    Scope,
    Unresolved,
    references,
    rendered,
    resolve,
    resolve_known,
)

_SPARE_S = 30.0
"""What a step needs beside the wait that its own parameter names."""
_PER_SECOND = {"s": 1, "ms": 1_000}


class BadValues(ValueError):
    """What a step was given, once all references were replaced, does not fit.

    Attributes:
        problems: at least one.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


def bound(step_type: StepType, parameters: Mapping[str, Any], scope: Scope) -> dict[str, Any]:
    """The values of a step, ready for use.

    Raises:
        BadValues: they do not fit, or a reference stands for nothing; all of them are told.
    """
    values: dict[str, Any] = {}
    unresolved: list[Problem] = []
    for name, value in parameters.items():
        try:
            values[name] = _replaced(step_type.parameter(name), value, (name,), scope)
        except Unresolved as error:
            message = f"{called(error.path)!r}: {error}"
            unresolved.append(Problem(error.path, message, error.hint))
    missing = {str(each.path[0]) for each in unresolved}
    problems = [
        each
        for each in misfits(step_type, {**values, **dict.fromkeys(missing)})
        if not each.path or each.path[0] not in missing
    ]
    if unresolved or problems:
        raise BadValues([*unresolved, *problems])
    return {**_defaults(step_type), **values}


def bound_so_far(
    step_type: StepType, parameters: Mapping[str, Any], scope: Scope
) -> dict[str, Any]:
    """The same before it is run: what is not known yet is left as it is written."""
    known = {
        name: _replaced(step_type.parameter(name), value, (name,), scope, is_final=False)
        for name, value in parameters.items()
    }
    return {**_defaults(step_type), **known}


def references_of(step_type: StepType, parameters: Mapping[str, Any]) -> Iterator[Reference]:
    """The references that are replaced before a step is run: in all that is no code."""
    for name, value in parameters.items():
        if not _is_code(step_type, name):
            yield from references(value)


def timeout_s(step: Step, step_type: StepType, values: Mapping[str, Any]) -> float:
    """How long one attempt may take: as written, else long enough for what it waits for itself."""
    if step.timeout_s is not None:
        return step.timeout_s
    waits = [wait_s for _, wait_s in waits_s(step_type, {**_defaults(step_type), **values})]
    return max(DEFAULT_STEP_TIMEOUT_S, *(each + _SPARE_S for each in waits), 0)


def waits_s(step_type: StepType, values: Mapping[str, Any]) -> list[tuple[Field, float]]:
    """How long a step waits by its own parameters, of those that are known."""
    found = []
    for each in step_type.parameters:
        value = values.get(each.name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if each.unit in _PER_SECOND and each.name not in _NO_WAITS:
            found.append((each, value / _PER_SECOND[each.unit]))
    return found


_NO_WAITS = ("lifetime", "idle_timeout")
"""Times, but not of the step."""


def _replaced(
    declared: Field | None, value: Any, path: Path, scope: Scope, *, is_final: bool = True
) -> Any:
    """A value with its references replaced, rendered where a text is wanted.

    Raises:
        Unresolved: one stands for nothing, and it is final.
    """
    if isinstance(value, Mapping):
        fields = {each.name: each for each in declared.fields} if declared else {}
        item = declared.item if declared else None
        return {
            key: _replaced(fields.get(key, item), each, (*path, key), scope, is_final=is_final)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        item = declared.item if declared else None
        return [
            _replaced(item, each, (*path, index), scope, is_final=is_final)
            for index, each in enumerate(value)
        ]
    if not isinstance(value, str) or (declared is not None and declared.kind is Kind.CODE):
        return value
    try:
        found = resolve(value, scope) if is_final else resolve_known(value, scope)
        is_text = declared is not None and declared.kind is Kind.STRING
        if not is_text or found is None or isinstance(found, str | Credential):
            return found
        return rendered(found)
    except Unresolved as error:
        raise Unresolved(str(error), path, error.hint) from None


def _is_code(step_type: StepType, name: str) -> bool:
    declared = step_type.parameter(name)
    return declared is not None and declared.kind is Kind.CODE


def _defaults(step_type: StepType) -> dict[str, Any]:
    return {each.name: each.default for each in step_type.parameters}
