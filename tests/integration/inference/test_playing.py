"""Policies of a server play: through `play`, and in the examples, run as anybody would."""

from __future__ import annotations

import asyncio
import re
import runpy
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from steward_client import Client, play
from steward_client.errors import InvalidRequest
from tests.integration.inference.conftest import STATIC_TOKEN, Site

Run = Callable[..., Awaitable[str]]
EXAMPLES = Path(__file__).parents[3] / "clients/python/examples"


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs an example against the server, and gives what it printed."""

    async def run(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setenv("STEWARD_SERVER", site.live.running.grpc_address)
        monkeypatch.setenv("STEWARD_API_KEY", STATIC_TOKEN)
        capsys.readouterr()
        await asyncio.to_thread(runpy.run_path, str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


async def test_the_policy_that_ships_balances_the_pole_to_the_end(site: Site) -> None:
    def work() -> list[tuple[float, int, bool]]:
        with Client(site.live.running.grpc_address, token=STATIC_TOKEN) as client:
            episodes = play("CartPole-v1", client, policy="cartpole", episodes=2, seed=3)
            return [(each.total, each.steps, each.is_truncated) for each in episodes]

    assert await asyncio.to_thread(work) == [(500.0, 500, True)] * 2


async def test_continuous_actions_come_in_the_shape_of_their_space(site: Site) -> None:
    def work() -> float:
        env = gymnasium.make("Pendulum-v1", max_episode_steps=30)
        with Client(site.live.running.grpc_address, token=STATIC_TOKEN) as client:
            [episode] = play(env, client, policy="pendulum", seed=1)
        assert (episode.steps, episode.is_truncated) == (30, True)
        return episode.total

    assert -500 < await asyncio.to_thread(work) < 0


async def test_choices_are_counted_from_where_their_space_begins(site: Site) -> None:
    class Counting(gymnasium.Env[np.ndarray, np.int64]):
        """Its choices are 5, 6 and 7; an episode is one step."""

        action_space = gymnasium.spaces.Discrete(3, start=5)
        observation_space = gymnasium.spaces.Box(-1, 1, (3, 1))

        def reset(self, **_: object) -> tuple[np.ndarray, dict[str, object]]:
            return np.array([[0], [0], [1]], np.float32), {}

        def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, object]]:
            return np.zeros((3, 1)), float(action), True, False, {}

    def work() -> list[tuple[float, bool, float]]:
        with Client(site.live.running.grpc_address, token=STATIC_TOKEN) as client:
            episodes = play(Counting(), client, episodes=2)
            return [(each.total, each.is_truncated, each.pressure) for each in episodes]

    assert await asyncio.to_thread(work) == [(7.0, False, 1.0)] * 2


async def test_a_policy_for_other_observations_is_refused(site: Site) -> None:
    def work() -> None:
        with Client(site.live.running.grpc_address, token=STATIC_TOKEN) as client:
            list(play("CartPole-v1", client, policy="pendulum"))

    with pytest.raises(InvalidRequest, match="Expected observation of length 3, got 4"):
        await asyncio.to_thread(work)


async def test_the_example_of_one_pole_shows_what_it_reached(run: Run) -> None:
    said = await run("cartpole.py", "--episodes", "1")
    assert "return 500, the pole stood to the end, pressure 0.000" in said
    assert re.search(r"500 steps in .* steps per second", said)


async def test_the_example_of_one_pole_remembers(run: Run) -> None:
    said = await run("cartpole.py", "--episodes", "1", "--policy", "cartpole-memory")
    assert "return 500, the pole stood to the end, pressure 0.5" in said


async def test_the_example_of_a_fleet_drops_no_pole(run: Run) -> None:
    said = await run("fleet.py", "--agents", "200", "--rounds", "100")
    assert "200 agents have cartpole@1" in said
    assert re.search(r"20000 steps in .* per second", said)
    assert "200 of 200 poles never fell" in said
