"""Steps of agents by a policy, one call for each; agent_streams.py is for those that are many."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, overload

from steward.inference.v1 import inference_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from steward_client.client.agent_streams import AgentStream, AsyncAgentStream, StreamAgent
from steward_client.client.calls import Awaiting, Blocking, Call, Manner, first, nothing, rpc
from steward_client.client.holding import Holding
from steward_client.client.steps import Step, action_of, step_of

Numbers = Iterable[float]
"""An observation: a list, or an array of one dimension."""


class Inference(Holding[Manner]):
    """Policies that decide for agents, step by step.

    What a policy keeps of an agent is kept by the server, from one step to the next. An agent
    belongs to whoever began it: the same id of another caller is another agent. The one called
    "default" is there from the start; others are begun with `reset`.
    """

    @rpc
    def reset(self, agent_id: str = "", *, policy: str = "", seed: int | None = None) -> Call[str]:
        """Begin an agent's sequence, or begin it anew; gives the policy with its version.

        Without a policy it is the one that the agent has, in its newest version, or the server's
        default. With a seed its random draws can be repeated.

        Raises:
            NotFound: reason POLICY_NOT_FOUND.
            Conflict: reason POLICY_UNUSABLE.
            RateLimited: reason AGENTS_FULL, there is no room.
        """
        return Call(
            InferenceServiceStub,
            "Reset",
            pb.ResetRequest(agent_id=agent_id, policy=policy, seed=seed),
            read=first(lambda answer: str(answer.policy)),
            repeatable=True,
        )

    @rpc
    def step(
        self, observation: Numbers, agent_id: str = "", *, deterministic: bool = False
    ) -> Call[Step]:
        """Let one agent make a step; `deterministic` asks for the likeliest action.

        Is never tried again by itself: it may have been made.

        Raises:
            Conflict: reason AGENT_NOT_INITIALIZED; or NOT_FINITE, the policy gave no finite
                numbers, and the agent's sequence begins anew.
            InvalidRequest: the observation has another length, or a number that is not finite.
            RateLimited: reason QUEUE_FULL, too many steps wait.
        """
        return Call(
            InferenceServiceStub,
            "Step",
            pb.StepRequest(observation=observation, agent_id=agent_id, deterministic=deterministic),
            read=first(step_of),
        )

    @rpc
    def step_batch(
        self,
        observations: Iterable[Numbers],
        agent_ids: Sequence[str] = (),
        *,
        deterministic: bool = False,
    ) -> Call[tuple[Step, ...]]:
        """Let several agents make a step each, one for each row.

        One that is named more than once makes its steps in that order. Without ids each row is a
        step from a fresh state, of which nothing is kept.

        Raises:
            As `step`.
        """
        request = pb.StepBatchRequest(
            observations=[pb.Vector(values=row) for row in observations],
            agent_ids=agent_ids,
            deterministic=deterministic,
        )
        return Call(InferenceServiceStub, "StepBatch", request, read=first(_steps))

    @rpc
    def end(self, agent_id: str) -> Call[None]:
        """End an agent's sequence, and let go of what is kept of it.

        Raises:
            NotFound: there is no such agent.
        """
        return Call(
            InferenceServiceStub, "EndAgent", pb.EndAgentRequest(agent_id=agent_id), read=nothing
        )

    @overload
    def stream(
        self: Inference[Blocking],
        agents: int | Sequence[StreamAgent] = 1,
        *,
        policy: str = "",
        seed: int | None = None,
        timeout_s: float | None = None,
        in_flight: int = 32,
    ) -> AgentStream: ...
    @overload
    def stream(
        self: Inference[Awaiting],
        agents: int | Sequence[StreamAgent] = 1,
        *,
        policy: str = "",
        seed: int | None = None,
        timeout_s: float | None = None,
        in_flight: int = 32,
    ) -> Coroutine[Any, Any, AsyncAgentStream]: ...
    def stream(
        self,
        agents: int | Sequence[StreamAgent] = 1,
        *,
        policy: str = "",
        seed: int | None = None,
        timeout_s: float | None = None,
        in_flight: int = 32,
    ) -> Any:
        """Open a stream of one agent or thousands, for steps at high frequency.

        Args:
            agents: how many, which are the stream's own and end with it; or which.
            policy: of agents by number.
            seed: of agents by number: the first has this one, the next the next.
            timeout_s: how long a step may take; None: as long as it takes.
            in_flight: messages under way at the most. Who sends more waits.

        Raises:
            NotFound, Conflict, RateLimited: as `reset`.
        """
        if isinstance(agents, int):
            seeds = [None if seed is None else seed + number for number in range(agents)]
            agents = [StreamAgent(policy=policy, seed=each) for each in seeds]
        wanted = tuple(agents)
        return self.holder.opened(
            lambda client: AsyncAgentStream(
                client, wanted, timeout_s=timeout_s, in_flight=in_flight
            ),
            AgentStream,
        )


def _steps(answer: pb.StepBatchResponse) -> tuple[Step, ...]:
    rows = zip(
        answer.actions,
        answer.values,
        answer.log_probs,
        answer.agent_ids,
        answer.pressures,
        strict=True,
    )
    return tuple(
        Step(action_of(action), value, log_prob, agent_id, pressure)
        for action, value, log_prob, agent_id, pressure in rows
    )
