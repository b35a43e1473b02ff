"""`steward agents`: who may spend, how much, and whether they should be running."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import click
from rich.table import Table

from steward_client.cli.output import card, dollars, line, moment, per_period, say, table, word
from steward_client.cli.steward import Steward, Usd, calls_server
from steward_client.client.values import Agent, AgentReport, BudgetPeriod

COLUMNS = ["ID", "NAME", "STATUS", "#LIMIT", "#SPENT", "#LENT", "#LEFT", "PROJECT", "PROVIDER"]

PERIODS = click.Choice(["none", "day", "week", "month"])


@click.group()
def agents() -> None:
    """Create agents, see and change them, stop and start them."""


@agents.command("create")
@click.argument("name")
@click.option("--budget", "budget_usd", type=Usd(), required=True, help="In dollars.")
@click.option("--provider", default="", help="The only provider it may use; any if left out.")
@click.option("--project", default="", help="The project whose budget it shares.")
@click.option(
    "--period", type=PERIODS, default="none", help="How often its budget begins anew (UTC)."
)
@click.option("--quiet", "-q", is_flag=True, help="Print only the agent's id.")
@calls_server
def create(
    steward: Steward,
    name: str,
    *,
    budget_usd: Decimal,
    provider: str,
    project: str,
    period: BudgetPeriod,
    quiet: bool,
) -> None:
    """Create an agent with its budget."""
    agent = steward.client.agents.create(
        name,
        budget_usd=budget_usd,
        provider=provider,
        project_id=steward.project_id(project),
        budget_period=period,
    )
    if quiet:
        line(agent.id)
        return
    steward.show(agent, _agent_card)


@agents.command("list")
@calls_server
def list_agents(steward: Steward) -> None:
    """List agents and their money, newest first."""
    steward.show(steward.client.agents.list(), _agent_table)


@agents.command("show")
@click.argument("agent")
@calls_server
def show_agent(steward: Steward, agent: str) -> None:
    """Show one agent (by id, or by name) as of the newest commit."""
    steward.show(steward.client.agents.status(steward.agent_id(agent)), _report_card)


@agents.command("update")
@click.argument("agent")
@click.option("--name", help="Another name.")
@click.option("--budget", "budget_usd", type=Usd(), help="Another limit, in dollars.")
@click.option("--provider", help="The only provider it may use; '' for any.")
@click.option("--project", help="The project whose budget it shares; '' for none.")
@click.option("--period", type=PERIODS, help="How often its budget begins anew (UTC).")
@calls_server
def update(
    steward: Steward,
    agent: str,
    *,
    name: str | None,
    budget_usd: Decimal | None,
    provider: str | None,
    project: str | None,
    period: BudgetPeriod | None,
) -> None:
    """Change an agent; a new budget reaches what runs at once."""
    changed = steward.client.agents.update(
        steward.agent_id(agent),
        name=name,
        budget_usd=budget_usd,
        provider=provider,
        project_id=None if project is None else steward.project_id(project),
        budget_period=period,
    )
    steward.show(changed, _agent_card)


@agents.command("stop")
@click.argument("agent")
@click.option("--reason", default="", help="Shown to whoever runs it.")
@calls_server
def stop(steward: Steward, agent: str, *, reason: str) -> None:
    """Ask an agent to stop: its script is ended, its money taken back."""
    agent_id = steward.agent_id(agent)
    status = steward.client.agents.stop(agent_id, reason=reason)
    steward.show({"agent_id": agent_id, "status": status}, _status_card)


@agents.command("start")
@click.argument("agent")
@calls_server
def start(steward: Steward, agent: str) -> None:
    """Let a stopped agent run again."""
    agent_id = steward.agent_id(agent)
    status = steward.client.agents.start(agent_id)
    steward.show({"agent_id": agent_id, "status": status}, _status_card)


@agents.command("delete")
@click.argument("agent")
@calls_server
def delete(steward: Steward, agent: str) -> None:
    """Delete an agent and revoke its token; what it spent stays written down."""
    agent_id = steward.agent_id(agent)
    steward.client.agents.delete(agent_id)
    say(f"deleted {agent_id}")


def _agent_table(listed: Sequence[Agent]) -> Table:
    return table(
        COLUMNS,
        [
            (
                agent.id,
                agent.name,
                word(agent.status),
                dollars(agent.budget.limit_usd),
                dollars(agent.budget.spent_usd),
                dollars(agent.budget.reserved_usd),
                dollars(agent.budget.available_usd),
                agent.project_id or "-",
                agent.provider or "any",
            )
            for agent in listed
        ],
    )


def _agent_card(agent: Agent) -> Table:
    return card(
        [
            ("id", agent.id),
            ("name", agent.name),
            ("status", word(agent.status)),
            ("limit", per_period(agent.budget.limit_usd, agent.budget.period)),
            ("spent", dollars(agent.budget.spent_usd)),
            ("project", agent.project_id or "-"),
            ("provider", agent.provider or "any"),
            ("created", moment(agent.created_at)),
        ]
    )


def _report_card(report: AgentReport) -> Table:
    budget = report.budget
    ended = [("exit code", str(report.exit_code))] if report.exit_code is not None else []
    return card(
        [
            ("id", report.agent_id),
            ("name", report.name),
            ("status", word(report.status)),
            ("should be", report.desired_state),
            ("limit", per_period(budget.limit_usd, budget.period)),
            ("spent", f"{dollars(budget.spent_usd)} ({budget.percent_used:.1f} %)"),
            ("lent", f"{dollars(budget.reserved_usd)} in {report.open_leases} leases"),
            ("left", dollars(budget.available_usd)),
            ("last seen", moment(report.last_seen_at)),
            ("started", moment(report.started_at)),
            ("stopped", moment(report.stopped_at)),
            *ended,
            ("as of commit", str(report.commit_number)),
        ]
    )


def _status_card(shown: dict[str, str]) -> Table:
    return card([("id", shown["agent_id"]), ("status", word(shown["status"]))])
