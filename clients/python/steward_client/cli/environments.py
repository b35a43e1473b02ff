"""`steward env`: isolated machines for agents. What runs in them is in the files beside this."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from steward_client.cli.output import card, line, moment, say, table, without_controls, word
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.environments_values import (
    ENVIRONMENT_ID,
    Environment,
    EnvironmentDetails,
    Isolation,
    NetworkPolicy,
    Process,
    SecurityContext,
    Share,
)
from steward_client.errors import NotFound

LIVING = ("pending", "running", "terminating")
STATES = click.Choice([*LIVING, "terminated", "failed"])
PERMISSIONS = click.Choice(["read", "write", "admin"])
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Duration(click.ParamType[int]):
    """A time in seconds: `90`, `15m`, `2h`, `1d`."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if found is None or not int(found[1]):
            self.fail(f"{value!r} is no time; write it as 90, 15m, 2h or 1d", param, ctx)
        return int(found[1]) * UNITS_S[found[2]]


def pairs(_ctx: Any, param: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """What is given as NAME=VALUE, by name."""
    read = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not name or not mark:
            raise click.BadParameter(f"{text!r} is not {param.metavar}")
        read[name] = value
    return read


def variables(_ctx: Any, _param: Any, given: Sequence[str]) -> dict[str, str]:
    """Variables; one without a value has the one it has here, which no list of processes shows."""
    read = {}
    for text in given:
        name, mark, value = text.partition("=")
        if not name:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE or NAME")
        if not mark and name not in os.environ:
            raise click.BadParameter(f"{name!r} is not set here; write it as {name}=VALUE")
        read[name] = value if mark else os.environ[name]
    return read


ENV = click.option(
    "--env",
    "-e",
    multiple=True,
    metavar="NAME[=VALUE]",
    callback=variables,
    help="A variable; without a value, as it is set here. May be repeated.",
)


def environment_id(steward: Steward, environment: str) -> str:
    """The id of an environment given by id or by name; those that live come before those over.

    Raises:
        NotFound: none, or more than one, has that name.
    """
    if ENVIRONMENT_ID.fullmatch(environment):
        return environment
    named = [each for each in steward.client.environments.list() if each.name == environment]
    found = [each.id for each in named if each.status in LIVING] or [each.id for each in named]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"no environment is named {environment!r}; see: steward env list")
    raise NotFound(
        f"{len(found)} environments are named {environment!r}; use the id: {', '.join(found)}"
    )


@click.group("env")
def environments() -> None:
    """Isolated machines for agents: create them, run commands in them, look inside."""


@environments.command("create")
@click.argument("name")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--image", required=True, help="What it is made of; see: steward image list.")
@click.option("--cpu", default="500m", show_default=True, help="Cores: 500m, 1, 2.5.")
@click.option("--memory", default="512Mi", show_default=True, help="512Mi, 2Gi.")
@click.option("--storage", default="1Gi", show_default=True, help="For all that is written.")
@click.option(
    "--timeout", "timeout_s", type=Duration(), help="How long it lives: 90, 15m, 2h. [default: 1h]"
)
@click.option(
    "--idle-timeout", "idle_timeout_s", type=Duration(), help="Without use it ends after that."
)
@ENV
@click.option(
    "--label",
    "-l",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=pairs,
    help="A label. May be repeated.",
)
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
    help="A port of it that may be reached through the gateway. May be repeated.",
)
@click.option("--user", "-u", type=click.IntRange(0), help="Run commands as this user, by number.")
@click.option("--read-only", is_flag=True, help="Let nothing be written to its root.")
@click.option("--runtime-class", default="", help='Another way to isolate it, as "gvisor".')
@click.option("--wait/--no-wait", default=True, help="Whether to wait until it runs.")
@click.option("--quiet", "-q", is_flag=True, help="Print only its id.")
@calls_server
def create(
    steward: Steward,
    name: str,
    command: tuple[str, ...],
    *,
    image: str,
    cpu: str,
    memory: str,
    storage: str,
    timeout_s: int | None,
    idle_timeout_s: int | None,
    env: dict[str, str],
    labels: dict[str, str],
    internet: bool,
    cidrs: tuple[str, ...],
    ports: tuple[int, ...],
    user: int | None,
    read_only: bool,
    runtime_class: str,
    wait: bool,
    quiet: bool,
) -> None:
    """Create an environment and wait until it runs.

    It reaches nothing by itself. COMMAND, after `--`, is its main command, with whose end it ends;
    without one it does nothing until it is stopped.
    """
    made = steward.client.environments.create(
        name,
        image=image,
        cpu=cpu,
        memory=memory,
        storage=storage,
        timeout_s=timeout_s,
        idle_timeout_s=idle_timeout_s,
        env=env,
        command=command,
        labels=labels,
        isolation=Isolation(
            runtime_class,
            NetworkPolicy(
                allow_internet=internet, allowed_egress_cidrs=cidrs, allowed_ingress_ports=ports
            ),
            SecurityContext(run_as_user=user, read_only_root_filesystem=read_only or None),
        ),
    )
    if wait:
        shown = steward.client.environments.wait_until_running(made.id)
    else:
        shown = steward.client.environments.get(made.id)
    if quiet:
        line(made.id)
        return
    steward.show(shown, environment_card)


