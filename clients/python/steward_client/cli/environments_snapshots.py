"""`steward env snapshot`, `restore`, `network`, `preview`: what one stands on, and its ways."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Table

from steward_client.cli.environments import Duration, environment_card, environment_id, size
from steward_client.cli.output import card, moment, say, table
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.environments_values import NetworkPolicy, Snapshot


@click.group("snapshot")
def snapshot() -> None:
    """What environments have written, kept."""


@snapshot.command("create")
@click.argument("environment")
@click.argument("name")
@calls_server
def create(steward: Steward, environment: str, name: str) -> None:
    """Keep the files of an environment, which stands still meanwhile.

    Create others of it with --image and the image that is shown.
    """
    made = steward.client.environments.snapshots.create(environment_id(steward, environment), name)
    steward.show(made, lambda each: _table([each]))


@snapshot.command("list")
@click.argument("environment", required=False)
@calls_server
def list_snapshots(steward: Steward, environment: str | None) -> None:
    """List your snapshots, the newest first; only those of ENVIRONMENT."""
    of = environment_id(steward, environment) if environment else ""
    steward.show(steward.client.environments.snapshots.list(of), _table)


@snapshot.command("rm")
@click.argument("snapshots", nargs=-1, required=True, metavar="SNAPSHOT...")
@calls_server
def remove(steward: Steward, snapshots: tuple[str, ...]) -> None:
    """Remove snapshots, by id, on which no environment stands."""
    for each in snapshots:
        steward.client.environments.snapshots.delete(each)
        say(f"removed {each}")


@click.command("restore")
@click.argument("environment")
@click.argument("snapshot_id", metavar="SNAPSHOT")
@click.option("--wait/--no-wait", default=True, help="Whether to wait until it runs again.")
@calls_server
def restore(steward: Steward, environment: str, snapshot_id: str, *, wait: bool) -> None:
    """Put an environment back to a snapshot.

    Everything in it ends, what it has written since is gone, and its main command begins anew.
    """
    of = environment_id(steward, environment)
    shown = steward.client.environments.snapshots.restore(of, snapshot_id)
    if wait:
        shown = steward.client.environments.wait_until_running(of)
    steward.show(shown, environment_card)


@click.command("network")
@click.argument("environment")
@click.option("--internet", is_flag=True, help="Let it reach public addresses.")
@click.option(
    "--egress", "cidrs", multiple=True, metavar="CIDR", help="A network it may reach. Repeatable."
)
@click.option(
    "--port",
    "-p",
    "ports",
    multiple=True,
    type=click.IntRange(1, 65_535),
    help="A port of it that may be reached. May be repeated.",
)
@click.option("--cluster", is_flag=True, help="Of a cluster: let it reach pods and services.")
@calls_server
def network(
    steward: Steward,
    environment: str,
    *,
    internet: bool,
    cidrs: tuple[str, ...],
    ports: tuple[int, ...],
    cluster: bool,
) -> None:
    """Change what an environment reaches while it runs, in place of what it did.

    Without options it reaches nothing from then on.
    """
    policy = NetworkPolicy(internet, cidrs, ports, cluster)
    of = environment_id(steward, environment)
    steward.show(steward.client.environments.update(of, network=policy), environment_card)


@click.command("preview")
@click.argument("environment")
@click.argument("port", type=click.IntRange(1, 65_535))
@click.option(
    "--ttl", "ttl_s", type=Duration(), default="15m", show_default=True, help="How long: 90, 15m."
)
@calls_server
def preview(steward: Steward, environment: str, port: int, *, ttl_s: int) -> None:
    """Give a link to PORT inside, for a browser, at the server's HTTP address.

    Whoever has the link may use it. It ends with its time, at most an hour, with the environment,
    and with your sign-in.
    """
    of = environment_id(steward, environment)
    made = steward.client.environments.preview(of, port, ttl_s=ttl_s)
    steward.show(
        made, lambda each: card([("path", each.path), ("expires", moment(each.expires_at))])
    )


def _table(listed: Sequence[Snapshot]) -> Table:
    return table(
        ["NAME", "ID", "IMAGE", "#SIZE", "OF", "CREATED"],
        [
            (
                each.name,
                each.id,
                each.image,
                size(each.size_bytes),
                each.environment_id,
                moment(each.created_at),
            )
            for each in listed
        ],
    )
