"""`make demo` as a newcomer runs it, left alone, with `--kill`, and with somebody else killing."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "clients/python/examples/demo.py"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a demo printed, and how it ended."""

    code: int
    text: str
    took_s: float

    @property
    def servers(self) -> list[int]:
        """The processes it started as servers."""
        return [int(pid) for pid in re.findall(r"server +process (\d+)", self.text)]


async def show(*flags: str, on_line: Callable[[str], None] = lambda _: None) -> Shown:
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(DEMO), *flags, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdout is not None
    lines = []
    async for raw in process.stdout:
        lines.append(raw.decode())
        on_line(lines[-1])
    code = await process.wait()
    return Shown(code, "".join(lines), time.monotonic() - began_s)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def assert_the_second_half(shown: Shown) -> None:
    """The same agent in a machine of its own, where one can be made."""
    if "none can be made here" in shown.text:
        return
    for told in (
        "4 calls and 317 tokens for $0.0025925, through the only way out",
        "192.0.2.1:80: Network is unreachable",
        "steward.db: No such file or directory",
        "closed     4 addresses and 2 files of the host",
        "both machines are gone",
    ):
        assert told in shown.text
    assert shown.text.count("equal, to the nano-dollar") == 2


async def test_the_demo_shows_the_money_move_and_the_books_balance() -> None:
    shown = await show()

    assert shown.code == 0, shown.text
    for told in (
        "handshake  $0.004 lent",
        "call 1 ",
        "refresh ",
        "1 email in the input",
        "50 % of the agent's budget is spent",
        "got 402",
        "refused    1 call, budget_exceeded",
        "return ",
        '"spent_usd":0.0096475',
        "1 AgentStarted, 15 CostUpdate, 1 PiiAlert, 2 BudgetWarning, 1 AgentStopped",
        '"spent_nanousd":"9647500"',
        "$0.0096475 for 15 calls, by the provider",
        "$0.0096475 spent, by Steward",
        "equal, to the nano-dollar",
    ):
        assert told in shown.text
    assert_the_second_half(shown)
    assert shown.took_s < 90
    assert all(is_gone(pid) for pid in shown.servers)


async def test_a_server_killed_in_the_middle_changes_nothing_in_the_books() -> None:
    shown = await show("--kill")

    assert shown.code == 0, shown.text
    assert len(shown.servers) == 2
    assert "gone (exit code -9)" in shown.text
    assert "$0.0096475 for 15 calls, by the provider" in shown.text
    assert "equal, to the nano-dollar" in shown.text
    assert_the_second_half(shown)
    assert all(is_gone(pid) for pid in shown.servers)


@pytest.mark.parametrize(
    "moment",
    [
        "refresh ",
        pytest.param("call 2 ", marks=pytest.mark.proof),
        pytest.param("return ", marks=pytest.mark.proof),
    ],
)
async def test_a_server_killed_by_somebody_else_comes_back(moment: str) -> None:
    killed: list[int] = []
    servers: list[int] = []

    def kill_once(line: str) -> None:
        servers.extend(int(pid) for pid in re.findall(r"server +process (\d+)", line))
        if moment in line and not killed:
            killed.append(servers[-1])
            os.kill(servers[-1], signal.SIGKILL)

    shown = await show("--no-machine", on_line=kill_once)

    assert shown.code == 0, shown.text
    assert len(shown.servers) == 2
    assert "equal, to the nano-dollar" in shown.text
