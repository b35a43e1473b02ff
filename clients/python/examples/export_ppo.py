"""Writes what Stable-Baselines3 or CleanRL trained with PPO as an ONNX file that Steward imports.

    pip install onnx onnxruntime
    python clients/python/examples/export_ppo.py weights.npz policy.onnx
    steward policy import policy.onnx --name mine --description "What it does."

docs/importing-policies.md tells how `weights.npz` is made: the weights by the names that PyTorch
gives them, and next to them some observations with what the network made of them, `check.obs`,
`check.logits` or `check.mean` and `check.log_std`, and `check.value`. What is written is run on
these, and refused where it gives anything else. No pickle is read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]
Layers = list[tuple[Floats, Floats]]

TOLERANCE = 1e-4
"""How far a number may be off, of 1 or of its own size: what other ways to add up may bring."""

LIBRARIES = (
    # Stable-Baselines3: where the layers of the actor and the critic stand, and the deviation.
    (
        ("mlp_extractor.policy_net.", "action_net."),
        ("mlp_extractor.value_net.", "value_net."),
        "log_std",
    ),
    # CleanRL: ppo.py, and ppo_continuous_action.py.
    (("actor.",), ("critic.",), ""),
    (("actor_mean.",), ("critic.",), "actor_logstd"),
)


@dataclass(frozen=True, slots=True)
class Network:
    """An actor and a critic of linear layers: weights, outputs by inputs, and biases."""

    actor: Layers
    critic: Layers
    log_std: Floats | None = None
    """None for a discrete policy."""
    obs_mean: Floats | None = None
    obs_std: Floats | None = None
    clip_obs: float = 10.0
    """Where observations are normalised, what they are cut to then."""


@dataclass(slots=True)
class Graph:
    """The nodes and constants of a model that is being written."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def layers(self, name: str, source: str, layers: Layers, activation: str, output: str) -> None:
        """Linear layers with an activation between them."""
        for number, (weight, bias) in enumerate(layers):
            is_last = number == len(layers) - 1
            place = f"{name}.{number}"
            given = [
                source,
                self.constant(f"{place}.weight", weight),
                self.constant(f"{place}.bias", bias),
            ]
            source = self.node("Gemm", given, output if is_last else place, transB=1)
            if not is_last:
                source = self.node(activation, [source], f"{place}.active")


def network_of(weights: Mapping[str, NDArray[Any]]) -> Network:
    """Find the actor and the critic among weights that PyTorch has named.

    Raises:
        ValueError: they are of no network that is known, or have something else in them.
    """
    for actor, critic, log_std in LIBRARIES:
        used = set[str]()
        made = Network(
            _layers(weights, actor, used),
            _layers(weights, critic, used),
            _deviation(weights, log_std, used),
            *_normalisation(weights, used),
        )
        if not made.actor or not made.critic:
            continue
        if left := sorted(weights.keys() - used):
            raise ValueError(
                f"{left[0]!r} and {len(left) - 1} more have no place in a network of linear "
                "layers; export it with torch.onnx.export"
            )
        if made.log_std is not None and len(made.log_std) != len(made.actor[-1][1]):
            raise ValueError(
                f"{log_std!r} has {len(made.log_std)} numbers for {len(made.actor[-1][1])} of an "
                "action: a deviation that depends on the state (gSDE) cannot be written"
            )
        return made
    raise ValueError(
        f"neither Stable-Baselines3's PPO nor CleanRL's has these weights: {sorted(weights)[:6]}"
    )


def model_of(network: Network, activation: str) -> bytes:
    """The ONNX model: `obs` in, `logits` or `mean` and `log_std` out, and `value`."""
    graph = Graph()
    seen, n = "obs", "n"
    obs_dim, size = network.actor[0][0].shape[1], network.actor[-1][0].shape[0]
    if network.obs_mean is not None and network.obs_std is not None:
        off = graph.node("Sub", [seen, graph.constant("obs.mean", network.obs_mean)], "obs.off")
        scaled = graph.node("Div", [off, graph.constant("obs.std", network.obs_std)], "obs.scaled")
        ends = [graph.constant(f"obs.{i}", i * network.clip_obs) for i in (-1, 1)]
        seen = graph.node("Clip", [scaled, *ends], "obs.cut")
    head = "logits" if network.log_std is None else "mean"
    graph.layers("actor", seen, network.actor, activation, head)
    graph.layers("critic", seen, network.critic, activation, "value")
    outputs = [(head, size), ("value", 1)]
    if network.log_std is not None:
        shape = graph.node("Shape", ["mean"], "mean.shape")
        graph.node("Expand", [graph.constant("log_std.row", network.log_std), shape], "log_std")
        outputs.insert(1, ("log_std", size))

    def tensor(name: str, count: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [n, count])

    written = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [tensor("obs", obs_dim)],
            [tensor(*each) for each in outputs],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(written, full_check=True)
    content: bytes = written.SerializeToString()
    return content


