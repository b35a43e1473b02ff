"""Runs `steward` as a process that need not import it first: one that has done so forks."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock

from tests import forking

TIMEOUT_S = 60

_one_at_a_time = Lock()
"""Two that end at once could be taken for each other."""


def run(
    command: Path, arguments: Sequence[str], environ: dict[str, str], stdin: str
) -> tuple[int, str, str] | None:
    """Its exit code and what it wrote; None while another one runs.

    Raises:
        TimeoutError: it took longer than a minute, and was killed.
    """
    if not _one_at_a_time.acquire(blocking=False):
        return None
    try:
        with ExitStack() as stack:
            files = [stack.enter_context(TemporaryFile()) for _ in range(3)]
            files[0].write(stdin.encode())
            files[0].seek(0)
            ends = [stack.enter_context(Connection(os.dup(each.fileno()))) for each in files]
            argv = [str(command), *arguments]
            process = forking.context.Process(
                target=_become, args=(argv, environ, str(Path.cwd()), ends)
            )
            process.start()
            process.join(TIMEOUT_S)
            if process.exitcode is None:
                process.kill()
                process.join()
                raise TimeoutError(f"{argv} takes longer than {TIMEOUT_S} s")
            written = []
            for file in files[1:]:
                file.seek(0)
                written.append(file.read().decode())
            return process.exitcode, written[0], written[1]
    finally:
        _one_at_a_time.release()


def _become(argv: list[str], environ: dict[str, str], folder: str, ends: list[Connection]) -> None:
    from steward_client.cli import main

    for number, end in enumerate(ends):
        os.dup2(end.fileno(), number)
        end.close()
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", 1, closefd=False)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = argv
    main()
