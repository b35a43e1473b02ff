"""ProjectService over a real port: who sees and changes what, page by page, and what is written."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from steward.agents.v1 import agents_pb2
from steward.budget.v1 import scopes_pb2
from steward.projects.v1 import projects_pb2 as pb
from steward.projects.v1.projects_pb2_grpc import ProjectServiceStub
from steward_server.auth.accounts import Role
from tests.integration.conftest import Server, refusal

DOLLAR = 1_000_000_000


class Projects:
    """Calls as the administrator, or as someone else."""

    def __init__(self, server: Server, metadata: Any = None) -> None:
        self._stub: Any = ProjectServiceStub(server.channel)
        self._metadata = metadata or server.admin

    async def create(self, name: str = "shared", **fields: Any) -> Any:
        return (await self.call("CreateProject", name=name, **fields)).project

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(**fields)
        return await getattr(self._stub, method)(request, metadata=self._metadata)


@pytest.fixture
def projects(server: Server) -> Projects:
    return Projects(server)


async def test_a_new_project_has_its_budget_and_no_limit_unless_one_is_given(
    projects: Projects,
) -> None:
    limited = await projects.create(budget_nanousd=5 * DOLLAR, period=scopes_pb2.BUDGET_PERIOD_WEEK)
    unlimited = await projects.create(mode=scopes_pb2.BUDGET_MODE_INFORMATIVE)
    assert limited.budget.scope == f"project:{limited.id}"
    assert (limited.budget.limit_nanousd, limited.budget.available_nanousd) == (
        5 * DOLLAR,
        5 * DOLLAR,
    )
    assert limited.budget.mode == scopes_pb2.BUDGET_MODE_RESTRICTIVE
    days = limited.budget.period_end.seconds - limited.budget.period_start.seconds
    assert days == 7 * 86_400
    for field in ("limit_nanousd", "available_nanousd", "percent_used", "period_end"):
        assert not unlimited.budget.HasField(field)


async def test_projects_are_listed_page_by_page_newest_first(
    server: Server, projects: Projects
) -> None:
    made = []
    for number in range(5):
        server.clock.advance(1)
        made.append((await projects.create(f"p{number}")).id)
    seen: list[str] = []
    token = ""
    while True:
        page = await projects.call("ListProjects", page_size=2, page_token=token)
        seen += [each.id for each in page.projects]
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]


async def test_an_owner_sees_the_projects_of_their_agents_and_only_their_agents_in_them(
    server: Server, projects: Projects
) -> None:
    theirs, other = await projects.create("theirs"), await projects.create("other")
    user_id, as_user = await server.enter("user", Role.USER)
    mine = await server.create_agent(name="mine", owner_id=user_id, project_id=theirs.id)
    await server.create_agent(name="someone's", project_id=theirs.id)
    user = Projects(server, as_user)

    listed = await user.call("ListProjects")
    assert [each.id for each in listed.projects] == [theirs.id]
    assert (await user.call("GetProject", project_id=theirs.id)).project == theirs
    hidden = await refusal(user.call("GetProject", project_id=other.id))
    assert (hidden.code, hidden.reason) == (grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND")
    shown = await user.call("GetProjectBudget", project_id=theirs.id)
    assert [each.id for each in shown.children] == [mine.id]
    every = await projects.call("GetProjectBudget", project_id=theirs.id)
    assert {each.name for each in every.children} == {"mine", "someone's"}
    path = await user.call("GetAgentBudget", agent_id=mine.id)
    assert [each.scope for each in path.path] == [f"agent:{mine.id}", f"project:{theirs.id}"]
    assert path.available_nanousd == 5 * DOLLAR
    whole = await projects.call("GetAgentBudget", agent_id=mine.id)
    assert [each.name for each in whole.path] == ["mine", "theirs", "default"]


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("CreateProject", {"name": "p"}),
        ("UpdateProject", {"project_id": "p", "name": "q"}),
        ("DeleteProject", {"project_id": "p"}),
        ("GetOrganisation", {}),
        ("UpdateOrganisation", {"name": "q"}),
        ("GetOrganisationBudget", {}),
    ],
)
async def test_only_administrators_change_projects_and_see_the_organisation(
    server: Server, method: str, fields: dict[str, Any]
) -> None:
    for username, role in (("user", Role.USER), ("viewer", Role.VIEWER)):
        _, metadata = await server.enter(username, role)
        refused = await refusal(Projects(server, metadata).call(method, **fields))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "ROLE_NOT_ALLOWED",
        )


async def test_children_are_shown_page_by_page(server: Server, projects: Projects) -> None:
    project = await projects.create()
    made = {(await server.create_agent(project_id=project.id)).id for _ in range(5)}
    seen: list[str] = []
    token = ""
    for _ in range(3):
        page = await projects.call(
            "GetProjectBudget", project_id=project.id, page_size=2, page_token=token
        )
        seen += [each.id for each in page.children]
        token = page.next_page_token
    assert (len(seen), set(seen), token) == (5, made, "")


async def test_money_lent_and_returned_shows_in_every_budget_above(
    server: Server, projects: Projects
) -> None:
    project = await projects.create(budget_nanousd=3 * DOLLAR)
    agent = await server.create_agent(project_id=project.id)
    await server.lend(agent.id, "lease_1", 2 * DOLLAR)
    lent = await projects.call("GetAgentBudget", agent_id=agent.id)
    assert [each.reserved_nanousd for each in lent.path] == [2 * DOLLAR] * 3
    assert lent.available_nanousd == DOLLAR
    organisation = (await projects.call("GetOrganisation")).organisation
    assert organisation.budget.reserved_nanousd == 2 * DOLLAR
    await server.give_back(agent.id, "lease_1")
    free = await projects.call("GetAgentBudget", agent_id=agent.id)
    assert [each.reserved_nanousd for each in free.path] == [0] * 3


async def test_what_was_changed_is_in_the_audit_log_and_the_journal(
    server: Server, projects: Projects
) -> None:
    project = await projects.create(budget_nanousd=DOLLAR)
    await projects.call(
        "UpdateProject", project_id=project.id, name="renamed", budget_nanousd=2 * DOLLAR
    )
    await projects.call("UpdateOrganisation", mode=scopes_pb2.BUDGET_MODE_INFORMATIVE)
    await projects.call("DeleteProject", project_id=project.id)
    rows = await server.database.fetch_all(
        "SELECT action, resource_id, before, after FROM audit_entry ORDER BY number"
    )
    told = {
        row["action"]: (row["resource_id"], row["before"], row["after"])
        for row in rows
        if row["action"].startswith(("project", "organisation"))
    }
    assert list(told) == [
        "project.created",
        "project.updated",
        "organisation.updated",
        "project.deleted",
    ]
    name, before, after = told["project.updated"]
    assert name == project.id
    assert json.loads(before) == {"name": "shared", "budget_nanousd": DOLLAR}
    assert json.loads(after) == {"name": "renamed", "budget_nanousd": 2 * DOLLAR}
    assert json.loads(told["organisation.updated"][2]) == {"mode": "informative"}
    kinds = [row["kind"] for row in await server.journal("project")]
    assert kinds == ["project.created", "project.updated", "project.deleted"]


async def test_a_project_that_fails_to_change_stays_as_it_is(
    server: Server, projects: Projects
) -> None:
    project = await projects.create(budget_nanousd=5 * DOLLAR)
    agent = await server.create_agent(project_id=project.id)
    await server.lend(agent.id, "lease_1", 2 * DOLLAR)
    change = projects.call(
        "UpdateProject", project_id=project.id, name="renamed", budget_nanousd=DOLLAR
    )
    assert (await refusal(change)).reason == "BUDGET_BELOW_COMMITTED"
    shown = (await projects.call("GetProject", project_id=project.id)).project
    assert (shown.name, shown.budget.limit_nanousd) == ("shared", 5 * DOLLAR)


async def test_agents_are_listed_by_project(server: Server, projects: Projects) -> None:
    project = await projects.create()
    inside = await server.create_agent(project_id=project.id)
    await server.create_agent()
    request = agents_pb2.ListAgentsRequest(project_id=project.id)
    listed = await server.agents.ListAgents(request, metadata=server.admin)
    assert [each.id for each in listed.agents] == [inside.id]
