"""Gathers the steps that wait for a policy into runs of many agents, and hands the results out.

What one turn of the event loop brings is computed together, and nobody waits for more. A run that
is short is made in the loop itself; a longer one in a thread, and what comes meanwhile is the next
run. An agent's steps keep their order: a second one goes into a later run.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

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


@dataclass(slots=True)
class Rows:
    """Steps that wait: one of each of some agents.

    Attributes:
        observations: rows of finite numbers.
        lease: whose they are, row by row; None for steps from a fresh state, of which nothing is
            kept.
        deterministic: for all of them.
    """

    observations: Floats
    lease: Lease | None
    deterministic: bool
    done: asyncio.Future[Results]
    since_s: float


@dataclass(slots=True)
class _Run:
    """What is computed together."""

    works: list[Rows]
    observations: Floats
    states: list[Floats]
    noise: Doubles
    deterministic: Mask


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
        self._waiting: deque[Rows] = deque()
        self._is_called = False
        self._is_running = False

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._is_running

    def submit(
        self, observations: Floats, lease: Lease | None, *, deterministic: bool
    ) -> asyncio.Future[Results]:
        """Let agents make a step; no agent twice, and at most `max_rows` rows."""
        done: asyncio.Future[Results] = self._loop.create_future()
        self.waiting_rows += len(observations)
        self._waiting.append(Rows(observations, lease, deterministic, done, time.perf_counter()))
        if not self._is_called and not self._is_running:
            self._is_called = True
            self._loop.call_soon(self._go)
        return done

    def _go(self) -> None:
        self._is_called = False
        works = self._pick()
        if not works:
            return
        run = self._gathered(works)
        begun_s = time.perf_counter()
        if self._model.expected_s(len(run.observations)) <= INLINE_S:
            try:
                outputs, decisions = self._computed(run)
            except Exception as error:  # noqa: BLE001 - of whatever kind the runtime's are
                self._fail(run, error)
            else:
                self._finish(run, outputs, decisions, begun_s)
            self._go_on()
        else:
            self._is_running = True
            computing = self._loop.run_in_executor(self._executor, self._computed, run)
            computing.add_done_callback(lambda done: self._came(run, done, begun_s))

    def _came(
        self, run: _Run, done: asyncio.Future[tuple[Outputs, Decisions]], begun_s: float
    ) -> None:
        self._is_running = False
        if done.cancelled():
            self._fail(run, asyncio.CancelledError())
        elif (error := done.exception()) is not None:
            self._fail(run, error)
        else:
            self._finish(run, *done.result(), begun_s)
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting and not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._go)

    def _pick(self) -> list[Rows]:
        """The next run: the first that wait, as many as may be together."""
        picked: list[Rows] = []
        left: list[Rows] = []
        taken: set[int] = set()
        count = 0
        waiting = self._waiting
        while waiting:
            work = waiting.popleft()
            self.waiting_rows -= len(work.observations)
            if work.done.done():  # nobody waits for it any more
                continue
            size = len(work.observations)
            if picked and count + size > self._max_rows:
                left.append(work)
                break
            slots = work.lease.listed if work.lease is not None else ()
            if taken.isdisjoint(slots):
                picked.append(work)
                count += size
            else:
                left.append(work)
            taken.update(slots)
        self.waiting_rows += sum(len(each.observations) for each in left)
        waiting.extendleft(reversed(left))
        return picked

    def _gathered(self, works: list[Rows]) -> _Run:
        alone = works[0] if len(works) == 1 else None
        observations = (
            alone.observations if alone else np.concatenate([each.observations for each in works])
        )
        sizes = [len(each.observations) for each in works]
        deterministic = np.repeat([each.deterministic for each in works], sizes)
        states = self._states(works)
        noise = self._noise.nothing(len(observations))
        at = 0
        for work, size in zip(works, sizes, strict=True):
            if not work.deterministic:
                noise[at : at + size] = (
                    self._noise.draw_unkept(size)
                    if work.lease is None
                    else self._noise.draw(work.lease.slots)
                )
            at += size
        return _Run(works, observations, states, noise, deterministic)

    def _states(self, works: list[Rows]) -> list[Floats]:
        parts = [
            self._model.fresh(len(each.observations))
            if each.lease is None
            else self._arena.gather(each.lease)
            for each in works
        ]
        if len(parts) == 1:
            return parts[0]
        return [np.concatenate(tensors) for tensors in zip(*parts, strict=True)]

    def _computed(self, run: _Run) -> tuple[Outputs, Decisions]:
        outputs = self._model.run_in_parts(run.observations, run.states)
        manifest = self._model.manifest
        with np.errstate(all="ignore"):  # rows without finite numbers are told apart afterwards
            decisions = decide(
                manifest.action, outputs.action, run.noise, run.deterministic, manifest.temperature
            )
        return outputs, decisions

    def _finish(self, run: _Run, outputs: Outputs, decisions: Decisions, begun_s: float) -> None:
        ended_s = time.perf_counter()
        failed = ~_finite(outputs)
        any_failed = bool(failed.any())
        if any_failed:
            for state in outputs.states:
                state[failed] = 0.0
        pressures = outputs.pressures
        if pressures is None:
            pressures = np.zeros(len(failed), np.float32)
        elif any_failed:
            pressures[failed] = 0.0
        at = 0
        for work in run.works:
            to = at + len(work.observations)
            if work.lease is not None and outputs.states:
                self._arena.scatter(work.lease, [state[at:to] for state in outputs.states])
            if not work.done.done():
                work.done.set_result(
                    Results(
                        decisions.actions[at:to],
                        decisions.log_probs[at:to],
                        outputs.values[at:to],
                        pressures[at:to],
                        failed[at:to],
                    )
                )
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


def _finite(outputs: Outputs) -> Mask:
    """Which rows have finite numbers only. A sum is finite as far as all of its numbers are."""
    total = outputs.values.astype(np.float64)
    for array in (*outputs.action, *outputs.states):
        total += array.reshape(len(total), -1).sum(axis=1, dtype=np.float64)
    return np.isfinite(total)
