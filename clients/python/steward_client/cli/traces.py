"""`steward traces`: what is known of single LLM calls."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args

import click
from rich.table import Table

from steward_client.cli.output import card, dollars, moment, table, word
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.figures import Trace, TraceStatus

MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


@click.group()
def traces() -> None:
    """See single LLM calls; never what was asked or answered."""


@traces.command("list")
@click.option("--agent", default="", help="Only this agent's, by id or by name.")
@click.option("--project", default="", help="Only of this project's agents, by id or by name.")
@click.option("--provider", default="", help="Only of this provider, by name.")
@click.option("--model", default="", help="Only of this model.")
@click.option("--status", type=click.Choice(get_args(TraceStatus)[1:]), help="Only with this end.")
@click.option("--since", type=MOMENT, help="From then on, in UTC.")
@click.option("--until", type=MOMENT, help="Before then, in UTC.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=20, show_default=True)
@calls_server
def list_traces(
    steward: Steward,
    *,
    agent: str,
    project: str,
    provider: str,
    model: str,
    status: TraceStatus | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> None:
    """List calls, newest first."""
    listed = steward.client.traces.list(
        agent_id=steward.agent_id(agent) if agent else "",
        project_id=steward.project_id(project),
        provider=provider,
        model=model,
        status=status,
        since=since and since.replace(tzinfo=UTC),
        until=until and until.replace(tzinfo=UTC),
        limit=limit,
    )
    steward.show(listed, _trace_table)


@traces.command("get")
@click.argument("trace_id")
@calls_server
def get_trace(steward: Steward, trace_id: str) -> None:
    """Show one call."""
    steward.show(steward.client.traces.get(trace_id), _trace_card)


def _trace_table(listed: Sequence[Trace]) -> Table:
    return table(
        ["ID", "TIME", "AGENT", "PROVIDER", "MODEL", "STATUS", "#TOKENS", "#COST", "#MS"],
        [
            (
                each.id,
                moment(each.recorded_at),
                each.agent_id,
                each.provider,
                each.model,
                word(each.status),
                str(each.total_tokens),
                dollars(each.cost_usd) if each.billed else "-",
                _milliseconds(each),
            )
            for each in listed
        ],
    )


def _trace_card(trace: Trace) -> Table:
    failed = [("error", f"{trace.error_code} {trace.error_message}".strip())]
    return card(
        [
            ("id", trace.id),
            ("time", moment(trace.recorded_at)),
            ("ended", moment(trace.ended_at)),
            ("agent", trace.agent_id),
            ("lease", trace.lease_id or "-"),
            ("request", trace.request_id),
            ("provider", trace.provider),
            ("model", trace.model),
            ("status", word(trace.status)),
            *(failed if trace.status == "failed" else []),
            (
                "tokens",
                _tokens(trace),
            ),
            ("cost", f"{dollars(trace.cost_usd)}, {trace.certainty}" if trace.billed else "-"),
            ("took", f"{_milliseconds(trace)} ms"),
        ]
    )


def _tokens(trace: Trace) -> str:
    return (
        f"{trace.total_tokens} (input {trace.input_tokens}, output {trace.output_tokens}, "
        f"cache read {trace.cache_read_tokens}, written {trace.cache_write_tokens})"
    )


def _milliseconds(trace: Trace) -> str:
    return "-" if trace.duration_ms is None else str(trace.duration_ms)
