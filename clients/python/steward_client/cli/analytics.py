"""`steward analytics` and `steward usage`: what agents spent and used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, get_args

import click
from rich.table import Table
from rich.text import Text

from steward_client.cli.output import card, decimal_text, dollars, moment, table, word
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.figures import (
    AgentBudgetStatus,
    AgentUsage,
    BudgetStatusReport,
    CostPerRequest,
    Period,
    RequestUsage,
    RiskLevel,
    SpendingByAgent,
    SpendingByProvider,
    SpendingGroupBy,
    SpendingOverTime,
    SpendingStatus,
    SpendingStep,
    TokensByAgent,
    TotalSpending,
    Usage,
    UsageByModel,
)

PERIODS = get_args(Period)
RISKS = get_args(RiskLevel)[1:]
STATUSES = get_args(SpendingStatus)[1:]
SPENDING_STEPS = get_args(SpendingStep)[1:]
GROUPS = get_args(SpendingGroupBy)[1:]


@click.group()
def analytics() -> None:
    """See what was spent and used, by agent, provider and model."""


def asks(default: str = "all-time") -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that choose what it is about, as `chosen`."""

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        @click.option(
            "--period",
            type=click.Choice(PERIODS),
            default=default,
            show_default=True,
            help="In UTC.",
        )
        @click.option("--agent", default="", help="Only this agent, by id or by name.")
        @click.option("--project", default="", help="Only this project's agents, by id or by name.")
        @click.option("--provider", default="", help="Only this provider, by name.")
        @click.option("--model", default="", help="Only this model.")
        @calls_server
        def wrapped(
            steward: Steward,
            *,
            period: str,
            agent: str,
            project: str,
            provider: str,
            model: str,
            **more: Any,
        ) -> None:
            chosen = {
                "period": period,
                "agent_id": steward.agent_id(agent) if agent else "",
                "project_id": steward.project_id(project),
                "provider": provider,
                "model": model,
            }
            command(steward, chosen, **more)

        wrapped.__doc__ = command.__doc__
        return wrapped

    return wrap


@analytics.command("total")
@asks()
def total(steward: Steward, chosen: dict[str, Any]) -> None:
    """Show what was spent in all."""
    steward.show(steward.client.analytics.total_spending(**chosen), _total_card)


@analytics.command("by-agent")
@asks()
def by_agent(steward: Steward, chosen: dict[str, Any]) -> None:
    """List agents that spent, the most first."""
    steward.show(steward.client.analytics.spending_by_agent(**chosen), _agent_table)


@analytics.command("by-provider")
@asks()
def by_provider(steward: Steward, chosen: dict[str, Any]) -> None:
    """List providers that were paid, the most first."""
    steward.show(steward.client.analytics.spending_by_provider(**chosen), _provider_table)


@analytics.command("over-time")
@click.option("--step", type=click.Choice(SPENDING_STEPS), help="How long each step is.")
@click.option("--group-by", type=click.Choice(GROUPS), help="Tell the 8 largest of these apart.")
@asks(default="today")
def over_time(
    steward: Steward,
    chosen: dict[str, Any],
    *,
    step: SpendingStep | None,
    group_by: SpendingGroupBy | None,
) -> None:
    """Show what was spent in each step of a period, oldest first."""
    found = steward.client.analytics.spending_over_time(**chosen, step=step, group_by=group_by)
    steward.show(found, _over_time_table)


@analytics.command("cost")
@asks()
def cost(steward: Steward, chosen: dict[str, Any]) -> None:
    """Show what a call cost: on average, the cheapest, the dearest."""
    steward.show(steward.client.analytics.cost_per_request(**chosen), _cost_card)


@analytics.command("requests")
@asks(default="today")
def requests(steward: Steward, chosen: dict[str, Any]) -> None:
    """Show how many calls were made, and how many failed."""
    steward.show(steward.client.analytics.request_usage(**chosen), _requests_card)


