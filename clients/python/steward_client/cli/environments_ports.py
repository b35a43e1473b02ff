"""`steward env forward` and `steward env expose`: a port that leads to another until Ctrl-C."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from steward_client.cli.endings import describe
from steward_client.cli.environments import environment_id
from steward_client.cli.output import json_text, line, say
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.tunnels import Tunnel
from steward_client.errors import StewardError, Unavailable

HIGHEST_PORT = 65_535


class PortPair(click.ParamType[tuple[int, int]]):
    """A port, and after a colon the one it leads to or from; 0: any that is free."""

    name = "ports"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, _, second = str(value).partition(":")
        ports = [int(each) if each.isdecimal() else -1 for each in (first, second or "0")]
        if not (1 <= ports[0] <= HIGHEST_PORT and 0 <= ports[1] <= HIGHEST_PORT):
            self.fail(f"{value!r} is no port, nor two with a colon between them", param, ctx)
        return ports[0], ports[1]


@click.command("forward")
@click.argument("environment")
@click.argument("ports", type=PortPair(), metavar="PORT[:LOCAL]")
@calls_server
def forward(steward: Steward, environment: str, ports: tuple[int, int]) -> None:
    """Let a port of 127.0.0.1 here lead to one inside an environment.

    PORT is the one inside, of those it was created with (steward env create --port); LOCAL the one
    here, else one that is free. Goes on until it is interrupted.
    """
    inner, local = ports
    of = environment_id(steward, environment)
    try:
        tunnel = steward.client.environments.forward(of, inner, local, on_error=_tell)
    except OSError as error:
        raise click.ClickException(f"port {local} cannot be listened on: {error}") from None
    with tunnel:
        told = f"127.0.0.1:{tunnel.port} leads to port {inner} of {environment}"
        _stay(steward, tunnel, told, {"local_port": tunnel.port, "port": inner})


@click.command("expose")
@click.argument("environment")
@click.argument("ports", type=PortPair(), metavar="LOCAL[:PORT]")
@calls_server
def expose(steward: Steward, environment: str, ports: tuple[int, int]) -> None:
    """Let a port of 127.0.0.1 inside an environment lead to one here.

    LOCAL is the one here; PORT the one inside, else one that is free. The environment needs no
    network for it, and reaches nothing else of here. Goes on until it is interrupted.
    """
    local, inner = ports
    of = environment_id(steward, environment)
    with steward.client.environments.expose(of, local, inner, on_error=_tell) as tunnel:
        told = f"127.0.0.1:{tunnel.port} in {environment} leads to port {local} here"
        _stay(steward, tunnel, told, {"local_port": local, "port": tunnel.port})


def _stay(steward: Steward, tunnel: Tunnel, told: str, shown: dict[str, int]) -> None:
    """Say where it leads, and keep it until the signal to end, or until it ends by itself."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if steward.as_json:
        line(json_text(shown, indented=False))
    else:
        line(told)
    sys.stdout.flush()
    while True:
        try:
            tunnel.wait(1.0)  # a wait without an end would keep signals waiting too
        except TimeoutError:
            continue
        return


def _tell(error: StewardError) -> None:
    say(error.message if isinstance(error, Unavailable) else describe(error))
