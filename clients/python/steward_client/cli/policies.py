"""`steward policy`: what decides for agents."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.table import Table
from rich.text import Text

from steward_client.cli.output import card, moment, table
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.policies import (
    AgentOrder,
    InferenceAgents,
    Policy,
    PolicyVersion,
)


@click.group("policy")
def policies() -> None:
    """Policies that decide for agents: list, load and unload them, and bring one of your own.

    POLICY is a name, "cartpole", or one version of it, "cartpole@3".
    """


@policies.command("list")
@calls_server
def list_policies(steward: Steward) -> None:
    """List the policies of the server."""
    steward.show(steward.client.policies.list(), _policy_table)


@policies.command("get")
@click.argument("policy")
@calls_server
def get(steward: Steward, policy: str) -> None:
    """Show one policy with all its versions."""
    steward.show(steward.client.policies.get(policy), _policy_card)


@policies.command("load")
@click.argument("policy")
@calls_server
def load(steward: Steward, policy: str) -> None:
    """Have the server look at its folder, and load POLICY, or its newest version.

    Agents go on with the version they have. For administrators.
    """
    steward.show(steward.client.policies.load(policy), _policy_card)


@policies.command("unload")
@click.argument("policy")
@click.option("--force", is_flag=True, help="Though agents have it: they end.")
@calls_server
def unload(steward: Steward, policy: str, *, force: bool) -> None:
    """Have the server let go of POLICY, or of one version, until somebody asks for it again.

    For administrators.
    """
    steward.show(steward.client.policies.unload(policy, force=force), _policy_card)


@policies.command("agents")
@click.argument("policy", default="")
@click.option("--by-pressure", is_flag=True, help="Fullest memory first, not the newest step.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@calls_server
def agents(steward: Steward, policy: str, *, by_pressure: bool, limit: int) -> None:
    """List the agents that step, of POLICY or of all."""
    order: AgentOrder = "pressure" if by_pressure else "last_step"
    found = steward.client.policies.agents(policy, order_by=order, limit=limit)
    steward.show(found, _agent_table)


def _agent_table(found: InferenceAgents) -> Table:
    return table(
        ["AGENT", "OWNER", "POLICY", "#STEPS", "#PRESSURE", "LAST STEP"],
        [
            (
                each.agent_id or "(of a stream)",
                each.owner,
                each.policy,
                str(each.step_count),
                "-" if each.pressure is None else f"{each.pressure:.3f}",
                moment(each.last_step_at),
            )
            for each in found.agents
        ],
        totals=["total", str(found.total), "", "", "", ""],
    )


def _policy_table(listed: Sequence[Policy]) -> Table:
    return table(
        ["NAME", "LATEST", "STATE", "TAKES", "GIVES", "#AGENTS", "#STEPS", "DESCRIPTION"],
        [
            (
                f"{policy.name} (default)" if policy.is_default else policy.name,
                str(policy.latest) if policy.latest else "-",
                _state(shown),
                _numbers(shown.obs_dim) if shown.obs_dim else "-",
                _gives(shown),
                str(sum(each.agent_count for each in policy.versions)),
                str(sum(each.step_count for each in policy.versions)),
                shown.description or shown.fault or "-",
            )
            for policy in listed
            for shown in [_shown(policy)]
        ],
    )


def _policy_card(policy: Policy) -> Table:
    rows: list[tuple[str, str | Text]] = [
        ("name", f"{policy.name} (default)" if policy.is_default else policy.name),
        ("latest", str(policy.latest) if policy.latest else "-"),
    ]
    for version in policy.versions:
        rows += [("", ""), ("version", str(version.version)), ("state", _state(version))]
        if version.fault:
            rows.append(("fault", version.fault))
        if version.obs_dim:
            rows += _described(version)
        if version.is_loaded:
            rows += _loaded(version)
    return card(rows)


def _described(version: PolicyVersion) -> list[tuple[str, str | Text]]:
    kept = [f"{each.name} {list(each.shape)}" for each in version.state]
    if version.memory is not None:
        kept.append(f"{version.memory.name} {list(version.memory.shape)}, its memory")
    return [
        ("description", version.description),
        ("takes", _numbers(version.obs_dim)),
        ("gives", _gives(version)),
        ("keeps", "; ".join(kept) or "nothing"),
        ("pressure", version.pressure or "-"),
        ("sha256", version.model_sha256),
    ]


def _loaded(version: PolicyVersion) -> list[tuple[str, str | Text]]:
    rows_a_run = version.step_count / version.run_count if version.run_count else 0.0
    return [
        ("agents", str(version.agent_count)),
        ("steps", f"{version.step_count}, {rows_a_run:.1f} in a run"),
        ("loaded", moment(version.loaded_at)),
    ]


def _shown(policy: Policy) -> PolicyVersion:
    """The version that is served to whoever names none, else the newest."""
    return next(
        (each for each in policy.versions if each.version == policy.latest), policy.versions[0]
    )


def _state(version: PolicyVersion) -> Text:
    if version.fault:
        return Text("unusable", style="red")
    return Text("loaded", style="green") if version.is_loaded else Text("not loaded")


def _gives(version: PolicyVersion) -> str:
    match version.action_type:
        case "discrete":
            return f"1 of {version.action_size}"
        case "continuous":
            return _numbers(version.action_size)
    return "-"


def _numbers(count: int) -> str:
    return "1 number" if count == 1 else f"{count} numbers"