@analytics.command("tokens")
@asks()
def tokens(steward: Steward, chosen: dict[str, Any]) -> None:
    """List agents by the tokens of their calls, the most first."""
    steward.show(steward.client.analytics.tokens_by_agent(**chosen), _token_table)


@analytics.command("models")
@asks()
def models(steward: Steward, chosen: dict[str, Any]) -> None:
    """List models, the one asked most often first."""
    steward.show(steward.client.analytics.models(**chosen), _model_table)


@analytics.command("budgets")
@click.option("--above", type=click.FloatRange(0), help="Only those above so many percent.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this state.")
@click.option("--risk", type=click.Choice(RISKS), help="Only those with this risk.")
@click.option("--project", default="", help="Only this project's agents, by id or by name.")
@calls_server
def budgets(
    steward: Steward,
    *,
    above: float | None,
    status: SpendingStatus | None,
    risk: RiskLevel | None,
    project: str,
) -> None:
    """List agents by the share of their budget they have used, the largest first."""
    report = steward.client.analytics.budget_status(
        threshold=above,
        status=status,
        risk_level=risk,
        project_id=steward.project_id(project),
    )
    steward.show(report, _budget_table)


@click.command()
@click.argument("agent", required=False)
@click.option("--project", default="", help="Only this project's agents, by id or by name.")
@calls_server
def usage(steward: Steward, agent: str | None, *, project: str) -> None:
    """Show how the money of one agent (by id, or by name) stands, or of all."""
    agent_id = steward.agent_id(agent) if agent else ""
    project_id = steward.project_id(project)
    steward.show(steward.client.usage.show(agent_id=agent_id, project_id=project_id), _usage_table)


def _total_card(found: TotalSpending) -> Table:
    return card([("spent", dollars(found.total_spend_usd)), *_asked(found)])


def _agent_table(found: SpendingByAgent) -> Table:
    summary = found.summary
    return table(
        ["AGENT", "NAME", "#SPENT", "#LIMIT", "#USED", "#CALLS"],
        [
            (
                each.agent_id,
                each.agent_name,
                dollars(each.spending_usd),
                dollars(each.budget_usd),
                _percent(each.percent_used),
                str(each.request_count),
            )
            for each in found.data
        ],
        totals=(
            "total",
            "",
            dollars(summary.total_spend_usd),
            dollars(summary.total_budget_usd),
            "",
            str(sum(each.request_count for each in found.data)),
        ),
    )


def _provider_table(found: SpendingByProvider) -> Table:
    summary = found.summary
    return table(
        ["PROVIDER", "#SPENT", "#CALLS", "#A CALL", "#AGENTS"],
        [
            (
                each.provider,
                dollars(each.spending_usd),
                str(each.request_count),
                dollars(each.avg_cost_per_request_usd),
                str(each.agent_count),
            )
            for each in found.data
        ],
        totals=(
            "total",
            dollars(summary.total_spend_usd),
            str(summary.total_requests),
            dollars(summary.average_cost_per_request_usd),
            "",
        ),
    )


def _over_time_table(found: SpendingOverTime) -> Table:
    return table(
        ["FROM", "#SPENT", "#CALLS", "#TOKENS", *[f"#{group.name}" for group in found.groups]],
        [
            (
                moment(point.begins_at),
                dollars(point.spending_usd),
                str(point.request_count),
                str(point.total_tokens),
                *[dollars(group.data[index].spending_usd) for group in found.groups],
            )
            for index, point in enumerate(found.data)
        ],
        totals=(
            "total",
            dollars(found.total_spend_usd),
            str(found.total_requests),
            str(found.total_tokens),
            *[dollars(group.spending_usd) for group in found.groups],
        ),
    )


def _cost_card(found: CostPerRequest) -> Table:
    return card(
        [
            ("on average", dollars(found.average_cost_per_request_usd)),
            ("cheapest", dollars(found.min_cost_per_request_usd)),
            ("dearest", dollars(found.max_cost_per_request_usd)),
            ("calls", str(found.total_requests)),
            ("spent", dollars(found.total_spend_usd)),
            *_asked(found),
        ]
    )


