"""How good a written policy is: episodes of gymnasium's own task, played through its ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import onnxruntime

Floats = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Episodes that were played side by side to their ends."""

    returns: Floats
    """Of each episode."""
    memory: Floats | None
    """What each had in its memory at its end, where there is one."""
    pressure: Floats | None
    """Of every step of every episode [steps, episodes]; that of one that has ended is NaN."""


def session(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A model that runs on one core."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def evaluate(
    model: onnxruntime.InferenceSession,
    task: str,
    *,
    episodes: int,
    seed: int,
    seen: tuple[int, ...] | None = None,
    keep_memory: bool = True,
    temperature: float = 0.0,
) -> Evaluation:
    """Plays episodes; `seen`: which numbers of an observation the policy gets, if not all.

    At temperature 0 each action is the one that is thought best; above it they are drawn.
    """
    environments = [gymnasium.make(task, disable_env_checker=True) for _ in range(episodes)]
    draw = np.random.default_rng(seed)
    obs = np.stack([each.reset(seed=seed + number)[0] for number, each in enumerate(environments)])
    fed = {at.name: np.zeros((episodes, *at.shape[1:]), np.float32) for at in model.get_inputs()}
    names = [at.name for at in model.get_outputs()]
    alive = np.ones(episodes, bool)
    returns = np.zeros(episodes, np.float32)
    pressures = []
    memory = fed.get("memory")
    columns = list(range(obs.shape[1])) if seen is None else list(seen)
    while alive.any():
        said = dict(zip(names, model.run(None, fed | {"obs": obs[:, columns]}), strict=True))
        if memory is not None:
            pressures.append(np.where(alive, said["pressure"], np.nan))
            memory = np.where(alive[:, None, None], said["memory_out"], memory)
            if keep_memory:
                fed["memory"] = memory
        actions = _actions(said, temperature, draw)
        for number in np.flatnonzero(alive):
            after, reward, failed, late, _ = environments[number].step(actions[number])
            obs[number] = after
            returns[number] += reward
            alive[number] = not (failed or late)
    for environment in environments:
        environment.close()
    return Evaluation(returns, memory, np.stack(pressures) if pressures else None)


def _actions(said: dict[str, Floats], temperature: float, draw: np.random.Generator) -> Any:
    if "logits" in said:
        logits = said["logits"]
        if temperature:
            # The greatest of logits with Gumbel's noise is drawn as the softmax of them says.
            logits = logits + temperature * draw.gumbel(size=logits.shape)
        return logits.argmax(axis=1)
    noise = temperature * np.exp(said["log_std"]) * draw.standard_normal(said["mean"].shape)
    return (said["mean"] + noise).astype(np.float32)
