"""A playbook: steps in order, what they take, and what happens when one fails. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from steward_server.playbooks.conditions import Condition
from steward_server.playbooks.faults import Path, Source

MAX_STEPS = 1_000
MAX_PARAMETERS = 50
MAX_NAME_CHARACTERS = 255
MAX_TIMEOUT_S = 7 * 24 * 3_600
DEFAULT_STEP_TIMEOUT_S = 300.0
DEFAULT_RUN_TIMEOUT_S = 3_600.0
DEFAULT_RETRY_DELAY_S = 5.0
MAX_RETRIES = 100
MAX_DEPTH = 3
"""Playbooks that run each other: the one started, its child and the child's child."""


class ParameterType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    FLOAT = "float"
    BOOLEAN = "boolean"
    FILE = "file"
    CREDENTIAL = "credential"
    """The name of a stored credential."""
    LIST = "list"
    DICT = "dict"


class OnFailure(StrEnum):
    """What a step that failed for good does to its run."""

    ABORT = "abort"
    CONTINUE = "continue"
    ROLLBACK = "rollback"
    """Abort, after the undo steps of all steps that were completed, the last one first."""


class Backoff(StrEnum):
    FIXED = "fixed"
    EXPONENTIAL = "exponential"


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a step is tried, and how long is waited in between.

    Attributes:
        attempts: in all, the first one among them.
        factor: what each wait is multiplied by for the next, if it is exponential.
        jitter: the share of a wait that is left to chance, 0 to 1.
        most_s: the longest wait.
    """

    attempts: int = 1
    delay_s: float = DEFAULT_RETRY_DELAY_S
    backoff: Backoff = Backoff.FIXED
    factor: float = 2.0
    jitter: float = 0.0
    most_s: float = 300.0

    def wait_s(self, failed: int, chance: float) -> float:
        """How long to wait after so many failed attempts; `chance` is drawn from 0 to 1."""
        wait_s = self.delay_s
        if self.backoff is Backoff.EXPONENTIAL:
            # No more doublings than matter, or a float would overflow.
            wait_s *= self.factor ** min(failed - 1, 64)
        return min(wait_s, self.most_s) * (1 - self.jitter * chance)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Something a playbook is given when it starts.

    Attributes:
        required: whether it must have a value: of whoever starts it, or the default.
        default: None if there is none; one that is not required is then not defined.
    """

    name: str
    type: ParameterType
    required: bool = True
    default: Any = None
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing to do.

    Attributes:
        type: of the catalogue: `gateway.ping`.
        parameters: as written, with references.
        timeout_s: of one attempt, if it was written; see `timeout_s` in binding.py.
        when: it is skipped unless this holds.
        undo: steps that undo it, for a rollback.
        path: where it stands in the playbook.
    """

    id: str
    name: str
    type: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    on_failure: OnFailure = OnFailure.ABORT
    timeout_s: float | None = None
    retry: Retry = Retry()
    when: Condition | None = None
    undo: tuple[Step, ...] = ()
    path: Path = field(default=(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """A procedure.

    Attributes:
        version: text, whatever it looks like.
        finally_: steps that run at the end, however that comes.
        verified: what its author says of it; it only seeds what is kept about it.
        source: the text it was read from.
    """

    name: str
    version: str
    steps: tuple[Step, ...]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    finally_: tuple[Step, ...] = ()
    timeout_s: float = DEFAULT_RUN_TIMEOUT_S
    domain: str = ""
    group: str = ""
    verified: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict)
    source: Source = field(default_factory=Source, compare=False, repr=False)

    @property
    def all_steps(self) -> Iterator[Step]:
        """Every step there is: each with its undo steps after it, then those of `finally`."""
        for step in (*self.steps, *self.finally_):
            yield step
            yield from step.undo

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of this name."""
        return next((each for each in self.parameters if each.name == name), None)

    def line(self, step: Step) -> int:
        """In which line of the text a step begins."""
        return self.source.at(step.path, "").line

    def rollback(self, completed: Collection[str]) -> tuple[Step, ...]:
        """What undoes the steps with these ids, in the order in which it is to run."""
        return tuple(
            undo for step in reversed(self.steps) if step.id in completed for undo in step.undo
        )
