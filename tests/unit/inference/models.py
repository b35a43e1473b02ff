"""Small policies for tests, written with onnx.helper."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def _constant(name: str, value: Any) -> Any:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def _write(
    folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any]
) -> str:
    graph = helper.make_graph(nodes, "policy", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    content = model.SerializeToString()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def tensor(name: str, *shape: Any) -> Any:
    return helper.make_tensor_value_info(name, FLOAT, ["n", *shape])


def adding(
    folder: Path, *, gain: float = 1.0, keeps: float = 0.5, description: str = "Adds up."
) -> Path:
    """A policy that adds up what it sees: what it gives tells the whole sequence so far.

    total_out = keeps * total + obs; memory_out = 0.9 * memory + sum(obs);
    logits = gain * total_out; value = sum(total_out); pressure = mean(memory_out).
    """
    nodes = [
        helper.make_node("Mul", ["total", "keeps"], ["kept"]),
        helper.make_node("Add", ["kept", "obs"], ["total_out"]),
        helper.make_node("Mul", ["total_out", "gain"], ["logits"]),
        helper.make_node("ReduceSum", ["total_out", "one"], ["value"], keepdims=0),
        helper.make_node("ReduceSum", ["obs", "one"], ["seen"], keepdims=1),
        helper.make_node("Reshape", ["seen", "column"], ["seen3"]),
        helper.make_node("Mul", ["memory", "most"], ["faded"]),
        helper.make_node("Add", ["faded", "seen3"], ["memory_out"]),
        helper.make_node("ReduceMean", ["memory_out"], ["pressure"], axes=[1, 2], keepdims=0),
    ]
    constants = [
        _constant("keeps", keeps),
        _constant("most", 0.9),
        _constant("gain", gain),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "column"),
    ]
    digest = _write(
        folder,
        nodes,
        [tensor("obs", 3), tensor("total", 3), tensor("memory", 4, 2)],
        [
            tensor("logits", 3),
            tensor("value"),
            tensor("total_out", 3),
            tensor("memory_out", 4, 2),
            tensor("pressure"),
        ],
        constants,
    )
    (folder / "policy.yaml").write_text(
        f"""\
description: {description}
model_sha256: {digest}
obs_dim: 3
action: {{type: discrete, size: 3}}
state: [{{name: total, shape: [3]}}]
memory: {{name: memory, shape: [4, 2]}}
pressure: the mean of the memory
"""
    )
    return folder


def steering(folder: Path) -> Path:
    """A policy without state and with two bounded, continuous actions: mean = obs, log_std = 0."""
    nodes = [
        helper.make_node("Identity", ["obs"], ["mean"]),
        helper.make_node("Mul", ["obs", "zero"], ["log_std"]),
        helper.make_node("ReduceSum", ["obs", "one"], ["value"], keepdims=0),
    ]
    constants = [
        _constant("zero", 0.0),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
    ]
    digest = _write(
        folder,
        nodes,
        [tensor("obs", 2)],
        [tensor("mean", 2), tensor("log_std", 2), tensor("value")],
        constants,
    )
    (folder / "policy.yaml").write_text(
        f"""\
description: Steers.
model_sha256: {digest}
obs_dim: 2
action: {{type: continuous, size: 2, low: [-1.0, -1.0], high: [1.0, 1.0]}}
"""
    )
    return folder
