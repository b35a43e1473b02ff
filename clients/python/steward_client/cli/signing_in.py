"""`steward login` and `steward logout`."""

from __future__ import annotations

import click

from steward_client.cli.output import card, say
from steward_client.cli.steward import Steward, calls_server, secret
from steward_client.client import SignIn
from steward_client.errors import Unauthorized


@click.command()
@click.option("--user", help="User name or e-mail address; asked for if left out.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@calls_server
def login(steward: Steward, user: str | None, *, password_stdin: bool) -> None:
    """Sign in; later commands call this server as you.

    The sign-in is kept in a file only you can read, below ~/.config/steward or STEWARD_HOME, and
    renewed by itself for as long as it is used at least once a week.
    """
    user = user or click.prompt("User", err=True)
    password = secret(
        "Password", from_stdin=password_stdin, variable=None, option="--password-stdin"
    )
    signed_in = steward.client.login(user, password)
    steward.show(_public(steward, signed_in), lambda shown: card(shown.items()))
    if signed_in.must_change_password:
        say("Your password must be changed before anything else, with: steward password")


def _public(steward: Steward, signed_in: SignIn) -> dict[str, str]:
    user = signed_in.user
    return {"server": steward.server, "user": user.username, "role": user.role, "id": user.id}


@click.command()
@calls_server
def logout(steward: Steward) -> None:
    """Sign out, here and at the server."""
    try:
        steward.client.logout()
    except Unauthorized:
        say(f"not signed in to {steward.server}")
        return
    say(f"signed out of {steward.server}")
