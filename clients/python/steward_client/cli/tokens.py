"""`steward tokens`: the credentials of agents' runtimes."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Table

from steward_client.cli.output import card, line, moment, say, table, word
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.values import Token


@click.group()
def tokens() -> None:
    """Create, rotate and revoke IC tokens; an agent has at most one that lives."""


@tokens.command("create")
@click.argument("agent")
@click.option("--name", default="", help="A reminder of what it is for.")
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="Never if left out.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the token.")
@calls_server
def create(
    steward: Steward, agent: str, *, name: str, expires_in_days: int | None, quiet: bool
) -> None:
    """Create the token of an agent and print it, this once.

    The agent's runtime reads it from STEWARD_IC_TOKEN.
    """
    made = steward.client.tokens.create(
        steward.agent_id(agent), name=name, expires_in_days=expires_in_days
    )
    _hand_over(steward, made, quiet=quiet)


@tokens.command("list")
@click.option("--agent", help="Only those of this agent.")
@calls_server
def list_tokens(steward: Steward, *, agent: str | None) -> None:
    """List tokens, newest first, dead ones included."""
    agent_id = steward.agent_id(agent) if agent else ""
    steward.show(steward.client.tokens.list(agent_id=agent_id), _token_table)


@tokens.command("rotate")
@click.argument("token_id")
@click.option("--quiet", "-q", is_flag=True, help="Print only the token.")
@calls_server
def rotate(steward: Steward, token_id: str, *, quiet: bool) -> None:
    """Replace a token's text and print it, this once; the old one is refused at once."""
    _hand_over(steward, steward.client.tokens.rotate(token_id), quiet=quiet)


@tokens.command("revoke")
@click.argument("token_id")
@calls_server
def revoke(steward: Steward, token_id: str) -> None:
    """End a token for good, and what was lent with it."""
    steward.client.tokens.revoke(token_id)
    say(f"revoked {token_id}")


def _hand_over(steward: Steward, token: Token, *, quiet: bool) -> None:
    if quiet:
        line(token.token)
        return
    steward.show(token, _token_card)
    if not steward.as_json:
        say("The token is shown this once. Hand it to the agent's runtime as STEWARD_IC_TOKEN.")


def _token_card(token: Token) -> Table:
    return card(
        [
            ("id", token.id),
            ("agent", token.agent_id),
            ("token", token.token),
            ("scopes", ", ".join(token.scopes)),
            ("expires", moment(token.expires_at) if token.expires_at else "never"),
        ]
    )


def _token_table(listed: Sequence[Token]) -> Table:
    return table(
        ["ID", "AGENT", "NAME", "STATUS", "BEGINS WITH", "CREATED", "EXPIRES", "LAST USED"],
        [
            (
                token.id,
                token.agent_id,
                token.name or "-",
                word(token.status),
                token.prefix,
                moment(token.created_at),
                moment(token.expires_at) if token.expires_at else "never",
                moment(token.last_used_at),
            )
            for token in listed
        ],
    )
