"""`steward serve` as a process whose every word is kept."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.live import ADMIN_PASSWORD

PATIENCE_S = 30
START = [sys.executable, "-m", "steward_server"]


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """This process's variables without its own settings, and these; "" leaves one out."""
    inherited = {key: text for key, text in os.environ.items() if not key.startswith("STEWARD_")}
    defaults = {
        "STEWARD_DATA_DIR": str(data_dir),
        "STEWARD_HTTP_PORT": "0",
        "STEWARD_GRPC_PORT": "0",
        "STEWARD_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "STEWARD_DRAIN_S": "2",
    }
    return inherited | {key: text for key, text in (defaults | settings).items() if text}


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds, looking often."""
    ends_at_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < ends_at_s, f"never happened: {what}"
        time.sleep(0.01)


class Steward:
    """A server that has said `ready`."""

    def __init__(self, process: subprocess.Popen[str], log_file: Path) -> None:
        self.process = process
        self._log_file = log_file
        assert process.stdout is not None
        self.ready_line = process.stdout.readline()
        found = re.fullmatch(r"ready grpc=(\S+) http=(https?)://(\S+)\n", self.ready_line)
        assert found, f"it said {self.ready_line!r} instead of `ready`: {self.log}"
        self.grpc_address, self.scheme, self.http_address = found.groups()
        self.url = f"{self.scheme}://{self.http_address}"

    @property
    def log(self) -> str:
        """Everything on standard error so far."""
        return self._log_file.read_text(encoding="utf-8")

    def terminate(self) -> None:
        """Ask it to stop, and wait until it has begun to."""
        self.process.send_signal(signal.SIGTERM)
        until(lambda: "server.stopping" in self.log, "the server stops")

    def stop(self) -> tuple[int, str]:
        """Stop it; its exit code, and what it wrote on standard output since `ready`."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        return self.process.wait(PATIENCE_S), rest

    def refuses_connections(self) -> bool:
        host, _, port = self.http_address.rpartition(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) != 0


@contextmanager
def steward(data_dir: Path, **settings: str) -> Iterator[Steward]:
    """Start a server, and stop it at the end of the block."""
    log_file = data_dir.with_name(data_dir.name + ".log")
    with log_file.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            START,
            env=environment(data_dir, **settings),
            cwd=data_dir.parent,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        server = Steward(process, log_file)
        yield server
        server.stop()
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE_S)
        if process.stdout is not None:
            process.stdout.close()


def refused_start(data_dir: Path, **settings: str) -> tuple[int | None, str, str]:
    """Start a server that will not; its exit code, standard output and standard error.

    The process is forked off one that has the modules loaded already, which takes a tenth of the
    time of `python -m steward_server`.
    """
    out, err = (data_dir.with_name(f"{data_dir.name}.{name}") for name in ("out", "err"))
    starting = multiprocessing.get_context("forkserver")
    starting.set_forkserver_preload(["steward_server.__main__"])
    process = starting.Process(target=_start, args=(environment(data_dir, **settings), out, err))
    process.start()
    process.join(PATIENCE_S)
    if process.is_alive():
        process.kill()
        process.join()
    code = process.exitcode
    process.close()
    return code, out.read_text(encoding="utf-8"), err.read_text(encoding="utf-8")


def _start(variables: dict[str, str], out: Path, err: Path) -> None:
    from steward_server.__main__ import serve

    os.environ.clear()
    os.environ.update(variables)
    os.chdir(out.parent)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT, 0o600), number)
    serve.main(args=[], prog_name="steward serve")
