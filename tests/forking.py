"""`steward` as a process: anew, or forked off one that has its modules loaded already."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection, wait
from pathlib import Path
from threading import Lock
from typing import Protocol, TypeAlias

_context = multiprocessing.get_context("forkserver")
# There is one for all that a process of tests starts, and the first to use it settles what it has.
_context.set_forkserver_preload(
    [
        "steward_client.cli",
        "steward_client.price_snapshot",
        "steward_server.__main__",
        "jwt",
        "onnxruntime",
        "tests.warmed",
    ]
)
_one_at_a_time = Lock()
"""Whoever starts a process also asks after all others: two who ask at once get one exit code."""


Start: TypeAlias = Callable[[dict[str, str], Path, int, int], "Process"]
"""Starts a server with these variables, in this folder, that writes to these two files."""


class Process(Protocol):
    """The part of `subprocess.Popen` that a forked process has too."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Forked:
    """`steward` with these arguments; `files` are its standard input, output and error."""

    def __init__(
        self,
        arguments: Sequence[str],
        variables: dict[str, str],
        folder: Path,
        files: tuple[int, int, int],
    ) -> None:
        with ExitStack() as stack:
            ends = [stack.enter_context(Connection(os.dup(file))) for file in files]
            self._process = _context.Process(
                target=_become, args=(["steward", *arguments], variables, str(folder), ends)
            )
            with _one_at_a_time:
                self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        with _one_at_a_time:
            return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, at its end.

        Raises:
            TimeoutError: it has not ended within so many seconds.
        """
        wait([self._process.sentinel], timeout)
        code = self.poll()
        if code is None:
            raise TimeoutError(f"process {self.pid} goes on for longer than {timeout} s")
        return code


def _become(
    argv: list[str], variables: dict[str, str], folder: str, ends: list[Connection]
) -> None:
    from steward_client.cli import main

    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = argv
    main()


def serve(variables: dict[str, str], folder: Path, out: int, err: int) -> Process:
    """A server in a tenth of the time that one takes to start anew."""
    with Path(os.devnull).open() as nothing:
        return Forked(["serve"], variables, folder, (nothing.fileno(), out, err))


def serve_anew(variables: dict[str, str], folder: Path, out: int, err: int) -> Process:
    """A server as it is started by hand."""
    return subprocess.Popen(
        [sys.executable, "-m", "steward_server"],
        env=variables,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
    )
