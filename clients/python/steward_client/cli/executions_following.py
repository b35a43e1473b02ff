"""A run of a playbook, shown as it goes on: a table that moves, lines, or a JSON object a line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, Protocol

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steward_client.cli.endings import CANCELLED, FAILED, INTERRUPTED, tell_cut
from steward_client.cli.output import (
    brief,
    json_text,
    line,
    moment,
    say,
    table,
    terminal,
    without_controls,
    word,
)
from steward_client.cli.steward import Steward
from steward_client.client.executions_values import (
    Execution,
    ExecutionUpdate,
    Question,
    StepResult,
)

REFRESHES_A_SECOND = 4

_CODES = {"completed": 0, "failed": FAILED, "cancelled": CANCELLED}


class Teller(Protocol):
    """Shows what happens to a run."""

    def tell(self, update: ExecutionUpdate) -> None: ...


def follow(steward: Steward, execution_id: str, *, since: int | None = None) -> NoReturn:
    """Show what happens to a run, from its beginning or after a sequence, until it ends.

    Exits with 0 if it was completed, 1 if it failed, 10 if it was cancelled. An interruption ends
    nothing but the following.
    """
    executions = steward.client.executions
    try:
        with (
            _teller(steward, execution_id, since) as (teller, begin),
            executions.watch(execution_id, since=begin, on_cut=tell_cut) as happening,
        ):
            for each in happening:
                if isinstance(each, ExecutionUpdate):
                    teller.tell(each)
        ended = executions.get(execution_id)
    except KeyboardInterrupt:
        say(
            f"\nnot followed any more; the run goes on\n"
            f"  follow it again: steward playbook watch {execution_id}\n"
            f"  end it:          steward playbook cancel {execution_id}"
        )
        raise click.exceptions.Exit(INTERRUPTED) from None
    if ended.status == "failed":
        say(f"what came of each step, with: steward playbook status {execution_id}")
    raise click.exceptions.Exit(_CODES.get(ended.status, FAILED))


@contextmanager
def _teller(steward: Steward, execution_id: str, since: int | None) -> Iterator[tuple[Teller, int]]:
    """Who shows it, and after which sequence that begins."""
    console = terminal()
    if steward.as_json:
        yield _Objects(), since or 0
    elif console is None or since is not None:
        yield _Lines(), since or 0
    else:
        shown = _Board(steward.client.executions.get(execution_id), console)
        with Live(
            get_renderable=shown.rendered,
            console=console,
            refresh_per_second=REFRESHES_A_SECOND,
        ):
            yield shown, shown.execution.sequence


class _Objects:
    """An object a line, for programs."""

    def tell(self, update: ExecutionUpdate) -> None:
        line(json_text(update, indented=False))


class _Lines:
    """A sentence a line."""

    def tell(self, update: ExecutionUpdate) -> None:
        for each in sentences(update):
            line(f"{moment(update.timestamp)}  {each}")


def sentences(update: ExecutionUpdate) -> Iterator[str]:
    """What happened, for people; the texts in it are strangers'."""
    step, message = update.step_result, without_controls(update.message)
    if update.question is not None:
        yield from asked(update.execution_id, update.question)
    elif update.event == "paused":
        yield f"the run is paused{f': {message}' if message else ''}"
        yield from way_on(update.execution_id)
    elif step is not None:
        what = {"running": "failed, is tried again"}.get(step.status, step.status)
        if update.event == "step_started":
            what = "begins"
        elif update.event == "step_reopened":
            what = "is made again"
        because = without_controls(step.error) or message
        because = "" if because == what else because
        yield f"step {step.step_id} {what}{f': {because}' if because else ''}"
    elif update.event == "logged":
        yield f"{update.level or 'info'}: {message}"
    else:
        what = {
            "started": f"{without_controls(update.playbook_name)} begins, "
            f"{update.total_steps} steps",
            "ended": "the run failed"
            if update.status == "failed"
            else f"the run is {update.status}",
            "resumed": "the run goes on",
        }.get(update.event, update.event.replace("_", " "))
        yield f"{what}{f': {message}' if message else ''}"


def asked(execution_id: str, question: Question) -> Sequence[str]:
    """What a step asks for, and how to answer."""
    who = "somebody else than who started the run" if question.not_by_starter else "you"
    return (
        f"step {question.step_id} asks: {without_controls(question.message)}",
        f"  until {moment(question.expires_at)} {who} may approve it, or reject it, with:",
        f"  steward playbook approve {execution_id}",
    )


