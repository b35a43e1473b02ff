"""`steward playbook`: files are checked and planned here, and the library of a server is kept.

Only the server's own code knows what a playbook means; `check` and `plan` run it here, without a
server.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Group
from rich.table import Table
from rich.text import Text

from steward_client.cli.endings import FAILED
from steward_client.cli.of_server import of_server
from steward_client.cli.output import (
    brief,
    card,
    json_text,
    line,
    moment,
    say,
    show,
    table,
    without_controls,
)
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.playbooks import (
    Playbook,
    PlaybookParameter,
    PlaybookStep,
    PlaybookSummary,
)
from steward_client.errors import InvalidRequest

T = TypeVar("T")


class Given(click.ParamType[tuple[str, str]]):
    """A parameter of a playbook: `url=http://localhost`."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} gives no parameter; write NAME=VALUE", param, ctx)
        return name, text


_ABLE = "knows what a playbook means"
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_library = click.option(
    "--library",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Where the playbooks are that FILE runs; by default the folder above its own, its own, "
    "and those that come with Steward.",
)


@click.group("playbook")
def playbooks() -> None:
    """Playbooks, procedures in YAML: check them, see what they would do, keep and run them.

    FILE is one of this machine, PATH one of the server's library: gateway/health_check.yaml. ID is
    a run of one.
    """


@playbooks.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@_library
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing of files that are well.")
def check(files: Sequence[Path], library: Path | None, *, as_json: bool, quiet: bool) -> int:
    """Check playbooks, and tell everything that is wrong.

    Each line is file:line:column: what. Exit code 1 if there is anything.
    """
    check_file = of_server("check-playbook", _ABLE)
    found = [(file, _read(partial(check_file, file, library))) for file in files]
    if as_json:
        told = [
            {"file": str(file), **dataclasses.asdict(fault)}
            for file, faults in found
            for fault in faults
        ]
        line(json_text(told))
    else:
        for file, faults in found:
            for fault in faults:
                line(f"{file}:{fault}")
            if not faults and not quiet:
                line(f"{file}: well")
    return FAILED if any(faults for _, faults in found) else 0


@playbooks.command("plan")
@click.argument("file", type=_FILE)
@click.option(
    "--parameter",
    "-p",
    "parameters",
    type=Given(),
    multiple=True,
    help="A value to start with, as YAML has it; repeatable.",
)
@_library
@click.option("--json", "as_json", is_flag=True, help="Print the whole plan as JSON.")
def plan(
    file: Path,
    parameters: Sequence[tuple[str, str]],
    library: Path | None,
    *,
    as_json: bool,
) -> int:
    """Show what FILE would do, and do none of it.

    References are replaced as far as is known; what only the run can tell stays as it is written.
    Exit code 1 if it cannot be run, or not with these parameters.
    """
    plan_file = of_server("plan-playbook", _ABLE)
    try:
        made = _read(partial(plan_file, file, parameters, library))
    except ValueError as error:
        faults, problems = getattr(error, "faults", ()), getattr(error, "problems", ())
        if not faults and not problems:
            raise
        for each in (*faults, *problems):
            click.echo(f"{file}:{each}" if faults else f"{file}: {each}", err=True)
        return FAILED
    if as_json:
        line(json_text(dataclasses.asdict(made)))
        return 0
    values = ", ".join(f"{name}={brief(value)}" for name, value in made.parameters.items())
    show(card([("playbook", f"{made.name} {made.version}"), ("parameters", values or "none")]))
    show(table(("STEP", "TYPE", "WILL", "CHANGES", "GIVEN"), _rows(made, "")))
    return 0


@playbooks.command("list")
@click.option("--domain", default="", help="Those of this domain only.")
@calls_server
def list_playbooks(steward: Steward, *, domain: str) -> None:
    """List the library of the server, by path."""
    steward.show(steward.client.playbooks.list(domain=domain), _library_table)


@playbooks.command("show")
@click.argument("path")
@click.option("--source", is_flag=True, help="Its text, as it is.")
@calls_server
def show_playbook(steward: Steward, path: str, *, source: bool) -> None:
    """Show what PATH takes and does."""
    if source:
        found = steward.client.playbooks.source(path)
        if steward.as_json:
            line(json_text(found))
        elif sys.stdout.isatty():
            line("\n".join(map(without_controls, found.text.splitlines())))
        else:
            click.echo(found.text, nl=False)
        return
    playbook = told_with_faults(partial(steward.client.playbooks.get, path))
    steward.show(playbook, _playbook_group)


