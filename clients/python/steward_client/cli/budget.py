"""`steward budget`: where the money is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import click
from rich.table import Table

from steward_client.cli.output import card, dollars, table, word
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.values import Budget


@dataclass(frozen=True, slots=True)
class AgentBudget:
    """Whose budget."""

    agent_id: str
    name: str
    budget: Budget


@click.group()
def budget() -> None:
    """See what is spent, what is lent and what is left."""


@budget.command("show")
@click.argument("agent", required=False)
@calls_server
def show_budget(steward: Steward, agent: str | None) -> None:
    """Show the budget of one agent (by id, or by name), or of all."""
    if agent:
        status = steward.client.budget.status(steward.agent_id(agent))
        steward.show(status, _budget_card)
        return
    listed = steward.client.agents.list()
    steward.show([AgentBudget(each.id, each.name, each.budget) for each in listed], _budget_table)


def _budget_card(status: Budget) -> Table:
    return card(
        [
            ("state", word(status.state)),
            ("limit", dollars(status.limit_usd)),
            ("spent", f"{dollars(status.spent_usd)} ({status.percent_used:.1f} %)"),
            ("lent", dollars(status.reserved_usd)),
            ("left", dollars(status.available_usd)),
            ("overrun", dollars(status.overrun_usd)),
        ]
    )


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
