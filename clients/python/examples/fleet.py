"""A fleet: thousands of carts with a pole each, all balanced over one stream.

    STEWARD_STATIC_TOKEN=a-word-of-your-own make run     # in one terminal
    export STEWARD_API_KEY=a-word-of-your-own            # in another
    python clients/python/examples/fleet.py --agents 4000 --rounds 500

Observations of the whole fleet are packed into a few messages, and while some are answered others
are on their way. It prints how many agents made a step in a second, and how many poles never fell.
STEWARD_API_KEY may be an API key as well, and
STEWARD_SERVER names another server than 127.0.0.1:50051. A server takes 4,096 agents on
one stream (STEWARD_INFERENCE_MAX_BATCH), and 10,000 of a policy (STEWARD_INFERENCE_MAX_AGENTS).
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steward_client import Client

Floats = NDArray[np.float64]


class Carts:
    """Carts with a pole each, as gymnasium's CartPole-v1 moves them; they go on when it falls."""

    def __init__(self, count: int, seed: int) -> None:
        self.state = np.random.default_rng(seed).uniform(-0.05, 0.05, (count, 4))
        self.has_fallen = np.zeros(count, np.bool_)

    def step(self, actions: NDArray[np.int32]) -> None:
        position, speed, angle, turning = self.state.T
        force = np.where(actions == 1, 10.0, -10.0)
        sine, cosine = np.sin(angle), np.cos(angle)
        pull = (force + 0.05 * turning**2 * sine) / 1.1
        turned = (9.8 * sine - cosine * pull) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        pushed = pull - 0.05 * turned * cosine / 1.1
        self.state = np.stack(
            [
                position + 0.02 * speed,
                speed + 0.02 * pushed,
                angle + 0.02 * turning,
                turning + 0.02 * turned,
            ],
            axis=1,
        )
        out = (np.abs(self.state[:, 0]) > 2.4) | (np.abs(self.state[:, 2]) > 0.2095)
        self.has_fallen |= out
        self.state[out] = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Balance thousands of poles over one stream.")
    parser.add_argument("--agents", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=500, help="steps of each agent")
    parser.add_argument("--parts", type=int, default=4, help="messages that a round is sent in")
    parser.add_argument("--policy", default="cartpole", help="cartpole or cartpole-memory")
    chosen = parser.parse_args()

    with (
        Client(token=os.environ.get("STEWARD_API_KEY")) as client,
        client.inference.stream(chosen.agents, policy=chosen.policy) as stream,
    ):
        version = client.policies.get(chosen.policy).versions[0]
        seen = [0, 2] if version.obs_dim == 2 else [0, 1, 2, 3]
        print(f"{len(stream)} agents have {stream.policies[0]}", flush=True)
        drive(stream, chosen.agents, chosen.parts, chosen.rounds, seen)


def drive(stream: Any, agents: int, parts: int, rounds: int, seen: Sequence[int]) -> None:
    numbers = [each.tolist() for each in np.array_split(np.arange(agents), parts) if len(each)]
    fleet = [Carts(len(each), seed) for seed, each in enumerate(numbers)]

    def submitted(part: int) -> Any:
        observations = fleet[part].state[:, seen]
        return stream.submit(observations, agents=numbers[part], deterministic=True)

    begun_s = time.perf_counter()
    coming = [submitted(part) for part in range(len(fleet))]
    for number in range(1, rounds + 1):
        for part, carts in enumerate(fleet):
            carts.step(coming[part].result().actions)
            if number < rounds:
                coming[part] = submitted(part)
    took_s = time.perf_counter() - begun_s
    stood = agents - sum(int(carts.has_fallen.sum()) for carts in fleet)
    print(f"{agents * rounds} steps in {took_s:.1f} s: {agents * rounds / took_s:.0f} per second")
    print(f"{stood} of {agents} poles never fell")


if __name__ == "__main__":
    main()
