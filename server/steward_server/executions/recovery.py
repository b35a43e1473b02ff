"""How a run goes on that its worker was lost of, and one that is made again. Pure.

A browser and the session of a gateway live in the server's memory. What was signed in to is signed
in to again; what a browser had come to cannot be had again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from steward_server.executions.execution import Event
from steward_server.executions.run import (
    Change,
    Kind,
    Plan,
    Run,
    StepState,
    WrongState,
    left,
)
from steward_server.playbooks.catalogue import CATALOGUE
from steward_server.playbooks.catalogue.forms import Need
from steward_server.playbooks.playbook import Playbook, Step

_LOGIN = "gateway.login"
_IN_MEMORY = ("fat.generate_report",)
"""Steps whose outputs name what only the server's memory has."""


def going_on(
    playbook: Playbook, plan: Plan, run: Run, *, has_lost: bool, reason: str
) -> list[Change]:
    """What a lost worker means for a run, and what is to be made again for it to go on."""
    done = [step for step in playbook.steps if _is(run, step, StepState.COMPLETED)]
    rest = [
        step
        for step in playbook.steps
        if not _is(run, step, StepState.COMPLETED, StepState.SKIPPED, StepState.FAILED)
        or step.id == run.held
    ]
    can_go_on = not has_lost and not _needs_browser_of(done, rest)
    types = {step.id: CATALOGUE[step.type] for step in playbook.all_steps}
    changes = left(
        run,
        plan,
        is_repeatable=lambda name: types[name].is_repeatable,
        can_go_on=can_go_on,
        reason=reason,
    )
    is_ending = run.stop is not None or any(each.kind is Kind.STOP_ASKED for each in changes)
    if run.state.is_over or is_ending:
        return changes
    again = [*_made_again(done, rest)]
    return changes + [Change(Kind.STEP_REOPENED, step.id, reason) for step in again]


def carried_over(
    playbook: Playbook, run: Run, events: Sequence[Event], execution_id: str
) -> list[Change]:
    """What a run that goes on from this one need not do.

    Raises:
        WrongState: it cannot be gone on from.
    """
    completed = {
        event.change.step_id: event.change
        for event in events
        if event.change.kind is Kind.STEP_COMPLETED
    }
    undone = {undo.id for step in playbook.steps for undo in step.undo}
    if undone & set(run.made):
        raise WrongState("what the run had done was undone")
    done: list[Step] = []
    for step in playbook.steps:
        made = run.made.get(step.id)
        if made is None or made.state not in (StepState.COMPLETED, StepState.SKIPPED):
            break
        done.append(step)
    rest = [step for step in playbook.steps if step not in done]
    if not rest:
        raise WrongState("every step of the run was completed")
    if any(completed[step.id].data.get("masked") for step in done if step.id in completed):
        raise WrongState("what its steps gave held secrets, which are not kept")
    kept = [step for step in done if run.made[step.id].state is StepState.COMPLETED]
    if _needs_browser_of(kept, rest):
        raise WrongState("its browser is closed, and where it had come to is lost")
    # Whoever approved a run may be who starts this one, and did not approve this one.
    asked = [step for step in done if Need.PERSON in CATALOGUE[step.type].needs]
    again = [*_made_again(kept, rest), *asked]
    carried = []
    for step in done:
        if step in again:
            continue
        change = completed.get(step.id)
        if change is None:
            text = run.made[step.id].text
            carried.append(Change(Kind.STEP_SKIPPED, step.id, text))
        else:
            carried.append(change._replace(data={**change.data, "carried_from": execution_id}))
    return carried


def _is(run: Run, step: Step, *states: StepState) -> bool:
    made = run.made.get(step.id)
    return made is not None and made.state in states


def _needs_browser_of(done: Sequence[Step], rest: Sequence[Step]) -> bool:
    def uses(step: Step) -> bool:
        return Need.BROWSER in CATALOGUE[step.type].needs

    return any(map(uses, done)) and any(map(uses, rest))


def _made_again(done: Sequence[Step], rest: Sequence[Step]) -> Iterator[Step]:
    """Steps that are made again for what comes after them."""
    needed = frozenset[Need]().union(*(CATALOGUE[step.type].needs for step in rest))
    for step in done:
        if (step.type == _LOGIN and Need.GATEWAY in needed) or step.type in _IN_MEMORY:
            yield step
