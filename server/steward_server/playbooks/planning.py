"""What a run would do, as far as that is known before it: a dry run, without effects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from steward_server.masking import MARKER
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.binding import bound_so_far, references_of, timeout_s
from steward_server.playbooks.catalogue.forms import Field, StepType
from steward_server.playbooks.checking import RUN, Library, given_to_child
from steward_server.playbooks.playbook import MAX_DEPTH, Playbook, Step
from steward_server.playbooks.references import (
    BadReference,
    Reference,
    Scope,
    parse,
    references,
    resolve_known,
    whole,
)
from steward_server.playbooks.starting import BadStart, start_values


class Will(StrEnum):
    """Whether a step would be run."""

    RUN = "run"
    SKIP = "skip"
    DEPEND = "depend"
    """On what only the run can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """A step as it would be run.

    Attributes:
        parameters: with defaults, and with references replaced where that is possible; secrets that
            are written out are masked.
        unknown: the references that are left: what only the run can tell, and secrets.
        undo: what a rollback would run.
        child: the plan of the playbook it runs; None also where that cannot be looked at.
    """

    id: str
    name: str
    type: str
    will: Will
    parameters: Mapping[str, Any]
    unknown: tuple[str, ...]
    is_read_only: bool
    is_repeatable: bool
    needs: tuple[str, ...]
    timeout_s: float
    attempts: int
    on_failure: str
    when: str = ""
    undo: tuple[PlannedStep, ...] = ()
    child: Plan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a playbook would do.

    Attributes:
        parameters: the values that it starts with.
        finally_: what is run at the end, however that comes.
    """

    name: str
    version: str
    parameters: Mapping[str, Any]
    steps: tuple[PlannedStep, ...]
    finally_: tuple[PlannedStep, ...] = ()


def plan(playbook: Playbook, given: Mapping[str, Any], library: Library | None = None) -> Plan:
    """What a playbook that was checked would do with these parameters.

    Raises:
        BadStart: it cannot be started with them.
    """
    return _Planning(library, 1).plan(playbook, start_values(playbook, given))


@dataclass(slots=True)
class _Planning:
    library: Library | None
    depth: int
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)

    def plan(self, playbook: Playbook, values: Mapping[str, Any]) -> Plan:
        self.parameters = {
            name: value for name, value in values.items() if not isinstance(value, Reference)
        }
        return Plan(
            name=playbook.name,
            version=playbook.version,
            parameters={name: _shown(value) for name, value in values.items()},
            steps=self._steps(playbook.steps),
            finally_=self._steps(playbook.finally_),
        )

    def _steps(self, steps: Iterable[Step]) -> tuple[PlannedStep, ...]:
        return tuple(self._step(step) for step in steps)

    def _step(self, step: Step) -> PlannedStep:
        step_type = CATALOGUE[step.type]
        scope = Scope(parameters=self.parameters, variables=self.variables)
        will = Will.RUN
        if step.when is not None:
            holds = step.when.holds_so_far(scope, self._is_known)
            will = Will.DEPEND if holds is None else Will.RUN if holds else Will.SKIP
        values = bound_so_far(step_type, step.parameters, scope)
        planned = PlannedStep(
            id=step.id,
            name=step.name,
            type=step.type,
            will=will,
            parameters={
                name: _masked(step_type.parameter(name), value) for name, value in values.items()
            },
            unknown=_left(step_type, step.parameters, values),
            is_read_only=step_type.is_read_only,
            is_repeatable=step_type.is_repeatable,
            needs=tuple(sorted(step_type.needs)),
            timeout_s=timeout_s(step, step_type, values),
            attempts=step.retry.attempts,
            on_failure=step.on_failure,
            when=step.when.text if step.when else "",
            child=self._child(step, scope) if step.type == RUN and will is not Will.SKIP else None,
            undo=self._steps(step.undo),
        )
        if will is not Will.SKIP:
            self._remember(step, planned)
        return planned

    def _remember(self, step: Step, planned: PlannedStep) -> None:
        """Follow a variable as long as its value is known, and no longer."""
        if step.type == "utility.python":
            self.variables.clear()  # it may set any of them
        if step.type != "utility.set_variable":
            return
        name = str(step.parameters["name"])
        if planned.will is Will.RUN and not planned.unknown:
            self.variables[name] = planned.parameters["value"]
        else:
            self.variables.pop(name, None)

    def _is_known(self, reference: Reference) -> bool:
        if reference.namespace == "variable":
            return reference.name in self.variables
        return reference.namespace == "parameter"

    def _child(self, step: Step, scope: Scope) -> Plan | None:
        child = self.library and self.library.find(str(step.parameters["playbook"]))
        if not child or self.depth >= MAX_DEPTH:
            return None
        given: dict[str, Any] = {}
        for name, (_, value) in given_to_child(step.parameters).items():
            resolved = resolve_known(value, scope)
            left = [*references(resolved)]
            # What is not known yet is handed on as the reference that it is.
            given[name] = (_only(resolved) or left[0]) if left else resolved
        try:
            values = start_values(child, given)
        except BadStart:
            return None  # what it is given only the run can tell
        return _Planning(self.library, self.depth + 1).plan(child, values)


def _left(
    step_type: StepType, written: Mapping[str, Any], values: Mapping[str, Any]
) -> tuple[str, ...]:
    """References that could not be replaced. Data that looks like one was no reference."""
    before = {str(each) for each in references_of(step_type, written)}
    after = {str(each) for each in references_of(step_type, values)}
    return tuple(sorted(before & after))


def _masked(declared: Field | None, value: Any) -> Any:
    """The value, or a mask where it is a secret that is not only referred to."""
    if declared is None or not declared.secret or value is None or _only(value) is not None:
        return value
    return MARKER


def _only(value: Any) -> Reference | None:
    if not isinstance(value, str):
        return None
    try:
        return whole(parse(value))
    except BadReference:
        return None


def _shown(value: Any) -> Any:
    return f"{{{{ {value} }}}}" if isinstance(value, Reference) else value
