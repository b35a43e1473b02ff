"""Steps of policies, the policies, and the tokens of those who only step."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.inference.v1 import policies_pb2 as policies
from tests.integration.access.tables import (
    ADMIN,
    CLIENTS,
    EVERYONE,
    INFERENCE_AGENTS,
    PEOPLE,
    WRITERS,
    Recorded,
)
from tests.integration.access.world import World
from tests.unit.inference.models import adding

SERVICE = "steward.inference.v1.InferenceService"
POLICIES = "steward.inference.v1.PolicyService"
TOKENS = "steward.inference.v1.ClientTokenService"
OPEN = "inference.GRPCInferenceService"

STEPPERS = WRITERS | {"executor key"} | INFERENCE_AGENTS | CLIENTS
LOOKERS = PEOPLE | INFERENCE_AGENTS | CLIENTS

ACCESS = {
    SERVICE: {
        **dict.fromkeys(("Reset", "Step", "StepBatch", "Stream", "EndAgent"), STEPPERS),
        "ListInferenceAgents": LOOKERS,
        "Drive": EVERYONE,  # its messages carry the credential
    },
    POLICIES: {
        "ListPolicies": LOOKERS,
        "GetPolicy": LOOKERS,
        "LoadPolicy": ADMIN,
        "UnloadPolicy": ADMIN,
    },
    TOKENS: {"MintToken": EVERYONE},
    OPEN: {
        **dict.fromkeys(("ServerLive", "ServerReady", "ServerMetadata"), EVERYONE),
        **dict.fromkeys(("ModelReady", "ModelMetadata"), LOOKERS),
        **dict.fromkeys(("ModelInfer", "ModelStreamInfer"), STEPPERS),
    },
}

_OWN = "the same id of somebody else is another agent"

FOREIGN = {SERVICE: dict.fromkeys(("Reset", "Step", "EndAgent"), _OWN)}


async def _load(world: World) -> Message:
    adding(world.folder / "policies" / "adding" / "1")
    return policies.LoadPolicyRequest(policy="adding")


async def _unload(world: World) -> Message:
    del world
    return policies.UnloadPolicyRequest(policy="adding")


_STEP = "a step changes nothing but what is kept of the caller's own agent"

RECORDED = {
    SERVICE: dict.fromkeys(("Reset", "Step", "StepBatch", "EndAgent"), _STEP),
    POLICIES: {
        "LoadPolicy": Recorded(_load, ("policy.loaded",)),
        "UnloadPolicy": Recorded(_unload, ("policy.unloaded",)),
    },
    TOKENS: {"MintToken": "these tokens are off in this world, and on in its own tests"},
}
