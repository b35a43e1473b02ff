"""`steward credential`: what playbooks sign in to gateways with."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Table

from steward_client.cli.output import say, table
from steward_client.cli.steward import Steward, calls_server, secret
from steward_client.client.values import Credential

of_user = click.option(
    "--user", "user_id", default="", help="Of this user, by id; for administrators."
)


@click.group("credential")
def credentials() -> None:
    """Save, list and delete the credentials of gateways that playbooks use."""


@credentials.command("save")
@click.argument("name")
@click.option("--username", required=True, help="Whom the gateway knows.")
@click.option("--gateway-url", default="", help="Where it is good for: http or https.")
@click.option("--description", default="", help="What it is for.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--password-env", metavar="VARIABLE", help="Take the password from this variable.")
@calls_server
def save(
    steward: Steward,
    name: str,
    *,
    username: str,
    gateway_url: str,
    description: str,
    password_stdin: bool,
    password_env: str | None,
) -> None:
    """Save a credential, in place of one of this name. Its password is asked for."""
    if password_stdin and password_env:
        raise click.UsageError("pass either --password-stdin or --password-env")
    password = secret(
        "Password",
        from_stdin=password_stdin,
        variable=password_env,
        option="--password-stdin or --password-env",
    )
    steward.client.credentials.save(
        name,
        username=username,
        password=password,
        gateway_url=gateway_url,
        description=description,
    )
    say(f"saved {name}")


@credentials.command("list")
@of_user
@calls_server
def list_credentials(steward: Steward, *, user_id: str) -> None:
    """List credentials, newest first, without their passwords."""
    steward.show(steward.client.credentials.list(user_id=user_id), _credential_table)


@credentials.command("delete")
@click.argument("name")
@of_user
@calls_server
def delete(steward: Steward, name: str, *, user_id: str) -> None:
    """Delete a credential and its password."""
    steward.client.credentials.delete(name, user_id=user_id)
    say(f"deleted {name}")


def _credential_table(listed: Sequence[Credential]) -> Table:
    return table(
        ["NAME", "USERNAME", "GATEWAY", "DESCRIPTION"],
        [
            (each.name, each.username, each.gateway_url or "-", each.description or "-")
            for each in listed
        ],
    )
