"""`steward users`: people who may sign in; and `steward password`, one's own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
from rich.table import Table

from steward_client.cli.output import card, line, moment, say, table, word
from steward_client.cli.steward import Steward, calls_server, secret
from steward_client.client.values import Person, PersonState, Role
from steward_client.errors import NotFound

ROLES = click.Choice(["admin", "user", "viewer"])
FROM_STDIN = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input."
)


@click.group()
def users() -> None:
    """Let people in, and keep them out."""


@users.command("create")
@click.argument("username")
@click.option("--role", type=ROLES, default="user", show_default=True)
@click.option("--email", default="", help="To sign in by, instead of the name.")
@click.option("--must-change", is_flag=True, help="Have the password changed at first sign-in.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the person's id.")
@FROM_STDIN
@calls_server
def create(
    steward: Steward,
    username: str,
    *,
    role: Role,
    email: str,
    must_change: bool,
    quiet: bool,
    password_stdin: bool,
) -> None:
    """Let somebody in. Their password is asked for."""
    made = steward.client.users.create(
        username,
        password=_password("Password", from_stdin=password_stdin),
        role=role,
        email=email,
        must_change_password=must_change,
    )
    if quiet:
        line(made.id)
        return
    steward.show(made, _person_card)


@users.command("list")
@click.option("--role", type=ROLES, help="Only people with this role.")
@click.option("--state", type=click.Choice(["active", "suspended"]), help="Only these.")
@click.option("--search", default="", help="Only people with this in their name or address.")
@calls_server
def list_users(
    steward: Steward, *, role: Role | None, state: PersonState | None, search: str
) -> None:
    """List people, newest first."""
    found = steward.client.users.list(role=role, state=state, search=search)
    steward.show(found, _person_table)


@users.command("show")
@click.argument("user")
@calls_server
def show_user(steward: Steward, user: str) -> None:
    """Show one person (by id, or by name)."""
    steward.show(steward.client.users.get(_user_id(steward, user)), _person_card)


@users.command("suspend")
@click.argument("user")
@click.option("--reason", default="", help="Why; kept with the person.")
@calls_server
def suspend(steward: Steward, user: str, *, reason: str) -> None:
    """Keep a person out, at once and everywhere."""
    suspended = steward.client.users.suspend(_user_id(steward, user), reason=reason)
    steward.show(suspended, _person_card)


@users.command("activate")
@click.argument("user")
@calls_server
def activate(steward: Steward, user: str) -> None:
    """Let a suspended person in again."""
    steward.show(steward.client.users.activate(_user_id(steward, user)), _person_card)


@users.command("role")
@click.argument("user")
@click.argument("role", type=ROLES)
@calls_server
def role(steward: Steward, user: str, *, role: Role) -> None:
    """Let a person do more, or less; they sign in again."""
    steward.show(steward.client.users.set_role(_user_id(steward, user), role), _person_card)


@users.command("reset-password")
@click.argument("user")
@click.option("--keep", is_flag=True, help="Let them keep it; else they must change it.")
@FROM_STDIN
@calls_server
def reset_password(steward: Steward, user: str, *, keep: bool, password_stdin: bool) -> None:
    """Give a person another password, which is asked for; they sign in again."""
    user_id = _user_id(steward, user)
    password = _password("New password", from_stdin=password_stdin)
    changed = steward.client.users.reset_password(user_id, password, force_change=not keep)
    steward.show(changed, _person_card)


@users.command("delete")
@click.argument("user")
@calls_server
def delete(steward: Steward, user: str) -> None:
    """Delete a person for good; their agents are yours from then on, their keys end."""
    user_id = _user_id(steward, user)
    steward.client.users.delete(user_id)
    say(f"deleted {user_id}")


@click.command()
@click.option(
    "--passwords-stdin",
    is_flag=True,
    help="Read the current and the new password from standard input, a line each.",
)
@calls_server
def password(steward: Steward, *, passwords_stdin: bool) -> None:
    """Change your password; wherever else you are signed in, that ends."""
    if passwords_stdin:
        current, _, new = sys.stdin.read().rstrip("\r\n").partition("\n")
        current = current.rstrip("\r")
    else:
        current = _password("Current password", from_stdin=False, twice=False)
        new = _password("New password", from_stdin=False)
    if not current or not new:
        raise click.UsageError("give the current and the new password, a line each")
    steward.client.change_password(current, new)
    say("changed your password")


def _password(prompt: str, *, from_stdin: bool, twice: bool = True) -> str:
    """A password; asked for twice where it could be mistyped unseen."""
    option = "--passwords-stdin" if not twice else "--password-stdin"
    given = secret(prompt, from_stdin=from_stdin, variable=None, option=option)
    if twice and not from_stdin and given != click.prompt("Once more", hide_input=True, err=True):
        raise click.UsageError("the two are not the same")
    return given


def _user_id(steward: Steward, user: str) -> str:
    """The id of a person given by id or by name.

    Raises:
        NotFound: nobody has that name.
    """
    for each in steward.client.users.list(search=user):
        if each.username == user:
            return each.id
    if user.startswith("user_"):  # a name may begin so too
        return user
    raise NotFound(f"nobody is named {user!r}; see: steward users list")


def _person_table(listed: Sequence[Person]) -> Table:
    return table(
        ["ID", "NAME", "ADDRESS", "ROLE", "STATE", "CREATED", "LAST SIGN-IN"],
        [
            (
                person.id,
                person.username,
                person.email or "-",
                person.role,
                word(person.state),
                moment(person.created_at),
                moment(person.last_login_at),
            )
            for person in listed
        ],
    )


def _person_card(person: Person) -> Table:
    suspended = []
    if person.state == "suspended":
        suspended = [
            ("suspended", moment(person.suspended_at)),
            ("because", person.suspend_reason or "-"),
        ]
    return card(
        [
            ("id", person.id),
            ("name", person.username),
            ("address", person.email or "-"),
            ("role", person.role),
            ("state", word(person.state)),
            *suspended,
            ("password", "must be changed" if person.must_change_password else "kept"),
            ("last sign-in", moment(person.last_login_at)),
        ]
    )
