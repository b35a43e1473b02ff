"""An outbox whose process is killed at any moment."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from steward_client.outbox import OpenHold, Outbox

WRITER = """
import asyncio, random, sys
from pathlib import Path
from steward_client.outbox import Outbox

async def main():
    outbox = Outbox.open(Path(sys.argv[1]))
    chance = random.Random(int(sys.argv[2]))
    outbox.assume_open_holds(lambda hold, sequence: f"assumed {hold.call_id}".encode())
    outbox.start()
    outbox.open_lease("lease_1")
    run = sys.argv[3]

    async def call(name):
        for number in range(10_000):
            call_id = f"{run}-{name}-{number}"
            await outbox.hold(lease_id="lease_1", call_id=call_id, model="m", bound_nanousd=7,
                              alone=chance.random() < 0.3)
            sys.stdout.write(f"sent {call_id}\\n")
            sys.stdout.flush()
            if chance.random() < 0.2:
                await asyncio.sleep(0.001)
            if chance.random() < 0.1:
                outbox.release(call_id)
                sys.stdout.write(f"released {call_id}\\n")
                sys.stdout.flush()
            else:
                outbox.settle(lease_id="lease_1", call_id=call_id,
                              report=lambda sequence: f"settled {call_id}".encode())

    def sent_off():
        reports = outbox.reports("lease_1", after=0, limit=1000)
        if reports and chance.random() < 0.05:
            for report in reports:
                sys.stdout.write(f"booked {report.sequence} {report.body.decode()}\\n")
            sys.stdout.flush()
            outbox.acknowledge("lease_1", reports[-1].sequence)

    outbox.on_durable = sent_off
    await asyncio.gather(*(call(name) for name in range(6)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(3))
def test_every_call_is_settled_once_or_assumed_once_after_any_kill(
    tmp_path: Path, seed: int
) -> None:
    """What left the machine and was neither released nor settled is charged; nothing twice."""
    chance = random.Random(seed)
    program = tmp_path / "writer.py"
    program.write_text(WRITER)
    path = tmp_path / "outbox.sqlite"
    sent: set[str] = set()
    released: set[str] = set()
    booked: dict[int, str] = {}
    for run in range(6):
        lines = run_and_kill(program, path, seed, run, chance.uniform(0.05, 0.3))
        for line in lines:
            match line.split():
                case ["sent", call_id]:
                    sent.add(call_id)
                case ["released", call_id]:
                    released.add(call_id)
                case ["booked", number, _, _]:
                    # The server has seen this number: if it comes again, it is the same report.
                    text = line.split(" ", 2)[2]
                    assert booked.setdefault(int(number), text) == text

    outbox = Outbox.open(path)
    outbox.assume_open_holds(assumed)
    for report in outbox.reports("lease_1", after=0, limit=10**6):
        text = report.body.decode()
        assert booked.setdefault(report.sequence, text) == text
    outbox._connection.close()
    calls = [text.split()[1] for text in booked.values()]

    assert len(sent) > 50
    assert len(calls) == len(set(calls)), "a call was charged twice"
    assert sorted(booked) == list(range(1, len(booked) + 1)), "a number was left out"
    assert sent - released <= set(calls), "a call that left was not charged"
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def assumed(hold: OpenHold, sequence: int) -> bytes:
    return f"assumed {hold.call_id}".encode()


def run_and_kill(program: Path, path: Path, seed: int, run: int, after_s: float) -> list[str]:
    process = subprocess.Popen(
        [sys.executable, str(program), str(path), str(seed * 100 + run), str(run)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    first = process.stdout.readline()  # it has begun
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    process.stdout.close()
    return (first + rest).decode().splitlines()
