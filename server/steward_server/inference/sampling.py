"""From what a policy puts out to actions and their log-probabilities, for many agents. Pure.

Every agent draws from a stream of its own, PCG64 from its seed, so that what it gets depends on
nobody it happens to be computed with. Rows are agents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steward_server.inference.manifest import Action, ActionType

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_LOG_STD_LIMIT = 20.0
"""Beyond it a normal is a point, or everywhere, and its density overflows."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """What agents are to do.

    Attributes:
        actions: discrete, one whole number each, int64; continuous, `size` numbers each, float32.
        log_probs: of the actions as they were drawn, before they are kept within bounds.
    """

    actions: NDArray[np.int64] | Floats
    log_probs: Doubles


def decide(
    action: Action,
    outputs: tuple[Floats, ...],
    noise: Doubles,
    deterministic: NDArray[np.bool_],
    temperature: float,
) -> Decisions:
    """Choose an action for each row.

    `outputs` are `logits`, or `mean` and `log_std`, each rows by `size`. `noise` is what each row
    may use: one number of [0, 1) for a discrete action, `size` of the standard normal for a
    continuous one. `deterministic` says which rows get the likeliest action instead.
    """
    if action.type is ActionType.DISCRETE:
        return _discrete(outputs[0], noise[:, 0], deterministic, temperature)
    return _continuous(action, outputs[0], outputs[1], noise, deterministic, temperature)


def _discrete(
    logits: Floats, uniform: Doubles, deterministic: NDArray[np.bool_], temperature: float
) -> Decisions:
    rows = np.arange(len(logits))
    scaled = logits.astype(np.float64)
    if temperature != 1.0:
        scaled /= temperature
    best = scaled.argmax(axis=1)
    scaled -= scaled[rows, best][:, None]
    ends = np.exp(scaled).cumsum(axis=1)
    totals = ends[:, -1]
    # How many choices end below the point drawn; rounding may put that beyond the last one.
    drawn = np.add.reduce(ends <= (uniform * totals)[:, None], axis=1, dtype=np.int64)
    np.minimum(drawn, logits.shape[1] - 1, out=drawn)
    chosen = np.where(deterministic, best, drawn)
    return Decisions(chosen, scaled[rows, chosen] - np.log(totals))


def _continuous(
    action: Action,
    mean: Floats,
    log_std: Floats,
    normal: Doubles,
    deterministic: NDArray[np.bool_],
    temperature: float,
) -> Decisions:
    wide = np.clip(log_std.astype(np.float64), -_LOG_STD_LIMIT, _LOG_STD_LIMIT)
    wide += math.log(temperature)
    steps = np.where(deterministic[:, None], 0.0, normal)
    actions = mean + np.exp(wide) * steps
    log_probs = -(0.5 * steps * steps + wide + _HALF_LOG_TWO_PI).sum(axis=1)
    if action.low:
        actions = np.clip(actions, action.low, action.high)
    return Decisions(actions.astype(np.float32), log_probs)


class Noise:
    """What every slot may draw, made some steps ahead.

    One call of a generator for each step would cost more than all the rest of it.
    """

    AHEAD = 32
    """Steps."""

    def __init__(self, capacity: int, action: Action) -> None:
        """For slots 0 to `capacity` - 1, and for nobody's, which is `capacity`."""
        self._is_uniform = action.type is ActionType.DISCRETE
        self._width = 1 if self._is_uniform else action.size
        self._nobody = capacity
        self._ahead = np.zeros((capacity, self.AHEAD, self._width), np.float64)
        self._next = np.full(capacity, self.AHEAD, np.int64)
        self._anyone = np.random.Generator(np.random.PCG64())
        self._streams = [self._anyone] * capacity

    def seed(self, slot: int, seed: int) -> None:
        """Begin a slot's stream anew; equal seeds give equal streams."""
        self._streams[slot] = np.random.Generator(np.random.PCG64(seed))
        self._next[slot] = self.AHEAD

    def draw(self, slots: NDArray[np.intp], deterministic: NDArray[np.bool_]) -> Doubles:
        """The next of each slot that draws, rows by what an action needs; zeros for the others.

        No slot is there twice, but for nobody's: that draws from a stream that nobody can repeat.
        """
        if not np.logical_or.reduce(deterministic | (slots == self._nobody)):
            return self._drawn(slots)
        noise = np.zeros((len(slots), self._width), np.float64)
        draws = ~deterministic
        owned = draws & (slots != self._nobody)
        noise[owned] = self._drawn(slots[owned])
        free = draws & ~owned
        noise[free] = self._made(self._anyone, int(free.sum()))
        return noise

    def _drawn(self, slots: NDArray[np.intp]) -> Doubles:
        at = self._next[slots]
        used_up = at == self.AHEAD
        if used_up.any():
            for slot in slots[used_up].tolist():
                self._ahead[slot] = self._made(self._streams[slot], self.AHEAD)
            at[used_up] = 0
        self._next[slots] = at + 1
        return self._ahead[slots, at]

    def _made(self, stream: np.random.Generator, count: int) -> Doubles:
        shape = (count, self._width)
        return stream.random(shape) if self._is_uniform else stream.standard_normal(shape)
