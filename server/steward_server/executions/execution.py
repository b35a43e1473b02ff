"""What is known of a run beside its events: who started what with which values. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steward_server.executions.run import Change, Plan, Run, State, replay
from steward_server.playbooks.playbook import OnFailure, Playbook, Step
from steward_server.playbooks.references import Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """A run as its row has it.

    Attributes:
        agent_id: of the agent that started it; empty if a person did.
        credential_id: of the key or token that it was started with; empty if somebody signed in.
        parameters: values of JSON, or references to credentials.
        parent_id: of the run that runs this one; empty if somebody started it.
        rerun_of: the run that this one goes on from.
    """

    execution_id: str
    owner_id: str
    agent_id: str = ""
    credential_id: str = ""
    playbook_path: str
    playbook_name: str
    playbook_digest: bytes
    parameters: Mapping[str, Any] = field(default_factory=dict)
    gateway_url: str = ""
    credential_name: str = ""
    debug_mode: bool = False
    parent_id: str = ""
    parent_step_id: str = ""
    rerun_of: str = ""
    total_steps: int
    created_at_us: int
    state: State = State.PENDING
    step_index: int = 0
    started_at_us: int | None = None
    ended_at_us: int | None = None

    @property
    def about(self) -> About:
        return About(
            self.execution_id,
            self.owner_id,
            self.agent_id,
            self.playbook_name,
            self.total_steps,
            self.parent_id,
        )


@dataclass(frozen=True, slots=True)
class About:
    """What is told of a run with each thing that happened to it."""

    execution_id: str
    owner_id: str
    agent_id: str
    playbook_name: str
    total_steps: int
    parent_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """One change, as it was written down.

    Attributes:
        number: over all runs.
        run_state: of the run, after it.
        step_index: as well.
        size: characters of its facts.
    """

    number: int
    at_us: int
    change: Change
    run_state: State
    step_index: int
    size: int = 0


@dataclass(frozen=True, slots=True)
class OutlinedStep:
    """A step of a playbook, as far as it decides how a run goes on."""

    step: Step
    undo: Sequence[OutlinedStep] = ()

    @property
    def id(self) -> str:
        return self.step.id

    @property
    def ends_run(self) -> bool:
        return self.step.on_failure is not OnFailure.CONTINUE

    @property
    def rolls_back(self) -> bool:
        return self.step.on_failure is OnFailure.ROLLBACK


def plan_of(playbook: Playbook, *, holds: bool) -> Plan:
    """The steps of a run of a playbook; in debug mode it holds where one fails."""
    return Plan([*_outlined(playbook.steps)], [*_outlined(playbook.finally_)], holds)


def followed(
    run: Run, step_index: int, changes: Iterable[Change], main: Collection[str]
) -> tuple[Run, list[tuple[Change, State, int]]]:
    """A run after some changes, and each of them with its state and step index after it.

    The index is how many of the `main` steps are over: those of `finally`, and those that undo
    others, are left out.
    """
    rows = []
    for each in changes:
        was_over = _is_over(run, each.step_id)
        run = replay([each], run)
        if each.step_id in main:
            step_index += _is_over(run, each.step_id) - was_over
        rows.append((each, run.state, step_index))
    return run, rows


def _is_over(run: Run, step_id: str) -> bool:
    made = run.made.get(step_id)
    return made is not None and made.state.is_over


def references_in(parameters: Mapping[str, Any]) -> Iterator[Reference]:
    """What the parameters of a run refer to."""
    return (each for each in parameters.values() if isinstance(each, Reference))


def _outlined(steps: Sequence[Step]) -> Iterator[OutlinedStep]:
    for step in steps:
        yield OutlinedStep(step, [OutlinedStep(each) for each in step.undo])