@environments.command("list")
@click.option("--status", type=STATES, help="Only these.")
@click.option("--label", default="", help='Only those with these labels: "project=x,tier!=web".')
@calls_server
def list_environments(steward: Steward, *, status: Any, label: str) -> None:
    """List environments you may see, newest first."""
    steward.show(steward.client.environments.list(status=status, label=label), _table)


@environments.command("show")
@click.argument("environment")
@calls_server
def show_environment(steward: Steward, environment: str) -> None:
    """Show one environment (by id, or by name)."""
    found = steward.client.environments.get(environment_id(steward, environment))
    steward.show(found, environment_card)


@environments.command("rm")
@click.argument("environments", nargs=-1, required=True, metavar="ENVIRONMENT...")
@click.option("--force", "-f", is_flag=True, help="Kill at once what runs in them.")
@calls_server
def remove(steward: Steward, environments: tuple[str, ...], *, force: bool) -> None:
    """End environments and remove everything of them."""
    for each in [environment_id(steward, name) for name in environments]:
        steward.client.environments.delete(each, force=force)
        say(f"removed {each}")


@environments.command("extend")
@click.argument("environment")
@click.argument("by_s", type=Duration(), metavar="TIME")
@calls_server
def extend(steward: Steward, environment: str, by_s: int) -> None:
    """Let an environment live longer than it was to.

    TIME is how much longer: 90, 15m, 2h.
    """
    changed = steward.client.environments.extend(environment_id(steward, environment), by_s)
    steward.show(changed, environment_card)


@environments.command("pause")
@click.argument("environment")
@calls_server
def pause(steward: Steward, environment: str) -> None:
    """Let everything in an environment stand still; memory is kept."""
    paused = steward.client.environments.pause(environment_id(steward, environment))
    steward.show(paused, environment_card)


@environments.command("resume")
@click.argument("environment")
@calls_server
def resume(steward: Steward, environment: str) -> None:
    """Let what is paused go on."""
    resumed = steward.client.environments.resume(environment_id(steward, environment))
    steward.show(resumed, environment_card)


@environments.command("ps")
@click.argument("environment")
@calls_server
def processes(steward: Steward, environment: str) -> None:
    """List what runs in an environment."""
    found = steward.client.environments.processes(environment_id(steward, environment))
    steward.show(found, _process_table)


@environments.command("share")
@click.argument("environment")
@click.argument("user", required=False)
@click.option("--permission", type=PERMISSIONS, default="read", show_default=True)
@click.option("--remove", is_flag=True, help="Take away what USER was let do.")
@calls_server
def share(
    steward: Steward, environment: str, user: str | None, *, permission: Any, remove: bool
) -> None:
    """Let somebody else use an environment.

    USER is a name or an id; without USER, those who may are listed. read: see it and its logs.
    write: run commands, use its files. admin: change and remove it.
    """
    of = environment_id(steward, environment)
    if user is None:
        if remove:
            raise click.UsageError("name the user to take it away from")
        steward.show(steward.client.environments.shares(of), _share_table)
    elif remove:
        steward.client.environments.unshare(of, user)
        say(f"{user} may not use {of} any more")
    else:
        shared = steward.client.environments.share(of, user, permission)
        steward.show(shared, lambda each: _share_table([each]))


