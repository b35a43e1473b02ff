"""`steward budget request` and what follows it: asking for more, deciding, looking back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, get_args

import click
from rich.table import Table
from rich.text import Text

from steward_client.cli.output import card, dollars, moment, say, table, word
from steward_client.cli.steward import Steward, Usd, calls_server
from steward_client.client.values import BudgetHistory, BudgetRequest, BudgetRequestStatus

_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Span(click.ParamType[int]):
    """A length of time in whole seconds: `90s`, `45m`, `2h`, `7d`."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", value)
        if found is None:
            self.fail(f"{value!r} is no length of time; say 90s, 45m, 2h or 7d", param, ctx)
        return int(found[1]) * _UNITS_S[found[2]]


@click.command("request")
@click.argument("agent")
@click.argument("budget_usd", metavar="BUDGET", type=Usd())
@click.option("--justification", "-m", required=True, help="20 to 500 characters.")
@click.option("--for", "expires_in_s", type=Span(), help="How long it is to hold; for good if not.")
@calls_server
def request(
    steward: Steward,
    agent: str,
    budget_usd: Decimal,
    *,
    justification: str,
    expires_in_s: int | None,
) -> None:
    """Ask that an agent's budget be raised to BUDGET dollars in all."""
    made = steward.client.budget_requests.create(
        steward.agent_id(agent), budget_usd, justification, expires_in_s=expires_in_s
    )
    steward.show(made, _card)


@click.command("requests")
@click.option("--agent", help="Only those about this agent (by id, or by name).")
@click.option("--status", type=click.Choice(get_args(BudgetRequestStatus)[1:]))
@calls_server
def requests(steward: Steward, *, agent: str | None, status: BudgetRequestStatus | None) -> None:
    """List requests for larger budgets, newest first."""
    agent_id = steward.agent_id(agent) if agent else ""
    listed = steward.client.budget_requests.list(agent_id=agent_id, status=status)
    steward.show(listed, _table)


@click.command("approve")
@click.argument("request_id")
@click.option("--budget", "budget_usd", type=Usd(), help="Less than was asked, in dollars.")
@click.option("--for", "expires_in_s", type=Span(), help="How long it holds; as asked if not.")
@click.option("--notes", default="", help="For whoever asked.")
@calls_server
def approve(
    steward: Steward,
    request_id: str,
    *,
    budget_usd: Decimal | None,
    expires_in_s: int | None,
    notes: str,
) -> None:
    """Raise a budget as it was asked; what runs goes on with it at once."""
    approved = steward.client.budget_requests.approve(
        request_id, budget_usd=budget_usd, notes=notes, expires_in_s=expires_in_s
    )
    steward.show(approved, _card)


@click.command("reject")
@click.argument("request_id")
@click.option("--reason", required=True, help="For whoever asked; 20 to 1,000 characters.")
@calls_server
def reject(steward: Steward, request_id: str, *, reason: str) -> None:
    """Turn a request down."""
    steward.show(steward.client.budget_requests.reject(request_id, reason), _card)


@click.command("cancel")
@click.argument("request_id")
@calls_server
def cancel(steward: Steward, request_id: str) -> None:
    """Take a request back."""
    steward.client.budget_requests.cancel(request_id)
    say(f"cancelled {request_id}")


@click.command("history")
@click.argument("agent")
@calls_server
def history(steward: Steward, agent: str) -> None:
    """Show every change of an agent's budget, newest first."""
    steward.show(steward.client.budget_requests.history(steward.agent_id(agent)), _history)


COMMANDS = [request, requests, approve, reject, cancel, history]
"""What `steward budget` has beside `show`."""


def _card(shown: BudgetRequest) -> Table:
    rows: list[tuple[str, str | Text]] = [
        ("id", shown.id),
        ("agent", f"{shown.agent_id} ({shown.agent_name})"),
        ("status", word(shown.status)),
        ("asked by", f"{shown.requester_id} ({shown.requester_name})"),
        ("asked", f"{dollars(shown.requested_budget_usd)}, for {_span(shown.expires_in_s)}"),
        ("had then", dollars(shown.current_budget_usd)),
        ("because", shown.justification),
    ]
    if shown.reviewer_id is not None:
        rows.append(("decided", f"{moment(shown.reviewed_at)} by {shown.reviewer_id}"))
    if shown.approved_budget_usd is not None:
        until = f", until {moment(shown.expires_at)}" if shown.expires_at else ""
        rows.append(("granted", f"{dollars(shown.approved_budget_usd)}{until}"))
    if said := shown.review_notes or shown.rejection_reason:
        rows.append(("they said", said))
    return card(rows)


def _table(listed: Sequence[BudgetRequest]) -> Table:
    return table(
        ["ID", "AGENT", "STATUS", "#HAD", "#ASKED", "#GRANTED", "FOR", "ASKED BY", "ASKED AT"],
        [
            (
                each.id,
                each.agent_name,
                word(each.status),
                dollars(each.current_budget_usd),
                dollars(each.requested_budget_usd),
                dollars(each.approved_budget_usd) if each.approved_budget_usd else "-",
                _span(each.expires_in_s),
                each.requester_name,
                moment(each.created_at),
            )
            for each in listed
        ],
    )


def _history(shown: BudgetHistory) -> Table:
    summary = shown.summary
    return table(
        ["AT", "#FROM", "#TO", "BY", "WHY", "REQUEST"],
        [
            (
                moment(each.changed_at),
                dollars(each.old_budget_usd),
                dollars(each.new_budget_usd),
                each.changed_by or "-",
                each.reason or each.cause.replace("_", " "),
                each.budget_request_id or "-",
            )
            for each in shown.changes
        ],
        totals=(
            f"{summary.change_count} changes",
            dollars(summary.initial_budget_usd),
            dollars(summary.current_budget_usd),
            "",
            "",
            "",
        ),
    )


def _span(seconds: int | None) -> str:
    """A length of time as it is given: the largest unit that it is whole in."""
    if seconds is None:
        return "good"
    unit = next(unit for unit in reversed(_UNITS_S) if seconds % _UNITS_S[unit] == 0)
    return f"{seconds // _UNITS_S[unit]}{unit}"
