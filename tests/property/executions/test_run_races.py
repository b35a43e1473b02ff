"""Whatever people ask for while a worker works and servers die, a run says what is so, and ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from steward_server.executions.run import (
    Begin,
    Change,
    End,
    Kind,
    Plan,
    Run,
    State,
    StepState,
    WrongState,
    answer,
    failing,
    following,
    holding,
    is_to_end,
    left,
    pause,
    replay,
    resume,
    skip,
    stop,
)

MOST_MOVES = 60
MOST_MOVES_TO_THE_END = 400


@dataclass(frozen=True)
class Step:
    id: str
    ends_run: bool = True
    rolls_back: bool = False
    undo: Sequence[Step] = ()


class Simulation:
    """One run: a worker, people and crashes, in an order that chance makes."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.repeatable: set[str] = set()
        self.plan = self._plan()
        self.run = Run()
        self.history: list[Change] = []
        self.asked_to_pause = False
        self.asked_to_skip = ""
        self.failed_once = ""
        """The step in hand, after an attempt that failed and before the next one."""

    def _plan(self) -> Plan:
        chance = self.chance

        def step(name: str, *, undo: Sequence[Step] = ()) -> Step:
            ends_run = chance.random() < 0.7
            rolls_back = ends_run and chance.random() < 0.5
            if chance.random() < 0.5:
                self.repeatable.add(name)
            return Step(name, ends_run, rolls_back, undo)

        steps = [
            step(f"s{at}", undo=[step(f"u{at}")] if chance.random() < 0.4 else ())
            for at in range(chance.randint(1, 4))
        ]
        finally_ = [step(f"f{at}") for at in range(chance.randint(0, 2))]
        return Plan(steps, finally_, holds=chance.random() < 0.3)

    def take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            before = self.run
            self.run = replay([change], before)
            self.history.append(change)
            self.check(before, change)

    def check(self, before: Run, change: Change) -> None:
        run = self.run
        assert not before.state.is_over, "nothing happens to what is over"
        running = [name for name, made in run.made.items() if made.state is StepState.RUNNING]
        assert running == ([run.in_hand] if run.in_hand else [])
        if before.state is State.PAUSED and before.in_hand:
            assert change.kind is not Kind.STEP_COMPLETED, "it waits at a safe point"
        assert run.asks is None or run.asks.step_id == run.in_hand
        assert not (run.held and run.state is not State.PAUSED)
        for name, made in before.made.items():
            if made.state is StepState.COMPLETED:
                assert run.made[name].state is StepState.COMPLETED, "what is done stays done"
        if change.kind is Kind.PAUSE_ASKED:
            self.asked_to_pause = True
        elif change.kind in (Kind.RESUMED, Kind.STOP_ASKED):
            self.asked_to_pause = False
        elif change.kind is Kind.STEP_STARTED:
            assert not self.asked_to_pause
            begun = before.made.get(change.step_id)
            if before.in_hand:
                assert before.in_hand == change.step_id == self.failed_once, "another attempt"
            else:
                assert begun is None or begun.state is StepState.PENDING, "once, unless reopened"
            self.failed_once = ""
            self.check_order(before, change.step_id)
        elif change.kind is Kind.STEP_FAILED:
            self.failed_once = "" if change.is_final else change.step_id
        elif change.kind is Kind.ANSWERED:
            assert before.asks is not None
            assert before.asks.step_id == change.step_id
        elif change.kind is Kind.SKIP_ASKED:
            self.asked_to_skip = change.step_id
        elif change.kind is Kind.STEP_SKIPPED:
            assert change.step_id in (self.asked_to_skip, before.held), "only what was asked for"
        elif change.kind is Kind.STEP_REOPENED and change.text == "interrupted":
            assert change.step_id in self.repeatable
        if change.kind is Kind.ENDED:
            ended_a_step = self.history[-2:][0].kind in (Kind.STEP_SKIPPED, Kind.STEP_FAILED)
            assert before.state in (State.RUNNING, State.PENDING) or ended_a_step
        elif before.state is State.PENDING:
            assert change.kind in (Kind.PAUSE_ASKED, Kind.RESUMED, Kind.STARTED)

    def check_order(self, before: Run, step_id: str) -> None:
        over = {name for name, made in before.made.items() if made.state.is_over}
        names = [each.id for each in self.plan.steps]
        if step_id in names:
            assert before.stop is None
            assert set(names[: names.index(step_id)]) <= over, "in their order"

    # Who does something.

    def work(self) -> None:
        """The worker's turn."""
        run, plan, chance = self.run, self.plan, self.chance
        if run.state is State.PENDING:
            self.take([Change(Kind.STARTED)])
        elif run.in_hand:
            drawn = chance.random()
            if is_to_end(run, plan) and (drawn < 0.8 or self.failed_once):  # else it was over
                if run.skipping:
                    self.take([Change(Kind.STEP_SKIPPED, run.in_hand, "skipped")])
                else:
                    self.take(failing(run, plan, run.why, is_final=True))
            elif run.state is State.PAUSED:
                return  # it waits at a safe point
            elif run.pausing and drawn < 0.3:
                self.take(holding(run, "in the middle of a step"))
            elif self.failed_once:
                if not run.pausing:
                    self.take([Change(Kind.STEP_STARTED, run.in_hand)])
            elif drawn < 0.4 and run.asks is None and run.in_hand not in run.answers:
                self.take([Change(Kind.ASKED, run.in_hand, "may I?")])
            elif drawn < 0.5 or is_to_end(run, plan):
                self.take([Change(Kind.STEP_COMPLETED, run.in_hand)])
            elif drawn < 0.7:
                self.take(failing(run, plan, "it broke", is_final=False))
            elif drawn < 0.85:
                self.take(failing(run, plan, "it broke", is_final=True))
        else:
            match following(run, plan):
                case Begin(step):
                    self.take([Change(Kind.STEP_STARTED, step.id)])
                case End(change):
                    self.take([change])
                case _:
                    self.take(holding(run))

    def people(self) -> None:
        """Somebody asks for something."""
        ask = self.chance.choice((pause, resume, skip, self._cancel, self._answer))
        try:
            changes = ask(self.run)
        except WrongState:
            return
        self.take(changes)

    def _cancel(self, run: Run) -> list[Change]:
        return stop(run, "somebody cancelled it")

    def _answer(self, run: Run) -> list[Change]:
        return answer(run, "", "yes", {"approved": True})

    def crash(self) -> None:
        """The server dies, and another takes over from what was written down."""
        self.run = replay(self.history)
        self.failed_once = ""
        self.take(
            left(
                self.run,
                self.plan,
                is_repeatable=self.repeatable.__contains__,
                can_go_on=self.chance.random() < 0.7,
                reason="interrupted",
            )
        )

    def go(self) -> None:
        for _ in range(self.chance.randint(1, MOST_MOVES)):
            if self.run.state.is_over:
                break
            drawn = self.chance.random()
            if drawn < 0.6:
                self.work()
            elif drawn < 0.95:
                self.people()
            else:
                self.crash()
        moves = 0
        while not self.run.state.is_over:
            moves += 1
            assert moves < MOST_MOVES_TO_THE_END, "it never ends"
            if self.run.state is State.PAUSED or self.run.pausing:
                self.take(skip(self.run) if self.run.held else resume(self.run))
            self.work()
        self.check_end()

    def check_end(self) -> None:
        run, plan = self.run, self.plan
        assert replay(self.history) == run, "it is what its changes made of it"
        assert not run.in_hand
        kinds = [change.kind for change in self.history]
        if run.state is State.CANCELLED:
            assert run.why == "somebody cancelled it"
        if run.state is State.FAILED:
            assert run.why
        if run.state is State.COMPLETED:
            assert Kind.STOP_ASKED not in kinds
            for step in (*plan.steps, *plan.finally_):
                state = run.of(step)
                assert state.is_over
                assert not (state is StepState.FAILED and step.ends_run)
        if Kind.STARTED in kinds and not run.is_cut:
            assert all(run.of(step).is_over for step in plan.finally_), "always"
        self.check_undone()

    def check_undone(self) -> None:
        """Undone is what was completed, once, the last of it first; and only after a failure."""
        begun = [change.step_id for change in self.history if change.kind is Kind.STEP_STARTED]
        undone = list(dict.fromkeys(name for name in begun if name.startswith("u")))
        assert undone == sorted(undone, reverse=True)
        if undone:
            stopped = next(
                (at for at, each in enumerate(self.history) if each.kind is Kind.STOP_ASKED), None
            )
            failed = {
                each.step_id for each in self.history[:stopped] if each.kind is Kind.STEP_FAILED
            }
            assert any(step.rolls_back and step.id in failed for step in self.plan.steps)
            for name in undone:
                assert self.run.made[f"s{name[1:]}"].state is StepState.COMPLETED


@pytest.mark.parametrize(
    "runs", [pytest.param(3_000, id="some"), pytest.param(100_000, marks=pytest.mark.proof)]
)
def test_a_run_says_what_is_so_and_ends(runs: int) -> None:
    ends = dict.fromkeys(State, 0)
    for seed in range(runs):
        simulation = Simulation(seed)
        try:
            simulation.go()
        except AssertionError:
            pytest.fail(f"seed {seed}: {simulation.history}")
        ends[simulation.run.state] += 1
    assert all(ends[state] > runs / 20 for state in State if state.is_over), ends