def difference(model: bytes, checks: Mapping[str, NDArray[Any]]) -> float:
    """How far the model is off what the network gave, at most.

    Raises:
        ValueError: something to compare is missing.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_outputs()]
    if missing := {"obs", *names} - checks.keys():
        raise ValueError(
            f"'check.{min(missing)}' is missing: what the network gave to compare with"
        )
    rows = checks["obs"].astype(np.float32)
    worst = 0.0
    for name, made in zip(names, session.run(names, {"obs": rows}), strict=True):
        given = checks[name].astype(np.float32).reshape(len(rows), -1)
        # PyTorch gives logits with the logarithm of their sum taken off.
        ours, theirs = map(_normalised, (made, given)) if name == "logits" else (made, given)
        off = np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
        worst = float(np.maximum(worst, off.max()))  # a NaN stays
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a PPO policy as an ONNX file.")
    parser.add_argument("weights", type=Path, help="weights.npz")
    parser.add_argument("model", type=Path, help="the file to write")
    parser.add_argument("--activation", choices=["Tanh", "Relu", "Elu"], default="Tanh")
    chosen = parser.parse_args()
    with np.load(chosen.weights, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    checks = {
        name.removeprefix("check."): arrays.pop(name)
        for name in list(arrays)
        if name.startswith("check.")
    }
    try:
        model = model_of(network_of(arrays), chosen.activation)
        off = difference(model, checks)
    except ValueError as error:
        sys.exit(f"export_ppo.py: {error}")
    if not off <= TOLERANCE:
        sys.exit(
            f"export_ppo.py: what would be written is off what the network gave by {off:.2g}; has "
            "it another activation (--activation), or are its observations normalised?"
        )
    chosen.model.write_bytes(model)
    rows = len(checks["obs"])
    print(f"wrote {chosen.model}: off by {off:.1g} at most in {rows} observations")


def _layers(weights: Mapping[str, NDArray[Any]], prefixes: Sequence[str], used: set[str]) -> Layers:
    """The linear layers below these, in their order."""
    found: Layers = []
    for prefix in prefixes:
        named = [each for each in weights if each.startswith(prefix) and each.endswith("weight")]
        # "actor.2.weight", the third of the module's parts; "action_net.weight", all of it.
        for name in sorted(named, key=lambda each: int(each[len(prefix) : -7] or 0)):
            bias = f"{name.removesuffix('weight')}bias"
            if weights[name].ndim != 2 or bias not in weights:
                raise ValueError(
                    f"{name!r} is {list(weights[name].shape)} and no linear layer; export it with "
                    "torch.onnx.export"
                )
            used |= {name, bias}
            found.append((weights[name].astype(np.float32), weights[bias].astype(np.float32)))
    return found


def _deviation(weights: Mapping[str, NDArray[Any]], name: str, used: set[str]) -> Floats | None:
    if name not in weights:
        return None
    used.add(name)
    return weights[name].astype(np.float32).reshape(-1)


def _normalisation(
    weights: Mapping[str, NDArray[Any]], used: set[str]
) -> tuple[Floats | None, Floats | None, float]:
    """How observations are normalised, as both libraries do it."""
    clip = float(weights.get("obs_rms.clip", np.float32(10)))
    if "obs_rms.mean" not in weights or "obs_rms.var" not in weights:
        return None, None, clip
    used |= {"obs_rms.mean", "obs_rms.var", "obs_rms.clip"}
    deviation = np.sqrt(weights["obs_rms.var"] + 1e-8)
    return weights["obs_rms.mean"].astype(np.float32), deviation.astype(np.float32), clip


def _normalised(logits: Floats) -> Floats:
    off = logits - logits.max(axis=1, keepdims=True)
    made: Floats = off - np.log(np.exp(off).sum(axis=1, keepdims=True))
    return made


if __name__ == "__main__":
    main()
