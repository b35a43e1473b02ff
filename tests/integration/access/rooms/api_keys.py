"""API keys."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.api_keys.v1 import api_keys_pb2 as pb
from tests.integration.access.tables import IN_PERSON, PEOPLE, Recorded
from tests.integration.access.world import World

SERVICE = "steward.api_keys.v1.ApiKeyService"

ACCESS = {
    SERVICE: {
        "ListApiKeys": PEOPLE,
        "CreateApiKey": IN_PERSON,
        "RevokeApiKey": IN_PERSON,
    }
}


async def _foreign(world: World) -> Message:
    return pb.RevokeApiKeyRequest(key_id=(await world.api_key(headers=world.owner.headers)).id)


async def _create(world: World) -> Message:
    return pb.CreateApiKeyRequest(description=world.name())


async def _revoke(world: World) -> Message:
    return pb.RevokeApiKeyRequest(key_id=(await world.api_key()).id)


FOREIGN = {
    SERVICE: {
        "ListApiKeys": "whoever the filter names, it is refused unless that is the caller",
        "RevokeApiKey": _foreign,
    }
}

RECORDED = {
    SERVICE: {
        "CreateApiKey": Recorded(_create, ("api_key.created",)),
        "RevokeApiKey": Recorded(_revoke, ("api_key.revoked",)),
    }
}
