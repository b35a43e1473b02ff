"""What others trained, written as ONNX and imported, gives what their networks gave."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from steward_server.inference.importing import import_file
from steward_server.inference.manifest import ActionType
from steward_server.inference.model import Model, load
from steward_server.inference.repository import BUILT_IN

SCRIPT = Path(__file__).parents[3] / "clients/python/examples/export_ppo.py"

Arrays = dict[str, NDArray[Any]]
SB3 = {
    "actor.0": "mlp_extractor.policy_net.0",
    "actor.2": "mlp_extractor.policy_net.2",
    "actor.4": "action_net",
    "critic.0": "mlp_extractor.value_net.0",
    "critic.2": "mlp_extractor.value_net.2",
    "critic.4": "value_net",
    "log_std": "log_std",
}
CLEANRL = {each: each for each in SB3 if each != "log_std"}
CLEANRL_CONTINUOUS = {each: each.replace("actor", "actor_mean") for each in CLEANRL} | {
    "log_std": "actor_logstd"
}


def drawn(obs_dim: int, size: int, *, continuous: bool) -> Arrays:
    """A network of both libraries' default size, by CleanRL's names."""
    random = np.random.default_rng(5)
    made: Arrays = {}
    for part, last in (("actor", size), ("critic", 1)):
        widths = [obs_dim, 64, 64, last]
        for number, (before, after) in enumerate(pairwise(widths)):
            made[f"{part}.{2 * number}.weight"] = random.normal(0, 0.4, (after, before))
            made[f"{part}.{2 * number}.bias"] = random.normal(0, 0.4, after)
    if continuous:
        made["log_std"] = random.normal(0, 0.4, size)
    return made


def computed(weights: Arrays, part: str, rows: NDArray[Any], activation: Any) -> NDArray[Any]:
    """A part of the network, without any of the code under test."""
    for number in (0, 2, 4):
        rows = rows @ weights[f"{part}.{number}.weight"].T + weights[f"{part}.{number}.bias"]
        rows = activation(rows) if number < 4 else rows
    return rows


def checks(weights: Arrays, rows: NDArray[Any], activation: Any = np.tanh) -> Arrays:
    head = "check.mean" if "log_std" in weights else "check.logits"
    made = {
        "check.obs": rows,
        head: computed(weights, "actor", rows, activation),
        "check.value": computed(weights, "critic", rows, activation),
    }
    if "log_std" in weights:
        made["check.log_std"] = np.tile(weights["log_std"], (len(rows), 1))
    return made


def called(weights: Arrays, names: dict[str, str]) -> Arrays:
    made = {}
    for old, array in weights.items():
        stem, dot, end = old.rpartition(".")
        made[f"{names[stem]}.{end}" if dot else names[old]] = array
    if "actor_logstd" in made:
        made["actor_logstd"] = made["actor_logstd"].reshape(1, -1)  # as CleanRL has it
    return made


@pytest.fixture
def rows() -> NDArray[Any]:
    return np.random.default_rng(6).normal(0, 2, (16, 5))


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    """Runs the script as a user would, and imports what it wrote, telling nothing more of it."""

    def export(arrays: Arrays, *flags: str) -> Model:
        np.savez(tmp_path / "weights.npz", **cast("Any", arrays))
        written = tmp_path / "policy.onnx"
        monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "weights.npz"), str(written), *flags])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        made = import_file(tmp_path, written, "mine", description="Mine.", names={}, shapes={})
        return load(made.folder, max_batch=16)

    return export


@pytest.mark.parametrize(
    ("names", "continuous"),
    [(SB3, False), (SB3, True), (CLEANRL, False), (CLEANRL_CONTINUOUS, True)],
    ids=["sb3", "sb3 continuous", "cleanrl", "cleanrl continuous"],
)
def test_a_policy_of_either_library_gives_what_its_network_gave(
    export: Callable[..., Model],
    rows: NDArray[Any],
    names: dict[str, str],
    continuous: bool,  # noqa: FBT001 - of the table above
) -> None:
    weights = drawn(5, 3, continuous=continuous)
    told = checks(weights, rows)
    model = export(called(weights, names) | told)
    action = model.manifest.action
    assert (action.type is ActionType.CONTINUOUS, action.size) == (continuous, 3)
    made = model.run(rows.astype(np.float32), [])
    heads = ["check.mean", "check.log_std"] if continuous else ["check.logits"]
    for ours, head in zip(made.action, heads, strict=True):
        np.testing.assert_allclose(ours, told[head], atol=2e-5)
    np.testing.assert_allclose(made.values, told["check.value"][:, 0], atol=2e-5)


@pytest.mark.parametrize("names", [SB3, CLEANRL], ids=["sb3", "cleanrl"])
def test_a_trained_policy_decides_as_before(
    export: Callable[..., Model], names: dict[str, str]
) -> None:
    """The one that ships has the shape of theirs: its weights, by their names."""
    before = load(BUILT_IN / "cartpole" / "1", max_batch=16)
    stored = onnx.load(BUILT_IN / "cartpole" / "1" / "model.onnx").graph.initializer
    theirs = {each.name: numpy_helper.to_array(each) for each in stored}
    weights = {
        f"{part}.{2 * number - 2}.{end}": theirs[f"{part}.{number}.{end}"].T
        for part in ("actor", "critic")
        for number in (1, 2, 3)
        for end in ("weight", "bias")
    }
    rows = np.random.default_rng(7).uniform(-0.2, 0.2, (256, 4)).astype(np.float32)
    told = before.run(rows, [])
    given = {"obs": rows, "logits": told.action[0] - 3, "value": told.values}
    model = export(called(weights, names) | {f"check.{key}": each for key, each in given.items()})
    made = model.run(rows, [])
    assert (made.action[0].argmax(axis=1) == told.action[0].argmax(axis=1)).all()
    np.testing.assert_allclose(made.action[0], told.action[0], atol=1e-4)


@pytest.mark.parametrize(
    ("names", "cut", "said"),
    [(SB3, 5, {"obs_rms.clip": np.float32(5)}), (CLEANRL_CONTINUOUS, 10, {})],
    ids=["sb3", "cleanrl"],
)
def test_observations_are_normalised_as_they_were_in_training(
    export: Callable[..., Model],
    rows: NDArray[Any],
    names: dict[str, str],
    cut: int,
    said: Arrays,
) -> None:
    weights = drawn(5, 2, continuous=True)
    mean, variance = np.linspace(-1, 1, 5), np.linspace(0.01, 2, 5)
    normal = np.clip((rows - mean) / np.sqrt(variance + 1e-8), -cut, cut)
    told = checks(weights, normal) | {"check.obs": rows}
    counted = {"obs_rms.mean": mean, "obs_rms.var": variance} | said
    assert np.abs(normal).max() == cut
    model = export(called(weights, names) | counted | told)
    made = model.run(rows.astype(np.float32), [])
    np.testing.assert_allclose(made.action[0], told["check.mean"], atol=5e-5)


def test_another_activation_is_written_where_it_is_said(
    export: Callable[..., Model], rows: NDArray[Any]
) -> None:
    weights = drawn(5, 2, continuous=False)

    def relu(array: NDArray[Any]) -> NDArray[Any]:
        cut: NDArray[Any] = np.maximum(array, 0)
        return cut

    told = called(weights, SB3) | checks(weights, rows, relu)
    with pytest.raises(SystemExit, match=r"another activation \(--activation\)"):
        export(told)
    model = export(told, "--activation", "Relu")
    np.testing.assert_allclose(
        model.run(rows.astype(np.float32), []).action[0], told["check.logits"], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"check.value": None}, "'check.value' is missing"),
        ({"check.obs": None}, "'check.obs' is missing"),
        ({"check.value": np.full((16, 1), np.nan)}, "off what the network gave by nan"),
        ({"features_extractor.cnn.0.weight": np.zeros((8, 3, 3, 3))}, "have no place"),
        ({"log_std": np.zeros((64, 2))}, "gSDE"),
        ({"mlp_extractor.policy_net.0.weight": np.zeros((8, 3, 3, 3))}, "no linear layer"),
    ],
)
def test_what_cannot_be_written_is_refused(
    export: Callable[..., Model],
    rows: NDArray[Any],
    tmp_path: Path,
    change: dict[str, NDArray[Any] | None],
    text: str,
) -> None:
    weights = drawn(5, 2, continuous=False)
    given: dict[str, Any] = called(weights, SB3) | checks(weights, rows) | change
    with pytest.raises(SystemExit, match=text):
        export({name: each for name, each in given.items() if each is not None})
    assert not (tmp_path / "policy.onnx").exists()


def test_a_pickle_is_not_read(export: Callable[..., Model], rows: NDArray[Any]) -> None:
    weights = drawn(5, 2, continuous=False)
    hidden = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        export(called(weights, SB3) | checks(weights, rows) | {"more": hidden})


def test_what_is_of_neither_library_is_refused(export: Callable[..., Model]) -> None:
    with pytest.raises(SystemExit, match=r"neither .* has these weights: \['q_net.0.weight'\]"):
        export({"q_net.0.weight": np.zeros((2, 2))})
