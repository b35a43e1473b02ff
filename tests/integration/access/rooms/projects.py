"""Projects and the organisation."""

from __future__ import annotations

from google.protobuf.message import Message

from steward.projects.v1 import projects_pb2 as pb
from tests.integration.access.tables import ADMIN, PEOPLE, Recorded
from tests.integration.access.world import World

SERVICE = "steward.projects.v1.ProjectService"

ACCESS = {
    SERVICE: {
        "CreateProject": ADMIN,
        "ListProjects": PEOPLE,
        "GetProject": PEOPLE,
        "UpdateProject": ADMIN,
        "DeleteProject": ADMIN,
        "GetProjectBudget": PEOPLE,
        "GetOrganisation": ADMIN,
        "UpdateOrganisation": ADMIN,
        "GetOrganisationBudget": ADMIN,
        "GetAgentBudget": PEOPLE,
    }
}


async def _create(world: World) -> Message:
    return pb.CreateProjectRequest(name=world.name(), budget_nanousd=9_000_000_000)


async def _project_id(world: World) -> str:
    """A project without an agent of a user's."""
    made = await world.stub(SERVICE, "CreateProject", await _create(world))
    return str(made.project.id)


async def _update(world: World) -> Message:
    return pb.UpdateProjectRequest(project_id=await _project_id(world), name=world.name())


async def _delete(world: World) -> Message:
    return pb.DeleteProjectRequest(project_id=await _project_id(world))


async def _owned(world: World) -> str:
    """A project that holds an agent of the owner's."""
    project_id = await _project_id(world)
    await world.agent(owner_id=world.owner.user_id, project_id=project_id)
    return project_id


async def _get(world: World) -> Message:
    return pb.GetProjectRequest(project_id=await _owned(world))


async def _budget(world: World) -> Message:
    return pb.GetProjectBudgetRequest(project_id=await _owned(world))


async def _agents_budget(world: World) -> Message:
    agent = await world.agent(owner_id=world.owner.user_id)
    return pb.GetAgentBudgetRequest(agent_id=agent.id)


async def _organisation(world: World) -> Message:
    return pb.UpdateOrganisationRequest(name=world.name())


FOREIGN = {
    SERVICE: {
        "GetProject": _get,
        "GetProjectBudget": _budget,
        "GetAgentBudget": _agents_budget,
    }
}

RECORDED = {
    SERVICE: {
        "CreateProject": Recorded(_create, ("project.created",)),
        "UpdateProject": Recorded(_update, ("project.updated",)),
        "DeleteProject": Recorded(_delete, ("project.deleted",)),
        "UpdateOrganisation": Recorded(_organisation, ("organisation.updated",)),
    }
}
