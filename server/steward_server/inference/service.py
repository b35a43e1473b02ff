"""InferenceService: translates between protos and the engine."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1 import inference_pb2_grpc as rpc
from steward_server.calls import Context, call_of
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import FailedPrecondition, InvalidArgument, NotFound
from steward_server.inference.arena import Lease
from steward_server.inference.driving import Authenticate, Drive
from steward_server.inference.engine import DEFAULT_AGENT, Engine
from steward_server.inference.metering import Owner
from steward_server.inference.model import Floats
from steward_server.inference.reading import (
    MISSING_ROWS,
    failed,
    fill_action,
    fill_step,
    observation_of,
    observations_of,
    owner_of,
    reference_of,
)
from steward_server.inference.runner import Results
from steward_server.inference.served import Agent
from steward_server.inference.streaming import Conversation

MAX_AGENT_ID = 200
LISTED, MAX_LISTED = 100, 1000
BEGUN = "x-agent-begun"


class InferenceService(rpc.InferenceServiceServicer):
    """Serves steps."""

    def __init__(self, engine: Engine, authenticate: Authenticate, *, max_batch: int) -> None:
        self._engine = engine
        self._authenticate = authenticate
        self._max_batch = max_batch

    async def Reset(self, request: pb.ResetRequest, context: Context) -> pb.ResetResponse:
        agent_id = request.agent_id or DEFAULT_AGENT
        with Checks() as checks:
            checks.text("agent_id", agent_id, 1, MAX_AGENT_ID)
        agent = await self._engine.reset(
            owner_of(context),
            agent_id,
            request.policy,
            request.seed if request.HasField("seed") else None,
        )
        return pb.ResetResponse(
            message="Agent state reset",
            agent_id=agent_id,
            state=pb.AgentState(hidden="initialized", memory="initialized"),
            policy=str(agent.served.reference),
        )

    async def Step(self, request: pb.StepRequest, context: Context) -> pb.StepResponse:
        agent_id = request.agent_id or DEFAULT_AGENT
        agent = await self._agent(agent_id, owner_of(context), context)
        observation = observation_of(request.observation, agent.served)
        step = await self._engine.step_one(agent, observation, deterministic=request.deterministic)
        response = pb.StepResponse()
        fill_step(response, step, agent_id)
        return response

    async def StepBatch(
        self, request: pb.StepBatchRequest, context: Context
    ) -> pb.StepBatchResponse:
        rows, agent_ids = request.observations, request.agent_ids
        count = len(rows)
        if count > self._max_batch:
            raise InvalidArgument.of(
                {"observations": f"has {count} rows; at most {self._max_batch} are taken at once"}
            )
        if agent_ids and len(agent_ids) != count:
            raise InvalidArgument(
                f"Expected {count} agent_ids, one for each observation, got {len(agent_ids)}",
                reason="WRONG_LENGTH",
            )
        if not count:
            raise InvalidArgument(MISSING_ROWS, fields={"observations": MISSING_ROWS})
        owner = owner_of(context)
        if not agent_ids:
            served = await self._engine.default()
            observations = observations_of([each.values for each in rows], served)
            results = await self._engine.step_fresh(
                owner, served, observations, deterministic=request.deterministic
            )
            _must_be_finite(results, ["a row without an agent"] * count)
            return _batch_response([(list(range(count)), results)], [DEFAULT_AGENT] * count)
        agents = [
            self._engine.agent_at_hand(owner, each)
            or await self._agent(each or DEFAULT_AGENT, owner, context)
            for each in agent_ids
        ]
        # All of it is read before the first step is made.
        parts = [
            (wave, observations_of([rows[at].values for at in wave], agents[wave[0]].served))
            for wave in waves(agents)
        ]
        made = [
            (wave, await self._step(request, agents, wave, observations))
            for wave, observations in parts
        ]
        return _batch_response(made, agent_ids)

    async def _agent(self, agent_id: str, owner: Owner, context: Context) -> Agent:
        """The caller's agent. The default one is always there: what it forgot is told aside."""
        agent = self._engine.agent_at_hand(owner, agent_id)
        if agent is None:
            agent = await self._engine.agent_or_default(owner, agent_id)
            call_of(context).trailing.append((BEGUN, agent_id))
        return agent

    async def _step(
        self, request: pb.StepBatchRequest, agents: list[Agent], wave: list[int], rows: Floats
    ) -> Results:
        together = [agents[at] for at in wave]
        lease = Lease.of_all([each.lease for each in together])
        results = await self._engine.step(
            together, lease, rows, deterministic=request.deterministic
        )
        _must_be_finite(results, [request.agent_ids[at] for at in wave])
        return results

    async def Drive(
        self, request_iterator: AsyncIterator[pb.DriveRequest], context: Context
    ) -> AsyncIterator[pb.DriveResponse]:
        await context.send_initial_metadata(())
        drive = Drive(self._engine, self._authenticate, context)
        try:
            async for request in request_iterator:
                yield await drive.answer(request)
        finally:
            drive.end()

    async def Stream(
        self, request_iterator: AsyncIterator[pb.StreamRequest], context: Context
    ) -> AsyncIterator[pb.StreamResponse]:
        await context.send_initial_metadata(())
        owner = owner_of(context)
        conversation = Conversation(self._engine, owner, max_batch=self._max_batch)
        async for response in conversation.answers(request_iterator):
            yield response

    async def ListInferenceAgents(
        self, request: pb.ListInferenceAgentsRequest, context: Context
    ) -> pb.ListInferenceAgentsResponse:
        with Checks() as checks:
            checks.between("limit", request.limit, 0, MAX_LISTED)
        everybody = call_of(context).principal.is_admin
        agents = self._engine.agents(
            None if everybody else owner_of(context),
            reference_of(request.policy) if request.policy else None,
        )
        first = await asyncio.to_thread(
            heapq.nlargest, request.limit or LISTED, agents, _ORDERS[request.order_by]
        )
        return pb.ListInferenceAgentsResponse(
            agents=[_listed(each) for each in first], total=len(agents)
        )

    async def EndAgent(self, request: pb.EndAgentRequest, context: Context) -> pb.EndAgentResponse:
        with Checks() as checks:
            checks.text("agent_id", request.agent_id, 1, MAX_AGENT_ID)
        try:
            agent = self._engine.agent(owner_of(context), request.agent_id)
        except FailedPrecondition:
            raise NotFound.of("agent", request.agent_id) from None
        self._engine.end(agent)
        return pb.EndAgentResponse()


