"""What commands are given: a signed-in client, and where their answer goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from decimal import Decimal
from functools import cached_property, update_wrapper
from typing import Any, TypeVar

import click
from rich.console import RenderableType

from steward_client.channels import DEFAULT_SERVER, Address
from steward_client.cli.output import json_text, line, show
from steward_client.cli.session_file import SessionFile, home, last_server
from steward_client.client import Client
from steward_client.errors import NotFound
from steward_client.money import nanousd, usd

T = TypeVar("T")

PATIENCE_S = 1.0
"""People would rather know now than wait for a server that is not there."""


class Steward:
    """One command's server and output."""

    def __init__(self, server: str | None, closing: ExitStack, *, as_json: bool) -> None:
        self.server = server or last_server(home()) or DEFAULT_SERVER
        self.as_json = as_json
        self._closing = closing

    @cached_property
    def client(self) -> Client:
        store = SessionFile(home(), self.server)
        key = os.environ.get("STEWARD_API_KEY") or None
        client = Client(self.server, token=key, patience_s=PATIENCE_S, store=store)
        return self._closing.enter_context(client)

    def show(self, value: T, rendered: Callable[[T], RenderableType]) -> None:
        """Print a value: as JSON if that was asked for, else as `rendered` makes it."""
        if self.as_json:
            line(json_text(value))
        else:
            show(rendered(value))

    def agent_id(self, agent: str) -> str:
        """The id of an agent given by id or by name.

        Raises:
            NotFound: no agent, or more than one, has that name.
        """
        if agent.startswith("agent_"):
            return agent
        found = [each.id for each in self.client.agents.list() if each.name == agent]
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound(f"no agent is named {agent!r}; see: steward agents list")
        raise NotFound(f"{len(found)} agents are named {agent!r}; use the id: {', '.join(found)}")

    def project_id(self, project: str) -> str:
        """The id of a project given by id or by name; empty text stays empty.

        Raises:
            NotFound: no project, or more than one, has that name.
        """
        if not project or project.startswith("project_"):
            return project
        found = [each.id for each in self.client.projects.list() if each.name == project]
        if len(found) == 1:
            return found[0]
        if not found:
            raise NotFound(f"no project is named {project!r}; see: steward projects list")
        ids = ", ".join(found)
        raise NotFound(f"{len(found)} projects are named {project!r}; use the id: {ids}")


def calls_server(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --server and --json, and what they mean as its first argument."""

    @click.option(
        "--server",
        metavar="ADDRESS",
        envvar="STEWARD_SERVER",
        callback=_checked_address,
        help="host:port, or https://host:port for TLS (or STEWARD_SERVER).",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    def wrapped(*args: Any, server: str | None, as_json: bool, **kwargs: Any) -> Any:
        with ExitStack() as closing:
            return command(Steward(server, closing, as_json=as_json), *args, **kwargs)

    return update_wrapper(wrapped, command)


def _checked_address(_ctx: Any, _param: Any, text: str | None) -> str | None:
    if text:
        try:
            Address.parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return text or None


class Usd(click.ParamType[Decimal]):
    """An amount in dollars: `5`, `0.25`, `$12.50`."""

    name = "usd"

    def convert(self, value: Any, param: Any, ctx: Any) -> Decimal:
        if isinstance(value, Decimal):
            return value
        try:
            return usd(nanousd(str(value).removeprefix("$")))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def secret(prompt: str, *, from_stdin: bool, variable: str | None, option: str) -> str:
    """A secret from standard input, from a variable, or from whoever sits at the terminal.

    Never from the command line, which other users of the machine can read.
    """
    if from_stdin:
        read = sys.stdin.read().rstrip("\r\n")
    elif variable:
        read = os.environ.get(variable, "")
        if not read:
            raise click.UsageError(f"the variable {variable} is not set or empty")
    elif sys.stdin.isatty():
        read = click.prompt(prompt, hide_input=True, err=True)
    else:
        raise click.UsageError(f"there is no terminal to ask at; pass {option}")
    if not read:
        raise click.UsageError("nothing was given on standard input")
    return str(read)
