"""From what a policy puts out to actions and their log-probabilities, for many agents. Pure.

Every agent draws from a stream of its own, PCG64 from its seed, so that what it gets depends on
nobody it happens to be computed with. Rows are agents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import add

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
    temperature: float,
) -> Decisions:
    """Choose an action for each row.

    `outputs` are `logits`, or `mean` and `log_std`, each rows by `size`. `noise` has as many: of
    the standard Gumbel distribution for a discrete action, of the standard normal for a continuous
    one. A row of zeros gets the likeliest action.
    """
    if action.type is ActionType.DISCRETE:
        return _discrete(outputs[0], noise, temperature)
    return _continuous(action, outputs[0], outputs[1], noise, temperature)


def _discrete(logits: Floats, gumbel: Doubles, temperature: float) -> Decisions:
    """The largest of logits with such noise is drawn as softmax says (Gumbel, 1954)."""
    scaled = logits.astype(np.float64)
    if temperature != 1.0:
        scaled /= temperature
    chosen = (scaled + gumbel).argmax(axis=1)
    scaled -= np.maximum.reduce(scaled, axis=1, keepdims=True)
    totals = np.add.reduce(np.exp(scaled), axis=1)
    count, size = logits.shape
    of_chosen = scaled.ravel().take(np.arange(0, count * size, size) + chosen)
    return Decisions(chosen, of_chosen - np.log(totals))


def _continuous(
    action: Action,
    mean: Floats,
    log_std: Floats,
    normal: Doubles,
    temperature: float,
) -> Decisions:
    wide = np.clip(log_std.astype(np.float64), -_LOG_STD_LIMIT, _LOG_STD_LIMIT)
    wide += math.log(temperature)
    actions = mean + np.exp(wide) * normal
    log_probs = -(0.5 * normal * normal + wide + _HALF_LOG_TWO_PI).sum(axis=1)
    if action.low:
        actions = np.clip(actions, action.low, action.high)
    return Decisions(actions.astype(np.float32), log_probs)


def decide_one(
    action: Action, outputs: Sequence[Sequence[float]], noise: Sequence[float], temperature: float
) -> tuple[int | list[float], float]:
    """As `decide`, for one agent: an array of one row costs as much as one of a hundred."""
    if action.type is ActionType.DISCRETE:
        scaled = [logit / temperature for logit in outputs[0]]
        noisy = list(map(add, scaled, noise))
        chosen = noisy.index(max(noisy))
        largest = max(scaled)
        total = sum([math.exp(each - largest) for each in scaled])
        return chosen, scaled[chosen] - largest - math.log(total)
    actions, log_prob = [], 0.0
    for mean, log_std, step in zip(*outputs, noise, strict=True):
        wide = min(max(log_std, -_LOG_STD_LIMIT), _LOG_STD_LIMIT) + math.log(temperature)
        actions.append(mean + math.exp(wide) * step)
        log_prob -= 0.5 * step * step + wide + _HALF_LOG_TWO_PI
    if action.low:
        bounds = zip(actions, action.low, action.high, strict=True)
        actions = [min(max(each, low), high) for each, low, high in bounds]
    return actions, log_prob


class Noise:
    """What every slot may draw, made some steps ahead.

    One call of a generator for each step would cost more than all the rest of it.
    """

    AHEAD = 32
    """Steps."""

    def __init__(self, capacity: int, action: Action) -> None:
        """For slots 0 to `capacity` - 1, and for nobody's, which is `capacity`."""
        self._is_gumbel = action.type is ActionType.DISCRETE
        self._size = action.size
        self._nobody = capacity
        self._ahead = np.zeros((capacity * self.AHEAD, action.size), np.float64)
        self._next = np.full(capacity, self.AHEAD, np.int64)
        self._anyone = np.random.Generator(np.random.PCG64())
        self._streams = [self._anyone] * capacity

    def seed(self, slot: int, seed: int) -> None:
        """Begin a slot's stream anew; equal seeds give equal streams."""
        self._streams[slot] = np.random.Generator(np.random.PCG64(seed))
        self._next[slot] = self.AHEAD

    def draw(self, slots: NDArray[np.intp], deterministic: NDArray[np.bool_] | None) -> Doubles:
        """The next of each slot that draws, rows by the action's size; zeros for the others.

        `deterministic` is None if all draw. No slot is there twice, but for nobody's: that draws
        from a stream that nobody can repeat.
        """
        owned = slots != self._nobody
        if deterministic is None:
            if np.logical_and.reduce(owned):
                return self._drawn(slots)
            draws = np.ones(len(slots), np.bool_)
        else:
            draws = ~deterministic
            owned &= draws
        noise = np.zeros((len(slots), self._size), np.float64)
        noise[owned] = self._drawn(slots[owned])
        free = draws & ~owned
        noise[free] = self._made(self._anyone, int(free.sum()))
        return noise

    def draw_one(self, slot: int) -> list[float]:
        """The next of one slot."""
        at = int(self._next[slot])
        if at == self.AHEAD:
            self._make_ahead(slot)
            at = 0
        self._next[slot] = at + 1
        noise: list[float] = self._ahead[slot * self.AHEAD + at].tolist()
        return noise

    def _drawn(self, slots: NDArray[np.intp]) -> Doubles:
        at = self._next.take(slots)
        used_up = at == self.AHEAD
        if np.logical_or.reduce(used_up):
            for slot in slots[used_up].tolist():
                self._make_ahead(slot)
            at[used_up] = 0
        self._next[slots] = at + 1
        return self._ahead.take(slots * self.AHEAD + at, axis=0)

    def _make_ahead(self, slot: int) -> None:
        first = slot * self.AHEAD
        self._ahead[first : first + self.AHEAD] = self._made(self._streams[slot], self.AHEAD)

    def _made(self, stream: np.random.Generator, count: int) -> Doubles:
        shape = (count, self._size)
        return stream.gumbel(size=shape) if self._is_gumbel else stream.standard_normal(shape)
