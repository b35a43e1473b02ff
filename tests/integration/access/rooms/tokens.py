"""IC tokens."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.tokens.v1 import tokens_pb2 as pb
from tests.integration.access.tables import ADMIN, Recorded
from tests.integration.access.world import World

SERVICE = "steward.tokens.v1.TokenService"

ACCESS = {
    SERVICE: {
        "ListTokens": ADMIN,
        "CreateToken": ADMIN,
        "GetToken": ADMIN,
        "RotateToken": ADMIN,
        "RevokeToken": ADMIN,
    }
}


async def _create(world: World) -> Message:
    return pb.CreateTokenRequest(agent_id=(await world.agent()).id, name="for the night")


async def _rotate(world: World) -> Message:
    return pb.RotateTokenRequest(token_id=(await world.token()).id)


async def _revoke(world: World) -> Message:
    return pb.RevokeTokenRequest(token_id=(await world.token()).id)


RECORDED = {
    SERVICE: {
        "CreateToken": Recorded(_create, ("token.created",)),
        "RotateToken": Recorded(_rotate, ("token.rotated",)),
        "RevokeToken": Recorded(_revoke, ("token.revoked",)),
    }
}
