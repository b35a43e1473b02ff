"""Policies made of ONNX files: what is guessed, what has to be said, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from steward_server.inference.importing import (
    Facts,
    Tensor,
    Unclear,
    import_file,
    inspect_file,
    manifest_text,
)
from steward_server.inference.manifest import (
    Action,
    ActionType,
    Manifest,
    StateTensor,
    read_manifest,
)
from steward_server.inference.model import load
from steward_server.inference.tensor_names import renamed
from tests.unit.inference.models import adding, steering

STEERING = {"obs": "x", "mean": "mu", "log_std": "spread", "value": "v"}
ADDING = {"obs": "observation", "total": "h", "total_out": "hn", "logits": "action_logits"}


def file_of(folder: Path, names: dict[str, str] | None = None) -> Path:
    """The model of a policy as somebody else would have written it."""
    written = folder.parent / f"{folder.name}.onnx"
    written.write_bytes(renamed((folder / "model.onnx").read_bytes(), names or {}))
    return written


@pytest.fixture
def added(tmp_path: Path) -> Path:
    return file_of(adding(tmp_path / "added"))


@pytest.fixture
def steered(tmp_path: Path) -> Path:
    return file_of(steering(tmp_path / "steered"))


def test_what_the_file_tells_is_found(added: Path, steered: Path) -> None:
    assert inspect_file(added, {}) == Facts(
        names={},
        unclear=(),
        obs=Tensor("obs", (3,)),
        action_type="discrete",
        action_size=3,
        states=(Tensor("total", (3,)), Tensor("memory", (4, 2))),
        has_pressure=True,
    )
    found = inspect_file(steered, {})
    assert (found.action_type, found.action_size, found.states) == ("continuous", 2, ())


def test_names_that_others_give_are_known(tmp_path: Path) -> None:
    names = {"obs": "input", "logits": "action_logits", "value": "critic", "total_out": "new_total"}
    found = inspect_file(file_of(adding(tmp_path / "other"), names), {})
    assert not found.unclear
    assert found.names == {
        "input": "obs",
        "action_logits": "logits",
        "critic": "value",
        "new_total": "total_out",
    }


def test_what_cannot_be_guessed_is_asked_until_all_is_known(tmp_path: Path) -> None:
    file = file_of(adding(tmp_path / "other"), {"obs": "a", "total": "b", "total_out": "c"})
    names: dict[str, str] = {}
    asked = []
    answers = {"obs": "a", "b_out": "c"}
    while (found := inspect_file(file, names)).unclear:
        asked.append(found.unclear[0])
        names[answers[asked[-1].wanted]] = asked[-1].wanted
    assert asked == [Unclear("obs", ("a", "b")), Unclear("b_out", ("c",))]
    assert [each.name for each in found.states] == ["b", "memory"]


def test_the_kind_of_action_is_asked_where_no_name_tells(tmp_path: Path) -> None:
    file = file_of(steering(tmp_path / "other"), {"mean": "p", "log_std": "q", "value": "r"})
    asked = [each.wanted for each in inspect_file(file, {}).unclear]
    assert asked == ["logits or mean", "value"]
    asked = [each.wanted for each in inspect_file(file, {"p": "mean"}).unclear]
    assert asked == ["log_std", "value"]
    found = inspect_file(file, {"p": "mean", "q": "log_std", "r": "value"})
    assert (found.action_type, found.unclear) == ("continuous", ())


def test_an_imported_policy_gives_what_the_file_gave(tmp_path: Path) -> None:
    file = file_of(adding(tmp_path / "other"), ADDING)
    made = import_file(
        tmp_path / "policies",
        file,
        "mine",
        description='Adds "up": all of it.',
        names={"hn": "h_out"},
        shapes={},
        memory="memory",
        pressure="the mean",
        temperature=0.5,
    )
    assert (made.name, made.version) == ("mine", 1)
    assert made.folder == tmp_path / "policies" / "mine" / "1"
    model = load(made.folder, max_batch=8)
    assert model.manifest.description == 'Adds "up": all of it.'
    assert model.manifest.states == (StateTensor("h", (3,)),)
    assert model.manifest.memory == StateTensor("memory", (4, 2))
    assert (model.manifest.pressure, model.manifest.temperature) == ("the mean", 0.5)
    before = load(tmp_path / "other", max_batch=8)
    rows, states = np.eye(2, 3, dtype=np.float32), model.fresh(2)
    for ours, theirs in zip(
        model.run(rows, states).action, before.run(rows, states).action, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert sorted(each.name for each in (tmp_path / "policies" / "mine").iterdir()) == ["1"]


def test_each_import_is_the_next_version(tmp_path: Path, steered: Path) -> None:
    def again(**more: Any) -> int:
        return import_file(
            tmp_path / "policies",
            steered,
            "wheel",
            description="Steers.",
            names={},
            shapes={},
            low=(-1, -1),
            high=(1, 1),
            **more,
        ).version

    assert [again(), again(), again(version=7), again()] == [1, 2, 7, 8]
    with pytest.raises(ValueError, match="there is a version 7 of 'wheel'"):
        again(version=7)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"name": "No Name"}, "names no policy"),
        ({"name": "wheel@3"}, "names a version"),
        ({"low": (-1,)}, "action.low"),
        ({"low": (2, 2), "high": (1, 1)}, "must be below"),
        ({"temperature": 0}, "sampling.temperature"),
        ({"description": " "}, "description"),
        ({"memory": "none"}, "'none' is no state"),
        ({"names": {"no": "obs"}}, "no tensor 'no'; it takes 'obs' and gives 'mean', 'log_std'"),
        ({"names": {"mean": "value", "log_std": "value"}}, "cannot stand for the same"),
        ({"shapes": {"obs": (5,)}}, "does not run"),
    ],
)
def test_what_cannot_be_served_is_refused_and_leaves_nothing(
    tmp_path: Path, steered: Path, more: dict[str, Any], text: str
) -> None:
    given = {"name": "wheel", "description": "Steers.", "names": {}, "shapes": {}} | more
    with pytest.raises(ValueError, match=text):
        import_file(tmp_path / "policies", steered, given.pop("name"), **given)
    assert not list((tmp_path / "policies").glob("*/*"))


def graph(tmp_path: Path, inputs: list[Any], outputs: list[Any], nodes: list[Any]) -> Path:
    made = helper.make_graph(nodes, "g", inputs, outputs)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    file = tmp_path / "some.onnx"
    file.write_bytes(model.SerializeToString())
    return file


def value(name: str, *shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.onnx"
    file.write_bytes(b"\x80\x04\x95pickle")
    with pytest.raises(ValueError, match="no ONNX model"):
        inspect_file(file, {})
    with pytest.raises(ValueError, match="no ONNX model"):
        renamed(b"\xff\xff\xff", {"a": "b"})


def test_a_model_of_one_agent_alone_is_refused_with_what_to_do(tmp_path: Path) -> None:
    same = helper.make_node("Identity", ["obs"], ["logits"])
    file = graph(tmp_path, [value("obs", 1, 4)], [value("logits", 1, 4)], [same])
    with pytest.raises(ValueError, match="first dimension that is free"):
        inspect_file(file, {})


def test_a_model_that_draws_its_actions_itself_is_refused(tmp_path: Path) -> None:
    best = helper.make_node("ArgMax", ["obs"], ["action"], axis=1, keepdims=0)
    drawn = value("action", "n", kind=TensorProto.INT64)
    file = graph(tmp_path, [value("obs", "n", 4)], [drawn], [best])
    with pytest.raises(
        ValueError, match=r"tensor\(int64\); all that goes in and out must be float"
    ):
        inspect_file(file, {})


def test_a_model_without_a_value_is_refused(tmp_path: Path) -> None:
    same = helper.make_node("Identity", ["obs"], ["logits"])
    file = graph(tmp_path, [value("obs", "n", 4)], [value("logits", "n", 4)], [same])
    with pytest.raises(ValueError, match="nothing that can be value"):
        inspect_file(file, {})


def test_sizes_that_the_file_does_not_tell_are_taken_as_said(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["obs"], ["logits"]),
        helper.make_node("ReduceMax", ["obs"], ["value"], axes=[1], keepdims=1),
    ]
    file = graph(
        tmp_path,
        [value("obs", "n", "wide")],
        [value("logits", "n", "wide"), value("value", "n", 1)],
        nodes,
    )
    found = inspect_file(file, {})
    assert (found.obs, found.action_size) == (Tensor("obs", (0,)), 0)

    def made(**shapes: tuple[int, ...]) -> Any:
        return import_file(
            tmp_path / "policies", file, "wide", description="Wide.", names={}, shapes=shapes
        )

    with pytest.raises(ValueError, match="does not tell the size of 'obs'"):
        made(action=(4,))
    with pytest.raises(ValueError, match="does not tell the size of 'action'"):
        made(obs=(4,))
    folder = made(obs=(4,), action=(4,)).folder
    assert load(folder, max_batch=1).manifest.action == Action(ActionType.DISCRETE, 4)


def test_names_move_everywhere_and_clash_with_none(tmp_path: Path) -> None:
    """A branch names what is outside of it, and a tensor inside has a name that is wanted."""
    branch = helper.make_graph(
        [helper.make_node("Identity", ["obs"], ["inner"])], "b", [], [value("inner", "n", 2)]
    )
    nodes = [
        helper.make_node("Mul", ["obs", "two"], ["logits"]),
        helper.make_node("If", ["yes"], ["pi"], then_branch=branch, else_branch=branch),
        helper.make_node("Add", ["logits", "pi"], ["value"]),
    ]
    constants = [
        numpy_helper.from_array(np.array(2, np.float32), "two"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    made = helper.make_graph(
        nodes, "g", [value("obs", "n", 2)], [value("pi", "n", 2), value("value", "n", 2)], constants
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    other = renamed(
        model.SerializeToString(),
        {"obs": "observation", "pi": "logits", "value": "pi", "two": "value"},
    )
    onnx.checker.check_model(onnx.load_from_string(other))
    session = onnxruntime.InferenceSession(other)
    given = np.array([[1, 2]], np.float32)
    logits, pi = session.run(["logits", "pi"], {"observation": given})
    assert logits.tolist() == [[1, 2]]
    assert pi.tolist() == [[3, 6]]
    assert renamed(other, {}) is other


def test_a_manifest_that_is_written_reads_the_same() -> None:
    for manifest in (
        Manifest('Sagt: "ä" # no comment', "a" * 64, 4, Action(ActionType.DISCRETE, 2)),
        Manifest(
            "Two\nlines", "b" * 64, 1, Action(ActionType.CONTINUOUS, 2, (-1.5, -1e-9), (1.0, 2e7)),
            (StateTensor("hidden", (64,)), StateTensor("cell", (2, 3))),
            StateTensor("memory", (32, 16)), "how: full", 0.125,
        ),
    ):  # fmt: skip
        assert read_manifest(manifest_text(manifest)) == manifest
