"""Observations from protos to arrays, and results back. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from steward.inference.v1 import inference_pb2 as pb
from steward_server.errors import Aborted, InvalidArgument
from steward_server.inference.manifest import ActionType
from steward_server.inference.model import Floats
from steward_server.inference.runner import Results
from steward_server.inference.served import Served

MISSING = "Missing 'observation' field"


def observation_of(values: Any, served: Served) -> Floats:
    """One observation as a row.

    Raises:
        InvalidArgument: it is missing, has another length, or a number that is none.
    """
    wanted = served.manifest.obs_dim
    if not values:
        raise InvalidArgument(MISSING, fields={"observation": MISSING})
    if len(values) != wanted:
        raise wrong_length(wanted, len(values))
    row = np.array([values[:]], np.float32)
    if not np.isfinite(row).all():
        raise not_finite("observation")
    return row


def observations_of(rows: Sequence[Any], served: Served) -> Floats:
    """Many observations, row by row.

    Raises:
        InvalidArgument: one has another length, or a number that is none.
    """
    wanted = served.manifest.obs_dim
    for at, row in enumerate(rows):
        if len(row) != wanted:
            raise wrong_length(wanted, len(row), f"observations[{at}]")
    read = np.array([row[:] for row in rows], np.float32)
    finite = np.isfinite(read).all(axis=1)
    if not finite.all():
        raise not_finite(f"observations[{int(finite.argmin())}]")
    return read


def wrong_length(wanted: int, found: int, field: str = "observation") -> InvalidArgument:
    text = f"Expected observation of length {wanted}, got {found}"
    return InvalidArgument(text, reason="WRONG_LENGTH", fields={field: text})


def not_finite(field: str) -> InvalidArgument:
    return InvalidArgument.of({field: "has a number that is not finite"})


def step_response(results: Results, served: Served, agent_id: str) -> pb.StepResponse:
    """The step of one agent.

    Raises:
        Aborted: NOT_FINITE.
    """
    if results.failed[0]:
        raise failed([agent_id])
    return pb.StepResponse(
        action=actions_of(results, served)[0],
        value=results.values[0],
        log_prob=results.log_probs[0],
        agent_id=agent_id,
        pressure=results.pressures[0],
    )


def actions_of(results: Results, served: Served) -> list[pb.Action]:
    made = results.actions.tolist()
    if served.manifest.action.type is ActionType.DISCRETE:
        return [pb.Action(choice=each) for each in made]
    return [pb.Action(numbers=pb.Vector(values=each)) for each in made]


def failed(agent_ids: Sequence[str]) -> Aborted:
    """The policy gave no finite numbers."""
    named = ", ".join(repr(each) for each in agent_ids[:10])
    return Aborted(
        f"the policy gave no finite numbers for {named}; what it kept of them begins anew",
        reason="NOT_FINITE",
        facts={"agent_ids": ",".join(agent_ids[:10])},
    )
