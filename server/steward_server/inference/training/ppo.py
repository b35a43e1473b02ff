"""Proximal policy optimisation (Schulman et al. 2017) with generalised advantage estimation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from steward_server.inference.training import tasks
from steward_server.inference.training.curves import Point
from steward_server.inference.training.networks import Heads, Mlp, mlp, new_mlp
from steward_server.inference.training.tasks import Play, Task

LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Ppo:
    """What a training is made of."""

    rounds: int
    learning_rate: float
    """At first; it falls to nothing in the end, straight."""
    instances: int = 32
    """Episodes side by side."""
    steps: int = 128
    """Of each of them in a round."""
    epochs: int = 4
    minibatches: int = 4
    hidden: int = 64
    discount: float = 0.99
    trace: float = 0.95
    """λ: how far an advantage looks ahead."""
    clip: float = 0.2
    entropy: float = 0.0
    """What a nat of it is worth."""
    reward_scale: float = 1.0
    """So that values are learned which are not far from 1."""
    gradient_norm: float = 0.5


class Seen(NamedTuple):
    """What play has brought, for the policy to learn from."""

    obs: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    next_value: jax.Array
    """Of what came after the action: nothing where it failed."""
    ended: jax.Array
    total: jax.Array


def sample(heads: Heads, key: jax.Array) -> jax.Array:
    if heads.log_std is None:
        return jax.random.categorical(key, heads.action)
    noise = jax.random.normal(key, heads.action.shape)
    return heads.action + jnp.exp(heads.log_std) * noise


def log_prob(heads: Heads, action: jax.Array) -> jax.Array:
    if heads.log_std is None:
        every = jax.nn.log_softmax(heads.action)
        return jnp.take_along_axis(every, action[..., None], axis=-1)[..., 0]
    off = (action - heads.action) / jnp.exp(heads.log_std)
    return jnp.sum(-0.5 * off**2 - heads.log_std - 0.5 * LOG_2PI, axis=-1)


def entropy(heads: Heads) -> jax.Array:
    if heads.log_std is None:
        every = jax.nn.log_softmax(heads.action)
        return -jnp.sum(jnp.exp(every) * every, axis=-1)
    return jnp.sum(heads.log_std + 0.5 * (1 + LOG_2PI))


def advantages(seen: Seen, discount: float, trace: float) -> jax.Array:
    """Of every action [steps, instances]: how much better it was than what was expected."""
    surprise = seen.reward + discount * seen.next_value - seen.value

    def back(later: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        surprised, ended = at
        advantage = surprised + discount * trace * jnp.where(ended, 0.0, later)
        return advantage, advantage

    start = jnp.zeros_like(surprise[0])
    return jax.lax.scan(back, start, (surprise, seen.ended), reverse=True)[1]


def _gather(task: Task, how: Ppo, net: Mlp, playing: Play, key: jax.Array) -> tuple[Play, Seen]:
    def step(playing: Play, key: jax.Array) -> tuple[Play, Seen]:
        for_action, for_play = jax.random.split(key)
        obs = task.observe(playing.state)
        heads = mlp(net, obs, task.action)
        action = sample(heads, for_action)
        playing, taken, ending = tasks.play(task, playing, action, for_play)
        next_value = jnp.where(ending.failed, 0.0, mlp(net, ending.observed, task.action).value)
        return playing, Seen(
            obs,
            action,
            log_prob(heads, action),
            heads.value,
            taken.reward * how.reward_scale,
            next_value,
            ending.ended,
            ending.total,
        )

    after, seen = jax.lax.scan(step, playing, jax.random.split(key, how.steps))
    return after, seen


def _loss(
    net: Mlp, seen: Seen, advantage: jax.Array, target: jax.Array, *, task: Task, how: Ppo
) -> jax.Array:
    heads = mlp(net, seen.obs, task.action)
    ratio = jnp.exp(log_prob(heads, seen.action) - seen.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - how.clip, 1 + how.clip)
    gain = jnp.minimum(ratio * advantage, clipped * advantage).mean()
    off = 0.5 * jnp.mean((heads.value - target) ** 2)
    return off - gain - how.entropy * entropy(heads).mean()


class _Learner(NamedTuple):
    net: Mlp
    optimizer: Any
    playing: Play


def train(task: Task, how: Ppo, seed: int) -> tuple[Mlp, list[Point]]:
    """A policy that has learned the task, and how it came to it."""
    updates = how.rounds * how.epochs * how.minibatches
    optimizer = optax.chain(
        optax.clip_by_global_norm(how.gradient_norm),
        optax.adam(optax.linear_schedule(how.learning_rate, 0.0, updates), eps=1e-5),
    )
    rows = how.instances * how.steps
    gradient = jax.grad(partial(_loss, task=task, how=how))

    def update(learner: tuple[Mlp, Any], batch: Any) -> tuple[tuple[Mlp, Any], None]:
        net, state = learner
        change, state = optimizer.update(gradient(net, *batch), state)
        return (optax.apply_updates(net, change), state), None

    def round_of(learner: _Learner, key: jax.Array) -> tuple[_Learner, tuple[jax.Array, jax.Array]]:
        for_play, for_order = jax.random.split(key)
        playing, seen = _gather(task, how, learner.net, learner.playing, for_play)
        advantage = advantages(seen, how.discount, how.trace)
        flat = jax.tree.map(
            lambda x: x.reshape(rows, *x.shape[2:]), (seen, advantage, advantage + seen.value)
        )
        orders = jax.vmap(lambda key: jax.random.permutation(key, rows))(
            jax.random.split(for_order, how.epochs)
        ).reshape(how.epochs * how.minibatches, -1)
        batches = jax.tree.map(lambda x: x[orders], flat)
        (net, state), _ = jax.lax.scan(update, (learner.net, learner.optimizer), batches)
        totals = jnp.sum(jnp.where(seen.ended, seen.total, 0.0))
        return _Learner(net, state, playing), (totals, jnp.sum(seen.ended))

    for_net, for_play, for_rounds = jax.random.split(jax.random.key(seed), 3)
    net = new_mlp(for_net, task.obs_dim, how.hidden, task.action)
    learner = _Learner(net, optimizer.init(net), tasks.start(task, for_play, how.instances))
    compiled = jax.jit(round_of)
    curve = []
    for number, key in enumerate(jax.random.split(for_rounds, how.rounds), start=1):
        learner, (totals, episodes) = compiled(learner, key)
        if episodes:
            curve.append(Point(number * rows, float(totals / episodes)))
    return learner.net, curve
