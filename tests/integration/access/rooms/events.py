"""Events."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.events.v1 import events_pb2 as pb
from tests.integration.access.tables import EVENT_AGENTS, PEOPLE
from tests.integration.access.world import World

SERVICE = "steward.events.v1.EventService"

ACCESS = {
    SERVICE: {
        "Subscribe": PEOPLE | EVENT_AGENTS,
        "Exchange": PEOPLE | EVENT_AGENTS,
    }
}


async def _subscribe(world: World) -> Message:
    agent = await world.agent(owner_id=world.owner.user_id)
    return pb.SubscribeRequest(agent_id=agent.id)


FOREIGN = {
    SERVICE: {
        "Subscribe": _subscribe,
        "Exchange": "the id is in a message of its stream: tests/integration/events",
    }
}
