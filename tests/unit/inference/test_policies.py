"""The policies that ship, as they ship: played in gymnasium through their ONNX files."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnx
import onnxruntime
import pytest
import yaml  # type: ignore[import-untyped]
from onnx import numpy_helper

import steward_server.inference
from steward_server.inference.training.evaluation import Evaluation, evaluate, session

POLICIES = Path(steward_server.inference.__file__).parent / "policies"
NAMES = ["cartpole", "cartpole-memory", "pendulum"]
POSITION_AND_ANGLE = (0, 2)


def path(name: str) -> Path:
    return POLICIES / name / "1" / "model.onnx"


@cache
def model(name: str) -> onnxruntime.InferenceSession:
    return session(path(name))


def manifest(name: str) -> Any:
    return yaml.safe_load(path(name).with_name("policy.yaml").read_text())


@cache
def remembering() -> Evaluation:
    return evaluate(
        model("cartpole-memory"), "CartPole-v1", episodes=16, seed=7, seen=POSITION_AND_ANGLE
    )


def test_there_are_these_policies_and_they_are_small() -> None:
    assert sorted(folder.name for folder in POLICIES.iterdir()) == NAMES
    assert sum(file.stat().st_size for file in POLICIES.rglob("*.*")) < 400_000


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_tells_what_its_model_is(name: str) -> None:
    told = manifest(name)
    assert told["model_sha256"] == hashlib.sha256(path(name).read_bytes()).hexdigest()
    inputs = {at.name: at.shape for at in model(name).get_inputs()}
    outputs = {at.name: at.shape for at in model(name).get_outputs()}
    kept = [told["memory"]] if "memory" in told else []
    memory = {at["name"]: ["n", *at["shape"]] for at in kept}
    assert inputs == {"obs": ["n", told["obs_dim"]]} | memory
    action = ["logits"] if told["action"]["type"] == "discrete" else ["mean", "log_std"]
    expected = {at: ["n", told["action"]["size"]] for at in action} | {"value": ["n"]}
    expected |= {f"{at}_out": shape for at, shape in memory.items()}
    assert outputs == expected | ({"pressure": ["n"]} if "pressure" in told else {})


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_answered_alike_alone_and_among_others(name: str) -> None:
    draw = np.random.default_rng(3)
    fed = {
        at.name: draw.normal(0, 0.3, (32, *at.shape[1:])).astype(np.float32)
        for at in model(name).get_inputs()
    }
    together = model(name).run(None, fed)
    for row in (0, 17, 31):
        alone = model(name).run(None, {at: values[row : row + 1] for at, values in fed.items()})
        for one, many in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], many[row], rtol=1e-4, atol=1e-5)


def test_the_pole_of_cartpole_stays_up() -> None:
    assert evaluate(model("cartpole"), "CartPole-v1", episodes=32, seed=7).returns.mean() >= 475


def test_the_pole_stays_up_while_actions_are_drawn() -> None:
    for name, seen in (("cartpole", None), ("cartpole-memory", POSITION_AND_ANGLE)):
        played = evaluate(
            model(name),
            "CartPole-v1",
            episodes=16,
            seed=7,
            seen=seen,
            temperature=manifest(name)["sampling"]["temperature"],
        )
        assert played.returns.mean() >= 475, name


def test_the_pole_stays_up_as_long_as_the_memory_is_kept() -> None:
    assert remembering().returns.mean() >= 475
    forgetful = evaluate(
        model("cartpole-memory"),
        "CartPole-v1",
        episodes=16,
        seed=7,
        seen=POSITION_AND_ANGLE,
        keep_memory=False,
    )
    assert forgetful.returns.mean() < 100


def test_the_pendulum_is_swung_up_and_held() -> None:
    assert evaluate(model("pendulum"), "Pendulum-v1", episodes=32, seed=7).returns.mean() >= -250


def test_the_mean_torque_keeps_to_its_bounds() -> None:
    seen = np.random.default_rng(3).normal(0, 100, (1000, 3)).astype(np.float32)
    mean, log_std, _ = model("pendulum").run(["mean", "log_std", "value"], {"obs": seen})
    assert np.abs(mean).max() <= manifest("pendulum")["action"]["high"][0]
    assert mean.std() > 0.5
    assert (log_std == log_std[0]).all()


def test_values_are_in_units_of_reward() -> None:
    """Upright is worth nearly nothing lost; hanging, what the swing up costs."""
    upright, hanging = [1, 0, 0], [-1, 0, 0]
    obs = np.array([upright, hanging], np.float32)
    (value,) = model("pendulum").run(["value"], {"obs": obs})
    assert -10 < value[0] < 5
    assert value[1] < -50


def test_pressure_rises_from_nearly_nothing_and_goes_on_moving() -> None:
    pressure = remembering().pressure
    assert pressure is not None
    assert pressure[0].max() < 0.1
    assert np.nanmin(pressure) >= 0
    assert np.nanmax(pressure) <= 1
    late = pressure[100:]
    assert np.nanmean(late) > np.nanmean(pressure[0]) + 0.1
    assert len(np.unique(late[~np.isnan(late)])) > 1_000
    assert np.nanstd(late, axis=0).mean() > 0.001  # in time
    assert np.nanstd(late, axis=1).mean() > 0.001  # among episodes


def first_rows() -> Any:
    weights = onnx.load(path("cartpole-memory")).graph.initializer
    return numpy_helper.to_array(next(at for at in weights if at.name == "first_rows"))


def mean_distance(rows: Any) -> Any:
    """Between two slots, in the mean of all pairs [n]."""
    slots = rows.shape[-2]
    between = np.linalg.norm(rows[..., :, None, :] - rows[..., None, :, :], axis=-1)
    return between.sum(axis=(-2, -1)) / (slots * (slots - 1))


def test_slots_are_different_at_first_and_more_so_after_an_episode() -> None:
    memory = remembering().memory
    assert memory is not None
    assert mean_distance(first_rows()) > 0.3
    assert (mean_distance(first_rows() + memory) > mean_distance(first_rows())).all()
    moved = np.linalg.norm(memory, axis=-1)
    assert (moved.max(axis=1) > 1).all()
    assert (moved.min(axis=1) < 0.1).all()


def test_addresses_mean_some_slots_and_not_always_the_same() -> None:
    inner = onnx.load(path("cartpole-memory"))
    for name in ("read_address", "write_address"):
        inner.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 32])
        )
    playing = session(inner.SerializeToString())
    carts = gymnasium.make_vec("CartPole-v1", 16, vectorization_mode="vector_entry_point")
    obs, _ = carts.reset(seed=7)
    memory = np.zeros((16, 32, 32), np.float32)
    reads, writes = [], []
    for _ in range(300):
        logits, memory, read, write = playing.run(
            ["logits", "memory_out", "read_address", "write_address"],
            {"obs": obs[:, list(POSITION_AND_ANGLE)], "memory": memory},
        )
        reads.append(read)
        writes.append(write)
        obs, *_ = carts.step(logits.argmax(axis=1))
    carts.close()
    for addresses in (np.concatenate(reads), np.concatenate(writes)):
        np.testing.assert_allclose(addresses.sum(axis=1), 1, rtol=1e-5)
        meant = np.exp(-(addresses * np.log(addresses + 1e-9)).sum(axis=1))  # so many slots
        assert meant.mean() < 20
        assert addresses.max(axis=1).mean() > 3 / 32  # of 1/32 each if all were meant alike
        assert len(set(addresses.argmax(axis=1))) > 4