def _requests_card(found: RequestUsage) -> Table:
    return card(
        [
            ("calls", str(found.total_requests)),
            ("succeeded", f"{found.successful_requests} ({found.success_rate:.1f} %)"),
            ("failed", str(found.failed_requests)),
            ("not booked", str(found.unbilled_requests)),
            *_asked(found),
        ]
    )


def _token_table(found: TokensByAgent) -> Table:
    summary = found.summary
    return table(
        ["AGENT", "NAME", "#INPUT", "#OUTPUT", "#CACHED", "#TOTAL", "#CALLS", "#A CALL"],
        [
            (
                each.agent_id,
                each.agent_name,
                str(each.input_tokens),
                str(each.output_tokens),
                str(each.cached_tokens),
                str(each.total_tokens),
                str(each.request_count),
                f"{each.avg_tokens_per_request:.0f}",
            )
            for each in found.data
        ],
        totals=(
            "total",
            "",
            str(summary.total_input_tokens),
            str(summary.total_output_tokens),
            str(summary.total_cached_tokens),
            str(summary.total_tokens),
            str(summary.total_requests),
            f"{summary.average_tokens_per_request:.0f}",
        ),
    )


def _model_table(found: UsageByModel) -> Table:
    summary = found.summary
    return table(
        ["MODEL", "PROVIDER", "#CALLS", "#SPENT", "#TOKENS", "#A CALL"],
        [
            (
                each.model,
                each.provider,
                str(each.request_count),
                dollars(each.spending_usd),
                str(each.total_tokens),
                dollars(each.avg_cost_per_request_usd),
            )
            for each in found.data
        ],
        totals=(
            "total",
            "",
            str(summary.total_requests),
            dollars(summary.total_spend_usd),
            str(sum(each.total_tokens for each in found.data)),
            "",
        ),
    )


def _budget_table(found: BudgetStatusReport) -> Table:
    return table(
        ["AGENT", "NAME", "#LIMIT", "#SPENT", "#LEFT", "#USED", "RISK", "STATUS"],
        [
            (
                each.agent_id,
                each.agent_name,
                dollars(each.budget_usd),
                dollars(each.spent_usd),
                dollars(each.remaining_usd),
                _percent(each.percent_used),
                _risk(each),
                word(each.status),
            )
            for each in found.data
        ],
    )


def _risk(each: AgentBudgetStatus | AgentUsage) -> Text:
    """How high it is, and whose budget it is of if that is not the agent's own."""
    kind = each.risk_scope.partition(":")[0]
    risk = word(each.risk_level)
    return risk if kind in ("", "agent") else risk.append(f" ({kind})")


def _usage_table(found: Usage) -> Table:
    totals = found.totals
    return table(
        [
            "AGENT",
            "NAME",
            "#LIMIT",
            "#SPENT",
            "#LENT",
            "#LEFT",
            "#USED",
            "RISK",
            "#CALLS",
            "#TOKENS",
        ],
        [
            (
                each.agent_id,
                each.agent_name,
                dollars(each.allocated_usd),
                dollars(each.spent_usd),
                dollars(each.reserved_usd),
                dollars(each.available_usd),
                _percent(each.percent_used),
                _risk(each),
                str(each.requests),
                str(each.tokens),
            )
            for each in found.agents
        ],
        totals=(
            "total",
            "",
            dollars(totals.allocated_usd),
            dollars(totals.spent_usd),
            dollars(totals.reserved_usd),
            dollars(totals.available_usd),
            _percent(totals.percent_used),
            "",
            str(totals.requests),
            str(totals.tokens),
        ),
    )


def _asked(found: TotalSpending | CostPerRequest | RequestUsage) -> Sequence[tuple[str, str]]:
    return [("period", found.period), ("as of", moment(found.calculated_at))]


def _percent(share: float) -> str:
    return f"{decimal_text(Decimal(f'{share:.1f}'))} %"
