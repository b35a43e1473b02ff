"""`steward env attach`: a real terminal in an environment."""

from __future__ import annotations

import codecs
import secrets
import signal
import sys
import threading
from typing import Any

import click

from steward_client.cli.environments import environment_id
from steward_client.cli.environments_exec import NOT_RUN, ending_as_run, own
from steward_client.cli.environments_feeding import Feeder, standard_input
from steward_client.cli.environments_terminal import DetachKeys, LentTerminal
from steward_client.cli.output import say
from steward_client.cli.steward import Steward, calls_server
from steward_client.client.calls import Blocking
from steward_client.client.environments_streams import Terminal
from steward_client.errors import StewardError, Unauthorized, Unavailable

PING_S = 10.0
"""How often it is asked whether the server is still there."""
SILENT_PINGS = 3
"""So many without an answer, and it is not: a line that hangs says nothing by itself."""


def _keys(_ctx: Any, _param: Any, text: str) -> bytes:
    try:
        return DetachKeys.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(
    "attach", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("environment")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--session", default="", help="Come back to the terminal of this name.")
@click.option("--workdir", "-w", default="", help="Where it runs; else as the image says.")
@click.option("--user", "-u", type=click.IntRange(0), help="As which user, by number.")
@click.option(
    "--detach-keys",
    default="ctrl-p,ctrl-q",
    show_default=True,
    callback=_keys,
    help="What leaves it without ending it.",
)
@calls_server
def attach(
    steward: Steward,
    environment: str,
    command: tuple[str, ...],
    *,
    session: str,
    workdir: str,
    user: int | None,
    detach_keys: bytes,
) -> None:
    """Open a terminal in an environment.

    It runs a shell, or COMMAND. Everything that is typed goes inside, Ctrl-C too. Ctrl-P Ctrl-Q
    leaves; the terminal waits a minute for whoever comes back with --session. A lost connection is
    made again by itself.

    Ends with the exit code of the shell; 125 if anything kept it from running to its end.
    """
    source = standard_input()
    if source is None or not sys.stdin.isatty() or not sys.stdout.isatty():
        raise click.UsageError(
            "there is no terminal on standard input and output; run commands without one with: "
            "steward env exec"
        )
    if steward.as_json:
        raise click.UsageError("a terminal has no --json; run commands with: steward env exec")
    command = own(command)
    with ending_as_run():
        wanted = environment_id(steward, environment)
        name = session or secrets.token_hex(3)
        sitting = _Sitting(source, sys.stdout.fileno(), detach_keys)
        columns, rows = sitting.lent.size
        terminal = steward.client.environments.attach(
            wanted,
            command,
            columns=columns,
            rows=rows,
            session=name,
            working_dir=workdir,
            user=user,
            on_cut=sitting.tell_cut,
        )
        is_detached = sitting.hold(terminal)
    if is_detached:
        say(f"left; come back within a minute with: steward env attach --session {name} {wanted}")
        return
    if terminal.exit is None:
        raise click.exceptions.Exit(NOT_RUN)
    raise click.exceptions.Exit(terminal.exit.exit_code)


class _Sitting:
    """Somebody at a terminal, from when it is lent to when it is given back."""

    def __init__(self, source: int, target: int, detach_keys: bytes) -> None:
        self.lent = LentTerminal(source, target, lambda: self._feeder.note("resize"))
        self._source = source
        self._keys = DetachKeys(detach_keys)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._terminal: Terminal[Blocking]
        self._feeder: Feeder
        self._heard_count = -1
        self._silent_count = 0
        self._is_detached = False

    def hold(self, terminal: Terminal[Blocking]) -> bool:
        """Carry what is typed and shown to and fro; whether they left before it ended."""
        self._terminal = terminal
        self._feeder = Feeder(
            self._source,
            on_input=self._typed,
            on_end=self._leave,  # the terminal has gone
            on_note=lambda _: self._resize(),
            on_tick=self._look,
            tick_s=PING_S,
        )
        with terminal, self.lent, self._feeder:
            try:
                self._show()
            except KeyboardInterrupt:
                if not self._is_detached:
                    raise
            finally:
                terminal.close()  # so that nobody waits to write to it
        return self._is_detached

    def tell_cut(self, cut: StewardError) -> None:
        self._silent_count, self._heard_count = 0, -1
        if isinstance(cut, Unauthorized):
            return  # the sign-in it was opened with is over, and is renewed
        why = "" if isinstance(cut, Unavailable) else f": {cut.message}"
        self.lent.note(f"the connection was lost{why}; trying again")

    def _show(self) -> None:
        while True:
            try:
                for shown in self._terminal:
                    if self._terminal.is_new_connection:
                        self._terminal.is_new_connection = False
                        self.lent.clear()
                        self._feeder.note("resize")
                    self.lent.show(shown.text)
                return
            except StewardError as error:
                if error.reason not in ("VALIDATION_ERROR", "INVALID_ARGUMENT"):
                    raise
                self.lent.note(error.message)  # of one frame; the terminal goes on

    def _typed(self, data: bytes) -> None:
        passed, leaves = self._keys.feed(data)
        text = self._decoder.decode(passed)
        if text:
            self._said(lambda: self._terminal.write(text))
        if leaves:
            self._leave()

    def _resize(self) -> None:
        columns, rows = self.lent.size
        self._said(lambda: self._terminal.resize(columns, rows))

    def _look(self) -> None:
        """Ask whether the server is still there; if it did not answer for long, it is not."""
        if self._terminal.stream is None:
            return
        if self._terminal.heard_count != self._heard_count:
            self._silent_count, self._heard_count = 0, self._terminal.heard_count
        elif self._silent_count == SILENT_PINGS:
            self._terminal.hang_up()
            return
        else:
            self._silent_count += 1
        self._said(self._terminal.ping)

    def _said(self, say_it: Any) -> None:
        try:
            say_it()
        except Unavailable:
            return  # what is typed while there is no connection is lost, as on a line that hangs

    def _leave(self) -> None:
        self._is_detached = True
        self._terminal.close()
        if self._terminal.stream is None:  # it is waiting to try again
            main = threading.main_thread().ident
            if main is not None:
                signal.pthread_kill(main, signal.SIGINT)
