"""`steward policy import`: makes a policy of an ONNX file, and asks what the file does not tell.

What a file says, and whether it can be served, the server's own code finds out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from steward_client.cli.of_server import of_server
from steward_client.cli.output import card, json_text, line, show


class Tensor(click.ParamType[tuple[str, str]]):
    """A tensor of a file and what it stands for: `observation=obs`."""

    name = "old=new"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        old, equals, new = str(value).rpartition("=")
        if not equals or not old or not new:
            self.fail(f"{value!r} names no tensor; write OLD=NEW", param, ctx)
        return old, new


class Sizes(click.ParamType[tuple[int, ...]]):
    """What one agent has of a tensor: `4`, `32x64`."""

    name = "sizes"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            sizes = tuple(map(int, str(value).split("x")))
        except ValueError:
            sizes = (0,)
        if min(sizes) < 1:
            self.fail(f"{value!r} is no size; write 4, or 32x64", param, ctx)
        return sizes


class Shape(click.ParamType[tuple[str, tuple[int, ...]]]):
    """A tensor with its sizes, without the batch: `hidden=64`."""

    name = "tensor=sizes"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, tuple[int, ...]]:
        if isinstance(value, tuple):
            return value
        tensor, equals, sizes = str(value).rpartition("=")
        if not equals or not tensor:
            self.fail(f"{value!r} names no tensor; write TENSOR=4, or TENSOR=32x64", param, ctx)
        return tensor, Sizes().convert(sizes, param, ctx)


class Bounds(click.ParamType[tuple[float, ...]]):
    """A bound for each number of an action, or one for all: `-2`, `-2,-1`."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(map(float, filter(None, str(value).split(","))))
        except ValueError:
            self.fail(f"{value!r} is no bound; write -2, or -2,-1", param, ctx)


