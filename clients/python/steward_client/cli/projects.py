"""`steward projects` and `steward organisation`: budgets that agents share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import click
from rich.console import Group
from rich.table import Table

from steward_client.cli.output import card, dollars, line, moment, per_period, say, table
from steward_client.cli.steward import Steward, Usd, calls_server
from steward_client.client.values import (
    BudgetMode,
    BudgetPeriod,
    BudgetTree,
    Organisation,
    Project,
    ScopeBudget,
)

MODES = click.Choice(["restrictive", "informative"])
PERIODS = click.Choice(["none", "day", "week", "month"])


def budget_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is said of a budget that is changed."""
    for option in (
        click.option("--period", type=PERIODS, help="How often it begins anew (UTC)."),
        click.option("--mode", type=MODES, help="Whether it blocks, or counts and warns."),
        click.option("--unlimited", is_flag=True, help="Take the limit away."),
        click.option("--budget", "budget_usd", type=Usd(), help="In dollars."),
        click.option("--name", help="Another name."),
    ):
        command = option(command)
    return command


@click.group()
def projects() -> None:
    """Create projects, see and change them, and see how their money stands."""


@projects.command("create")
@click.argument("name")
@click.option("--budget", "budget_usd", type=Usd(), help="In dollars; no limit if left out.")
@click.option(
    "--mode", type=MODES, default="restrictive", help="Whether it blocks, or counts and warns."
)
@click.option("--period", type=PERIODS, default="none", help="How often it begins anew (UTC).")
@click.option("--quiet", "-q", is_flag=True, help="Print only the project's id.")
@calls_server
def create(
    steward: Steward,
    name: str,
    *,
    budget_usd: Decimal | None,
    mode: BudgetMode,
    period: BudgetPeriod,
    quiet: bool,
) -> None:
    """Create a project."""
    project = steward.client.projects.create(name, budget_usd=budget_usd, mode=mode, period=period)
    if quiet:
        line(project.id)
        return
    steward.show(project, _project_card)


@projects.command("list")
@calls_server
def list_projects(steward: Steward) -> None:
    """List projects and their money, newest first."""
    steward.show(
        steward.client.projects.list(), lambda found: scope_table([each.budget for each in found])
    )


@projects.command("show")
@click.argument("project")
@calls_server
def show_project(steward: Steward, project: str) -> None:
    """Show how the money of a project (by id, or by name) and of its agents stands."""
    steward.show(steward.client.projects.budget(steward.project_id(project)), _tree)


@projects.command("update")
@click.argument("project")
@budget_options
@calls_server
def update(
    steward: Steward,
    project: str,
    *,
    name: str | None,
    budget_usd: Decimal | None,
    unlimited: bool,
    mode: BudgetMode | None,
    period: BudgetPeriod | None,
) -> None:
    """Change a project."""
    changed = steward.client.projects.update(
        steward.project_id(project),
        name=name,
        budget_usd=budget_usd,
        unlimited=unlimited,
        mode=mode,
        period=period,
    )
    steward.show(changed, _project_card)


@projects.command("delete")
@click.argument("project")
@calls_server
def delete(steward: Steward, project: str) -> None:
    """Delete a project that no agent belongs to; what was spent in it stays written down."""
    project_id = steward.project_id(project)
    steward.client.projects.delete(project_id)
    say(f"deleted {project_id}")


@click.group()
def organisation() -> None:
    """See and change the budget that holds all others."""


@organisation.command("show")
@calls_server
def show_organisation(steward: Steward) -> None:
    """Show how the money of the organisation and of its projects stands."""
    steward.show(steward.client.organisation.budget(), _tree)


@organisation.command("update")
@budget_options
@calls_server
def update_organisation(
    steward: Steward,
    *,
    name: str | None,
    budget_usd: Decimal | None,
    unlimited: bool,
    mode: BudgetMode | None,
    period: BudgetPeriod | None,
) -> None:
    """Change the organisation's name or budget."""
    changed = steward.client.organisation.update(
        name=name, budget_usd=budget_usd, unlimited=unlimited, mode=mode, period=period
    )
    steward.show(changed, _organisation_card)


def scope_table(budgets: Sequence[ScopeBudget]) -> Table:
    """Budgets of any kind, a line each."""
    return table(
        ["SCOPE", "NAME", "#LIMIT", "MODE", "#SPENT", "#LENT", "#LEFT", "#USED", "UNTIL"],
        [
            (
                each.scope,
                each.name,
                per_period(each.limit_usd, each.period),
                each.mode,
                dollars(each.spent_usd),
                dollars(each.reserved_usd),
                "-" if each.available_usd is None else dollars(each.available_usd),
                "-" if each.percent_used is None else f"{each.percent_used:.1f} %",
                moment(each.period_end),
            )
            for each in budgets
        ],
    )


def _tree(shown: BudgetTree) -> Group:
    return Group(scope_table([shown.budget]), scope_table(shown.children))


def _project_card(project: Project) -> Table:
    return card([*_lines(project), ("created", moment(project.created_at))])


def _organisation_card(shown: Organisation) -> Table:
    return card(_lines(shown))


def _lines(shown: Project | Organisation) -> list[tuple[str, str]]:
    budget = shown.budget
    return [
        ("id", shown.id),
        ("name", shown.name),
        ("limit", per_period(budget.limit_usd, budget.period)),
        ("mode", budget.mode),
        ("spent", dollars(budget.spent_usd)),
        ("lent", dollars(budget.reserved_usd)),
        ("left", "-" if budget.available_usd is None else dollars(budget.available_usd)),
    ]
