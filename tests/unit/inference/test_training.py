"""How policies are trained: the tasks are gymnasium's, and a seed gives the same policy again."""

from __future__ import annotations

from functools import cache
from typing import Any

import gymnasium
import numpy as np
import pytest

from steward_server.inference.training.evaluation import session

pytestmark = pytest.mark.proof


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_a_task_is_gymnasiums_step_for_step(name: str) -> None:
    import jax
    import jax.numpy as jnp

    from steward_server.inference.training import tasks

    task = {each.name: each for each in (tasks.CARTPOLE, tasks.PENDULUM)}[name]
    draw = np.random.default_rng(1)
    with jax.enable_x64(True):  # as gymnasium computes
        advance, observe = jax.jit(task.advance), jax.jit(task.observe)
        for episode in range(10):
            real: Any = gymnasium.make(name)
            real.reset(seed=episode)
            state = jnp.array(real.unwrapped.state)
            ended, steps = False, 0
            while not ended:
                if isinstance(task.action, tasks.Discrete):
                    action: Any = int(draw.integers(task.action.size))
                else:
                    action = draw.uniform(-2.0, 2.0, 1).astype(np.float32)
                obs, reward, failed, late, _ = real.step(action)
                state, ours, ours_failed = advance(state, jnp.array(action))
                np.testing.assert_allclose(observe(state), obs, rtol=1e-6, atol=1e-7)
                np.testing.assert_allclose(state, real.unwrapped.state, rtol=1e-9, atol=1e-9)
                assert float(ours) == pytest.approx(reward, rel=1e-6)
                assert bool(ours_failed) == failed
                ended, steps = failed or late, steps + 1
            assert failed or steps == task.episode_steps


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1"])
def test_episodes_begin_where_gymnasiums_do(name: str) -> None:
    import jax

    from steward_server.inference.training import tasks

    task = {each.name: each for each in (tasks.CARTPOLE, tasks.PENDULUM)}[name]
    real: Any = gymnasium.make(name).unwrapped
    states = []
    for seed in range(400):
        real.reset(seed=seed)
        states.append(real.state)
    theirs, ours = np.stack(states), np.asarray(task.begin(jax.random.key(0), 4000))
    reach = np.abs(theirs).max(axis=0)
    for figure in (np.min, np.max):
        off = np.abs(figure(ours, axis=0) - figure(theirs, axis=0))
        assert (off < 0.05 * reach).all()


def test_an_episode_that_ends_begins_anew_and_tells_what_was_seen_last() -> None:
    import jax
    import jax.numpy as jnp

    from steward_server.inference.training import tasks

    playing = tasks.start(tasks.CARTPOLE, jax.random.key(0), 2)
    falling = playing.state.at[0].set(jnp.array([0.0, 0.0, 0.2, 3.0]))
    playing = playing._replace(
        state=falling, step=jnp.array([7, 499]), reward=jnp.array([7.0, 499])
    )
    after, _, ending = tasks.play(tasks.CARTPOLE, playing, jnp.array([1, 1]), jax.random.key(1))
    assert ending.ended.tolist() == [True, True]
    assert ending.failed.tolist() == [True, False]
    assert ending.total.tolist() == [8, 500]
    assert ending.observed[0, 2] > tasks.POLE_LIMIT
    assert after.step.tolist() == [0, 0]
    assert after.reward.tolist() == [0, 0]
    assert jnp.abs(after.state).max() <= 0.05


def test_a_few_rounds_teach_something() -> None:
    from steward_server.inference.training import ppo, tasks

    _, curve = ppo.train(tasks.CARTPOLE, ppo.Ppo(rounds=12, learning_rate=2.5e-3), seed=5)
    assert curve[0].mean_return < 40
    assert max(point.mean_return for point in curve) > 100


