"""One agent by itself: its policy's model run with one row at a time, and its own draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from steward_server.inference.manifest import ActionType, Manifest, read_manifest

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Policy:
    """A model and its manifest, as they lie in a folder."""

    manifest: Manifest
    session: Any

    @classmethod
    @cache
    def of(cls, folder: Path) -> Policy:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(folder / "model.onnx", options)
        return cls(read_manifest((folder / "policy.yaml").read_text()), session)


@dataclass(frozen=True)
class Step:
    """What somebody was told of a step."""

    action: int | list[float]
    value: float
    log_prob: float
    pressure: float


class Lone:
    """A sequence from its beginning on."""

    TOLERANCE = 1e-5

    def __init__(self, policy: Policy, seed: int) -> None:
        self._policy = policy
        self._draws = np.random.Generator(np.random.PCG64(seed))
        self._kept = {
            each.name: np.zeros((1, *each.shape), np.float32) for each in policy.manifest.kept
        }

    def check(self, observation: list[float], *, deterministic: bool, told: Step) -> None:
        """Make the step; what was told of it must be the same."""
        manifest = self._policy.manifest
        seen = np.array([observation], np.float32)
        made = self._policy.session.run(list(manifest.outputs), {"obs": seen, **self._kept})
        out = dict(zip(manifest.outputs, made, strict=True))
        self._kept = {name: out[f"{name}_out"] for name in self._kept}
        self._near(told.value, float(out["value"][0]))
        self._near(told.pressure, float(out["pressure"][0]) if "pressure" in out else 0.0)
        if manifest.action.type is ActionType.DISCRETE:
            self._check_choice(out["logits"][0], deterministic=deterministic, told=told)
        else:
            self._check_numbers(
                out["mean"][0], out["log_std"][0], deterministic=deterministic, told=told
            )

    def _check_choice(self, logits: Floats, *, deterministic: bool, told: Step) -> None:
        scaled = logits.astype(np.float64) / self._policy.manifest.temperature
        likely = np.exp(scaled - scaled.max())
        likely /= likely.sum()
        assert isinstance(told.action, int)
        self._near(
            told.log_prob, math.log(likely[told.action]), 10 / self._policy.manifest.temperature
        )
        if deterministic:
            assert likely[told.action] >= likely.max() - self.TOLERANCE
            return
        # The largest with its noise is drawn; of those that are as large, any is right.
        noisy = scaled + self._draws.gumbel(size=len(scaled))
        slack = 10 * self.TOLERANCE / self._policy.manifest.temperature
        assert noisy[told.action] >= noisy.max() - slack

    def _check_numbers(
        self, mean: Floats, log_std: Floats, *, deterministic: bool, told: Step
    ) -> None:
        action = self._policy.manifest.action
        steps = np.zeros(action.size) if deterministic else self._draws.standard_normal(action.size)
        wide = log_std.astype(np.float64) + math.log(self._policy.manifest.temperature)
        expected = np.clip(
            mean + np.exp(wide) * steps, action.low or -np.inf, action.high or np.inf
        )
        assert isinstance(told.action, list)
        for one, other in zip(told.action, expected.tolist(), strict=True):
            self._near(one, other)
        self._near(told.log_prob, float(-(steps**2 / 2 + wide + math.log(2 * math.pi) / 2).sum()))

    def _near(self, told: float, expected: float, times: float = 1.0) -> None:
        assert abs(told - expected) <= self.TOLERANCE * times * max(1.0, abs(expected)), (
            told,
            expected,
        )
