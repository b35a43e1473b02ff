"""The server's own code, for commands that work on files of this machine without a server."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import click


def of_server(name: str, able: str) -> Callable[..., Any]:
    """A function of the server, found as its commands are.

    `able` says why it is needed: "knows what it can serve".

    Raises:
        click.ClickException: the server is not installed here.
    """
    found = entry_points(group="steward.data").select(name=name)
    if not found:
        raise click.ClickException(f"the server is not installed here, and only it {able}")
    work: Callable[..., Any] = next(iter(found)).load()
    return work