@playbooks.command("save")
@click.argument("file", type=_FILE)
@click.argument("path")
@click.option("--new", is_flag=True, help="Only if there is no such playbook yet.")
@calls_server
def save(steward: Steward, file: Path, path: str, *, new: bool) -> None:
    """Save FILE as PATH on the server, if it has no faults.

    It takes the place of what is there.
    """
    try:
        text = _read(partial(file.read_text, encoding="utf-8"))
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8") from None
    expected = "" if new else None
    told_with_faults(partial(steward.client.playbooks.save, path, text, expected_digest=expected))
    say(f"saved {path}")


@playbooks.command("duplicate")
@click.argument("path")
@click.argument("name")
@calls_server
def duplicate(steward: Steward, path: str, name: str) -> None:
    """Copy PATH, under the name NAME.

    The copy is in the same folder; its path is printed.
    """
    work = partial(steward.client.playbooks.duplicate, path, name)
    steward.show(told_with_faults(work), Text)


@playbooks.command("delete")
@click.argument("path")
@calls_server
def delete(steward: Steward, path: str) -> None:
    """Delete PATH; those that come with the server stay."""
    steward.client.playbooks.delete(path)
    say(f"deleted {path}")


def told_with_faults(work: Callable[[], T]) -> T:
    """As `work`; all that is wrong with a playbook is told line by line."""
    try:
        return work()
    except InvalidRequest as error:
        for each in error.errors:
            click.echo(str(each), err=True)
        raise


def _library_table(listed: Sequence[PlaybookSummary]) -> Table:
    return table(
        ["PATH", "NAME", "VERSION", "DOMAIN", "ORIGIN", "#STEPS", "STATE", "DESCRIPTION"],
        [
            (
                each.path,
                each.name,
                each.version or "-",
                each.domain or "-",
                each.origin.replace("_", "-"),
                str(each.step_count),
                _state(each),
                each.error or each.description or "-",
            )
            for each in listed
        ],
    )


def _state(each: PlaybookSummary) -> Text:
    if each.pending:
        return Text("not read", style="yellow")
    if each.error_count:
        return Text("unusable", style="red")
    return Text("verified" if each.verified else "well", style="green")


def _playbook_group(playbook: Playbook) -> Group:
    told = card(
        [
            ("playbook", f"{playbook.name} {playbook.version}"),
            ("path", playbook.path),
            ("description", playbook.description or "-"),
            ("domain", playbook.domain or "-"),
            ("origin", playbook.origin.replace("_", "-")),
            ("needs", ", ".join(playbook.needs) or "nothing"),
            ("changed", moment(playbook.last_modified)),
        ]
    )
    parameters = table(
        ("PARAMETER", "TYPE", "DEFAULT", "MEANING"),
        [
            (each.name, each.type, _default(each), each.description or "-")
            for each in playbook.parameters
        ],
    )
    steps = table(
        ("STEP", "NAME", "TYPE", "ON FAILURE", "CHANGES", "WHEN"),
        [
            *(row for step in playbook.steps for row in _step_rows(step, "")),
            *(row for step in playbook.finally_steps for row in _step_rows(step, "finally ")),
        ],
    )
    return Group(told, parameters, steps) if playbook.parameters else Group(told, steps)


def _default(parameter: PlaybookParameter) -> str:
    if parameter.default is not None:
        return brief(parameter.default)
    return "required" if parameter.required else "-"


def _step_rows(step: PlaybookStep, before: str) -> Iterator[Sequence[str]]:
    changes = "no" if step.is_read_only else "yes"
    yield f"{before}{step.id}", step.name, step.type, step.on_failure, changes, step.when or "-"
    for undo in step.undo:
        yield from _step_rows(undo, "  undo ")


def _rows(plan: Any, indent: str) -> Iterator[Sequence[str]]:
    for step in plan.steps:
        yield from _step(step, indent)
    for step in plan.finally_:
        yield from _step(step, indent, "finally ")


def _step(step: Any, indent: str, before: str = "") -> Iterator[Sequence[str]]:
    given = ", ".join(
        f"{name}={brief(value)}"
        for name, value in step.parameters.items()
        if value not in (None, "", {}, [])
    )
    will = f"{step.will} on {step.when}" if step.will == "depend" else str(step.will)
    changes = "no" if step.is_read_only else "yes"
    yield f"{indent}{before}{step.id}", step.type, will, changes, given
    for undo in step.undo:
        yield from _step(undo, f"{indent}  ", "undo ")
    if step.child is not None:
        yield from _rows(step.child, f"{indent}  ")


def _read(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError as error:
        raise click.ClickException(str(error)) from None
