"""Gathers the steps that wait for a policy into runs of many agents, and hands the results out.

What comes together is computed together, and nobody waits for more. A run that
is short is made in the loop itself; a longer one in a thread, and what comes meanwhile is the next
run. An agent's steps keep their order: a second one goes into a later run.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from steward_server.inference.arena import Arena, Lease
from steward_server.inference.model import INLINE_S, Model, Outputs
from steward_server.inference.sampling import Decisions, Doubles, Noise, decide, decide_one

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

_RUNS_ALONE = 8
"""After so many runs of one row, a step waits for no others: one caller steps, and is answered."""


@dataclass(slots=True)
class Results:
    """What agents are to do, in the order they were asked for.

    Attributes:
        actions: as `Decisions` has them.
        log_probs: of the actions.
        values: what the policy expects from there on.
        pressures: of the memory; zeros if the policy has none.
        failed: agents for which the policy gave no finite numbers: their state begins anew, and
            what else stands here of them means nothing.
    """

    actions: NDArray[np.int64] | Floats
    log_probs: Doubles
    values: Floats
    pressures: Floats
    failed: Mask

    def part(self, first: int, end: int) -> Results:
        """Some of the rows."""
        return Results(
            self.actions[first:end],
            self.log_probs[first:end],
            self.values[first:end],
            self.pressures[first:end],
            self.failed[first:end],
        )


class Step(NamedTuple):
    """What one agent is to do; see `Results`."""

    action: int | list[float]
    log_prob: float
    value: float
    pressure: float
    failed: bool


@dataclass(slots=True)
class _Rows:
    """Steps that wait, one of each of some agents: rows of finite numbers, and whose they are."""

    observations: Floats
    lease: Lease
    deterministic: bool
    done: asyncio.Future[Results]
    since_s: float

    @property
    def count(self) -> int:
        return len(self.observations)


@dataclass(slots=True)
class _One:
    """The step of one agent that waits. Many of them are put together without an array for each."""

    observation: Sequence[float]
    lease: Lease
    deterministic: bool
    done: asyncio.Future[Step]
    since_s: float
    count: ClassVar[int] = 1


@dataclass(slots=True)
class _Run:
    """What is computed together: first the rows of those that come alone, then all others."""

    ones: list[_One]
    many: list[_Rows]
    works: list[_One | _Rows]
    """All of them, in the order of the rows."""
    observations: Floats
    lease: Lease
    states: list[Floats]
    noise: Doubles


class _Made(NamedTuple):
    """What a run gives, and which of its rows have a number that is not finite, if any."""

    outputs: Outputs
    decisions: Decisions
    failed: Mask | None


@dataclass(slots=True)
class Counts:
    """What a policy has done since it was loaded; times in seconds."""

    rows: int = 0
    runs: int = 0
    failed_rows: int = 0
    waited_s: float = 0.0
    ran_s: float = 0.0


class Runner:
    """Runs one version of a policy for everybody."""

    def __init__(
        self,
        model: Model,
        arena: Arena,
        noise: Noise,
        executor: Executor,
        *,
        max_rows: int,
        observe: Callable[[int, float, Sequence[float], Floats | None], None] | None = None,
    ) -> None:
        """`observe` is told of each run: rows, seconds, how long each piece waited, pressures."""
        self.counts = Counts()
        self.waiting_rows = 0
        self._model = model
        self._arena = arena
        self._noise = noise
        self._executor = executor
        self._max_rows = max_rows
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_One | _Rows] = deque()
        self._is_called = False
        self._is_running = False
        self._runs_alone = 0
        """Runs of one row, one after the other."""
        self._has_run = False
        """Whether a step was made in this turn of the loop without a wait for others."""

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._is_running

    def submit(
        self, observations: Floats, lease: Lease, *, deterministic: bool
    ) -> asyncio.Future[Results]:
        """Let agents make a step; no agent twice, and at most `max_rows` rows."""
        done: asyncio.Future[Results] = self._loop.create_future()
        self._wait(_Rows(observations, lease, deterministic, done, time.perf_counter()))
        return done

    def submit_one(
        self, observation: Sequence[float], lease: Lease, *, deterministic: bool
    ) -> asyncio.Future[Step]:
        """Let one agent make a step."""
        done: asyncio.Future[Step] = self._loop.create_future()
        work = _One(observation, lease, deterministic, done, time.perf_counter())
        if self._runs_alone < _RUNS_ALONE or self._waiting or self._is_running:
            self._wait(work)
        elif self._has_run:
            self._runs_alone = 0
            self._wait(work)
        else:
            self._has_run = True
            self._loop.call_soon(self._turn_over)
            self._run_one(work)
        return done

    def _turn_over(self) -> None:
        self._has_run = False

    def _wait(self, work: _One | _Rows) -> None:
        self.waiting_rows += work.count
        self._waiting.append(work)
        if not self._is_called and not self._is_running:
            self._call()

    def _call(self) -> None:
        """Make a run once all has been handed in that came together.

        A turn later than that: a message wakes a task, and often that task another.
        """
        self._is_called = True
        self._loop.call_soon(self._loop.call_soon, self._go)

    def _go(self) -> None:
        self._is_called = False
        ones, many = self._pick()
        if not ones and not many:
            return
        if len(ones) == 1 and not many and self._model.expected_s(1) <= INLINE_S:
            self._runs_alone += 1
            self._run_one(ones[0])
            self._go_on()
            return
        self._runs_alone = 0
        run = self._gathered(ones, many)
        begun_s = time.perf_counter()
        if self._model.expected_s(len(run.observations)) <= INLINE_S:
            try:
                made = self._computed(run)
            except Exception as error:  # noqa: BLE001 - of whatever kind the runtime's are
                _fail(run.works, error)
            else:
                self._finish(run, made, begun_s)
            self._go_on()
        else:
            self._is_running = True
            computing = self._loop.run_in_executor(self._executor, self._computed, run)
            computing.add_done_callback(lambda done: self._came(run, done, begun_s))

    def _came(self, run: _Run, done: asyncio.Future[_Made], begun_s: float) -> None:
        self._is_running = False
        if done.cancelled():
            _fail(run.works, asyncio.CancelledError())
        elif (error := done.exception()) is not None:
            _fail(run.works, error)
        else:
            self._finish(run, done.result(), begun_s)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._call()

    def _pick(self) -> tuple[list[_One], list[_Rows]]:
        """The next run: the first that wait, as many as may be together."""
        ones: list[_One] = []
        many: list[_Rows] = []
        left: list[_One | _Rows] = []
        taken: set[int] = set()
        count = 0
        waiting = self._waiting
        while waiting:
            work = waiting.popleft()
            if work.done.done():  # nobody waits for it any more
                self.waiting_rows -= work.count
                continue
            if count and count + work.count > self._max_rows:
                left.append(work)
                break
            slots = work.lease.slots
            if not taken.isdisjoint(slots):
                left.append(work)
            else:
                count += work.count
                if isinstance(work, _One):
                    ones.append(work)
                else:
                    many.append(work)
            if waiting:  # else there is nobody to keep apart from
                taken.update(slots)
                taken.discard(self._arena.capacity)  # nobody's, as often as one likes
        waiting.extendleft(reversed(left))
        self.waiting_rows -= count
        return ones, many

    def _gathered(self, ones: list[_One], many: list[_Rows]) -> _Run:
        works: list[_One | _Rows] = [*ones, *many] if many else [*ones]
        rows = [each.observations for each in many]
        if ones:
            rows.insert(0, np.array([each.observation for each in ones], np.float32))
        lease = works[0].lease if len(works) == 1 else Lease.of_all([each.lease for each in works])
        return _Run(
            ones,
            many,
            works,
            rows[0] if len(rows) == 1 else np.concatenate(rows),
            lease,
            self._arena.gather(lease),
            self._noise.draw(lease.index, _deterministic(works)),
        )

    def _computed(self, run: _Run) -> _Made:
        outputs = self._model.run_in_parts(run.observations, run.states)
        manifest = self._model.manifest
        with np.errstate(all="ignore"):  # rows without finite numbers are told apart afterwards
            decisions = decide(manifest.action, outputs.action, run.noise, manifest.temperature)
            failed = _failed(outputs)
        return _Made(outputs, decisions, failed)

    def _finish(self, run: _Run, made: _Made, begun_s: float) -> None:
        ended_s = time.perf_counter()
        outputs, decisions, failed = made
        any_failed = failed is not None
        if failed is None:
            failed = np.zeros(len(run.observations), np.bool_)
        else:
            for state in outputs.states:
                state[failed] = 0.0
        pressures = outputs.pressures
        if pressures is None:
            pressures = np.zeros(len(failed), np.float32)
        elif any_failed:
            pressures[failed] = 0.0
        if outputs.states:
            self._arena.scatter(run.lease, outputs.states)
        self._arena.count(run.lease, outputs.pressures)
        results = Results(decisions.actions, decisions.log_probs, outputs.values, pressures, failed)
        at = len(run.ones)
        if at:
            _tell_ones(run.ones, results.part(0, at) if run.many else results)
        for work in run.many:
            to = at + work.count
            if not work.done.done():
                work.done.set_result(results.part(at, to))
            at = to
        self.counts.failed_rows += int(failed.sum()) if any_failed else 0
        waits = [begun_s - each.since_s for each in run.works]
        self._count(at, ended_s - begun_s, waits, outputs.pressures)

    def _run_one(self, work: _One) -> None:
        """As a run of several rows, with as few arrays as can be."""
        begun_s = time.perf_counter()
        model, lease = self._model, work.lease
        seen = np.array([work.observation], np.float32)
        try:
            outputs = model.run(seen, self._arena.gather(lease))
        except Exception as error:  # noqa: BLE001
            _fail((work,), error)
            return
        manifest = model.manifest
        noise = [0.0] * manifest.action.size
        if not work.deterministic:
            noise = self._noise.draw_one(lease.slots[0])
        value: float = outputs.values.item()
        pressure = 0.0 if outputs.pressures is None else outputs.pressures.item()
        with np.errstate(all="ignore"):
            failed = _failed(outputs) is not None
        if failed:
            self.counts.failed_rows += 1
            step = Step(0, 0.0, 0.0, 0.0, failed=True)
            for array in (*outputs.states, outputs.pressures):
                if array is not None:
                    array[:] = 0.0
        else:
            heads = [head[0].tolist() for head in outputs.action]
            action, log_prob = decide_one(manifest.action, heads, noise, manifest.temperature)
            step = Step(action, log_prob, value, pressure, failed=False)
        if outputs.states:
            self._arena.scatter(lease, outputs.states)
        self._arena.count(lease, outputs.pressures)
        work.done.set_result(step)
        ran_s = time.perf_counter() - begun_s
        self._count(1, ran_s, (begun_s - work.since_s,), outputs.pressures)

    def _count(
        self, rows: int, ran_s: float, waits_s: Sequence[float], pressures: Floats | None
    ) -> None:
        counts = self.counts
        counts.rows += rows
        counts.runs += 1
        counts.ran_s += ran_s
        counts.waited_s += sum(waits_s)
        if self._observe is not None:
            self._observe(rows, ran_s, waits_s, pressures)


def _fail(works: Sequence[_One | _Rows], error: BaseException) -> None:
    """The runtime itself failed: nobody's state has changed, and everybody is told."""
    for work in works:
        if not work.done.done():
            work.done.set_exception(error)
            work.done.exception()  # seen: whoever asked may have gone


def _deterministic(works: Sequence[_One | _Rows]) -> Mask | None:
    """Which rows get the likeliest action; None if none does."""
    choices = [each.deterministic for each in works]
    if True not in choices:
        return None
    return np.repeat(choices, [each.count for each in works])


def _tell_ones(ones: Sequence[_One], results: Results) -> None:
    steps = map(
        Step,
        results.actions.tolist(),
        results.log_probs.tolist(),
        results.values.tolist(),
        results.pressures.tolist(),
        results.failed.tolist(),
    )
    for work, step in zip(ones, steps, strict=True):
        done = work.done
        if not done.done():
            done.set_result(step)


def _failed(outputs: Outputs) -> Mask | None:
    """Rows with a number that is not finite; None if there are none.

    A sum is finite only if all of its numbers are; where it is not, they are looked at.
    """
    arrays = (outputs.values, *outputs.action, *outputs.states)
    if math.isfinite(sum([float(np.add.reduce(each, axis=None)) for each in arrays])):
        return None
    finite = np.ones(len(outputs.values), np.bool_)
    for array in arrays:
        finite &= np.isfinite(array).reshape(len(finite), -1).all(axis=1)
    return None if finite.all() else ~finite
