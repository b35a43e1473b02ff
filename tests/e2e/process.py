"""`steward serve` as a process whose every word is kept."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests import forking
from tests.forking import Process, Start
from tests.live import ADMIN_PASSWORD, UNLIMITED_VARIABLES

PATIENCE_S = 30


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """This process's variables without its own settings, and these; "" leaves one out."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("STEWARD_")}
    defaults = {
        "STEWARD_DATA_DIR": str(data_dir),
        "STEWARD_HTTP_PORT": "0",
        "STEWARD_GRPC_PORT": "0",
        "STEWARD_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "STEWARD_DRAIN_S": "2",
        "STEWARD_ENVIRONMENTS_DRIVER": "off",
        **UNLIMITED_VARIABLES,
    }
    no_gvisor = {"STEWARD_ENVIRONMENTS_RUNSC": ""}  # a trial of it takes as long as all the rest
    told = {key: text for key, text in (defaults | settings).items() if text}
    return inherited | no_gvisor | told


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, looking often."""
    ends_at_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_at_s, f"never happened: {what}"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Program:
    """A process that was started, and the files it writes to."""

    process: Process
    out: Path
    err: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def exit_code(self) -> int:
        """Waits for it."""
        return self.process.wait(PATIENCE_S)


def command(data_dir: Path, start: Start = forking.serve_anew, **settings: str) -> Program:
    """`python -m steward_server`, as it is typed."""
    out, err = (data_dir.with_name(f"{data_dir.name}.{name}") for name in ("out", "err"))
    with out.open("wb") as out_file, err.open("wb") as err_file:
        files = out_file.fileno(), err_file.fileno()
        process = start(environment(data_dir, **settings), data_dir.parent, *files)
    return Program(process, out, err)


def forked(data_dir: Path, **settings: str) -> Program:
    """The same in a tenth of the time: forked off a process that has the modules loaded."""
    return command(data_dir, forking.serve, **settings)


class Steward:
    """A server that has said `ready`."""

    def __init__(self, program: Program) -> None:
        self._program = program
        until(lambda: program.has_ended() or "\n" in self.said, "ready")
        first_line = self.said.partition("\n")[0]
        found = re.fullmatch(r"ready grpc=(\S+) http=(https?)://(\S+)", first_line)
        assert found, f"it said {self.said!r} instead of `ready`: {self.log}"
        self.grpc_address, self.scheme, self.http_address = found.groups()
        self.url = f"{self.scheme}://{self.http_address}"

    @property
    def said(self) -> str:
        """Everything on standard output so far."""
        return self._program.out.read_text(encoding="utf-8")

    @property
    def log(self) -> str:
        """Everything on standard error so far."""
        return self._program.err.read_text(encoding="utf-8")

    def terminate(self) -> None:
        """Ask it to stop, and wait until it has begun to."""
        os.kill(self._program.pid, signal.SIGTERM)
        until(lambda: "server.stopping" in self.log, "the server stops")

    def stop(self) -> int:
        """Stop it, if that was not asked for yet; its exit code."""
        if not self._program.has_ended() and "server.stopping" not in self.log:
            os.kill(self._program.pid, signal.SIGTERM)
        return self._program.exit_code()

    def refuses_connections(self) -> bool:
        host, _, port = self.http_address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0


@contextmanager
def steward(
    data_dir: Path, start: Callable[..., Program] = forked, **settings: str
) -> Iterator[Steward]:
    """Start a server, and stop it at the end of the block."""
    program = start(data_dir, **settings)
    try:
        server = Steward(program)
        yield server
        server.stop()
    finally:
        if not program.has_ended():
            os.kill(program.pid, signal.SIGKILL)
            program.exit_code()