@dataclass(slots=True)
class _Questions:
    """Asks whoever sits at the terminal; elsewhere notes what would have to be asked."""

    missing: list[str] = field(default_factory=list)
    """What to pass, with a word on why."""

    def ask(self, option: str, why: str, text: str, default: Any, kind: Any = str) -> Any:
        """An answer; `default` stands for nobody who could give one, or nothing to say."""
        if is_terminal():
            return click.prompt(text, type=kind, default=default, show_default=False, err=True)
        if default is None:
            self.missing.append(f"{option} ({why})")
        return default

    def must_be_answered(self) -> None:
        if self.missing:
            raise click.UsageError(
                f"the file does not tell everything; pass {', '.join(self.missing)}"
            )


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty()


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="What the policy is to be called.")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="STEWARD_INFERENCE_FOLDER",
    help="The folder of policies; else `policies` in the data folder.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="STEWARD_DATA_DIR",
    default=Path(".data"),
    show_default=True,
    help="The server's folder on this machine (or STEWARD_DATA_DIR).",
)
@click.option("--version", type=click.IntRange(1), help="Else the one after the newest.")
@click.option("--description", help="What it does, in a sentence.")
@click.option(
    "--tensor",
    "tensors",
    type=Tensor(),
    multiple=True,
    help="What a tensor of the file stands for: observation=obs, pi=logits. May be repeated.",
)
@click.option(
    "--shape",
    "shapes",
    type=Shape(),
    multiple=True,
    help="Sizes the file does not tell, of one agent: obs=4, memory=32x64. May be repeated.",
)
@click.option("--memory", help="Which state is the external memory; else the one called so.")
@click.option("--pressure", help="What the pressure it gives means, in words.")
@click.option("--low", type=Bounds(), help="The least each number of an action may be: -2.")
@click.option("--high", type=Bounds(), help="The most.")
@click.option(
    "--temperature", type=float, default=1.0, show_default=True, help="Of the draws of actions."
)
@click.option("--quiet", "-q", is_flag=True, help="Print only its name and version.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def import_policy(
    file: Path,
    *,
    name: str,
    folder: Path | None,
    data_dir: Path,
    version: int | None,
    description: str | None,
    tensors: Sequence[tuple[str, str]],
    shapes: Sequence[tuple[str, tuple[int, ...]]],
    memory: str | None,
    pressure: str | None,
    low: tuple[float, ...] | None,
    high: tuple[float, ...] | None,
    temperature: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a policy of FILE, an ONNX model, in the server's folder; a server may be running.

    A policy takes `obs` and what it keeps of an agent, and gives `logits`, or `mean` and `log_std`,
    then `value`, and what it keeps next, `hidden_out` of `hidden`. Which tensor is which is guessed
    from names; what cannot be is asked at a terminal, and taken from options elsewhere. The model
    is tried before it is put in place, and the digest of its bytes is written down. Runs on the
    server's machine, as the user who runs the server.
    """
    inspect_file, import_file = (
        of_server(name, "knows what it can serve") for name in ("inspect-policy", "import-policy")
    )
    if folder is None:
        if not data_dir.is_dir():
            raise click.ClickException(
                f"there is no folder {str(data_dir)!r}; name the server's with --data-dir, or a "
                "folder of policies with --to"
            )
        folder = data_dir / "policies"
    names, sizes, questions = dict(tensors), dict(shapes), _Questions()
    try:
        facts = inspect_file(file, names)
        while facts.unclear:
            tensor, meaning = _which(facts.unclear[0])
            names[tensor] = meaning
            facts = inspect_file(file, names)
        sizes |= _sizes(facts, sizes, questions)
        memory = _memory(facts, sizes) if memory is None else memory
        if facts.has_pressure and pressure is None:
            why = "it gives a figure called pressure"
            pressure = questions.ask("--pressure", why, "What the pressure means", None)
        if description is None:
            why = "what it does"
            description = questions.ask("--description", why, "What it does, in a sentence", None)
        count = facts.action_size or sizes.get("action", (1,))[0]
        if facts.action_type == "continuous":
            low, high = (
                _bound(questions, end, given, count)
                for end, given in (("low", low), ("high", high))
            )
        questions.must_be_answered()
        made = import_file(
            folder,
            file,
            name,
            description=description,
            names=names,
            shapes=sizes,
            memory=memory,
            pressure=pressure or "",
            low=low or (),
            high=high or (),
            temperature=temperature,
            version=version or 0,
        )
    except (OSError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    _tell(made, facts, quiet=quiet, as_json=as_json)


def _which(unclear: Any) -> tuple[str, str]:
    """Have it said which tensor is meant: the tensor, and what it stands for."""
    wanted, among = unclear.wanted, unclear.candidates
    if not is_terminal():
        listed = ", ".join(map(repr, among))
        meaning = wanted.partition(" ")[0]
        raise click.UsageError(
            f"it is unclear which of {listed} is {wanted}; say so with: "
            f"--tensor {among[0]}={meaning}"
        )
    if wanted == "logits or mean":
        kinds = click.Choice(["discrete", "continuous"])
        kind = click.prompt("Is an action discrete or continuous", type=kinds, err=True)
        wanted = "logits" if kind == "discrete" else "mean"
    tensor = click.prompt(f"Which tensor is {wanted}", type=click.Choice(among), err=True)
    return tensor, wanted


def _sizes(
    facts: Any, given: dict[str, tuple[int, ...]], questions: _Questions
) -> dict[str, tuple[int, ...]]:
    """Sizes that neither the file tells nor an option."""
    unknown = [
        each.name
        for each in (facts.obs, *facts.states)
        if each.name not in given and (not each.shape or 0 in each.shape)
    ]
    if not facts.action_size and "action" not in given:
        unknown.append("action")
    asked = {
        name: questions.ask(
            f"--shape {name}=…", "its size", f"Sizes of {name}, of one agent", None, Sizes()
        )
        for name in unknown
    }
    return {name: sizes for name, sizes in asked.items() if sizes}


def _memory(facts: Any, sizes: dict[str, tuple[int, ...]]) -> str:
    """Which state is the memory: rows by columns, and called so, or said to be."""
    tables = [each.name for each in facts.states if len(sizes.get(each.name, each.shape)) == 2]
    if "memory" in tables or not tables or not is_terminal():
        return "memory" if "memory" in tables else ""
    chosen = click.prompt(
        "Which of its states is the external memory",
        type=click.Choice([*tables, "none"]),
        default="none",
        err=True,
    )
    return "" if chosen == "none" else chosen


def _bound(
    questions: _Questions, end: str, given: tuple[float, ...] | None, count: int
) -> tuple[float, ...]:
    """A bound for each number; nothing if there is none."""
    if given is None:
        text = f"The {'least' if end == 'low' else 'most'} that numbers may be (nothing: no bound)"
        given = questions.ask(f"--{end}", "", text, (), Bounds())
    return given * count if given is not None and len(given) == 1 else given or ()


def _tell(made: Any, facts: Any, *, quiet: bool, as_json: bool) -> None:
    reference = f"{made.name}@{made.version}"
    if quiet:
        line(reference)
    elif as_json:
        told = {
            "name": made.name,
            "version": made.version,
            "folder": str(made.folder),
            "renamed": dict(facts.names),
            "manifest": made.manifest,
        }
        line(json_text(told))
    else:
        renamed = ", ".join(f"{old} is {new}" for old, new in facts.names.items())
        rows = [("policy", reference), ("folder", str(made.folder))]
        show(card([*rows, ("renamed", renamed or "nothing")]))
        line(f"\n{made.manifest}")
        line("A server that is running finds it by itself, or now with:")
        line(f"  steward policy load {made.name}")
