"""Projects and the organisation, as they can be asked of a server; as in resources.py."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from steward.budget.v1 import scopes_pb2
from steward.projects.v1 import projects_pb2
from steward.projects.v1.projects_pb2_grpc import ProjectServiceStub
from steward_client.client.calls import Call, Manner, Resource, every, first, nothing, rpc
from steward_client.client.values import (
    BudgetMode,
    BudgetPeriod,
    BudgetTree,
    Organisation,
    Project,
    ScopeBudget,
    value_of,
)
from steward_client.money import nanousd

Usd = str | Decimal | float
"""An amount in dollars, exact to nine decimals; a float stands for the shortest decimal of it."""

PAGE_SIZE = 500


class Projects(Resource[Manner]):
    """Budgets that agents share."""

    @rpc
    def create(
        self,
        name: str,
        *,
        budget_usd: Usd | None = None,
        mode: BudgetMode = "restrictive",
        period: BudgetPeriod = "none",
        request_id: str = "",
    ) -> Call[Project]:
        """Create a project; None for its budget is no limit.

        A restrictive budget lends nothing beyond itself, an informative one counts and warns.
        `request_id` names the creation, so that repeating it gives the same project; made up if
        empty.
        """
        return Call(
            ProjectServiceStub,
            "CreateProject",
            projects_pb2.CreateProjectRequest(
                name=name,
                budget_nanousd=None if budget_usd is None else nanousd(budget_usd),
                mode=_mode(mode),
                period=period_number(period),
                request_id=request_id or secrets.token_hex(16),
            ),
            read=first(lambda answer: value_of(Project, answer.project)),
            repeatable=True,
        )

    @rpc
    def list(self) -> Call[tuple[Project, ...]]:
        """All projects the caller may see, newest first."""

        def page(token: str) -> projects_pb2.ListProjectsRequest:
            return projects_pb2.ListProjectsRequest(page_size=PAGE_SIZE, page_token=token)

        return Call(
            ProjectServiceStub,
            "ListProjects",
            page(""),
            read=every(lambda answer: [value_of(Project, each) for each in answer.projects]),
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )

    @rpc
    def get(self, project_id: str) -> Call[Project]:
        """One project."""
        return Call(
            ProjectServiceStub,
            "GetProject",
            projects_pb2.GetProjectRequest(project_id=project_id),
            read=first(lambda answer: value_of(Project, answer.project)),
            repeatable=True,
        )

    @rpc
    def update(
        self,
        project_id: str,
        *,
        name: str | None = None,
        budget_usd: Usd | None = None,
        unlimited: bool = False,
        mode: BudgetMode | None = None,
        period: BudgetPeriod | None = None,
    ) -> Call[Project]:
        """Change what is given; `unlimited` takes the limit away.

        Raises:
            Conflict: a restrictive budget would be below what is spent and lent already.
        """
        return Call(
            ProjectServiceStub,
            "UpdateProject",
            projects_pb2.UpdateProjectRequest(
                project_id=project_id,
                name=name,
                budget_nanousd=None if budget_usd is None else nanousd(budget_usd),
                unlimited=unlimited,
                mode=_mode(mode),
                period=period_number(period),
            ),
            read=first(lambda answer: value_of(Project, answer.project)),
            repeatable=True,
        )

    @rpc
    def delete(self, project_id: str) -> Call[None]:
        """Delete a project.

        Raises:
            Conflict: agents belong to it.
        """
        return Call(
            ProjectServiceStub,
            "DeleteProject",
            projects_pb2.DeleteProjectRequest(project_id=project_id),
            read=nothing,
        )

    @rpc
    def budget(self, project_id: str) -> Call[BudgetTree]:
        """How the project's money stands, and that of its agents."""

        def page(token: str) -> projects_pb2.GetProjectBudgetRequest:
            return projects_pb2.GetProjectBudgetRequest(
                project_id=project_id, page_size=PAGE_SIZE, page_token=token
            )

        return Call(
            ProjectServiceStub,
            "GetProjectBudget",
            page(""),
            read=_tree,
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )


class Organisations(Resource[Manner]):
    """The organisation, of which there is one: its name and its budget."""

    @rpc
    def get(self) -> Call[Organisation]:
        """The organisation."""
        return Call(
            ProjectServiceStub,
            "GetOrganisation",
            projects_pb2.GetOrganisationRequest(),
            read=first(lambda answer: value_of(Organisation, answer.organisation)),
            repeatable=True,
        )

    @rpc
    def update(
        self,
        *,
        name: str | None = None,
        budget_usd: Usd | None = None,
        unlimited: bool = False,
        mode: BudgetMode | None = None,
        period: BudgetPeriod | None = None,
    ) -> Call[Organisation]:
        """Change what is given; `unlimited` takes the limit away.

        Raises:
            Conflict: a restrictive budget would be below what is spent and lent already.
        """
        return Call(
            ProjectServiceStub,
            "UpdateOrganisation",
            projects_pb2.UpdateOrganisationRequest(
                name=name,
                budget_nanousd=None if budget_usd is None else nanousd(budget_usd),
                unlimited=unlimited,
                mode=_mode(mode),
                period=period_number(period),
            ),
            read=first(lambda answer: value_of(Organisation, answer.organisation)),
            repeatable=True,
        )

    @rpc
    def budget(self) -> Call[BudgetTree]:
        """How its money stands, that of its projects, and of agents that belong to none."""

        def page(token: str) -> projects_pb2.GetOrganisationBudgetRequest:
            return projects_pb2.GetOrganisationBudgetRequest(page_size=PAGE_SIZE, page_token=token)

        return Call(
            ProjectServiceStub,
            "GetOrganisationBudget",
            page(""),
            read=_tree,
            next_page=lambda answer: (
                page(answer.next_page_token) if answer.next_page_token else None
            ),
            repeatable=True,
        )


def _tree(answers: Sequence[Any]) -> BudgetTree:
    children = [value_of(ScopeBudget, each) for answer in answers for each in answer.children]
    return BudgetTree(value_of(ScopeBudget, answers[0].budget), tuple(children))


def _mode(word: BudgetMode | None) -> scopes_pb2.BudgetMode.ValueType:
    return scopes_pb2.BudgetMode.Value(f"BUDGET_MODE_{(word or 'unspecified').upper()}")


def period_number(word: BudgetPeriod | None) -> scopes_pb2.BudgetPeriod.ValueType:
    """A period as requests carry it; None for what is left as it is."""
    return scopes_pb2.BudgetPeriod.Value(f"BUDGET_PERIOD_{(word or 'unspecified').upper()}")
