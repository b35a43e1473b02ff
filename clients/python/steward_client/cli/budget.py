"""`steward budget`: where the money is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal

import click
from rich.console import Group
from rich.table import Table

from steward_client.cli.output import (
    card,
    dollars,
    json_text,
    line,
    moment,
    per_period,
    table,
    word,
)
from steward_client.cli.projects import scope_table
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.values import Budget, ScopeBudget


@dataclass(frozen=True, slots=True)
class AgentBudget:
    """Whose budget."""

    agent_id: str
    name: str
    budget: Budget


@dataclass(frozen=True, slots=True)
class AgentBudgetPath:
    """An agent's budget, and every budget that limits it, its own first."""

    budget: Budget
    path: tuple[ScopeBudget, ...]


@click.group()
def budget() -> None:
    """See what is spent, what is lent and what is left."""


@budget.command("show")
@click.argument("agent", required=False)
@calls_server
def show_budget(steward: Steward, agent: str | None) -> None:
    """Show the budget of one agent (by id, or by name) and those above it, or of all agents."""
    if agent:
        agent_id = steward.agent_id(agent)
        status = steward.client.budget.status(agent_id)
        path = steward.client.budget.path(agent_id).path
        if steward.as_json:
            line(json_text({**asdict(status), "path": path}))
        else:
            steward.show(AgentBudgetPath(status, path), _budget_card)
        return
    listed = steward.client.agents.list()
    steward.show([AgentBudget(each.id, each.name, each.budget) for each in listed], _budget_table)


def _budget_card(shown: AgentBudgetPath) -> Group:
    status = shown.budget
    own = card(
        [
            ("state", word(status.state)),
            ("limit", per_period(status.limit_usd, status.period)),
            ("spent", f"{dollars(status.spent_usd)} ({status.percent_used:.1f} %)"),
            ("lent", dollars(status.reserved_usd)),
            ("left", dollars(status.available_usd)),
            ("overrun", dollars(status.overrun_usd)),
            ("until", moment(status.period_end)),
        ]
    )
    return Group(own, scope_table(shown.path))


def _budget_table(listed: Sequence[AgentBudget]) -> Table:
    def total(name: str) -> str:
        return dollars(sum((getattr(each.budget, name) for each in listed), Decimal(0)))

    return table(
        ["AGENT", "NAME", "#LIMIT", "#SPENT", "#LENT", "#LEFT", "#USED"],
        [
            (
                each.agent_id,
                each.name,
                dollars(each.budget.limit_usd),
                dollars(each.budget.spent_usd),
                dollars(each.budget.reserved_usd),
                dollars(each.budget.available_usd),
                f"{each.budget.percent_used:.1f} %",
            )
            for each in listed
        ],
        totals=(
            "total",
            "",
            total("limit_usd"),
            total("spent_usd"),
            total("reserved_usd"),
            total("available_usd"),
            "",
        ),
    )
