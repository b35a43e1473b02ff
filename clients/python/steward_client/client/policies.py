"""Policies as they are asked for, like the nouns of resources.py."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from steward.inference.v1 import policies_pb2 as pb
from steward.inference.v1.policies_pb2_grpc import PolicyServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, rpc
from steward_client.client.values import value_of

ActionType = Literal["unspecified", "discrete", "continuous"]

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


def _policy(
    answer: pb.GetPolicyResponse | pb.LoadPolicyResponse | pb.UnloadPolicyResponse,
) -> Policy:
    return value_of(Policy, answer.policy)
