"""`steward run`: a script as an agent, on lent money."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from steward_client.cli.environments import ENV, Duration
from steward_client.cli.output import dollars, json_text, line, say
from steward_client.cli.steward import Steward, Usd, calls_server
from steward_client.client.environments_values import ENVIRONMENT_ID
from steward_client.errors import Conflict

if TYPE_CHECKING:
    from steward_client.environment_run import EnvironmentSpec
    from steward_client.runtime import Metrics

TOKEN_NAME = "steward run"  # noqa: S105 - what tokens made here are called


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("script", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--budget", "budget_usd", type=Usd(), required=True, help="At most, in dollars.")
@click.option("--agent", help="Run as this agent, by a token made for the run.")
@click.option("--provider", help="The provider to use; else the server decides.")
@click.option(
    "--pii",
    type=click.Choice(["alert", "redact", "block"]),
    default="alert",
    show_default=True,
    help="What is done about personal data in calls.",
)
@click.option(
    "--wait-for-budget",
    "wait_for_budget_s",
    type=click.FloatRange(min=0),
    default=0,
    metavar="SECONDS",
    help="How long to wait for a larger budget when it is used up, instead of refusing calls.",
)
@click.option(
    "--environment",
    metavar="IMAGE|NAME",
    help="Run it in an environment: one of this image, made for the run, or one the agent has.",
)
@click.option("--cpu", default="1", show_default=True, help="Cores of one that is made.")
@click.option("--memory", default="1Gi", show_default=True, help="Its memory.")
@click.option("--storage", default="1Gi", show_default=True, help="For all that is written.")
@click.option(
    "--timeout", "timeout_s", type=Duration(), help="How long it lives: 90, 15m. [default: 1h]"
)
@click.option(
    "--package",
    "packages",
    multiple=True,
    metavar="NAME",
    help='A package from here to take along there: "openai". May be repeated.',
)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="A file or folder to put beside the script there. May be repeated.",
)
@ENV
@click.option("--verbose", "-v", is_flag=True, help="Tell what happens on standard error.")
@calls_server
def run(
    steward: Steward,
    script: Path,
    args: tuple[str, ...],
    *,
    budget_usd: Decimal,
    agent: str | None,
    provider: str | None,
    pii: Literal["alert", "redact", "block"],
    wait_for_budget_s: float,
    environment: str | None,
    cpu: str,
    memory: str,
    storage: str,
    timeout_s: int | None,
    packages: tuple[str, ...],
    files: tuple[Path, ...],
    env: dict[str, str],
    verbose: bool,
) -> None:
    """Run a Python script as an agent, on lent money.

    The script finds its provider in OPENAI_BASE_URL and ANTHROPIC_BASE_URL and a throw-away key,
    and may use the providers' own packages unchanged. Options stand before SCRIPT; what follows
    it is the script's own. The agent is that of the token in STEWARD_IC_TOKEN, or --agent.

    With --environment it runs in an isolated machine whose only way out is to its provider: it is
    given the script, what --file and --package name and the variables of --env, and nothing else.

    Ends with the script's exit code. With --json the last line of output is what it used.
    """
    # A second to import, which other commands save.
    from steward_client.environment_run import EnvironmentSpec
    from steward_client.runtime import Runtime

    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    with _token(steward, agent) as token:
        try:
            runtime = Runtime(
                budget_usd,
                verbose,
                server=steward.server,
                token=token,
                provider=provider,
                pii_action=pii,
                wait_for_budget_s=wait_for_budget_s,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        with runtime:
            place = None
            if environment is not None:
                wanted = EnvironmentSpec(environment, cpu, memory, storage, timeout_s)
                place = _place(steward, token, wanted)
            try:
                run_id = runtime.start_agent(
                    script, args, env=env, environment=place, files=files, packages=packages
                )
            except ValueError as error:
                raise click.UsageError(str(error)) from None
            code = runtime.wait(run_id)
            metrics = runtime.get_metrics(run_id)
    if steward.as_json:
        line(json_text(metrics, indented=False))
    else:
        say(_summary(metrics))
    raise click.exceptions.Exit(code if code >= 0 else 128 - code)


def _place(steward: Steward, token: str, wanted: EnvironmentSpec) -> str | EnvironmentSpec:
    """The one that the agent has under this name, or else one to be made of the image."""
    from steward_client.client import Client

    with Client(steward.server, token=token) as agent:
        running = agent.environments.list(status="running")
    is_there = any(wanted.image in (each.id, each.name) for each in running)
    return wanted.image if is_there or ENVIRONMENT_ID.fullmatch(wanted.image) else wanted


@contextlib.contextmanager
def _token(steward: Steward, agent: str | None) -> Iterator[str]:
    """The token of the environment, or one for this run that ends with it."""
    if agent is None:
        token = os.environ.get("STEWARD_IC_TOKEN") or os.environ.get("IC_TOKEN")
        if not token:
            raise click.UsageError("set STEWARD_IC_TOKEN to the agent's token, or pass --agent")
        yield token
        return
    agent_id = steward.agent_id(agent)
    tokens = steward.client.tokens
    live = tokens.list(agent_id=agent_id, status="active")
    if not live:
        made = tokens.create(agent_id, name=TOKEN_NAME, expires_in_days=1)
    elif live[0].name == TOKEN_NAME and not steward.client.agents.status(agent_id).open_leases:
        made = tokens.rotate(live[0].id)  # what a run left behind that was killed
    else:
        raise Conflict(
            f"agent {agent_id} has a token already: pass it as STEWARD_IC_TOKEN, or end it with: "
            f"steward tokens revoke {live[0].id}"
        )
    try:
        yield made.token
    finally:
        tokens.revoke(made.id)


def _summary(metrics: Metrics) -> str:
    refused = f" ({metrics['refused']} refused: {metrics['last_refusal']})"
    return (
        f"{metrics['agent_id']}: {metrics['calls']} calls"
        f"{refused if metrics['refused'] else ''}, {metrics['tokens']['total']} tokens, "
        f"{dollars(metrics['spent'])} spent, {dollars(metrics['remaining'])} left of "
        f"{dollars(metrics['budget'])}"
    )
