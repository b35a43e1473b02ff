"""The tasks policies are trained on: gymnasium's, step for step, as pure functions over arrays.

Every function takes one instance or any number of them: leading dimensions are kept. So a thousand
instances are one array operation, and a whole round of play is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp


@dataclass(frozen=True, slots=True)
class Discrete:
    """An action is one of so many."""

    size: int


@dataclass(frozen=True, slots=True)
class Continuous:
    """An action is a number for each pair of bounds. Numbers beyond them count as the bound."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def size(self) -> int:
        return len(self.low)

    @property
    def half(self) -> tuple[float, ...]:
        """How far the bounds are from what lies between them."""
        return tuple((high - low) / 2 for low, high in zip(self.low, self.high, strict=True))

    @property
    def centre(self) -> tuple[float, ...]:
        return tuple((high + low) / 2 for low, high in zip(self.low, self.high, strict=True))


class Step(NamedTuple):
    """What came of an action."""

    state: jax.Array
    reward: jax.Array
    failed: jax.Array
    """Whether the episode ended by it; that its time was up is another matter."""


@dataclass(frozen=True, slots=True)
class Task:
    """A task of gymnasium."""

    name: str
    """What gymnasium calls it."""
    obs_dim: int
    action: Discrete | Continuous
    episode_steps: int
    begin: Callable[[jax.Array, int], jax.Array]
    """(random key, count) → states at the beginning of episodes [count, …]."""
    observe: Callable[[jax.Array], jax.Array]
    """states → observations [..., obs_dim]."""
    advance: Callable[[jax.Array, jax.Array], Step]
    """(states, actions) → the next step. Discrete actions are [...], others [..., size]."""


GRAVITY = 9.8
POLE_KG = 0.1
TOTAL_KG = 1.0 + POLE_KG
HALF_POLE_M = 0.5
PUSH_N = 10.0
CART_STEP_S = 0.02
CART_LIMIT_M = 2.4
POLE_LIMIT = 12 * 2 * jnp.pi / 360  # radians


def _cartpole_begin(key: jax.Array, count: int) -> jax.Array:
    return jax.random.uniform(key, (count, 4), minval=-0.05, maxval=0.05)


def _cartpole_advance(state: jax.Array, action: jax.Array) -> Step:
    x, speed, angle, turn = jnp.moveaxis(state, -1, 0)
    force = jnp.where(action == 1, PUSH_N, -PUSH_N)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    pole = POLE_KG * HALF_POLE_M
    pushed = (force + pole * turn**2 * sine) / TOTAL_KG
    turning = (GRAVITY * sine - cosine * pushed) / (
        HALF_POLE_M * (4.0 / 3.0 - POLE_KG * cosine**2 / TOTAL_KG)
    )
    speeding = pushed - pole * turning * cosine / TOTAL_KG
    x = x + CART_STEP_S * speed
    angle = angle + CART_STEP_S * turn
    after = (x, speed + CART_STEP_S * speeding, angle, turn + CART_STEP_S * turning)
    failed = (jnp.abs(x) > CART_LIMIT_M) | (jnp.abs(angle) > POLE_LIMIT)
    return Step(jnp.stack(after, axis=-1), jnp.ones_like(x), failed)


CARTPOLE = Task(
    name="CartPole-v1",
    obs_dim=4,
    action=Discrete(2),
    episode_steps=500,
    begin=_cartpole_begin,
    observe=lambda state: state,
    advance=_cartpole_advance,
)

SWING_STEP_S = 0.05
SWING_GRAVITY = 10.0
SPEED_LIMIT = 8.0  # radians a second
TORQUE_LIMIT = 2.0


def _pendulum_begin(key: jax.Array, count: int) -> jax.Array:
    bounds = jnp.array([jnp.pi, 1.0])
    return jax.random.uniform(key, (count, 2), minval=-bounds, maxval=bounds)


def _pendulum_observe(state: jax.Array) -> jax.Array:
    angle, turn = jnp.moveaxis(state, -1, 0)
    return jnp.stack((jnp.cos(angle), jnp.sin(angle), turn), axis=-1)


def _pendulum_advance(state: jax.Array, action: jax.Array) -> Step:
    angle, turn = jnp.moveaxis(state, -1, 0)
    torque = jnp.clip(action[..., 0], -TORQUE_LIMIT, TORQUE_LIMIT)
    upright = (angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
    cost = upright**2 + 0.1 * turn**2 + 0.001 * torque**2
    turning = 1.5 * SWING_GRAVITY * jnp.sin(angle) + 3.0 * torque
    turn = jnp.clip(turn + turning * SWING_STEP_S, -SPEED_LIMIT, SPEED_LIMIT)
    after = jnp.stack((angle + turn * SWING_STEP_S, turn), axis=-1)
    return Step(after, -cost, jnp.zeros_like(cost, dtype=bool))


PENDULUM = Task(
    name="Pendulum-v1",
    obs_dim=3,
    action=Continuous(low=(-TORQUE_LIMIT,), high=(TORQUE_LIMIT,)),
    episode_steps=200,
    begin=_pendulum_begin,
    observe=_pendulum_observe,
    advance=_pendulum_advance,
)


class Play(NamedTuple):
    """Episodes under way, side by side; one that ends begins anew."""

    state: jax.Array
    step: jax.Array
    """How many steps each episode has had."""
    reward: jax.Array
    """What each episode has brought so far."""


class Ending(NamedTuple):
    """Which episodes ended with a step, and with what."""

    ended: jax.Array
    failed: jax.Array
    """The others of those that ended did because their time was up."""
    total: jax.Array
    """The episode's whole reward, where it ended."""
    observed: jax.Array
    """What was seen last, before a new episode began."""


def start(task: Task, key: jax.Array, count: int) -> Play:
    return Play(task.begin(key, count), jnp.zeros(count, jnp.int32), jnp.zeros(count))


def play(task: Task, playing: Play, action: jax.Array, key: jax.Array) -> tuple[Play, Step, Ending]:
    """One step of every episode."""
    taken = task.advance(playing.state, action)
    step, total = playing.step + 1, playing.reward + taken.reward
    ended = taken.failed | (step >= task.episode_steps)
    fresh = task.begin(key, step.shape[0])
    after = Play(
        jnp.where(ended[:, None], fresh, taken.state),
        jnp.where(ended, 0, step),
        jnp.where(ended, 0.0, total),
    )
    return after, taken, Ending(ended, taken.failed, total, task.observe(taken.state))
