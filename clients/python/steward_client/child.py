"""A script run as a child process in its own process group, which never outlives its runtime."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from steward_client.errors import StewardError

_KEEPS_OUT = ("STEWARD_", "OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_")
_SECRETS = frozenset({"IC_TOKEN", "IC_KEY", "X_IC_KEY"})

# Asks the kernel to kill the script when its runtime dies, even by SIGKILL, then becomes the
# script. Not done between fork and exec: in a process with threads that is not safe.
_LAUNCH = """
import ctypes, os, signal, sys
parent, python = int(sys.argv[1]), sys.argv[2]
try:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
except (OSError, AttributeError):
    pass
if os.getppid() != parent:
    sys.exit(1)
os.execv(python, [python, *sys.argv[3:]])
"""


def agent_environment(
    inherited: Mapping[str, str], *, token: str, port: int, secrets: Sequence[str]
) -> dict[str, str]:
    """What an agent's process sees: the proxy as its provider, and no credential that is real.

    `secrets` are values that appear under no name.
    """
    hidden = {secret for secret in secrets if secret}
    environment = {
        name: value
        for name, value in inherited.items()
        if not name.startswith(_KEEPS_OUT) and name not in _SECRETS and value not in hidden
    }
    base_url = f"http://127.0.0.1:{port}"
    direct = ",".join(filter(None, [environment.get("NO_PROXY", ""), "127.0.0.1"]))
    return environment | {
        "OPENAI_BASE_URL": f"{base_url}/v1",
        "OPENAI_API_KEY": token,
        "ANTHROPIC_BASE_URL": base_url,
        "ANTHROPIC_API_KEY": token,
        "NO_PROXY": direct,
        "no_proxy": direct,
    }


class Child:
    """A running script; `exit_code` once it has ended: negative is the signal that ended it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.exit_code: int | None = None
        self.fault: StewardError | None = None
        """Of a child it is always known how it ended."""
        self.ended = asyncio.Event()
        self._process = process

    @classmethod
    def start(
        cls,
        script: Path,
        args: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_end: Callable[[int], None],
        quiet: bool = False,
    ) -> Child:
        """Run the script with this Python.

        Its output goes where this process's goes, or nowhere if `quiet`.

        Raises:
            FileNotFoundError: there is no such script.
        """
        if not script.is_file():
            raise FileNotFoundError(f"there is no script {script}")
        command = [sys.executable, str(script), *args]
        if sys.platform == "linux":
            pid = str(os.getpid())
            command = [sys.executable, "-I", "-S", "-c", _LAUNCH, pid, *command]
        output = subprocess.DEVNULL if quiet else None
        process = subprocess.Popen(  # noqa: S603 - the caller's own script
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        child = cls(process)
        child._watch(on_end)
        return child

    def _watch(self, on_end: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()

        def ended(exit_code: int) -> None:
            self.exit_code = exit_code
            self._signal(signal.SIGKILL)  # what it started and left behind
            self.ended.set()
            on_end(exit_code)

        def wait() -> None:
            exit_code = self._process.wait()
            with contextlib.suppress(RuntimeError):  # the loop has closed; nobody waits any more
                loop.call_soon_threadsafe(ended, exit_code)

        # Not the loop's executor: it has few threads, and none once the program is ending.
        threading.Thread(target=wait, name="steward-child", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def where(self) -> str:
        return f"process {self.pid}"

    async def stop(self, *, grace_s: float) -> None:
        """Ask it to end, and after the grace see to it; returns when it has."""
        if self.ended.is_set():
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace_s):
                await self.ended.wait()
        except TimeoutError:
            self._signal(signal.SIGKILL)
            await self.ended.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return
