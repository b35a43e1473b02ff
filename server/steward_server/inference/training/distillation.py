"""Distillation: a policy that sees less learns from one that sees all, and has to remember.

The student acts, so that it learns where it gets to by itself; the teacher, who sees the whole
state, says what it would have done there (Ross et al. 2011, Rusu et al. 2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from steward_server.inference.training import tasks
from steward_server.inference.training.curves import Point
from steward_server.inference.training.networks import (
    SLOTS,
    WIDTH,
    MemoryNet,
    Mlp,
    mlp,
    new_memory_net,
    remember,
)
from steward_server.inference.training.tasks import Ending, Play, Task


@dataclass(frozen=True, slots=True)
class Distillation:
    """What a training is made of."""

    rounds: int
    learning_rate: float
    """At first; it falls to nothing in the end, along a cosine."""
    seen: tuple[int, ...]
    """Which numbers of an observation the student sees."""
    value_unit: float
    """What the teacher's values are measured in, so that the student's are not far from 1."""
    instances: int = 64
    """Episodes side by side."""
    steps: int = 128
    """Of each of them in a round. That far back it learns what was worth writing."""
    hidden: int = 64
    temperatures: tuple[float, float] = (0.05, 1.0)
    """Of the first and the last instance, others lie between. It acts as it will when it is served,
    and gets old with what it has written; and it errs, and learns to make up for that."""
    forget: float = 1 / 250
    """How probable it is that the memory is emptied after a step, amid an episode."""
    value_weight: float = 0.5
    pressure_goal: float = 0.5
    pressure_weight: float = 0.1
    """Keeps the memory from staying empty, or from being full at once."""
    choice_weight: float = 0.02
    """What a nat is worth of what the address of a write tells about its moment: without it a few
    slots are written at every step, all alike. At first; it falls to nothing, straight."""
    choice_rounds: float = 0.7
    """In what part of the rounds it does: the others are for the actions alone."""
    gradient_norm: float = 1.0


class _Learner(NamedTuple):
    net: MemoryNet
    optimizer: Any
    playing: Play
    memory: jax.Array


class _Lesson(NamedTuple):
    """What a step taught."""

    loss: jax.Array
    address: jax.Array
    """How much each slot was written to, in the mean of the instances."""
    certainty: jax.Array
    """Of the addresses, in nats below nothing: 0 where each write means one slot."""
    ending: Ending


def _step(
    net: MemoryNet,
    carry: tuple[Play, jax.Array],
    key: jax.Array,
    *,
    task: Task,
    teacher: Mlp,
    how: Distillation,
) -> tuple[tuple[Play, jax.Array], _Lesson]:
    playing, memory = carry
    for_action, for_play, for_memory = jax.random.split(key, 3)
    obs = task.observe(playing.state)
    said = remember(net, obs[..., jnp.array(how.seen)], memory)
    right = mlp(teacher, obs, task.action)
    temperature = jnp.linspace(*how.temperatures, how.instances)[:, None]
    action = jax.random.categorical(for_action, said.heads.action / temperature)
    playing, _, ending = tasks.play(task, playing, action, for_play)
    surprise = optax.softmax_cross_entropy(said.heads.action, jax.nn.softmax(right.action))
    off = (said.heads.value - right.value / how.value_unit) ** 2
    strain = (said.pressure - how.pressure_goal) ** 2
    loss = jnp.mean(surprise + how.value_weight * off + how.pressure_weight * strain)
    forgets = jax.random.bernoulli(for_memory, how.forget, ending.ended.shape) | ending.ended
    memory = jnp.where(forgets[:, None, None], 0.0, said.memory)
    address = said.write_address
    return (playing, memory), _Lesson(loss, address.mean(axis=0), -_entropy(address).mean(), ending)


def _entropy(address: jax.Array) -> jax.Array:
    return -jnp.sum(address * jnp.log(address + 1e-9), axis=-1)


def train(task: Task, teacher: Mlp, how: Distillation, seed: int) -> tuple[MemoryNet, list[Point]]:
    """A student of the teacher, and how it came to it."""
    optimizer = optax.chain(
        optax.clip_by_global_norm(how.gradient_norm),
        optax.adam(optax.cosine_decay_schedule(how.learning_rate, how.rounds)),
    )
    step = partial(_step, task=task, teacher=teacher, how=how)

    def lessons(
        net: MemoryNet, playing: Play, memory: jax.Array, keys: jax.Array, choice: jax.Array
    ) -> tuple[jax.Array, Any]:
        # What a step computed is computed again on the way back: that costs less than to keep it.
        again = jax.checkpoint(partial(step, net))
        carry, lesson = jax.lax.scan(again, (playing, memory), keys)
        told = _entropy(lesson.address.mean(axis=0)) + lesson.certainty.mean()
        return lesson.loss.mean() - choice * told, (carry, lesson.ending)

    def round_of(learner: _Learner, key: jax.Array, choice: jax.Array) -> tuple[_Learner, Any]:
        net, state, playing, memory = learner
        keys = jax.random.split(key, how.steps)
        gradient, (carry, ending) = jax.grad(lessons, has_aux=True)(
            net, playing, memory, keys, choice
        )
        change, state = optimizer.update(gradient, state)
        totals = jnp.sum(jnp.where(ending.ended, ending.total, 0.0))
        learner = _Learner(optax.apply_updates(net, change), state, *carry)
        return learner, (totals, jnp.sum(ending.ended))

    for_net, for_play, for_rounds = jax.random.split(jax.random.key(seed), 3)
    net = new_memory_net(for_net, len(how.seen), how.hidden, task.action.size)
    memory = jnp.zeros((how.instances, SLOTS, WIDTH))
    playing = tasks.start(task, for_play, how.instances)
    learner = _Learner(net, optimizer.init(net), playing, memory)
    compiled = jax.jit(round_of)
    curve = []
    for number, key in enumerate(jax.random.split(for_rounds, how.rounds)):
        left = max(0.0, 1 - number / (how.choice_rounds * how.rounds))
        learner, (totals, episodes) = compiled(learner, key, how.choice_weight * left)
        if episodes:
            steps = (number + 1) * how.instances * how.steps
            curve.append(Point(steps, float(totals / episodes)))
    return learner.net, curve
