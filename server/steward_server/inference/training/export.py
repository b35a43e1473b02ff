"""Policies as files: the ONNX graph of a network, and the manifest that says what it is.

The graph is written node by node from the weights. Sampling is never in it: who serves the policy
draws the actions, so that it knows the probability of each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from steward_server.inference.training.networks import (
    SHARPNESS,
    SLOTS,
    WIDTH,
    Dense,
    MemoryNet,
    Mlp,
)
from steward_server.inference.training.tasks import Continuous, Discrete

OPSET = 17
IR_VERSION = 8  # the format of opset 17's time, which every runtime since reads


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that is ready to be served."""

    name: str
    description: str
    obs_dim: int
    action: Discrete | Continuous
    model: onnx.ModelProto
    memory: tuple[int, int] | None = None
    """How many slots it has, and how wide they are."""
    pressure: str | None = None
    """What the model's output of that name means."""
    temperature: float = 1.0


@dataclass(slots=True)
class _Graph:
    """A graph under way. A method adds a node and gives the name of what comes out of it."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def weight(self, name: str, values: Any) -> str:
        self.weights[name] = np.asarray(values, np.float32)
        return name

    def axes(self, *axes: int) -> str:
        name = "axes_" + "_".join(map(str, axes)).replace("-", "minus")
        self.weights[name] = np.array(axes, np.int64)
        return name

    def add(self, kind: str, inputs: Sequence[str], out: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=out, **attributes))
        return out

    def dense(self, layer: Dense, x: str, out: str) -> str:
        weight = self.weight(f"{out}.weight", layer.weight)
        return self.add("Gemm", (x, weight, self.weight(f"{out}.bias", layer.bias)), out)

    def tower(self, layers: Sequence[Dense], x: str, name: str) -> str:
        for number, layer in enumerate(layers[:-1], start=1):
            x = self.add("Tanh", [self.dense(layer, x, f"{name}.{number}")], f"{name}.tanh{number}")
        return self.dense(layers[-1], x, f"{name}.{len(layers)}")

    def scaled(self, x: str, factor: float, out: str) -> str:
        return self.add("Mul", (x, self.weight(f"{out}.factor", factor)), out)

    def value(self, column: str) -> None:
        self.add("Squeeze", (column, self.axes(1)), "value")

    def unit(self, x: str, axis: int, out: str) -> str:
        """Vectors along an axis, of length 1 unless they are nearly nothing."""
        length = self.add("ReduceL2", [x], f"{out}.length", axes=[axis], keepdims=1)
        square = self.add("Mul", (length, length), f"{out}.square")
        some = self.add("Add", (square, self.weight("nearly_nothing", 1e-6)), f"{out}.some")
        return self.add("Div", (x, self.add("Sqrt", [some], f"{out}.root")), out)

    def address(self, unit_rows: str, key: str, out: str) -> str:
        """The weight of each slot [n, slots], as `networks.address` has it."""
        upright = self.add("Unsqueeze", (key, self.axes(2)), f"{out}.key")
        unit_key = self.unit(upright, 1, f"{out}.unit_key")
        alike = self.add("MatMul", (unit_rows, unit_key), f"{out}.cosine")
        sharp = self.scaled(alike, SHARPNESS, f"{out}.sharp")
        flat = self.add("Squeeze", (sharp, self.axes(2)), f"{out}.flat")
        return self.add("Softmax", [flat], out, axis=1)

    def model(self, inputs: dict[str, list[int]], outputs: dict[str, list[int]]) -> onnx.ModelProto:
        """The whole: shapes are without the batch, which is free."""

        def tensors(shapes: dict[str, list[int]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
                for name, shape in shapes.items()
            ]

        constants = [numpy_helper.from_array(value, name) for name, value in self.weights.items()]
        graph = helper.make_graph(
            self.nodes, "policy", tensors(inputs), tensors(outputs), constants
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="steward",
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _times(layer: Dense, factor: float) -> Dense:
    return Dense(layer.weight * factor, layer.bias * factor)


def mlp_model(net: Mlp, action: Discrete | Continuous, value_unit: float = 1.0) -> onnx.ModelProto:
    """`networks.mlp` as a graph; the value, which was learned in some unit, in those of reward."""
    graph = _Graph()
    said = graph.tower(net.actor, "obs", "actor")
    if isinstance(action, Continuous):
        half, centre = action.half, action.centre
        within = graph.add("Div", (said, graph.weight("half", half)), "actor.within")
        bounded = graph.add("Tanh", [within], "actor.bounded")
        wide = graph.add("Mul", (bounded, "half"), "actor.wide")
        graph.add("Add", (wide, graph.weight("centre", centre)), "mean")
        shape = graph.add("Shape", ["mean"], "mean.shape")
        graph.add("Expand", (graph.weight("log_std.row", net.log_std), shape), "log_std")
        outputs = {"mean": [action.size], "log_std": [action.size]}
    else:
        graph.add("Identity", [said], "logits")
        outputs = {"logits": [action.size]}
    critic = (*net.critic[:-1], _times(net.critic[-1], value_unit))
    graph.value(graph.tower(critic, "obs", "critic"))
    inputs = {"obs": [net.actor[0].weight.shape[0]]}
    return graph.model(inputs, outputs | {"value": []})


def memory_model(net: MemoryNet, value_unit: float) -> onnx.ModelProto:
    """`networks.remember` as a graph."""
    graph = _Graph()
    first_rows = graph.weight("first_rows", net.rows)
    rows = graph.add("Add", (first_rows, "memory"), "rows")
    unit_rows = graph.unit(rows, 2, "unit_rows")
    seen = graph.add("Tanh", [graph.dense(net.see, "obs", "see")], "seen")
    read_key = graph.dense(net.read_key, seen, "read_key")
    read_address = graph.address(unit_rows, read_key, "read_address")
    across = graph.add("Unsqueeze", (read_address, graph.axes(1)), "read_address.across")
    read = graph.add(
        "Squeeze", (graph.add("MatMul", (across, rows), "read.row"), graph.axes(1)), "read"
    )
    both = graph.add("Concat", (seen, read), "seen_and_read", axis=1)
    thought = graph.add("Tanh", [graph.dense(net.think, both, "think")], "thought")
    graph.dense(net.act, thought, "logits")
    graph.value(graph.dense(_times(net.worth, value_unit), thought, "worth"))

    write_key = graph.dense(net.write_key, thought, "write_key")
    write_address = graph.address(unit_rows, write_key, "write_address")
    gate = graph.add("Sigmoid", [graph.dense(net.write_gate, thought, "write_gate")], "gate")
    share = graph.add("Mul", (gate, write_address), "share")
    upright = graph.add("Unsqueeze", (share, graph.axes(2)), "share.upright")
    row = graph.add("Tanh", [graph.dense(net.write_row, thought, "write_row")], "row")
    lying = graph.add("Unsqueeze", (row, graph.axes(1)), "row.lying")
    change = graph.add("Mul", (upright, graph.add("Sub", (lying, rows), "towards")), "change")
    moved = graph.add("Add", ("memory", change), "memory_out")

    square = graph.add("Mul", (moved, moved), "moved.square")
    distance = graph.add("ReduceSum", (square, graph.axes(2)), "moved.distance", keepdims=0)
    untouched = graph.add("Exp", [graph.add("Neg", [distance], "moved.neg")], "untouched")
    share_untouched = graph.add("ReduceMean", [untouched], "untouched.mean", axes=[1], keepdims=0)
    graph.add("Sub", (graph.weight("one", 1.0), share_untouched), "pressure")
    memory = [SLOTS, WIDTH]
    return graph.model(
        {"obs": [net.see.weight.shape[0]], "memory": memory},
        {
            "logits": [net.act.weight.shape[1]],
            "value": [],
            "memory_out": memory,
            "pressure": [],
        },
    )


def write(policy: Policy, folder: Path) -> Path:
    """Writes the policy's first version below the folder of policies; where it went."""
    into = folder / policy.name / "1"
    into.mkdir(parents=True, exist_ok=True)
    model = policy.model.SerializeToString(deterministic=True)
    (into / "model.onnx").write_bytes(model)
    digest = hashlib.sha256(model).hexdigest()
    (into / "policy.yaml").write_text(_manifest(policy, digest), encoding="utf-8")
    return into


def _manifest(policy: Policy, digest: str) -> str:
    if isinstance(policy.action, Discrete):
        action = f"{{type: discrete, size: {policy.action.size}}}"
    else:
        low, high = list(policy.action.low), list(policy.action.high)
        action = f"{{type: continuous, size: {policy.action.size}, low: {low}, high: {high}}}"
    lines = [
        "# Written by `make policies`; docs/policies.md tells how.",
        f"description: {json.dumps(policy.description)}",
        f"model_sha256: {digest}",
        f"obs_dim: {policy.obs_dim}",
        f"action: {action}",
    ]
    if policy.memory is not None:
        lines.append(f"memory: {{name: memory, shape: {list(policy.memory)}}}")
    if policy.pressure is not None:
        lines.append(f"pressure: {json.dumps(policy.pressure)}")
    lines.append(f"sampling: {{temperature: {policy.temperature}}}")
    return "\n".join(lines) + "\n"