def hints(run: Execution) -> list[Text]:
    """What people may do now so that a run goes on."""
    told = asked(run.execution_id, run.question) if run.question is not None else ()
    if run.status == "paused":
        told = (*told, *way_on(run.execution_id))
    return [Text(each, style="yellow") for each in told]


def way_on(execution_id: str) -> Sequence[str]:
    """What may be done with a paused run."""
    return (
        "  let it go on, or skip the step in hand, with:",
        f"  steward playbook resume {execution_id}",
        f"  steward playbook skip {execution_id}",
    )


@dataclass(slots=True)
class _Board:
    """The steps of a run in a table that moves; what steps say is printed above."""

    execution: Execution
    console: Console

    def tell(self, update: ExecutionUpdate) -> None:
        self.execution = applied(self.execution, update)
        if update.event == "logged":
            self.console.print(Text(f"{update.level or 'info'}: {brief(update.message)}"))

    def rendered(self) -> RenderableType:
        run = self.execution
        parts: list[RenderableType] = [headline(run), steps_table(run.step_results), *hints(run)]
        if run.error:
            parts.append(Text(without_controls(run.error), style="red"))
        return Group(*parts)


def applied(run: Execution, update: ExecutionUpdate) -> Execution:
    """A run after something has happened to it."""
    question = update.question if update.event == "asked" else run.question
    is_over = update.event == "ended"
    if is_over or update.event in ("answered", "step_completed", "step_failed", "step_skipped"):
        question = None
    return replace(
        run,
        status=update.status,
        current_step_index=update.current_step_index,
        question=question,
        error=update.message if update.event in ("ended", "stop_asked") else run.error,
        pausing=update.event == "pause_asked"
        or (run.pausing and update.event not in ("paused", "resumed", "ended", "stop_asked")),
        cancelling=not is_over and (run.cancelling or update.event == "stop_asked"),
        started_at=update.timestamp if update.event == "started" else run.started_at,
        completed_at=update.timestamp if is_over else None,
        sequence=update.sequence,
        step_results=_with(run.step_results, update),
    )


def _with(steps: tuple[StepResult, ...], update: ExecutionUpdate) -> tuple[StepResult, ...]:
    told = update.step_result
    if told is None:
        return steps
    known = {each.step_id: each for each in steps}
    # Steps that undo others are heard of when they begin.
    before = known.get(told.step_id, told)
    begins = update.event == "step_started"
    known[told.step_id] = replace(
        before,
        status=told.status,
        error=told.error,
        output=told.output,
        context=told.context,
        child_execution_id=told.child_execution_id,
        attempts=before.attempts + begins,
        started_at=before.started_at or (update.timestamp if begins else None),
        completed_at=update.timestamp
        if told.status in ("completed", "failed", "skipped")
        else None,
    )
    return tuple(known.values())


def headline(run: Execution) -> Text:
    """What a run is and how far."""
    text = Text(f"{brief(run.playbook_name)}  ")
    text.append_text(status_of(run))
    progress = f"  {run.current_step_index} of {run.total_steps} steps"
    return text.append(f"{progress}  {took(run.started_at, run.completed_at)}")


def status_of(run: Execution) -> Text:
    """The state of a run, and what it is about to be in."""
    if run.cancelling:
        return Text(f"{run.status}, being ended", style="yellow")
    return Text(f"{run.status}, to pause", style="yellow") if run.pausing else word(run.status)


def steps_table(steps: Sequence[StepResult]) -> Table:
    """What became of steps."""
    return table(
        ("STEP", "NAME", "STATE", "#TRIES", "#TOOK", "TOLD"),
        [
            (
                each.step_id,
                brief(each.step_name),
                word(each.status),
                str(each.attempts or "-"),
                took(each.started_at, each.completed_at),
                brief(each.error or named(each.output) or "-"),
            )
            for each in steps
        ],
    )


def named(values: Mapping[str, Any]) -> str:
    """Values that strangers chose, each with its name; their order is nobody's."""
    return ", ".join(f"{brief(name)}={brief(value)}" for name, value in sorted(values.items()))


def took(begun: datetime | None, ended: datetime | None) -> str:
    """How long it took, or takes so far: `0.4 s`, `2:05`, `1:00:00`."""
    if begun is None:
        return "-"
    spent = max((ended or datetime.now(UTC)) - begun, timedelta())
    if spent < timedelta(minutes=1):
        return f"{spent.total_seconds():.1f} s"
    minutes, seconds = divmod(int(spent.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
