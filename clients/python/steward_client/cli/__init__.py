"""`steward`, the command line: people's view of a server, and `steward run` for their scripts.

Start reading at steward.py, what commands are given. What the server adds (`steward serve`) is
found through the entry points `steward.commands`; nothing here imports the server.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import EntryPoints, entry_points
from typing import NoReturn

import click

from steward_client.cli import (
    agents,
    analytics,
    audit,
    budget,
    budget_requests,
    credentials,
    environments,
    environments_attach,
    environments_cp,
    environments_exec,
    environments_images,
    environments_ports,
    environments_snapshots,
    events,
    executions,
    health,
    keys,
    limits,
    playbooks,
    policies,
    policies_import,
    prices,
    projects,
    providers,
    run,
    signing_in,
    tokens,
    traces,
    users,
    webhooks,
)
from steward_client.cli.endings import INTERRUPTED, describe, exit_code
from steward_client.errors import StewardError

COMMANDS = [
    signing_in.login,
    signing_in.logout,
    agents.agents,
    projects.projects,
    projects.organisation,
    tokens.tokens,
    keys.keys,
    providers.providers,
    credentials.credentials,
    budget.budget,
    analytics.usage,
    analytics.analytics,
    traces.traces,
    run.run,
    environments.environments,
    environments_images.images,
    policies.policies,
    playbooks.playbooks,
    events.events,
    prices.prices,
    limits.limits,
    webhooks.webhooks,
    health.health,
    users.users,
    users.password,
    audit.audit,
]


class _Commands(click.Group):
    """The commands above, and those that other packages bring."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_brought().names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        for entry in _brought().select(name=cmd_name):
            command: click.Command = entry.load()
            return command
        return None


def _brought() -> EntryPoints:
    return entry_points(group="steward.commands")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="steward-agents", prog_name="steward")
def steward() -> None:
    """Lend money to AI agents, watch what they spend, and take the rest back.

    Commands call the server named by --server, else by STEWARD_SERVER, else the one signed in to
    last, else 127.0.0.1:50051; as the owner of the key in STEWARD_API_KEY, else as whoever signed
    in. Each takes --json for output that programs can read.
    """


policies.policies.add_command(policies_import.import_policy)

for part in budget_requests.COMMANDS:
    budget.budget.add_command(part)

for part in executions.COMMANDS:
    playbooks.playbooks.add_command(part)

for part in (
    environments_exec.execute,
    environments_exec.logs,
    environments_attach.attach,
    environments_cp.copy,
    environments_ports.forward,
    environments_ports.expose,
    environments_snapshots.snapshot,
    environments_snapshots.restore,
    environments_snapshots.network,
    environments_snapshots.preview,
):
    environments.environments.add_command(part)

for command in COMMANDS:
    steward.add_command(command)


def main() -> NoReturn:
    """Run a command; say in one sentence on standard error what went wrong."""
    try:
        code = steward.main(standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read the output has gone. Python must not find out again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(INTERRUPTED)
    except StewardError as error:
        click.echo(f"Error: {describe(error)}", err=True)
        sys.exit(exit_code(error))
    sys.exit(code)
