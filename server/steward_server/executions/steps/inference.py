"""Steps in which agents decide."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from steward.inference.v1 import inference_pb2 as pb
from steward_gateway.wellknown import shortest_float32
from steward_server.executions.work import Job, Session, StepFailed, Work

_SERVICE = "/steward.inference.v1.InferenceService"


def work() -> Mapping[str, Work]:
    """The work of these steps, by type."""
    return {"inference.reset": _reset, "inference.step": _step}


async def _reset(job: Job) -> Mapping[str, Any]:
    agent_id = await _agent_of(job)
    request = pb.ResetRequest(
        agent_id=agent_id, policy=job.values["policy"] or "", seed=job.values["seed"]
    )
    response = await job.session.steward.call(f"{_SERVICE}/Reset", request)
    return {"agent_id": response.agent_id, "policy": response.policy}


async def _step(job: Job) -> Mapping[str, Any]:
    request = pb.StepRequest(
        observation=job.values["observation"],
        agent_id=await _agent_of(job),
        deterministic=job.values["deterministic"],
    )
    response: pb.StepResponse = await job.session.steward.call(f"{_SERVICE}/Step", request)
    return {
        "action": _action(response.action),
        "value": shortest_float32(response.value),
        "log_prob": shortest_float32(response.log_prob),
        "agent_id": response.agent_id,
        "pressure": shortest_float32(response.pressure),
    }


async def _agent_of(job: Job) -> str:
    """The agent that a step names, else one of its run, which ends with that."""
    if agent_id := job.values["agent_id"]:
        return str(agent_id)
    session = job.session
    return await session.shared("inference.agent", partial(_agent, session))


@asynccontextmanager
async def _agent(session: Session) -> AsyncIterator[str]:
    agent_id = f"run-{session.execution_id}"
    yield agent_id
    with suppress(StepFailed):  # it was never reset, or is gone
        await session.steward.call(f"{_SERVICE}/EndAgent", pb.EndAgentRequest(agent_id=agent_id))


def _action(action: pb.Action) -> int | list[float]:
    if action.WhichOneof("kind") == "choice":
        return action.choice
    return [shortest_float32(each) for each in action.numbers.values]