def _table(listed: Sequence[Environment]) -> Table:
    return table(
        [
            "ID",
            "NAME",
            "STATUS",
            "IMAGE",
            "CPU",
            "MEMORY",
            "STORAGE",
            "LABELS",
            "CREATED",
            "REASON",
        ],
        [
            (
                each.id,
                each.name,
                word("paused" if each.paused else each.status),
                each.image,
                each.resources.cpu,
                each.resources.memory,
                each.resources.storage,
                _labels(each.labels) or "-",
                moment(each.created_at),
                without_controls(each.reason) or "-",
            )
            for each in listed
        ],
    )


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def environment_card(each: EnvironmentDetails) -> Table:
    """One environment, as it is shown."""
    network, uses = each.isolation.network_policy, each.metrics
    reaches = [*(["the internet"] if network.allow_internet else []), *network.allowed_egress_cidrs]
    rows: list[tuple[str, str | Text]] = [
        ("id", each.id),
        ("name", each.name),
        ("status", word("paused" if each.paused else each.status)),
        ("because", without_controls(each.reason)),
        ("exit code", "" if each.exit_code is None else str(each.exit_code)),
        ("image", each.image),
        ("command", without_controls(" ".join(each.command))),
        ("cpu", _of(uses.cpu_usage if uses else "", each.resources.cpu)),
        ("memory", _of(uses.memory_usage if uses else "", each.resources.memory)),
        ("storage", _of(uses.storage_usage if uses else "", each.resources.storage)),
        ("processes", str(uses.process_count) if uses else ""),
        ("reaches", ", ".join(reaches) or "nothing"),
        ("ports", ", ".join(str(port) for port in network.allowed_ingress_ports)),
        ("runtime class", each.isolation.runtime_class),
        ("env", ", ".join(sorted(each.env))),
        ("labels", _labels(each.labels)),
        ("created", moment(each.created_at)),
        ("started", moment(each.started_at)),
        ("ended", moment(each.ended_at)) if each.ended_at else ("expires", _expiry(each)),
        ("idle timeout", f"{each.idle_timeout_s} s" if each.idle_timeout_s else ""),
        ("owner", each.owner_id),
        ("agent", each.agent_id),
        ("you may", each.permission),
    ]
    return card([(name, text) for name, text in rows if text])


def _of(used: str, most: str) -> str:
    return f"{used} of {most}" if used else most


def _expiry(each: EnvironmentDetails) -> str:
    if each.expires_at is None:
        return "never"
    left_s = max(0, round((each.expires_at - datetime.now(UTC)).total_seconds()))
    hours, minutes = divmod(left_s // 60, 60)
    left = f"{hours} h {minutes} min" if hours else f"{minutes} min {left_s % 60} s"
    return f"{moment(each.expires_at)} (in {left})"


def size(count: int) -> str:
    """A number of bytes as people read it."""
    if count < 1024:
        return f"{count} B"
    power = min((count.bit_length() - 1) // 10, 4)
    amount = count / 1024**power
    return f"{amount:.{0 if amount >= 100 else 1}f} {'KMGT'[power - 1]}iB"


def _process_table(listed: Sequence[Process]) -> Table:
    return table(
        ["#PID", "#PARENT", "#USER", "#MEMORY", "STARTED", "COMMAND"],
        [
            (
                str(each.pid),
                str(each.parent_pid),
                str(each.user),
                size(each.memory_bytes),
                moment(each.started_at),
                without_controls(each.command),
            )
            for each in listed
        ],
    )


def _share_table(listed: Sequence[Share]) -> Table:
    return table(
        ["USER", "ID", "PERMISSION", "SINCE"],
        [
            (each.username, each.user_id, each.permission, moment(each.created_at))
            for each in listed
        ],
    )
