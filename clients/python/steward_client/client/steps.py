"""What a policy decides, as values. Pure.

Numpy is imported where packed numbers are read and written: who only asks for a policy's name need
not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steward.inference.v1 import inference_pb2 as pb
from steward_client.client.policies import PolicyVersion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Action = int | tuple[float, ...]
"""Of a discrete policy one of its choices, from 0 on; of a continuous one its numbers."""


@dataclass(frozen=True, slots=True)
class Step:
    """What an agent is to do."""

    action: Action
    value: float
    """What the policy expects to come from there on."""
    log_prob: float
    """The natural logarithm of the likelihood of the action."""
    agent_id: str
    pressure: float
    """Of the agent's memory; 0 without one."""


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A step of many agents: arrays that can be read only, a row for each observation."""

    actions: NDArray[Any]
    """int32, one for each row; of a continuous policy float32, rows by the action's size."""
    values: NDArray[np.float32]
    log_probs: NDArray[np.float32]
    pressures: NDArray[np.float32]
    failed: tuple[int, ...]
    """Rows for which the policy gave no finite numbers: their agents begin anew, and what else is
    told of these rows means nothing."""

    def __len__(self) -> int:
        return len(self.values)


def step_of(answer: pb.StepResponse) -> Step:
    return Step(
        action_of(answer.action),
        answer.value,
        answer.log_prob,
        answer.agent_id,
        answer.pressure,
    )


def action_of(action: pb.Action) -> Action:
    if action.WhichOneof("kind") == "choice":
        return action.choice
    return tuple(action.numbers.values)


def packed(observations: Any) -> bytes:
    """Rows of numbers as float32, little-endian."""
    import numpy as np

    return np.ascontiguousarray(observations, "<f4").tobytes()


def steps_of(results: pb.PackedResults, policy: PolicyVersion) -> Steps:
    """Read the results of one policy."""
    import numpy as np

    def floats(data: bytes) -> NDArray[np.float32]:
        return np.frombuffer(data, "<f4")

    return Steps(
        np.frombuffer(results.actions, "<i4")
        if policy.action_type == "discrete"
        else floats(results.actions).reshape(-1, policy.action_size),
        floats(results.values),
        floats(results.log_probs),
        floats(results.pressures),
        tuple(results.failed),
    )
