"""ProjectService: translates between protos and the room."""

from __future__ import annotations

from steward.budget.v1 import scopes_pb2
from steward.projects.v1 import projects_pb2 as pb
from steward.projects.v1 import projects_pb2_grpc as rpc
from steward_server.balance import BudgetTerms
from steward_server.budget_words import MODES, PERIODS, mode_word, period_word
from steward_server.calls import Context, caller
from steward_server.checks import Checks
from steward_server.clock import timestamp
from steward_server.errors import InvalidArgument
from steward_server.pages import from_page_token, page_size, to_page_token
from steward_server.projects.project import Changes
from steward_server.projects.room import Family, Named, ProjectRoom, Seen, SeenOrganisation
from steward_server.versions import expected_version

MAX_BUDGET_NANOUSD = 100_000_000 * 1_000_000_000


class ProjectService(rpc.ProjectServiceServicer):
    """Serves projects and the organisation to people."""

    def __init__(self, room: ProjectRoom) -> None:
        self._room = room

    async def CreateProject(
        self, request: pb.CreateProjectRequest, context: Context
    ) -> pb.CreateProjectResponse:
        budget_nanousd = request.budget_nanousd if request.HasField("budget_nanousd") else None
        with Checks() as checks:
            _check_name(checks, request.name)
            _check_budget(checks, budget_nanousd)
            mode = mode_word(checks, "mode", request.mode)
            period = period_word(checks, "period", request.period)
        terms = BudgetTerms(budget_nanousd, mode or "restrictive", period or "none")
        seen = await self._room.create(caller(context), name=request.name, terms=terms)
        return pb.CreateProjectResponse(project=_project(seen))

    async def ListProjects(
        self, request: pb.ListProjectsRequest, context: Context
    ) -> pb.ListProjectsResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            before = from_page_token(checks, "page_token", request.page_token)
        seen = await self._room.page(caller(context), before=before, limit=size + 1)
        response = pb.ListProjectsResponse(projects=[_project(each) for each in seen[:size]])
        if len(seen) > size:
            last = seen[size - 1].project
            response.next_page_token = to_page_token(last.created_at_us, last.project_id)
        return response

    async def GetProject(
        self, request: pb.GetProjectRequest, context: Context
    ) -> pb.GetProjectResponse:
        _check_id("project_id", request.project_id)
        seen = await self._room.get(caller(context), request.project_id)
        return pb.GetProjectResponse(project=_project(seen))

    async def UpdateProject(
        self, request: pb.UpdateProjectRequest, context: Context
    ) -> pb.UpdateProjectResponse:
        with Checks() as checks:
            checks.text("project_id", request.project_id, 1, 100)
            changes = _changes(checks, request)
        _must_change(changes)
        seen = await self._room.update(
            caller(context),
            request.project_id,
            changes,
            expected_version=expected_version(request),
        )
        return pb.UpdateProjectResponse(project=_project(seen))

    async def DeleteProject(
        self, request: pb.DeleteProjectRequest, context: Context
    ) -> pb.DeleteProjectResponse:
        _check_id("project_id", request.project_id)
        await self._room.delete(
            caller(context), request.project_id, expected_version=expected_version(request)
        )
        return pb.DeleteProjectResponse()

    async def GetProjectBudget(
        self, request: pb.GetProjectBudgetRequest, context: Context
    ) -> pb.GetProjectBudgetResponse:
        with Checks() as checks:
            checks.text("project_id", request.project_id, 1, 100)
            size = page_size(checks, "page_size", request.page_size)
            page = from_page_token(checks, "page_token", request.page_token)
        family = await self._room.project_budget(
            caller(context), request.project_id, after=page[1] if page else "", limit=size
        )
        return pb.GetProjectBudgetResponse(
            budget=_budget(family.own),
            children=[_budget(each) for each in family.children],
            next_page_token=_next_page(family),
        )

    async def GetOrganisation(
        self,
        request: pb.GetOrganisationRequest,  # noqa: ARG002 - the shape of a servicer
        context: Context,  # noqa: ARG002
    ) -> pb.GetOrganisationResponse:
        return pb.GetOrganisationResponse(
            organisation=_organisation(await self._room.organisation())
        )

    async def UpdateOrganisation(
        self, request: pb.UpdateOrganisationRequest, context: Context
    ) -> pb.UpdateOrganisationResponse:
        with Checks() as checks:
            changes = _changes(checks, request)
        _must_change(changes)
        seen = await self._room.update_organisation(
            caller(context), changes, expected_version=expected_version(request)
        )
        return pb.UpdateOrganisationResponse(organisation=_organisation(seen))

    async def GetOrganisationBudget(
        self, request: pb.GetOrganisationBudgetRequest, context: Context
    ) -> pb.GetOrganisationBudgetResponse:
        with Checks() as checks:
            size = page_size(checks, "page_size", request.page_size)
            page = from_page_token(checks, "page_token", request.page_token)
        family = await self._room.organisation_budget(
            caller(context), after=page[1] if page else "", limit=size
        )
        return pb.GetOrganisationBudgetResponse(
            budget=_budget(family.own),
            children=[_budget(each) for each in family.children],
            next_page_token=_next_page(family),
        )

    async def GetAgentBudget(
        self, request: pb.GetAgentBudgetRequest, context: Context
    ) -> pb.GetAgentBudgetResponse:
        _check_id("agent_id", request.agent_id)
        path, available = await self._room.agent_budget(caller(context), request.agent_id)
        return pb.GetAgentBudgetResponse(
            path=[_budget(each) for each in path], available_nanousd=available
        )


