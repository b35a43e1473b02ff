"""`steward events`: what happens, as it happens."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice
from typing import get_args

import click

from steward_client.cli.endings import tell_cut
from steward_client.cli.output import dollars, json_text, line, moment, without_controls
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.events import (
    AgentStarted,
    AgentStopped,
    BudgetChanged,
    BudgetRequested,
    BudgetReviewed,
    BudgetWarning,
    CircuitOpened,
    CostUpdate,
    EnvironmentExpired,
    EnvironmentFailed,
    EnvironmentStarted,
    EnvironmentStopped,
    Event,
    EventData,
    EventType,
    Gap,
    PiiAlert,
    PolicyFailed,
    PolicyLoaded,
    PolicyUnloaded,
)


@click.group()
def events() -> None:
    """Follow what happens."""


@events.command("tail")
@click.option("--agent", help="Only events of this agent (by id, or by name).")
@click.option(
    "--type",
    "types",
    multiple=True,
    type=click.Choice(get_args(EventType)),
    help="Only events of this type; may be given again.",
)
@click.option("--since", type=click.IntRange(min=0), help="Begin after this sequence; 0 for all.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many events.")
@calls_server
def tail(
    steward: Steward,
    *,
    agent: str | None,
    types: tuple[EventType, ...],
    since: int | None,
    count: int | None,
) -> None:
    """Print events as they happen, until interrupted.

    With --json each line is one event. After a cut the stream goes on where it left off.
    """
    agent_id = steward.agent_id(agent) if agent else ""
    with steward.client.events.subscribe(
        agent_id=agent_id, types=types, since=since, on_cut=tell_cut
    ) as happening:
        for event in islice(happening, count):
            line(_json(event) if steward.as_json else _sentence(event))


def _json(event: Event) -> str:
    """The event as it travels over the WebSocket."""
    return json_text(
        {
            "type": event.type,
            "event_id": event.event_id,
            "sequence": event.sequence,
            "timestamp": event.timestamp,
            "agent_id": event.agent_id,
            "data": event.data,
        },
        indented=False,
    )


def _sentence(event: Event) -> str:
    who = event.agent_id or getattr(event.data, "environment_id", "")
    return (
        f"{moment(event.timestamp)}  {event.sequence:>6}  {who}  "
        f"{event.type:<15}  {_told(event.data)}"
    )


def _told(data: EventData) -> str:
    match data:
        case AgentStarted():
            return f"{data.script}, up to {dollars(data.budget_usd)}"
        case AgentStopped():
            code = "" if data.exit_code is None else f" with exit code {data.exit_code}"
            return f"{data.reason}{code}"
        case CostUpdate():
            return (
                f"{data.model}: {data.input_tokens} + {data.output_tokens} tokens, "
                f"{dollars(data.cost_usd)}; spent {dollars(data.spent_usd)}"
            )
        case PiiAlert():
            found = ", ".join(f"{each.count} {each.kind}" for each in data.findings)
            return f"{found} in the {data.direction}: {data.action}"
        case BudgetWarning():
            return (
                f"{data.threshold_percent} % of {dollars(data.limit_usd)} is spent "
                f"({dollars(data.spent_usd)})"
            )
        case CircuitOpened():
            return (
                f"{data.provider} failed {data.failures} times and is not asked for "
                f"{data.retry_after_ms / 1_000:g} s"
            )
        case BudgetRequested():
            return (
                f"{data.budget_request_id}: {dollars(data.requested_budget_usd)} instead of "
                f"{dollars(data.current_budget_usd)}, by {data.requester_id}"
            )
        case BudgetReviewed():
            return f"{data.budget_request_id}: {data.status} by {data.reviewer_id}"
        case BudgetChanged():
            by = f" by {data.changed_by}" if data.changed_by else ""
            return (
                f"{data.scope}: {_limit(data.old_budget_usd)} to {_limit(data.new_budget_usd)}, "
                f"{data.cause.replace('_', ' ')}{by}"
            )
        case EnvironmentStarted():
            return f"{data.name} runs, made of {data.image}"
        case EnvironmentStopped() | EnvironmentFailed():
            code = "" if data.exit_code is None else f", exit code {data.exit_code}"
            return f"{data.name}: {without_controls(data.reason)}{code}"
        case EnvironmentExpired():
            return f"{data.name}: its time is over ({data.cause})"
        case PolicyLoaded():
            return f"{data.policy} can be stepped with"
        case PolicyUnloaded():
            return f"{data.policy} is unloaded, {data.agents_ended} agents ended with it"
        case PolicyFailed():
            return f"{data.policy} cannot be served: {without_controls(data.reason)}"
        case Gap():
            return f"events {data.from_sequence} to {data.to_sequence} were not sent"


def _limit(budget_usd: Decimal | None) -> str:
    return "no limit" if budget_usd is None else dollars(budget_usd)
