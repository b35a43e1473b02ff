"""A server for clients of every language, and what their runners say of the script."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.clients.shaky import shaky
from tests.live import ADMIN_PASSWORD, ServerProcess

ROOT = Path(__file__).parents[2]
CLIENTS = ROOT / "clients"
SCRIPT = CLIENTS / "conformance" / "script.json"
RUNNER_TIMEOUT_S = 60.0
"""For a runner that is built: the script takes seconds, a virtual machine a few to start."""


def said(script: Path = SCRIPT) -> list[str]:
    """What the steps of a script say, in order."""
    return [step["say"] for step in json.loads(script.read_text())["steps"]]


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that was run to its end."""

    code: int
    text: str
    """What it printed, errors included."""


async def run(
    command: Sequence[str | Path], timeout_s: float = RUNNER_TIMEOUT_S, /, **variables: str
) -> Ended:
    """Run a program in the root of the repository, with these variables and none of a server's."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("STEWARD_")}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=ROOT,
        env=kept | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    printing = asyncio.create_task(process.stdout.read())
    done, _ = await asyncio.wait({printing}, timeout=timeout_s)
    if not done:
        os.killpg(process.pid, signal.SIGKILL)  # builders run what they build as a child
    text, code = (await printing).decode(), await process.wait()
    assert done, f"it takes longer than {timeout_s:g} s:\n{text}"
    return Ended(code, text)


@asynccontextmanager
async def address(data_dir: Path) -> AsyncIterator[dict[str, str]]:
    """A server nobody has called yet and the shaky address: the variables of a runner."""
    server = await ServerProcess(data_dir).start()
    try:
        async with shaky(server.grpc_address) as before_it:
            yield {
                "STEWARD_SERVER": server.grpc_address,
                "STEWARD_SHAKY": before_it,
                "STEWARD_HTTP": f"http://{server.http_address}",
                "STEWARD_VAR_PASSWORD": ADMIN_PASSWORD,
            }
    finally:
        await asyncio.to_thread(server.kill)


def assert_passed(ended: Ended, expected: Sequence[str]) -> None:
    """Every step was made, reported in order, and found right."""
    lines = ended.text.splitlines()
    plans = [line for line in lines if re.fullmatch(r"1\.\.\d+", line)]
    reports = [line for line in lines if re.match(r"(not )?ok\b", line)]
    wanted = [f"ok {number} - {say}" for number, say in enumerate(expected, 1)]
    assert reports == wanted, ended.text
    assert plans == [f"1..{len(expected)}"], ended.text
    assert ended.code == 0, ended.text


async def assert_conforms(
    command: Sequence[str | Path], data_dir: Path, *, script: Path = SCRIPT
) -> None:
    """A runner makes every step of a script against a fresh server."""
    async with address(data_dir) as variables:
        ended = await run(command, **variables, CONFORMANCE_SCRIPT=str(script))
    assert_passed(ended, said(script))
