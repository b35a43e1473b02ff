"""`steward playbook run` and what is done to runs: they are followed, looked at, paused, ended."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, get_args

import click
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import YAMLError

from steward_client.cli.environments import size
from steward_client.cli.environments_feeding import write_all
from steward_client.cli.executions_following import (
    follow,
    hints,
    named,
    status_of,
    steps_table,
    took,
)
from steward_client.cli.output import (
    brief,
    card,
    json_text,
    line,
    moment,
    say,
    table,
    without_controls,
    word,
)
from steward_client.cli.playbooks import Given, told_with_faults
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.executions_values import (
    Artifact,
    Execution,
    ExecutionStatus,
    StepResult,
)
from steward_client.errors import InvalidRequest, NotFound

PIPE = "-"
_STATUSES = [each for each in get_args(ExecutionStatus) if each != "unspecified"]
_NOT_THERE = ("PLAYBOOK_NOT_FOUND", "INVALID_PATH")
_TEXTS = ("string", "file", "credential")

_id = click.argument("execution_id", metavar="ID")
_detach = click.option(
    "--detach", "-d", is_flag=True, help="Print the run's id, and follow nothing."
)


@click.command("run")
@click.argument("path")
@click.option(
    "--parameter",
    "-p",
    "parameters",
    type=Given(),
    multiple=True,
    help="A value to start with, as YAML has it for the parameter's type; repeatable.",
)
@click.option("--gateway-url", default="", help="The gateway it is about: http or https.")
@click.option("--credential", default="", help="One of your credentials, by name.")
@click.option("--debug", is_flag=True, help="Pause where a step fails: then resume, or skip.")
@_detach
@calls_server
def run(
    steward: Steward,
    path: str,
    *,
    parameters: Sequence[tuple[str, str]],
    gateway_url: str,
    credential: str,
    debug: bool,
    detach: bool,
) -> None:
    """Run PATH of the server's library, and follow it to its end.

    Exit code 0 if it is completed, 1 if it failed, 10 if it was cancelled. Interrupting ends the
    following, not the run. With --json each line is something that happened.
    """
    try:
        execution_id = told_with_faults(
            lambda: steward.client.executions.start(
                path,
                parameters=_typed(steward, path, parameters),
                gateway_url=gateway_url,
                credential_name=credential,
                debug_mode=debug,
            )
        )
    except (NotFound, InvalidRequest) as error:
        if error.reason not in _NOT_THERE or not Path(path).is_file():
            raise
        raise NotFound(
            f"the server's library has no {path!r}, which is a file of this machine; save it "
            f"first, with: steward playbook save {shlex.join((path, Path(path).name))}"
        ) from None
    _begun(steward, execution_id, detach=detach)


@click.command("rerun")
@_id
@click.option("--from-start", is_flag=True, help="Make every step again.")
@_detach
@calls_server
def rerun(steward: Steward, execution_id: str, *, from_start: bool, detach: bool) -> None:
    """Start a run that is over once more.

    It begins with the first step that was not completed, and is followed as a new one is.
    """
    again = steward.client.executions.rerun(execution_id, from_start=from_start)
    _begun(steward, again, detach=detach)


@click.command("watch")
@_id
@click.option("--since", type=click.IntRange(min=0), help="Begin after this sequence, in lines.")
@calls_server
def watch(steward: Steward, execution_id: str, *, since: int | None) -> None:
    """Follow a run to its end, as `run` does.

    The exit codes are the same. After a cut it goes on where it left off.
    """
    follow(steward, execution_id, since=since)


@click.command("runs")
@click.option("--status", type=click.Choice(_STATUSES), help="Those in this state only.")
@click.option("--playbook", "path", default="", help="Those of this playbook only.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=50, help="So many at most.")
@calls_server
def runs(steward: Steward, *, status: ExecutionStatus | None, path: str, limit: int) -> None:
    """List runs, newest first."""
    listed = steward.client.executions.list(status=status, playbook_path=path, limit=limit)
    steward.show(listed, _runs_table)


@click.command("status")
@_id
@calls_server
def status(steward: Steward, execution_id: str) -> None:
    """Show a run: its steps, what it asks for, the files it made."""
    found = steward.client.executions.get(execution_id)
    made = steward.client.executions.artifacts(execution_id)
    if steward.as_json:
        line(json_text({**dataclasses.asdict(found), "artifacts": made}))
        return
    steward.show(found, partial(_run_group, made))


@click.command("pause")
@_id
@calls_server
def pause(steward: Steward, execution_id: str) -> None:
    """Let a run pause, at its next safe point."""
    steward.client.executions.pause(execution_id)
    say(f"{execution_id} is to pause; let it go on with: steward playbook resume {execution_id}")


@click.command("resume")
@_id
@calls_server
def resume(steward: Steward, execution_id: str) -> None:
    """Let a paused run go on.

    In debug mode the step that failed is tried again.
    """
    steward.client.executions.resume(execution_id)
    say(f"{execution_id} goes on")


@click.command("skip")
@_id
@calls_server
def skip(steward: Steward, execution_id: str) -> None:
    """End the step in hand, and go on with the next.

    In debug mode that is the step that failed.
    """
    steward.client.executions.skip(execution_id)
    say(f"{execution_id} goes on with the next step")


@click.command("cancel")
@_id
@click.option("--reason", default="", help="Why; the run's owner is told.")
@calls_server
def cancel(steward: Steward, execution_id: str, *, reason: str) -> None:
    """End a run.

    The step in hand ends at once, then come the steps of `finally`; asked once more, without those.
    """
    steward.client.executions.cancel(execution_id, reason=reason)
    say(f"{execution_id} is being ended")


_step = click.option(
    "--step", "step_id", default="", help="The step that asks, where that matters."
)
_comment = click.option("--comment", "-m", default="", help="What is said with it.")


@click.command("approve")
@_id
@_step
@_comment
@calls_server
def approve(steward: Steward, execution_id: str, *, step_id: str, comment: str) -> None:
    """Approve what a step of a run asks for."""
    steward.client.executions.approve(execution_id, step_id=step_id, comment=comment)
    say(f"approved; {execution_id} goes on")


@click.command("reject")
@_id
@_step
@_comment
@calls_server
def reject(steward: Steward, execution_id: str, *, step_id: str, comment: str) -> None:
    """Reject what a step of a run asks for: the step fails."""
    steward.client.executions.reject(execution_id, step_id=step_id, comment=comment)
    say(f"rejected; the step of {execution_id} fails")


@click.command("artifacts")
@_id
@calls_server
def artifacts(steward: Steward, execution_id: str) -> None:
    """List the files that a run made, oldest first."""
    steward.show(steward.client.executions.artifacts(execution_id), _artifacts_table)


@click.command("download")
@_id
@click.argument("name")
@click.option(
    "--output",
    "-o",
    help="Where to: a new file, a directory that is there, or `-` for standard output; else its "
    "name, here.",
)
@calls_server
def download(steward: Steward, execution_id: str, name: str, *, output: str | None) -> None:
    """Save a file that a run made, by its name or id. What is there already stays."""
    made = steward.client.executions.artifacts(execution_id)
    found = next((each for each in made if name in (each.name, each.artifact_id)), None)
    if found is None:
        there = ", ".join(brief(each.name) for each in made) or "none"
        raise NotFound(f"the run has made no file {name!r}; there are: {there}")
    opened = partial(steward.client.executions.open_artifact, execution_id, found.artifact_id)
    if output == PIPE:
        with opened() as pieces:
            for piece in pieces:
                write_all(sys.stdout.fileno(), piece)
        return
    target = target_of(output, found.name)
    with _new_file(target) as file, opened() as pieces:
        for piece in pieces:
            file.write(piece)
    if steward.as_json:
        line(json_text({**dataclasses.asdict(found), "path": str(target)}))
    else:
        say(f"saved {target}, {size(found.size_bytes)}")


@click.command("delete-run")
@_id
@calls_server
def delete_run(steward: Steward, execution_id: str) -> None:
    """Delete a run that is over, and all files it made."""
    steward.client.executions.delete(execution_id)
    say(f"deleted {execution_id}")


def _begun(steward: Steward, execution_id: str, *, detach: bool) -> None:
    if detach:
        steward.show({"execution_id": execution_id}, lambda _: Text(execution_id))
        return
    say(f"run {execution_id}")
    follow(steward, execution_id)


def _typed(steward: Steward, path: str, given: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Values as YAML has them, for parameters that are no text: 5, true, [1, 2]."""
    if not given:
        return {}
    types = {each.name: each.type for each in steward.client.playbooks.get(path).parameters}
    return {
        name: text if types.get(name, "string") in _TEXTS else yaml_value(text)
        for name, text in given
    }


