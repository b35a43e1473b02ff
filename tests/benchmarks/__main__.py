"""Runs the benchmarks named, or all: `python -m tests.benchmarks budget start`."""

from __future__ import annotations

import asyncio
import importlib
import sys
from pathlib import Path

from tests.benchmarks.harness import Figure

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    """Print a table for each benchmark."""
    there = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    if unknown := set(names) - set(there):
        sys.stderr.write(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(there)}\n"
        )
        return 2
    print("| figure | measured | must | aim | reached | of several rounds |")
    print("|---|---|---|---|---|---|")
    for name in names or there:
        module = importlib.import_module(f"tests.benchmarks.bench_{name}")
        for figure in asyncio.run(module.measure()):
            print(_row(figure), flush=True)
    return 0


def _row(figure: Figure) -> str:
    goals = [
        "" if goal is None else f"{goal:,.4g} {figure.unit}" for goal in (figure.must, figure.aim)
    ]
    value = (
        f"{figure.value:,.4g} {figure.unit}"
        if figure.value < 1_000
        else (f"{figure.value:,.0f} {figure.unit}")
    )
    return (
        f"| {figure.name} | {value} | {goals[0]} | {goals[1]} | {figure.verdict} | {figure.note} |"
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
