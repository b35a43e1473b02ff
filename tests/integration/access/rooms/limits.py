"""Limits."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.limits.v1 import limits_pb2 as pb
from tests.integration.access.tables import ADMIN, PEOPLE, Recorded
from tests.integration.access.world import World

SERVICE = "steward.limits.v1.LimitService"

ACCESS = {
    SERVICE: {
        "ListLimits": PEOPLE,
        "GetLimit": PEOPLE,
        "SetLimit": ADMIN,
        "DeleteLimit": ADMIN,
    }
}


async def _set(world: World) -> Message:
    scope = f"agent:{(await world.agent()).id}"
    return pb.SetLimitRequest(scope=scope, max_requests_per_minute=100)


async def _delete(world: World) -> Message:
    request = await _set(world)
    await world.stub(SERVICE, "SetLimit", request)
    assert isinstance(request, pb.SetLimitRequest)
    return pb.DeleteLimitRequest(scope=request.scope)


RECORDED = {
    SERVICE: {
        "SetLimit": Recorded(_set, ("limit.set",)),
        "DeleteLimit": Recorded(_delete, ("limit.deleted",)),
    }
}