class _Constructor(SafeConstructor):
    """Dates are text, as in playbooks."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def yaml_value(text: str) -> Any:
    """The value that is written so in YAML 1.2; what is none is the text itself."""
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Constructor
    try:
        return reader.load(text)
    except YAMLError:
        return text


def target_of(output: str | None, name: str) -> Path:
    """Where a file is saved that strangers have named."""
    if output is not None and not output.endswith("/") and not Path(output).is_dir():
        return Path(output)
    if not name or name.startswith(".") or not name.isprintable() or {"/", "\\"} & {*name}:
        raise InvalidRequest(f"the file's name cannot be here: {name!r}; give it one with -o")
    return Path(output or "") / name


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that was not there before, and is not if it does not become whole."""
    try:
        file = path.open("xb")
    except FileExistsError:
        raise click.ClickException(f"{path} is there already; name another with -o") from None
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from None
    with file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _runs_table(listed: Sequence[Execution]) -> Table:
    return table(
        ("RUN", "PLAYBOOK", "STATUS", "#STEPS", "CREATED", "#TOOK"),
        [
            (
                each.execution_id,
                brief(each.playbook_path),
                status_of(each),
                f"{each.current_step_index}/{each.total_steps}",
                moment(each.created_at),
                took(each.started_at, each.completed_at),
            )
            for each in listed
        ],
    )


