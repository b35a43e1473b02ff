"""Lets a policy of the server play in environments of gymnasium, or any that are made like them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from steward_client.client.blocking import Client
from steward_client.client.steps import Action


@dataclass(frozen=True, slots=True)
class Episode:
    """How an episode went."""

    total: float
    """Of its rewards."""
    steps: int
    is_truncated: bool
    """Whether it was cut off, at its longest, rather than ended by what happened in it."""
    pressure: float
    """Of the agent's memory, after the last step."""


def play(
    env: Any,
    client: Client,
    *,
    policy: str = "",
    episodes: int = 1,
    seed: int | None = None,
    deterministic: bool = True,
) -> Iterator[Episode]:
    """Play episodes, each with an agent that begins anew, and give each as it ends.

    >>> with Client() as client:  # doctest: +SKIP
    ...     [episode.total for episode in play("CartPole-v1", client, policy="cartpole")]
    [500.0]

    Args:
        env: an environment, or the name of one that gymnasium is to make, which is closed at the
            end.
        client: whose server has the policy.
        policy: "cartpole", or "cartpole@3" for one version; else the server's default.
        episodes: how many.
        seed: of the first episode and of the draws of its actions; the next has the next.
        deterministic: the likeliest actions, in place of such as are drawn.

    Raises:
        StreamBroken: the stream was cut amid an episode.
        StewardError: the server refuses; there is no such policy, or it wants other observations.
    """
    with ExitStack() as closing:
        if isinstance(env, str):
            import gymnasium

            env = gymnasium.make(env)
            closing.callback(env.close)
        stream = closing.enter_context(client.inference.stream(1, policy=policy, seed=seed))
        for number in range(episodes):
            its_seed = None if seed is None else seed + number
            if number:
                stream.reset(seed=its_seed)
            observation, _ = env.reset(seed=its_seed)
            total, steps, has_ended, is_truncated, pressure = 0.0, 0, False, False, 0.0
            while not (has_ended or is_truncated):
                step = stream.step_one(0, observation.ravel(), deterministic=deterministic)
                acted = _as_wanted(env.action_space, step.action)
                observation, reward, has_ended, is_truncated, _ = env.step(acted)
                total, steps, pressure = total + float(reward), steps + 1, step.pressure
            yield Episode(total, steps, bool(is_truncated), pressure)


def _as_wanted(space: Any, action: Action) -> Any:
    """An action as the space of actions has it."""
    if isinstance(action, int):
        return action + int(getattr(space, "start", 0))
    import numpy as np

    return np.array(action, space.dtype).reshape(space.shape)
