"""Credentials."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.credentials.v1 import credentials_pb2 as pb
from tests.integration.access.tables import PEOPLE, WRITERS, Recorded
from tests.integration.access.world import World

SERVICE = "steward.credentials.v1.CredentialService"

ACCESS = {
    SERVICE: {
        "ListCredentials": PEOPLE,
        "CreateCredential": WRITERS,
        "DeleteCredential": WRITERS,
    }
}

_NAMED = "whoever is named, it is refused unless that is the caller; names are each person's own"
FOREIGN = {SERVICE: {"ListCredentials": _NAMED, "DeleteCredential": _NAMED}}


async def _create(world: World) -> Message:
    return pb.CreateCredentialRequest(
        name=world.name(), username="admin", password=world.password()
    )


async def _delete(world: World) -> Message:
    return pb.DeleteCredentialRequest(name=await world.credential())


RECORDED = {
    SERVICE: {
        "CreateCredential": Recorded(_create, ("credential.created",)),
        "DeleteCredential": Recorded(_delete, ("credential.deleted",)),
    }
}
