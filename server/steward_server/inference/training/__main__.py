"""`python -m steward_server.inference.training [NAME…]`: makes the policies that ship, or some.

Writes the models with their manifests, the learning curves, and the figures in docs/policies.md,
which are measured on what was written.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from steward_server.inference.training import curves, distillation, export, ppo, tasks
from steward_server.inference.training.curves import Point
from steward_server.inference.training.distillation import Distillation
from steward_server.inference.training.evaluation import Evaluation, evaluate, session
from steward_server.inference.training.export import Policy
from steward_server.inference.training.networks import SLOTS, WIDTH, Mlp
from steward_server.inference.training.ppo import Ppo
from steward_server.inference.training.tasks import Task

POLICIES = Path(__file__).parents[1] / "policies"
DOCS = Path(__file__).parents[4] / "docs"
EPISODES = 100
SEEN = (0, 2)
"""Of CartPole's observation, by the policy that has to remember: position and angle."""


class Recipe(NamedTuple):
    """How a policy is made."""

    task: Task
    seen: tuple[int, ...] | None
    """Which numbers of an observation the policy sees; None: all."""
    make: Callable[[], tuple[Policy, list[Point]]]


@cache
def _balancing() -> tuple[Mlp, list[Point]]:
    how = Ppo(rounds=60, learning_rate=2.5e-3)
    return ppo.train(tasks.CARTPOLE, how, seed=0)


def _cartpole() -> tuple[Policy, list[Point]]:
    net, curve = _balancing()
    task = tasks.CARTPOLE
    policy = Policy(
        name="cartpole",
        description="Balances the pole of CartPole-v1.",
        obs_dim=task.obs_dim,
        action=task.action,
        model=export.mlp_model(net, task.action),
    )
    return policy, curve


def _cartpole_memory() -> tuple[Policy, list[Point]]:
    teacher, _ = _balancing()
    task = tasks.CARTPOLE
    how = Distillation(rounds=600, learning_rate=5e-4, seen=SEEN, value_unit=100.0)
    net, curve = distillation.train(task, teacher, how, seed=2)
    policy = Policy(
        name="cartpole-memory",
        description=(
            "Balances the pole of CartPole-v1 from the cart's position and the pole's angle alone:"
            " how fast they change it has to remember."
        ),
        obs_dim=len(how.seen),
        action=task.action,
        model=export.memory_model(net, how.value_unit),
        memory=(SLOTS, WIDTH),
        pressure=(
            "How much of the memory is in use: the mean over its slots of 1 - exp(-d * d), d being"
            " the distance of a slot from the row it began with."
        ),
        temperature=0.1,
    )
    return policy, curve


def _pendulum() -> tuple[Policy, list[Point]]:
    task = tasks.PENDULUM
    how = Ppo(rounds=150, learning_rate=1e-3, discount=0.95, epochs=10, reward_scale=0.1)
    net, curve = ppo.train(task, how, seed=0)
    policy = Policy(
        name="pendulum",
        description="Swings the pendulum of Pendulum-v1 up and holds it there.",
        obs_dim=task.obs_dim,
        action=task.action,
        model=export.mlp_model(net, task.action, value_unit=1 / how.reward_scale),
    )
    return policy, curve


RECIPES = {
    "cartpole": Recipe(tasks.CARTPOLE, None, _cartpole),
    "cartpole-memory": Recipe(tasks.CARTPOLE, SEEN, _cartpole_memory),
    "pendulum": Recipe(tasks.PENDULUM, None, _pendulum),
}


def _returns(played: Evaluation) -> str:
    return f"{played.returns.mean():.1f}, the least {played.returns.min():.0f}"


def _figures(recipe: Recipe, policy: Policy, path: Path, steps: int, seconds: float) -> str:
    """A table of what was measured on the model that was written."""
    model = session(path)

    def played(*, keep_memory: bool = True, temperature: float = 0.0) -> Evaluation:
        return evaluate(
            model,
            recipe.task.name,
            episodes=EPISODES,
            seed=1,
            seen=recipe.seen,
            keep_memory=keep_memory,
            temperature=temperature,
        )

    best = played()
    rows = {
        "training": f"{steps:,} steps of the task in {seconds:.0f} s",
        "file": f"{path.stat().st_size / 1000:.0f} kB",
        f"mean return, {EPISODES} episodes of `{recipe.task.name}`, best actions": _returns(best),
        f"with drawn actions, temperature {policy.temperature}": _returns(
            played(temperature=policy.temperature)
        ),
    }
    if best.pressure is not None:
        rows["with the memory emptied before every step"] = _returns(played(keep_memory=False))
        first, late = best.pressure[0], best.pressure[-1]
        rows["pressure after the first step"] = f"{np.nanmean(first):.3f}"
        rows["pressure after the last"] = (
            f"{np.nanmin(late):.3f} to {np.nanmax(late):.3f} by episode"
        )
        rows["pressure of any step"] = (
            f"{np.nanmin(best.pressure):.3f} to {np.nanmax(best.pressure):.3f},"
            f" {len(np.unique(best.pressure)):,} different figures"
        )
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def put_figures(page: str, name: str, figures: str) -> str:
    """The page with a policy's figures in their place."""
    begin, end = f"<!-- figures of {name} -->", f"<!-- end of figures of {name} -->"
    place = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not place.search(page):
        raise ValueError(f"the page has no place for the figures of {name!r}: {begin} … {end}")
    return place.sub(lambda _: f"{begin}\n{figures}\n{end}", page)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="steward_server.inference.training", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(RECIPES)}")
    names = parser.parse_args(arguments).names or list(RECIPES)
    if unknown := [name for name in names if name not in RECIPES]:
        parser.error(f"there is no policy {unknown[0]!r}; there are {', '.join(RECIPES)}")
    for name in names:
        recipe = RECIPES[name]
        began = time.monotonic()
        policy, curve = recipe.make()
        seconds = time.monotonic() - began
        folder = export.write(policy, POLICIES)
        curves.draw(f"{name}: mean return while it learned", curve, DOCS / f"policies/{name}.svg")
        figures = _figures(recipe, policy, folder / "model.onnx", curve[-1].steps, seconds)
        page = DOCS / "policies.md"
        page.write_text(put_figures(page.read_text("utf-8"), name, figures), "utf-8")
        print(f"{name}\n{figures}\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    # One thread: sums are taken in one order, so that a seed gives the same bytes again.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    main(sys.argv[1:])
