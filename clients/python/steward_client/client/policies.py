"""Policies as they are asked for, like the nouns of resources.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from steward.inference.v1 import inference_pb2 as inference_pb
from steward.inference.v1 import policies_pb2 as pb
from steward.inference.v1.inference_pb2_grpc import InferenceServiceStub
from steward.inference.v1.policies_pb2_grpc import PolicyServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, rpc
from steward_client.client.values import value_of

ActionType = Literal["unspecified", "discrete", "continuous"]
AgentOrder = Literal["last_step", "pressure"]

LOAD_S = 300.0
"""What a server may take to read a large model and to warm it up."""


@dataclass(frozen=True, slots=True)
class StateTensor:
    """What a policy keeps of each agent."""

    name: str
    shape: tuple[int, ...]
    """Of one agent."""


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One version of a policy; what it takes and gives is known of those that are loaded."""

    version: int
    is_loaded: bool
    fault: str
    """Why it cannot be served; empty if nothing is known against it."""
    description: str
    model_sha256: str
    obs_dim: int
    """How many numbers an observation has."""
    action_type: ActionType
    action_size: int
    """Of a discrete one how many choices, of a continuous one how many numbers."""
    state: tuple[StateTensor, ...]
    memory: StateTensor | None
    pressure: str
    """What the memory's pressure means, in words; empty without one."""
    agent_count: int
    """Agents that have it now."""
    step_count: int
    run_count: int
    """How many runs the steps were computed in."""
    loaded_at: datetime | None


@dataclass(frozen=True, slots=True)
class Policy:
    """What decides for agents."""

    name: str
    latest: int
    """The version of whoever names none; 0 if none can be served."""
    is_default: bool
    versions: tuple[PolicyVersion, ...]
    """The newest first."""


@dataclass(frozen=True, slots=True)
class InferenceAgent:
    """An agent that steps."""

    agent_id: str
    """Empty: it ends with the stream that began it."""
    owner: str
    policy: str
    """With its version."""
    step_count: int
    """Since its sequence began."""
    pressure: float | None
    """Of its memory, at its last step; None where its policy has no such figure."""
    last_step_at: datetime | None


@dataclass(frozen=True, slots=True)
class InferenceAgents:
    """The first of those that step, and how many there are."""

    agents: tuple[InferenceAgent, ...]
    total: int


class Policies(Resource[Manner]):
    """Which policies there are to serve. They are named as "cartpole" or "cartpole@3"."""

    @rpc
    def list(self) -> Call[tuple[Policy, ...]]:
        """All policies, by name."""
        return Call(
            PolicyServiceStub,
            "ListPolicies",
            pb.ListPoliciesRequest(),
            read=every(lambda answer: [value_of(Policy, each) for each in answer.policies]),
            repeatable=True,
        )

    @rpc
    def get(self, policy: str) -> Call[Policy]:
        """One policy, with all its versions.

        Raises:
            NotFound: there is none; the message lists those there are.
        """
        return Call(
            PolicyServiceStub,
            "GetPolicy",
            pb.GetPolicyRequest(policy=policy),
            read=first(_policy),
            repeatable=True,
        )

    @rpc
    def load(self, policy: str) -> Call[Policy]:
        """Look at the server's folder again, and load a version, or the newest; for administrators.

        Agents go on with the version they have.

        Raises:
            NotFound: there is none.
            Conflict: reason POLICY_UNUSABLE; the message says why.
        """
        return Call(
            PolicyServiceStub,
            "LoadPolicy",
            pb.LoadPolicyRequest(policy=policy),
            read=first(_policy),
            repeatable=True,
            takes_s=LOAD_S,
        )

    @rpc
    def unload(self, policy: str, *, force: bool = False) -> Call[Policy]:
        """Let go of a version, or of all of a policy; for administrators.

        `force` ends the agents that have it. It is loaded again when somebody asks for it.

        Raises:
            NotFound: there is none.
            Conflict: reason POLICY_IN_USE, agents have it.
        """
        return Call(
            PolicyServiceStub,
            "UnloadPolicy",
            pb.UnloadPolicyRequest(policy=policy, force=force),
            read=first(_policy),
            repeatable=True,
        )

    @rpc
    def agents(
        self, policy: str = "", *, order_by: AgentOrder = "last_step", limit: int = 100
    ) -> Call[InferenceAgents]:
        """Which agents step now: the caller's own, an administrator's all.

        Those come first that stepped last, or whose memory is under most pressure.

        Raises:
            NotFound: there is no such policy.
        """
        order = f"INFERENCE_AGENT_ORDER_{order_by.upper()}"
        return Call(
            InferenceServiceStub,
            "ListInferenceAgents",
            inference_pb.ListInferenceAgentsRequest(
                policy=policy,
                order_by=inference_pb.InferenceAgentOrder.Value(order),
                limit=limit,
            ),
            read=lambda answers: value_of(InferenceAgents, answers[0]),
            repeatable=True,
        )


def _policy(
    answer: pb.GetPolicyResponse | pb.LoadPolicyResponse | pb.UnloadPolicyResponse,
) -> Policy:
    return value_of(Policy, answer.policy)