def _run_group(made: Sequence[Artifact], run: Execution) -> Group:
    told: list[tuple[str, str | Text]] = [
        ("run", run.execution_id),
        ("playbook", f"{brief(run.playbook_name)} ({brief(run.playbook_path)})"),
        ("status", status_of(run)),
        ("steps", f"{run.current_step_index} of {run.total_steps}"),
        ("created", moment(run.created_at)),
        ("took", took(run.started_at, run.completed_at)),
        ("because", without_controls(run.error)),
        ("paused at", brief(run.paused_at)),
        ("parameters", named(run.parameters)),
        ("gateway", brief(run.gateway_url)),
        ("credential", brief(run.credential_name)),
        ("mode", "debug" if run.debug_mode else ""),
        ("owner", run.owner_id),
        ("agent", run.agent_id),
        ("run by", run.parent_execution_id),
        ("rerun of", run.rerun_of),
    ]
    parts: list[RenderableType] = [
        card([(name, text) for name, text in told if text]),
        steps_table(run.step_results),
    ]
    parts += hints(run)
    parts += [_failure(each) for each in run.step_results if each.status == "failed"]
    if made:
        parts.append(_artifacts_table(made))
    return Group(*parts)


def _failure(step: StepResult) -> Table:
    """Why a step failed, in full, and what helps to find out more."""
    facts = [(brief(name), brief(value)) for name, value in step.context.items()]
    return card([(f"step {step.step_id}", without_controls(step.error)), *facts])


def _artifacts_table(listed: Sequence[Artifact]) -> Table:
    return table(
        ("NAME", "KIND", "TYPE", "#SIZE", "STEP", "CREATED"),
        [
            (
                without_controls(each.name),
                word(each.kind),
                brief(each.content_type),
                size(each.size_bytes),
                each.step_id,
                moment(each.created_at),
            )
            for each in listed
        ],
    )


COMMANDS = [
    run,
    rerun,
    watch,
    runs,
    status,
    pause,
    resume,
    skip,
    cancel,
    approve,
    reject,
    artifacts,
    download,
    delete_run,
]
