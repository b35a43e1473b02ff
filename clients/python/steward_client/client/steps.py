"""What a policy decides, as values. Pure.

Numpy is imported where packed numbers are read and written: who only asks for a policy's name need
not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steward.inference.v1 import inference_pb2 as pb
from steward_client.client.policies import PolicyVersion
from steward_client.errors import InvalidRequest, ServerFault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUMBER_BYTES = 4
"""Of a packed int32 or float32."""

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


def without_rows(count: int) -> ServerFault:
    """The fault of an answer that tells too little, or too much."""
    return ServerFault(f"the answer has not a row for each of {count} agents")


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


def packed(observations: Any, count: int) -> bytes:
    """Rows of so many agents as float32, little-endian.

    Raises:
        InvalidRequest: they have another shape.
    """
    import numpy as np

    try:
        rows = np.ascontiguousarray(observations, "<f4")
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"observations are no rows of numbers, all as long: {error}; give a row for each agent"
        ) from None
    # The server tells rows apart by their number.
    if rows.ndim < 2 or len(rows) != count:
        raise InvalidRequest(
            f"observations of shape {rows.shape} are given for {count} agents; "
            "give a row for each of them"
        )
    return rows.tobytes()


def steps_of(results: pb.PackedResults, policy: PolicyVersion, count: int) -> Steps:
    """Read the results that so many agents of one policy have.

    Raises:
        ServerFault: there is not a row for each.
    """
    import numpy as np

    size = 1 if policy.action_type == "discrete" else policy.action_size
    columns = (results.values, results.log_probs, results.pressures)
    if len(results.actions) != count * size * NUMBER_BYTES or any(
        len(each) != count * NUMBER_BYTES for each in columns
    ):
        raise without_rows(count)

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
