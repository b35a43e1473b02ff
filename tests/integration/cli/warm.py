"""Runs `steward` to its end as a process that need not import it first."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

from tests.forking import Forked

TIMEOUT_S = 60


def run(arguments: Sequence[str], environ: dict[str, str], stdin: str) -> tuple[int, str, str]:
    """Its exit code and what it wrote.

    Raises:
        TimeoutError: it took longer than a minute, and was killed.
    """
    with ExitStack() as stack:
        given, out, err = (stack.enter_context(TemporaryFile()) for _ in range(3))
        given.write(stdin.encode())
        given.seek(0)
        files = given.fileno(), out.fileno(), err.fileno()
        process = Forked(arguments, environ, Path.cwd(), files)
        try:
            code = process.wait(TIMEOUT_S)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
        out.seek(0)
        err.seek(0)
        return code, out.read().decode(), err.read().decode()