def test_advantages_are_those_of_the_definition() -> None:
    import jax.numpy as jnp

    from steward_server.inference.training.ppo import Seen, advantages

    draw = np.random.default_rng(2)
    reward, value, after = draw.normal(size=(3, 6, 1))
    ended = np.array([0, 0, 1, 0, 0, 0], bool)[:, None]
    nothing = jnp.zeros((6, 1))
    seen = Seen(
        nothing,
        nothing,
        nothing,
        jnp.array(value),
        jnp.array(reward),
        jnp.array(after),
        jnp.array(ended),
        nothing,
    )
    expected = np.zeros((6, 1))
    for at in range(6):
        for ahead in range(at, 6):
            surprise = reward[ahead] + 0.9 * after[ahead] - value[ahead]
            expected[at] += (0.9 * 0.8) ** (ahead - at) * surprise
            if ended[ahead]:
                break
    np.testing.assert_allclose(advantages(seen, 0.9, 0.8), expected, rtol=1e-5, atol=1e-6)


@cache
def policies(seed: int, time: int = 1) -> dict[str, Any]:
    """Every kind of policy, hardly trained; for the first time, or once more."""
    from steward_server.inference.training import distillation, export, ppo, tasks

    few = ppo.Ppo(rounds=2, learning_rate=1e-3, instances=8, steps=32)
    balancing, _ = ppo.train(tasks.CARTPOLE, few, seed)
    swinging, _ = ppo.train(tasks.PENDULUM, few, seed)
    lessons = distillation.Distillation(
        rounds=2, learning_rate=1e-3, seen=(0, 2), value_unit=100.0, instances=8, steps=16
    )
    student, _ = distillation.train(tasks.CARTPOLE, balancing, lessons, seed)
    return {
        "cartpole": (balancing, export.mlp_model(balancing, tasks.CARTPOLE.action)),
        "cartpole-memory": (student, export.memory_model(student, 100.0)),
        "pendulum": (swinging, export.mlp_model(swinging, tasks.PENDULUM.action, value_unit=10.0)),
    }


def test_a_seed_gives_the_same_bytes_again_and_another_seed_others() -> None:
    first, again, other = (
        {name: model.SerializeToString() for name, (_, model) in made.items()}
        for made in (policies(1), policies(1, time=2), policies(2))
    )
    assert first == again
    assert all(first[name] != other[name] for name in first)


def test_a_file_computes_what_its_network_does() -> None:
    from steward_server.inference.training import tasks
    from steward_server.inference.training.networks import mlp, remember

    draw = np.random.default_rng(4)
    made = policies(1)
    for name, task, unit in (("cartpole", tasks.CARTPOLE, 1), ("pendulum", tasks.PENDULUM, 10)):
        net, model = made[name]
        obs = draw.normal(size=(16, task.obs_dim)).astype(np.float32)
        said = session(model.SerializeToString()).run(None, {"obs": obs})
        heads = mlp(net, obs, task.action)
        np.testing.assert_allclose(said[0], heads.action, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(said[-1], unit * heads.value, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(said[1], np.broadcast_to(net.log_std, (16, 1)), rtol=1e-6)

    student, model = made["cartpole-memory"]
    memory = draw.normal(0, 0.5, (16, 32, 32)).astype(np.float32)
    obs = draw.normal(size=(16, 2)).astype(np.float32)
    names = ["logits", "value", "memory_out", "pressure"]
    said = session(model.SerializeToString()).run(names, {"obs": obs, "memory": memory})
    ours = remember(student, obs, memory)
    expected = (ours.heads.action, 100 * ours.heads.value, ours.memory, ours.pressure)
    for one, other in zip(said, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


def test_a_page_without_a_place_for_figures_is_refused() -> None:
    from steward_server.inference.training.__main__ import put_figures

    page = "a\n<!-- figures of x -->\nold\n<!-- end of figures of x -->\nb\n"
    assert put_figures(page, "x", "new") == page.replace("old", "new")
    with pytest.raises(ValueError, match="no place for the figures of 'y'"):
        put_figures(page, "y", "new")