def _check_id(field: str, name: str) -> None:
    with Checks() as checks:
        checks.text(field, name, 1, 100)


def _check_name(checks: Checks, name: str) -> None:
    checks.text("name", name, 1, 100)
    if name and not name.strip():
        checks.add("name", "is blank")


def _check_budget(checks: Checks, budget_nanousd: int | None) -> None:
    if budget_nanousd is not None and not 0 <= budget_nanousd <= MAX_BUDGET_NANOUSD:
        checks.add(
            "budget_usd", f"is {budget_nanousd} nano-dollars; it must be from $0 to $100,000,000"
        )


def _changes(
    checks: Checks, request: pb.UpdateProjectRequest | pb.UpdateOrganisationRequest
) -> Changes:
    changes = Changes(
        name=request.name if request.HasField("name") else None,
        budget_nanousd=request.budget_nanousd if request.HasField("budget_nanousd") else None,
        unlimited=request.unlimited,
        mode=mode_word(checks, "mode", request.mode),
        period=period_word(checks, "period", request.period),
    )
    if changes.name is not None:
        _check_name(checks, changes.name)
    _check_budget(checks, changes.budget_nanousd)
    if changes.unlimited and changes.budget_nanousd is not None:
        checks.add("unlimited", "is true, and `budget_usd` is given; leave one out")
    return changes


def _must_change(changes: Changes) -> None:
    if changes == Changes():
        raise InvalidArgument(
            "nothing to change; give `name`, `budget_usd`, `unlimited`, `mode` or `period`",
            reason="NO_FIELDS_PROVIDED",
        )


def _next_page(family: Family) -> str:
    return to_page_token(0, family.next_after) if family.next_after else ""


def _project(seen: Seen) -> pb.Project:
    project = seen.project
    return pb.Project(
        id=project.project_id,
        name=project.name,
        budget=_budget(Named(project.name, seen.balance)),
        created_at=timestamp(project.created_at_us),
        updated_at=timestamp(project.updated_at_us),
        version=project.version,
    )


def _organisation(seen: SeenOrganisation) -> pb.Organisation:
    organisation = seen.organisation
    return pb.Organisation(
        id=organisation.organisation_id,
        name=organisation.name,
        budget=_budget(Named(organisation.name, seen.balance)),
        updated_at=timestamp(organisation.updated_at_us),
        version=organisation.version,
    )


def _budget(named: Named) -> scopes_pb2.ScopeBudget:
    balance = named.balance
    return scopes_pb2.ScopeBudget(
        scope=balance.scope,
        id=balance.id,
        name=named.name,
        limit_nanousd=balance.terms.budget_nanousd,
        spent_nanousd=balance.spent_nanousd,
        reserved_nanousd=balance.leased_nanousd,
        available_nanousd=balance.available_nanousd,
        overrun_nanousd=balance.overrun_nanousd,
        percent_used=balance.percent_used,
        mode=MODES[balance.terms.mode],
        period=PERIODS[balance.terms.period],
        period_start=timestamp(balance.starts_at_us),
        period_end=timestamp(balance.ends_at_us),
    )
