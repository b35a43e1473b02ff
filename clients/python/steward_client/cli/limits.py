"""`steward limits`: what agents may call and spend beside their budgets."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

import click
from rich.table import Table

from steward_client.cli.output import card, dollars, moment, say, table
from steward_client.cli.steward import Steward, Usd, calls_server
from steward_client.client.values import Limit


@click.group()
def limits() -> None:
    """Show, set and remove limits. A scope is everyone, user:<id>, project:<id> or agent:<id>."""


@limits.command("show")
@calls_server
def show_limits(steward: Steward) -> None:
    """Show the limits and how far they are used."""
    steward.show(steward.client.limits.list(), _limit_table)


@limits.command("set")
@click.argument("scope")
@click.option("--requests-per-minute", type=click.IntRange(min=1), help="Calls in any 60 seconds.")
@click.option("--tokens-per-day", type=click.IntRange(min=1), help="Tokens of every kind, by UTC.")
@click.option("--cost-per-month", type=Usd(), help="Dollars spent and lent together, by UTC.")
@calls_server
def set_limit(
    steward: Steward,
    scope: str,
    *,
    requests_per_minute: int | None,
    tokens_per_day: int | None,
    cost_per_month: Decimal | None,
) -> None:
    """Set the limits of SCOPE in place of those it had; running agents are told at once."""
    if requests_per_minute is None and tokens_per_day is None and cost_per_month is None:
        raise click.UsageError(
            "pass --requests-per-minute, --tokens-per-day or --cost-per-month; "
            "to lift all, use: steward limits remove"
        )
    limit = steward.client.limits.set(
        scope,
        max_requests_per_minute=requests_per_minute,
        max_tokens_per_day=tokens_per_day,
        max_cost_per_month_usd=cost_per_month,
    )
    steward.show(limit, _limit_card)


@limits.command("remove")
@click.argument("scope")
@calls_server
def remove(steward: Steward, scope: str) -> None:
    """Lift all limits of SCOPE."""
    steward.client.limits.remove(scope)
    say(f"lifted the limits of {scope}")


def _of(used: str, limit: object) -> str:
    return "-" if limit is None else f"{used} of {limit}"


def _cost(limit: Limit) -> str:
    most = limit.max_cost_per_month_usd
    used = dollars(limit.cost_this_month_usd + limit.leased_usd)
    return _of(used, None if most is None else dollars(most))


def _limit_card(limit: Limit) -> Table:
    return card(
        [
            ("scope", limit.scope),
            (
                "requests a minute",
                _of(str(limit.requests_last_minute), limit.max_requests_per_minute),
            ),
            ("tokens today", _of(str(limit.tokens_today), limit.max_tokens_per_day)),
            ("dollars this month", _cost(limit)),
        ]
    )


def _limit_table(listed: Sequence[Limit]) -> Table:
    return table(
        ["SCOPE", "#REQUESTS/MIN", "#TOKENS TODAY", "#THIS MONTH", "TOKENS RESET", "MONTH RESET"],
        [
            (
                limit.scope,
                _of(str(limit.requests_last_minute), limit.max_requests_per_minute),
                _of(str(limit.tokens_today), limit.max_tokens_per_day),
                _cost(limit),
                moment(limit.tokens_reset_at),
                moment(limit.cost_reset_at),
            )
            for limit in listed
        ],
    )
