"""`steward keys`: the credentials of people's programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import click
from rich.table import Table

from steward_client.cli.output import card, line, moment, say, table
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.values import ApiKey, KeyKind, KeyRole, PermissionWord

ROLES = [word for word in get_args(KeyRole) if word != "unspecified"]
KINDS = [word for word in get_args(KeyKind) if word != "unspecified"]
PERMISSIONS = [word for word in get_args(PermissionWord) if word != "unspecified"]


@click.group()
def keys() -> None:
    """Create, list and revoke API keys, with which programs act as you."""


def _permissions(
    _ctx: click.Context, _param: click.Parameter, given: Sequence[str]
) -> dict[str, PermissionWord]:
    permissions: dict[str, PermissionWord] = {}
    for text in given:
        environment_id, _, permission = text.rpartition("=")
        if not environment_id or permission not in PERMISSIONS:
            raise click.BadParameter(f"{text!r} is not <environment id>=read, write or admin")
        permissions[environment_id] = permission  # type: ignore[assignment]
    return permissions


@keys.command("create")
@click.argument("description", default="")
@click.option("--role", type=click.Choice(ROLES), help="The most it may do; by default user.")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    metavar="ENVIRONMENT=LEVEL",
    callback=_permissions,
    help="Limit it to this environment: read, write or admin. May be repeated.",
)
@click.option("--expires-in-days", type=click.IntRange(1, 3650), help="Never if left out.")
@click.option("--kind", type=click.Choice(KINDS), default="agentbox", help="How it begins.")
@click.option("--quiet", "-q", is_flag=True, help="Print only the key.")
@calls_server
def create(
    steward: Steward,
    description: str,
    *,
    role: KeyRole | None,
    permissions: dict[str, PermissionWord],
    expires_in_days: int | None,
    kind: KeyKind,
    quiet: bool,
) -> None:
    """Create a key that acts as you and print it, this once; DESCRIPTION says what it is for."""
    made = steward.client.api_keys.create(
        description=description,
        role=role,
        permissions=permissions,
        expires_in_days=expires_in_days,
        kind=kind,
    )
    if quiet:
        line(made.key)
        return
    steward.show(made, _key_card)
    if not steward.as_json:
        say("The key is shown this once. Programs send it as `Authorization: Bearer <key>`.")


@keys.command("list")
@click.option("--user", "user_id", default="", help="Only those of this user, by id.")
@calls_server
def list_keys(steward: Steward, *, user_id: str) -> None:
    """List keys that are not revoked, newest first; administrators see everybody's."""
    steward.show(steward.client.api_keys.list(user_id=user_id), _key_table)


@keys.command("revoke")
@click.argument("key_id")
@calls_server
def revoke(steward: Steward, key_id: str) -> None:
    """End a key for good, on open streams too."""
    steward.client.api_keys.revoke(key_id)
    say(f"revoked {key_id}")


def _key_card(key: ApiKey) -> Table:
    return card(
        [
            ("id", key.id),
            ("key", key.key),
            ("role", key.role),
            ("environments", _environments(key)),
            ("expires", moment(key.expires_at) if key.expires_at else "never"),
        ]
    )


def _key_table(listed: Sequence[ApiKey]) -> Table:
    return table(
        ["ID", "DESCRIPTION", "ROLE", "ENVIRONMENTS", "BEGINS WITH", "EXPIRES", "LAST USED"],
        [
            (
                key.id,
                key.description or "-",
                key.role,
                _environments(key),
                key.prefix,
                moment(key.expires_at) if key.expires_at else "never",
                moment(key.last_used_at),
            )
            for key in listed
        ],
    )


def _environments(key: ApiKey) -> str:
    limits = [f"{each.environment_id}={each.permission}" for each in key.permissions]
    return ", ".join(limits) or "any of yours"
