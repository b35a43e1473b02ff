"""Agents."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.agents.v1 import agents_pb2 as pb
from tests.integration.access.tables import ADMIN, PEOPLE, WRITERS, Recorded
from tests.integration.access.world import World

SERVICE = "steward.agents.v1.AgentService"

ACCESS = {
    SERVICE: {
        "CreateAgent": ADMIN,
        "ListAgents": PEOPLE,
        "GetAgent": PEOPLE,
        "UpdateAgent": ADMIN,
        "DeleteAgent": ADMIN,
        "GetAgentStatus": PEOPLE,
        "StopAgent": WRITERS,
        "StartAgent": WRITERS,
    }
}


async def _get(world: World) -> Message:
    return pb.GetAgentRequest(agent_id=(await world.agent(owner_id=world.owner.user_id)).id)


async def _status(world: World) -> Message:
    agent = await world.agent(owner_id=world.owner.user_id)
    return pb.GetAgentStatusRequest(agent_id=agent.id)


async def _stop(world: World) -> Message:
    agent = await world.agent(owner_id=world.owner.user_id)
    return pb.StopAgentRequest(agent_id=agent.id, reason="enough")


async def _start(world: World) -> Message:
    agent = await world.agent(owner_id=world.owner.user_id)
    return pb.StartAgentRequest(agent_id=agent.id)


FOREIGN = {
    SERVICE: {
        "GetAgent": _get,
        "GetAgentStatus": _status,
        "StopAgent": _stop,
        "StartAgent": _start,
        "ListAgents": "owner_id is a filter: anybody else's is refused, whether they exist or not",
    }
}


async def _create(world: World) -> Message:
    return pb.CreateAgentRequest(name=world.name(), budget_nanousd=1)


async def _update(world: World) -> Message:
    return pb.UpdateAgentRequest(agent_id=(await world.agent()).id, budget_nanousd=7)


async def _delete(world: World) -> Message:
    return pb.DeleteAgentRequest(agent_id=(await world.token()).agent_id)


async def _restart(world: World) -> Message:
    agent = await world.agent()
    request = pb.StopAgentRequest(agent_id=agent.id)
    await world.stub(SERVICE, "StopAgent", request)
    return pb.StartAgentRequest(agent_id=agent.id)


RECORDED = {
    SERVICE: {
        "CreateAgent": Recorded(_create, ("agent.created",)),
        "UpdateAgent": Recorded(_update, ("agent.updated",)),
        "DeleteAgent": Recorded(_delete, ("agent.deleted", "token.revoked")),
        "StopAgent": Recorded(_stop, ("agent.stopped",)),
        "StartAgent": Recorded(_restart, ("agent.started",)),
    }
}
