"""A run of a playbook: what it is in, and what may become of it. Pure.

One worker makes the steps of a run, one after the other; people pause, resume, skip and cancel it
meanwhile. A run is what its changes have made of it: whoever asks for something gets the changes
that this means now, the worker asks what is `next`, and `applied` is the only way on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeAlias


class State(StrEnum):
    PENDING = "pending"
    """It waits for its turn."""
    RUNNING = "running"
    PAUSED = "paused"
    """No step is begun before it is resumed; the one in hand waits at a safe point of its own."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in (State.COMPLETED, State.FAILED, State.CANCELLED)


class StepState(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_over(self) -> bool:
        return self not in (StepState.PENDING, StepState.RUNNING)


class Kind(StrEnum):
    """What can happen to a run."""

    STARTED = "started"
    PAUSE_ASKED = "pause_asked"
    PAUSED = "paused"
    RESUMED = "resumed"
    SKIP_ASKED = "skip_asked"
    STOP_ASKED = "stop_asked"
    """The step in hand is to end, then the steps of `finally` are made, and the run ends."""
    CUT = "cut"
    """Those of `finally` are left out as well."""
    STEP_STARTED = "step_started"
    STEP_COMPLETED = "step_completed"
    STEP_FAILED = "step_failed"
    STEP_SKIPPED = "step_skipped"
    STEP_REOPENED = "step_reopened"
    """It is to be made again."""
    ASKED = "asked"
    """The step in hand waits for a person's word."""
    ANSWERED = "answered"
    LOGGED = "logged"
    """A step has said something; nothing changes by it."""
    ENDED = "ended"


class Change(NamedTuple):
    """One thing that happened.

    Attributes:
        step_id: of the step it happened to; else empty.
        text: why: an error, or what somebody said.
        state: that the run ends in, or is to end in.
        is_final: of a failure: whether there is no further attempt.
        data: facts about it, values of JSON, that decide nothing here: outputs, who asked.
    """

    kind: Kind
    step_id: str = ""
    text: str = ""
    state: State | None = None
    is_final: bool = True
    data: Mapping[str, Any] = MappingProxyType({})


class Outline(Protocol):
    """The part of a step that decides how a run goes on."""

    @property
    def id(self) -> str: ...

    @property
    def ends_run(self) -> bool:
        """Whether the run ends with its failure."""
        ...

    @property
    def rolls_back(self) -> bool:
        """Whether what was completed before is undone then."""
        ...

    @property
    def undo(self) -> Sequence[Outline]: ...


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a run; every id stands there once.

    Attributes:
        holds: whether a step that failed for good is waited with, in debug mode, until somebody
            says whether it is tried again, or skipped.
    """

    steps: Sequence[Outline]
    finally_: Sequence[Outline] = ()
    holds: bool = False


class Made(NamedTuple):
    """What became of a step that was begun: its state, the attempts begun, and why.

    Attributes:
        is_cut: whether it failed because its run was stopped.
    """

    state: StepState
    attempts: int = 0
    text: str = ""
    is_cut: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One run, as its changes have made it.

    Attributes:
        made: what became of steps by their ids, in the order they were begun in.
        in_hand: the step that is being made; empty if none is.
        pausing: whether it is to pause at the next safe point: before the next step.
        skipping: whether the step in hand is to be skipped.
        held: a step that failed and waits for a decision.
        stop: the state it is to end in, if it is being stopped.
        why: it is stopped, or ended as it did.
        is_cut: whether `finally` is left out.
        asks: that for which the step in hand waits for a person's word, until they gave it.
        answers: what persons said, by the ids of steps.
        has_failed: whether any step has failed so far.
        changes: how many there were: the number of the last one.
    """

    state: State = State.PENDING
    made: Mapping[str, Made] = field(default_factory=dict)
    in_hand: str = ""
    pausing: bool = False
    skipping: bool = False
    held: str = ""
    stop: State | None = None
    why: str = ""
    is_cut: bool = False
    asks: Change | None = None
    answers: Mapping[str, Change] = field(default_factory=dict)
    has_failed: bool = False
    changes: int = 0

    def of(self, step: Outline) -> StepState:
        """What a step is in."""
        made = self.made.get(step.id)
        return StepState.PENDING if made is None else made.state


class WrongState(Exception):
    """It cannot be done to a run as it is; the message says what it is."""


# What people ask for.


def pause(run: Run) -> list[Change]:
    """Let it make no further step for now.

    Raises:
        WrongState: it is over, or being stopped.
    """
    _must_go_on(run, "paused")
    if run.pausing or run.state is State.PAUSED:
        return []
    return [Change(Kind.PAUSE_ASKED)]


def resume(run: Run) -> list[Change]:
    """Let it go on; a step that is held is tried again.

    Raises:
        WrongState: it is not paused, nor about to be.
    """
    _must_go_on(run, "resumed")
    if run.state is not State.PAUSED and not run.pausing:
        raise WrongState(f"the run is {run.state} and not paused; there is nothing to resume")
    again = [Change(Kind.STEP_REOPENED, run.held, "tried again")] if run.held else []
    return [*again, Change(Kind.RESUMED)]


def skip(run: Run) -> list[Change]:
    """Let the step in hand, or the one that is held, be over and the run go on.

    Raises:
        WrongState: no step is in hand.
    """
    if run.state.is_over:
        raise WrongState(f"the run is {run.state}; it cannot be skipped in any more")
    if run.held:
        return [Change(Kind.STEP_SKIPPED, run.held, "skipped"), Change(Kind.RESUMED)]
    if not run.in_hand:
        raise WrongState(f"the run is {run.state} and has no step in hand to skip")
    return [] if run.skipping else [Change(Kind.SKIP_ASKED, run.in_hand)]


def stop(run: Run, why: str, ends: State = State.CANCELLED) -> list[Change]:
    """Let it end: at once where nothing is to be cleared up; asked once more, whatever is.

    Raises:
        WrongState: it is over.
    """
    if run.state.is_over:
        raise WrongState(f"the run is {run.state}; it cannot be cancelled any more")
    if run.state is State.PENDING:
        return [Change(Kind.ENDED, text=why, state=ends)]
    if run.stop is None:
        return [Change(Kind.STOP_ASKED, text=why, state=ends)]
    return [] if run.is_cut else [Change(Kind.CUT)]


def answer(run: Run, step_id: str, text: str, data: Mapping[str, Any]) -> list[Change]:
    """Give a person's word to the step that waits for it.

    Raises:
        WrongState: no step waits, or another one does.
    """
    if run.asks is None:
        raise WrongState(f"the run is {run.state} and no step of it waits for an approval")
    if step_id not in ("", run.asks.step_id):
        raise WrongState(f"step {step_id!r} waits for no approval; step {run.asks.step_id!r} does")
    return [Change(Kind.ANSWERED, run.asks.step_id, text, data=data)]


def _must_go_on(run: Run, done: str) -> None:
    if run.state.is_over:
        raise WrongState(f"the run is {run.state}; it cannot be {done} any more")
    if run.stop is not None:
        raise WrongState(f"the run is being stopped ({run.why}); it cannot be {done}")


# What its worker does.


@dataclass(frozen=True, slots=True)
class Begin:
    """Make this step."""

    step: Outline


class Hold(NamedTuple):
    """Wait until somebody says something.

    Attributes:
        before: the step that would be made next; empty where one is held.
    """

    before: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """The run is over."""

    change: Change


Next: TypeAlias = Begin | Hold | End


def following(run: Run, plan: Plan) -> Next:
    """What is to be done next, while no step is in hand."""
    if run.held:
        return Hold()
    step = next((step for step in _left(run, plan) if not run.of(step).is_over), None)
    if step is None:
        return End(_end(run, plan))
    return Hold(step.id) if run.pausing or run.state is State.PAUSED else Begin(step)


def _left(run: Run, plan: Plan) -> Iterator[Outline]:
    """Steps that a run makes as far as is known now, in their order."""
    failed = _failed(run, plan)
    if run.stop is None and failed is None:
        yield from plan.steps
    if failed is not None and failed.rolls_back and not run.is_cut:
        for step in reversed(plan.steps):
            if run.of(step) is StepState.COMPLETED:
                yield from step.undo
    if not run.is_cut:
        yield from plan.finally_


def _failed(run: Run, plan: Plan) -> Outline | None:
    """The step whose failure ends the run."""
    if not run.has_failed:
        return None
    for step in plan.steps:
        made = run.made.get(step.id)
        has_failed = made is not None and made.state is StepState.FAILED and not made.is_cut
        if has_failed and step.ends_run:
            return step
    return None


def _end(run: Run, plan: Plan) -> Change:
    if run.stop is not None:
        return Change(Kind.ENDED, text=run.why, state=run.stop)
    lost = (step for step in plan.finally_ if step.ends_run and run.of(step) is StepState.FAILED)
    failed = _failed(run, plan) or next(lost, None)
    if failed is None:
        return Change(Kind.ENDED, state=State.COMPLETED)
    why = f"Step '{failed.id}' failed: {run.made[failed.id].text}"
    return Change(Kind.ENDED, failed.id, why, State.FAILED)


def is_to_end(run: Run, plan: Plan) -> bool:
    """Whether the step in hand is to be ended now. One that clears up is let come to its end."""
    if run.skipping or run.is_cut:
        return True
    return run.stop is not None and any(step.id == run.in_hand for step in plan.steps)


def holding(run: Run, where: str = "", *, has_moved: bool = False) -> list[Change]:
    """The worker waits, or the step in hand at a safe point: a run that was to pause, is paused.

    One that is paused already says so again where it has moved, by a skip.
    """
    is_told = run.state is State.PAUSED and not has_moved
    return [] if is_told else [Change(Kind.PAUSED, text=where)]


def failing(
    run: Run,
    plan: Plan,
    text: str,
    *,
    is_final: bool,
    data: Mapping[str, Any] = MappingProxyType({}),
) -> list[Change]:
    """The step in hand has failed; in debug mode it is held then."""
    failure = Change(Kind.STEP_FAILED, run.in_hand, text, is_final=is_final, data=data)
    is_main = any(step.id == run.in_hand for step in plan.steps)
    if is_final and plan.holds and is_main and run.stop is None:
        return [failure, Change(Kind.PAUSED, run.in_hand, text)]
    return [failure]


def left(
    run: Run, plan: Plan, *, is_repeatable: Callable[[str], bool], can_go_on: bool, reason: str
) -> list[Change]:
    """The server was away, and its worker with it.

    A step in hand is made again if that is safe; else it has failed, and so does the run, after
    what is to be cleared up. Without a step in hand it goes on, if it can.
    """
    if run.state.is_over or run.state is State.PENDING:
        return []
    if not run.in_hand:
        if can_go_on or run.stop is not None:
            return []
        return [Change(Kind.STOP_ASKED, text=reason, state=State.FAILED)]
    if can_go_on and is_repeatable(run.in_hand):
        return [Change(Kind.STEP_REOPENED, run.in_hand, reason)]
    failure = Change(Kind.STEP_FAILED, run.in_hand, reason)
    if run.stop is not None or _failed(run, plan) is not None:
        return [failure]
    return [failure, Change(Kind.STOP_ASKED, text=reason, state=State.FAILED)]


# How a run becomes what its changes make of it.


def replay(changes: Iterable[Change], run: Run = Run()) -> Run:
    """A run after some changes."""
    for change in changes:
        run = replace(_applied(run, change), changes=run.changes + 1)
    return run


def _applied(run: Run, change: Change) -> Run:
    match change.kind:
        case Kind.STARTED:
            return replace(run, state=State.RUNNING)
        case Kind.PAUSE_ASKED:
            return replace(run, pausing=True)
        case Kind.PAUSED:
            return replace(run, state=State.PAUSED, pausing=False, held=change.step_id)
        case Kind.RESUMED:
            is_paused = run.state is State.PAUSED
            state = State.RUNNING if is_paused else run.state
            return replace(run, state=state, pausing=False, held="")
        case Kind.SKIP_ASKED:
            return replace(run, skipping=True)
        case Kind.STOP_ASKED:
            return replace(
                run,
                state=State.RUNNING,
                stop=change.state,
                why=change.text,
                pausing=False,
                held="",
            )
        case Kind.CUT:
            return replace(run, is_cut=True)
        case Kind.ENDED:
            assert change.state is not None  # noqa: S101 - whoever makes one says it
            return replace(run, state=change.state, why=change.text, pausing=False, held="")
        case Kind.ASKED:
            return replace(run, asks=change)
        case Kind.ANSWERED:
            return replace(run, asks=None, answers={**run.answers, change.step_id: change})
        case Kind.LOGGED:
            return run
        case _:
            return _step_applied(run, change)


_STATES = {
    Kind.STEP_STARTED: StepState.RUNNING,
    Kind.STEP_COMPLETED: StepState.COMPLETED,
    Kind.STEP_FAILED: StepState.FAILED,
    Kind.STEP_SKIPPED: StepState.SKIPPED,
    Kind.STEP_REOPENED: StepState.PENDING,
}


def _step_applied(run: Run, change: Change) -> Run:
    before = run.made.get(change.step_id, Made(StepState.PENDING))
    begins = change.kind is Kind.STEP_STARTED
    has_failed = change.kind is Kind.STEP_FAILED
    goes_on = has_failed and not change.is_final
    made = Made(
        StepState.RUNNING if goes_on else _STATES[change.kind],
        before.attempts + begins,
        change.text,
        has_failed and run.stop is not None,
    )
    is_in_hand = begins or goes_on
    return replace(
        run,
        made={**run.made, change.step_id: made},
        in_hand=change.step_id if is_in_hand else "",
        skipping=run.skipping and is_in_hand,
        held="" if run.held == change.step_id else run.held,
        asks=None,
        answers=_without(run.answers, change.step_id) if has_failed else run.answers,
        has_failed=run.has_failed or has_failed,
    )


def _without(answers: Mapping[str, Change], step_id: str) -> Mapping[str, Change]:
    """Whatever was said is said: another attempt asks again."""
    return {name: answer for name, answer in answers.items() if name != step_id}
