"""`steward env exec` and `steward env logs`: what goes into an environment and comes out."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from steward_client.cli.endings import describe, tell_cut
from steward_client.cli.environments import ENV, Duration, environment_id
from steward_client.cli.environments_feeding import STUCK_S, Feeder, standard_input, write_all
from steward_client.cli.output import json_text, line, moment, say, without_controls
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.calls import Blocking
from steward_client.client.environments_streams import RunningCommand
from steward_client.client.environments_values import ExecExit, LogLine
from steward_client.errors import StewardError

TIMED_OUT = 124
NOT_RUN = 125
"""As `timeout`, `docker run` and others end when they themselves fail."""
NOT_FOUND = 127

STDOUT, STDERR = 1, 2


@contextmanager
def ending_as_run() -> Iterator[None]:
    """End with a code of its own for what did not come from the command: 125, or 127."""
    try:
        yield
    except StewardError as error:
        click.echo(f"Error: {describe(error)}", err=True)
        code = NOT_FOUND if error.reason == "NOT_EXECUTABLE" else NOT_RUN
        raise click.exceptions.Exit(code) from None


def own(command: tuple[str, ...]) -> tuple[str, ...]:
    """A command without the mark that may stand before it.

    Raises:
        click.UsageError: it begins with what was meant for us.
    """
    if command[:1] == ("--",):
        return command[1:]
    if command and command[0].startswith("-"):
        raise click.UsageError(
            f"{command[0]} stands after the environment, where the command begins; options go "
            "before it, and a program of that name behind --"
        )
    return command


@click.command(
    "exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("environment")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@ENV
@click.option("--workdir", "-w", default="", help="Where it runs; else as the image says.")
@click.option("--user", "-u", type=click.IntRange(0), help="As which user, by number.")
@click.option("--timeout", "timeout_s", type=Duration(), help="Kill it after: 90, 15m. Else never.")
@click.option("--no-stdin", "-n", is_flag=True, help="Leave standard input to whoever reads next.")
@calls_server
def execute(
    steward: Steward,
    environment: str,
    command: tuple[str, ...],
    *,
    env: dict[str, str],
    workdir: str,
    user: int | None,
    timeout_s: int | None,
    no_stdin: bool,
) -> None:
    """Run a command in an environment.

    Its input and outputs are those of this one, byte by byte. Options stand before ENVIRONMENT;
    what follows it is the command's own. Interrupting passes the signal on to it; again, ends it.
    With --json what it wrote is printed when it has ended.

    Ends with the command's exit code; 124 if its time was over, 127 if there is no such program,
    125 if anything else kept it from running to its end.
    """
    command = own(command)
    if not command:
        raise click.UsageError("say which command, after the environment")
    with ending_as_run():
        running = steward.client.environments.start(
            environment_id(steward, environment),
            command,
            timeout_s=timeout_s,
            env=env,
            working_dir=workdir,
            user=user,
        )
        written: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        with running, _fed(running, None if no_stdin else standard_input()):
            for output in running:
                if steward.as_json:
                    written[output.stream] += output.data
                else:
                    write_all(STDOUT if output.stream == "stdout" else STDERR, output.data)
    ended = running.exit or ExecExit(NOT_RUN, "", timed_out=False, duration_ms=0)
    if steward.as_json:
        texts = {name: bytes(data).decode(errors="replace") for name, data in written.items()}
        line(json_text(texts | {name: getattr(ended, name) for name in ExecExit.__slots__}))
    if ended.timed_out:
        say(f"killed after {timeout_s} s, its time was over")
    raise click.exceptions.Exit(TIMED_OUT if ended.timed_out else ended.exit_code)


@contextmanager
def _fed(running: RunningCommand[Blocking], source: int | None) -> Iterator[None]:
    """Give a command its input, and the signals that are meant for it, for the block."""
    passed: set[int] = set()

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if number in passed or feeder.is_stuck:
            _leave(number)
        passed.add(number)
        feeder.note(signal.Signals(number).name)
        signal.setitimer(signal.ITIMER_REAL, STUCK_S, STUCK_S)

    def look(_alarm: int, _frame: FrameType | None) -> None:
        """See whether what was to be passed on ever will be: it may stand behind input."""
        if feeder.is_stuck:
            _leave(max(passed))
        elif not feeder.has_notes and not feeder.is_giving:
            signal.setitimer(signal.ITIMER_REAL, 0)

    feeder = Feeder(
        source, on_input=running.write, on_end=running.end_input, on_note=running.signal
    )
    handlers = {signal.SIGINT: pass_on, signal.SIGTERM: pass_on, signal.SIGALRM: look}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        with feeder:
            try:
                yield
            finally:
                running.close()  # so that nobody waits to write to it
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


@click.command("logs")
@click.argument("environment")
@click.option("--follow", "-f", is_flag=True, help="Go on with each line as it is written.")
@click.option("--tail", type=click.IntRange(0), help="Begin with so many lines from the end.")
@click.option("--timestamps", "-t", is_flag=True, help="Say when each was written.")
@calls_server
def logs(
    steward: Steward, environment: str, *, follow: bool, tail: int | None, timestamps: bool
) -> None:
    """Print what an environment and the commands in it wrote.

    What was written to standard error is printed there. With -f until it ends; after a cut the log
    goes on where it left off. With --json each line of a log that is followed is an object.
    """
    wanted = environment_id(steward, environment)
    if follow:
        _follow(steward, wanted, tail=tail, timestamps=timestamps)
        return
    page = steward.client.environments.logs(wanted, tail=tail)
    lines = _all(steward, wanted, page.last_sequence, tail) if page.truncated else page.logs
    if steward.as_json:
        line(json_text(lines))
        return
    for each in lines:
        _print(each, timestamps=timestamps)


def _all(steward: Steward, wanted: str, last: int, tail: int | None) -> tuple[LogLine, ...]:
    """The lines up to one, where they do not go into an answer."""
    found = []
    after = 0 if tail is None else max(0, last - tail)
    with steward.client.environments.follow_logs(wanted, after=after) as followed:
        for each in followed:
            found.append(each)
            if each.sequence >= last:
                break
    return tuple(found)


def _follow(steward: Steward, wanted: str, *, tail: int | None, timestamps: bool) -> None:
    with steward.client.environments.follow_logs(wanted, tail=tail, on_cut=tell_cut) as followed:
        for each in followed:
            if steward.as_json:
                line(json_text(each, indented=False))
            else:
                _print(each, timestamps=timestamps)
    if followed.end is not None:
        end = followed.end
        state = "" if end.status == "unspecified" else f"{end.status}: "
        say(f"there is no more ({state}{without_controls(end.reason)})")


def _print(each: LogLine, *, timestamps: bool) -> None:
    text = each.message
    out = sys.stdout if each.stream == "stdout" else sys.stderr
    if out.isatty():
        text = without_controls(text)
    if each.stream == "system":
        text = f"[steward: {text}]"
    if timestamps:
        text = f"{moment(each.timestamp)} {text}"
    out.buffer.write(text.encode() + b"\n")
    out.flush()
