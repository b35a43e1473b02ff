"""`steward playbook check` and `plan`: what is wrong with a file, and what it would do.

Only the server's own code knows what a playbook means; it runs here, without a server.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from steward_client.cli.endings import FAILED
from steward_client.cli.of_server import of_server
from steward_client.cli.output import card, json_text, line, show, table


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
    """Playbooks, procedures in YAML: check them, and see what they would do."""


@playbooks.command("check")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@_library
@click.option("--json", "as_json", is_flag=True, help="Print what is wrong as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing of files that are well.")
def check(files: Sequence[Path], library: Path | None, *, as_json: bool, quiet: bool) -> int:
    """Check playbooks, and tell everything that is wrong: file:line:column: what.

    Exit code 1 if there is anything.
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
    """Show what FILE would do with these parameters, and do none of it.

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
    values = ", ".join(f"{name}={_text(value)}" for name, value in made.parameters.items())
    show(card([("playbook", f"{made.name} {made.version}"), ("parameters", values or "none")]))
    show(table(("STEP", "TYPE", "WILL", "CHANGES", "GIVEN"), _rows(made, "")))
    return 0


def _rows(plan: Any, indent: str) -> Iterator[Sequence[str]]:
    for step in plan.steps:
        yield from _step(step, indent)
    for step in plan.finally_:
        yield from _step(step, indent, "finally ")


def _step(step: Any, indent: str, before: str = "") -> Iterator[Sequence[str]]:
    given = ", ".join(
        f"{name}={_text(value)}"
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


def _text(value: Any) -> str:
    """A value on one line, cut where it is long."""
    text = value if isinstance(value, str) else json_text(value, indented=False)
    text = " ".join(text.split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def _read(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError as error:
        raise click.ClickException(str(error)) from None
