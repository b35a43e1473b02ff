"""`steward image`: what environments are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from steward_client.cli.environments import size
from steward_client.cli.of_server import of_server
from steward_client.cli.output import card, json_text, line, moment, say, show, table
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.environments_values import Image


@click.group("image")
def images() -> None:
    """What environments are made of: root file systems, by name."""


@images.command("list")
@calls_server
def list_images(steward: Steward) -> None:
    """List the images of the server."""
    steward.show(steward.client.images.list(), _table)


@images.command("rm")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@calls_server
def remove(steward: Steward, names: tuple[str, ...]) -> None:
    """Remove images on which no environment stands."""
    for name in names:
        steward.client.images.remove(name)
        say(f"removed {name}")


@images.command("send")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", default="", help="What it is to be called; else as the archive says.")
@calls_server
def send(steward: Steward, archive: Path, *, name: str) -> None:
    """Send ARCHIVE to the server, to be an image there; for administrators.

    ARCHIVE is what `docker save` or `podman save` writes, or a tar archive of an OCI layout, not
    compressed.
    """
    with archive.open("rb") as file:
        made = steward.client.images.send(file, name)
    steward.show(made, lambda each: _table([each]))


@images.command("import")
@click.argument("archive", type=click.Path(exists=True, path_type=Path))
@click.option("--name", default="", help="What it is to be called; else as the archive says.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="STEWARD_DATA_DIR",
    default=Path(".data"),
    show_default=True,
    help="The server's folder on this machine (or STEWARD_DATA_DIR).",
)
@click.option("--quiet", "-q", is_flag=True, help="Print only its name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_image(archive: Path, *, name: str, data_dir: Path, quiet: bool, as_json: bool) -> None:
    """Take an image from ARCHIVE into the server's data folder; a server may be running.

    ARCHIVE is what `docker save` or `podman save` writes, or an OCI layout: a tar archive that is
    not compressed, or a folder. An image of the same name is replaced; environments that stand on
    it keep it. Runs on the server's machine, as the user who runs the server.
    """
    made = _imported(data_dir, archive, name)
    told = {
        "name": made.name,
        "digest": made.digest,
        "size_bytes": made.size_bytes,
        "command": list(made.command),
        "working_dir": made.working_dir,
        "user": made.user,
    }
    if quiet:
        line(made.name)
    elif as_json:
        line(json_text(told))
    else:
        rows = [("name", made.name), ("digest", made.digest), ("size", size(made.size_bytes))]
        show(card(rows))


def _imported(data_dir: Path, archive: Path, name: str) -> Any:
    """Have the server's own code unpack an archive."""
    import_archive = of_server("import-image", "can write its data")
    try:
        return import_archive(data_dir, archive, name)
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None


def _table(listed: Sequence[Image]) -> Table:
    return table(
        ["NAME", "DIGEST", "#SIZE", "CREATED", "COMMAND"],
        [
            (
                each.name,
                each.digest.removeprefix("sha256:")[:12],
                "built in" if each.is_host else size(each.size_bytes),
                "-" if each.is_host else moment(each.created_at),
                " ".join(each.command) or "-",
            )
            for each in listed
        ],
    )
