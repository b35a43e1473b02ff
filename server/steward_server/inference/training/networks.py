"""The networks of the policies: their weights as trees of arrays, what they compute as functions.

`export.py` writes the same functions as ONNX graphs; a test holds the two together.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from steward_server.inference.training.tasks import Continuous, Discrete


class Dense(NamedTuple):
    """A layer: x @ weight + bias."""

    weight: jax.Array
    bias: jax.Array


class Mlp(NamedTuple):
    """An actor and a critic, each of two hidden layers of tanh."""

    actor: tuple[Dense, ...]
    critic: tuple[Dense, ...]
    log_std: jax.Array | None
    """Of each continuous action, whatever is observed; None: actions are discrete."""


class Heads(NamedTuple):
    """What a network says of an observation."""

    action: jax.Array
    """Logits, or means [..., size]."""
    log_std: jax.Array | None
    value: jax.Array


def dense(key: jax.Array, inputs: int, outputs: int, gain: float = 1.0) -> Dense:
    weight = jax.nn.initializers.orthogonal(gain)(key, (inputs, outputs), jnp.float32)
    return Dense(weight, jnp.zeros(outputs))


def through(layer: Dense, x: jax.Array) -> jax.Array:
    return x @ layer.weight + layer.bias


def _tower(layers: tuple[Dense, ...], x: jax.Array) -> jax.Array:
    for layer in layers[:-1]:
        x = jnp.tanh(through(layer, x))
    return through(layers[-1], x)


def new_mlp(key: jax.Array, obs_dim: int, hidden: int, action: Discrete | Continuous) -> Mlp:
    def layers(key: jax.Array, outputs: int, gain: float) -> tuple[Dense, ...]:
        first, second, last = jax.random.split(key, 3)
        return (
            dense(first, obs_dim, hidden, 2**0.5),
            dense(second, hidden, hidden, 2**0.5),
            dense(last, hidden, outputs, gain),
        )

    for_actor, for_critic = jax.random.split(key)
    return Mlp(
        actor=layers(for_actor, action.size, 0.01),  # no action is preferred at first
        critic=layers(for_critic, 1, 1.0),
        log_std=jnp.zeros(action.size) if isinstance(action, Continuous) else None,
    )


def mlp(net: Mlp, obs: jax.Array, action: Discrete | Continuous) -> Heads:
    said = _tower(net.actor, obs)
    if isinstance(action, Continuous):
        half, centre = jnp.array(action.half), jnp.array(action.centre)
        said = centre + half * jnp.tanh(said / half)
    return Heads(said, net.log_std, _tower(net.critic, obs)[..., 0])


SLOTS = 32
WIDTH = 32
SHARPNESS = 10.0
"""Of an address: a slot like the key counts e^10 times as much as one that has nothing of it."""


class MemoryNet(NamedTuple):
    """A network that remembers only what it writes into an external memory, a table of slots.

    A slot is addressed by content: by how its row points the way a key does. Slots begin with rows
    of their own, which are learned: from equal rows every slot would be addressed alike for ever,
    and the memory would be one row, kept many times.
    """

    rows: jax.Array
    """What the slots hold at first [slots, width]."""
    see: Dense
    read_key: Dense
    think: Dense
    act: Dense
    worth: Dense
    write_key: Dense
    write_gate: Dense
    write_row: Dense


class Remembered(NamedTuple):
    """What the network says, and what it keeps."""

    heads: Heads
    memory: jax.Array
    """How far the slots are from the rows they began with [..., slots, width]: zeros at first."""
    pressure: jax.Array
    read_address: jax.Array
    write_address: jax.Array


def new_memory_net(key: jax.Array, obs_dim: int, hidden: int, actions: int) -> MemoryNet:
    keys = jax.random.split(key, 9)
    return MemoryNet(
        rows=0.05 * jax.random.normal(keys[0], (SLOTS, WIDTH)),
        see=dense(keys[1], obs_dim, hidden),
        read_key=dense(keys[2], hidden, WIDTH),
        think=dense(keys[3], hidden + WIDTH, hidden, 2**0.5),
        act=dense(keys[4], hidden, actions, 0.01),
        worth=dense(keys[5], hidden, 1),
        write_key=dense(keys[6], hidden, WIDTH),
        write_gate=dense(keys[7], hidden, 1),
        write_row=dense(keys[8], hidden, WIDTH),
    )


def address(rows: jax.Array, key: jax.Array) -> jax.Array:
    """How much each slot is meant by a key: softmax of the cosine between its row and the key."""
    rows = rows / jnp.sqrt(jnp.sum(rows**2, axis=-1, keepdims=True) + 1e-6)
    key = key / jnp.sqrt(jnp.sum(key**2, axis=-1, keepdims=True) + 1e-6)
    return jax.nn.softmax(SHARPNESS * jnp.einsum("...sw,...w->...s", rows, key), axis=-1)


def pressure(memory: jax.Array) -> jax.Array:
    """How much of the memory is in use, from 0 to 1.

    The mean over the slots of 1 - exp(-d²), d being the distance of a slot from the row it began
    with: 0 for a slot that was never written, near 1 for one that holds something else.
    """
    return jnp.mean(1 - jnp.exp(-jnp.sum(memory**2, axis=-1)), axis=-1)


def remember(net: MemoryNet, obs: jax.Array, memory: jax.Array) -> Remembered:
    """One step: read, decide, write."""
    rows = net.rows + memory
    seen = jnp.tanh(through(net.see, obs))
    read_address = address(rows, through(net.read_key, seen))
    read = jnp.einsum("...s,...sw->...w", read_address, rows)
    thought = jnp.tanh(through(net.think, jnp.concatenate((seen, read), axis=-1)))
    write_address = address(rows, through(net.write_key, thought))
    # A slot moves towards the new row by as much as it is meant: it can neither overflow nor
    # lose what it holds to a write that means another.
    share = jax.nn.sigmoid(through(net.write_gate, thought)) * write_address
    row = jnp.tanh(through(net.write_row, thought))
    memory = memory + share[..., None] * (row[..., None, :] - rows)
    return Remembered(
        Heads(through(net.act, thought), None, through(net.worth, thought)[..., 0]),
        memory,
        pressure(memory),
        read_address,
        write_address,
    )
