"""Providers."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.providers.v1 import providers_pb2 as pb
from tests.integration.access.tables import ADMIN, Recorded
from tests.integration.access.world import World

SERVICE = "steward.providers.v1.ProviderService"

ACCESS = {
    SERVICE: {
        "CreateProvider": ADMIN,
        "ListProviders": ADMIN,
        "GetProvider": ADMIN,
        "UpdateProvider": ADMIN,
        "DeleteProvider": ADMIN,
    }
}


async def _create(world: World) -> Message:
    key = world.provider_key()
    return pb.CreateProviderRequest(name=world.name(), kind=pb.PROVIDER_KIND_OPENAI, api_key=key)


async def _update(world: World) -> Message:
    return pb.UpdateProviderRequest(
        provider_id=(await world.provider()).id, allow_plaintext_key=True
    )


async def _delete(world: World) -> Message:
    return pb.DeleteProviderRequest(provider_id=(await world.provider()).id)


RECORDED = {
    SERVICE: {
        "CreateProvider": Recorded(_create, ("provider.created",)),
        "UpdateProvider": Recorded(_update, ("provider.updated",)),
        "DeleteProvider": Recorded(_delete, ("provider.deleted",)),
    }
}
