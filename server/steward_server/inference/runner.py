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
from steward_server.inference.sampling import Decisions, Doubles, Noise, decide

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


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
        self._wait(_One(observation, lease, deterministic, done, time.perf_counter()))
        return done

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
        run = self._gathered(ones, many)
        begun_s = time.perf_counter()
        if self._model.expected_s(len(run.observations)) <= INLINE_S:
            try:
                made = self._computed(run)
            except Exception as error:  # noqa: BLE001 - of whatever kind the runtime's are
                self._fail(run, error)
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
            self._fail(run, asyncio.CancelledError())
        elif (error := done.exception()) is not None:
            self._fail(run, error)
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
        results = Results(decisions.actions, decisions.log_probs, outputs.values, pressures, failed)
        at = len(run.ones)
        if at:
            _tell_ones(run.ones, results.part(0, at) if run.many else results)
        for work in run.many:
            to = at + work.count
            if not work.done.done():
                work.done.set_result(results.part(at, to))
            at = to
        counts = self.counts
        counts.rows += at
        counts.runs += 1
        counts.failed_rows += int(failed.sum()) if any_failed else 0
        counts.ran_s += ended_s - begun_s
        waits = [begun_s - each.since_s for each in run.works]
        counts.waited_s += sum(waits)
        if self._observe is not None:
            told = pressures if outputs.pressures is not None else None
            self._observe(at, ended_s - begun_s, waits, told)

    def _fail(self, run: _Run, error: BaseException) -> None:
        """The runtime itself failed: nobody's state has changed, and everybody is told."""
        for work in run.works:
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
