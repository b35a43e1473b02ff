"""Observations from protos to arrays, and results back. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from steward.inference.v1 import inference_pb2 as pb
from steward_server.calls import Context, call_of
from steward_server.errors import Aborted, InvalidArgument
from steward_server.inference.metering import Owner
from steward_server.inference.model import Floats
from steward_server.inference.repository import BadReference, Reference
from steward_server.inference.runner import Step
from steward_server.inference.served import Served
from steward_server.principals import Kind, Principal

MISSING = "Missing 'observation' field"
MISSING_ROWS = "Missing 'observations' field"


def owner_of(context: Context) -> Owner:
    """Whose agents a caller steps with; an agent of a budget pays for its steps."""
    return owner_for(call_of(context).principal)


def owner_for(who: Principal) -> Owner:
    """As `owner_of`."""
    if who.kind is Kind.AGENT:
        return Owner(f"agent:{who.subject}", who.subject, who.credential)
    # A person's keys are the person.
    return Owner(f"{'person' if who.is_person else who.kind.value}:{who.subject}")


def reference_of(policy: str) -> Reference:
    """The policy that a field of this name names.

    Raises:
        InvalidArgument: it can be none's name.
    """
    try:
        return Reference.parse(policy)
    except BadReference as error:
        raise InvalidArgument(str(error), fields={"policy": str(error)}) from None


def observation_of(values: Any, served: Served) -> Sequence[float]:
    """One observation.

    Raises:
        InvalidArgument: it is missing, has another length, or a number that is none.
    """
    wanted = served.manifest.obs_dim
    if not values:
        raise InvalidArgument(MISSING, fields={"observation": MISSING})
    if len(values) != wanted:
        raise wrong_length(wanted, len(values))
    row: list[float] = values[:]
    if not all(map(math.isfinite, row)):
        raise not_finite("observation")
    return row


def observations_of(rows: Sequence[Any], served: Served) -> Floats:
    """Many observations, row by row.

    Raises:
        InvalidArgument: one has another length, or a number that is none.
    """
    wanted = served.manifest.obs_dim
    numbers: list[float] = []
    for at, row in enumerate(rows):
        if len(row) != wanted:
            raise wrong_length(wanted, len(row), f"observations[{at}]")
        numbers += row[:]
    read: Floats = np.array(numbers, np.float32).reshape(len(rows), wanted)
    finite = np.isfinite(read).all(axis=1)
    if not finite.all():
        raise not_finite(f"observations[{int(finite.argmin())}]")
    return read


def wrong_length(wanted: int, found: int, field: str = "observation") -> InvalidArgument:
    text = f"Expected observation of length {wanted}, got {found}"
    return InvalidArgument(text, reason="WRONG_LENGTH", fields={field: text})


def not_finite(field: str) -> InvalidArgument:
    return InvalidArgument.of({field: "has a number that is not finite"})


def fill_step(response: pb.StepResponse, step: Step, agent_id: str) -> None:
    """Tell of the step of one agent.

    Raises:
        Aborted: NOT_FINITE.
    """
    if step.failed:
        raise failed([agent_id])
    fill_action(response.action, step.action)
    response.value = step.value
    response.log_prob = step.log_prob
    response.agent_id = agent_id
    response.pressure = step.pressure


def fill_action(action: pb.Action, made: int | list[float]) -> None:
    """Tell a choice, or numbers."""
    if isinstance(made, int):
        action.choice = made
    else:
        action.numbers.values.extend(made)


def failed(agent_ids: Sequence[str]) -> Aborted:
    """The policy gave no finite numbers."""
    named = ", ".join(repr(each) for each in agent_ids[:10])
    return Aborted(
        f"the policy gave no finite numbers for {named}; what it kept of them begins anew",
        reason="NOT_FINITE",
        facts={"agent_ids": ",".join(agent_ids[:10])},
    )