def _last_step(agent: Agent) -> int:
    return agent.last_used_us if agent.step_count else 0


_ORDERS: dict[int, Callable[[Agent], float]] = {
    pb.INFERENCE_AGENT_ORDER_UNSPECIFIED: _last_step,
    pb.INFERENCE_AGENT_ORDER_LAST_STEP: _last_step,
    pb.INFERENCE_AGENT_ORDER_PRESSURE: lambda agent: agent.pressure or 0.0,
}
"""What the first of a list have most of."""


def _listed(agent: Agent) -> pb.InferenceAgent:
    return pb.InferenceAgent(
        agent_id=agent.agent_id,
        owner=agent.owner.name,
        policy=str(agent.served.reference),
        step_count=agent.step_count,
        pressure=agent.pressure,
        last_step_at=timestamp(_last_step(agent) or None),
    )


def waves(agents: Sequence[Agent]) -> list[list[int]]:
    """Rows in the runs they can be made in: of one version each, and no agent twice in one."""
    served = agents[0].served
    if len(set(agents)) == len(agents) and all(each.served is served for each in agents):
        return [list(range(len(agents)))]  # as nearly always
    turns: dict[int, int] = {}
    found: dict[tuple[int, int], list[int]] = {}
    for at, agent in enumerate(agents):
        turn = turns.get(id(agent), 0)
        turns[id(agent)] = turn + 1
        found.setdefault((turn, id(agent.served)), []).append(at)
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _must_be_finite(results: Results, agent_ids: Sequence[str]) -> None:
    if results.failed.any():
        raise failed([agent_ids[at] for at in np.flatnonzero(results.failed).tolist()])


def _batch_response(
    made: Sequence[tuple[list[int], Results]], agent_ids: Sequence[str]
) -> pb.StepBatchResponse:
    """The results of one run or several, in the order of the rows."""
    actions = [action for _, results in made for action in results.actions.tolist()]
    numbers = [
        np.concatenate([getattr(results, name) for _, results in made])
        for name in ("values", "log_probs", "pressures")
    ]
    if len(made) > 1:
        order = np.argsort([at for wave, _ in made for at in wave])
        actions = [actions[at] for at in order.tolist()]
        numbers = [each[order] for each in numbers]
    values, log_probs, pressures = (each.tolist() for each in numbers)
    response = pb.StepBatchResponse(
        values=values, log_probs=log_probs, agent_ids=agent_ids, pressures=pressures
    )
    add = response.actions.add
    for action in actions:
        fill_action(add(), action)
    return response
