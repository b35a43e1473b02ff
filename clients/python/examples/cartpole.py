"""A pole that is balanced from afar: gymnasium's CartPole, with a policy that Steward serves.

    STEWARD_STATIC_TOKEN=a-word-of-your-own make run     # in one terminal
    export STEWARD_API_KEY=a-word-of-your-own            # in another
    pip install gymnasium
    python clients/python/examples/cartpole.py --episodes 10

Each step is a message on one gRPC stream. An episode is over when the pole falls, or after 500
steps, which is what a good policy reaches: `cartpole` sees everything, `cartpole-memory` only where
things are, and has to remember how fast they move. STEWARD_API_KEY may be an API key as well, and
STEWARD_SERVER names another server than 127.0.0.1:50051.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import gymnasium

from steward_client import Client, play


def main() -> None:
    parser = argparse.ArgumentParser(description="Balance a pole with a policy that is served.")
    parser.add_argument("--policy", default="cartpole", help="cartpole, cartpole-memory, or yours")
    parser.add_argument("--episodes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()

    env: Any = gymnasium.make("CartPole-v1")
    with Client(token=os.environ.get("STEWARD_API_KEY")) as client:
        if client.policies.get(chosen.policy).versions[0].obs_dim == 2:
            env = gymnasium.wrappers.TransformObservation(env, lambda seen: seen[[0, 2]], None)
        begun_s = time.perf_counter()
        steps = 0
        for number, episode in enumerate(
            play(env, client, policy=chosen.policy, episodes=chosen.episodes, seed=chosen.seed)
        ):
            steps += episode.steps
            end = "stood to the end" if episode.is_truncated else "fell"
            print(
                f"episode {number}: return {episode.total:g}, the pole {end}, "
                f"pressure {episode.pressure:.3f}",
                flush=True,
            )
        took_s = time.perf_counter() - begun_s
        print(f"{steps} steps in {took_s:.1f} s: {steps / took_s:.0f} steps per second")


if __name__ == "__main__":
    main()
