"""`steward webhooks`: where alerts are sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import click
from rich.table import Table

from steward_client.cli.output import card, moment, say, table, word
from steward_client.cli.steward import Steward, calls_server, secret
from steward_client.client.values import AlertType, Delivery, Webhook

_EVENTS = click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice(get_args(AlertType)),
    help="A type to send; may be repeated. All if left out.",
)


@click.group()
def webhooks() -> None:
    """Add, list, change, test and delete webhooks."""


@webhooks.command("add")
@click.argument("url")
@_EVENTS
@click.option("--description", default="", help="What it is for.")
@click.option("--secret-stdin", is_flag=True, help="Read its secret from standard input.")
@calls_server
def add(
    steward: Steward,
    url: str,
    *,
    events: tuple[AlertType, ...],
    description: str,
    secret_stdin: bool,
) -> None:
    """Add a webhook. Its secret is shown once."""
    given = ""
    if secret_stdin:
        given = secret("secret", from_stdin=True, variable=None, option="--secret-stdin")
    made = steward.client.webhooks.create(url, events=events, description=description, secret=given)
    steward.show(made, _webhook_card)


@webhooks.command("list")
@calls_server
def list_webhooks(steward: Steward) -> None:
    """List webhooks, newest first."""
    steward.show(steward.client.webhooks.list(), _webhook_table)


@webhooks.command("update")
@click.argument("webhook_id")
@click.option("--url", help="Another address.")
@_EVENTS
@click.option("--enable/--disable", "enabled", default=None, help="Whether it is sent anything.")
@calls_server
def update(
    steward: Steward,
    webhook_id: str,
    *,
    url: str | None,
    events: tuple[AlertType, ...],
    enabled: bool | None,
) -> None:
    """Change a webhook."""
    changed = steward.client.webhooks.update(
        webhook_id, url=url, events=events or None, enabled=enabled
    )
    steward.show(changed, _webhook_card)


@webhooks.command("rotate")
@click.argument("webhook_id")
@calls_server
def rotate(steward: Steward, webhook_id: str) -> None:
    """Give a webhook another secret; for a day deliveries are signed with both."""
    steward.show(steward.client.webhooks.rotate(webhook_id), _webhook_card)


@webhooks.command("test")
@click.argument("webhook_id")
@calls_server
def try_out(steward: Steward, webhook_id: str) -> None:
    """Send a delivery that tells of nothing."""
    steward.show(steward.client.webhooks.test(webhook_id), lambda each: _deliveries([each]))


@webhooks.command("deliveries")
@click.argument("webhook_id")
@calls_server
def deliveries(steward: Steward, webhook_id: str) -> None:
    """Show what was sent or is to be sent, newest first."""
    steward.show(steward.client.webhooks.deliveries(webhook_id), _deliveries)


@webhooks.command("delete")
@click.argument("webhook_id")
@calls_server
def delete(steward: Steward, webhook_id: str) -> None:
    """Delete a webhook and what was still to be delivered to it."""
    steward.client.webhooks.delete(webhook_id)
    say(f"deleted {webhook_id}")


def _webhook_card(webhook: Webhook) -> Table:
    rows = [
        ("id", webhook.id),
        ("address", webhook.url),
        ("events", ", ".join(webhook.events) or "all"),
        ("description", webhook.description or "-"),
        ("enabled", _enabled(webhook)),
    ]
    if webhook.secret:
        rows.append(("secret", f"{webhook.secret}  (shown once)"))
    return card(rows)


def _webhook_table(listed: Sequence[Webhook]) -> Table:
    return table(
        ["ID", "ADDRESS", "EVENTS", "ENABLED", "#WAITING", "CREATED"],
        [
            (
                webhook.id,
                webhook.url,
                ", ".join(webhook.events) or "all",
                _enabled(webhook),
                str(webhook.pending_count),
                moment(webhook.created_at),
            )
            for webhook in listed
        ],
    )


def _enabled(webhook: Webhook) -> str:
    if webhook.enabled:
        return "yes"
    return f"no: {webhook.disabled_reason}" if webhook.disabled_reason else "no"


def _deliveries(listed: Sequence[Delivery]) -> Table:
    return table(
        ["ID", "TYPE", "STATUS", "#ATTEMPTS", "CREATED", "NEXT ATTEMPT", "LAST ERROR"],
        [
            (
                delivery.id,
                delivery.event_type,
                word(delivery.status),
                str(delivery.attempts),
                moment(delivery.created_at),
                moment(delivery.next_attempt_at),
                delivery.last_error or "-",
            )
            for delivery in listed
        ],
    )
