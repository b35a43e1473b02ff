"""Learning curves: the mean return of the episodes that ended in each round of a training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LINE = "#2563a8"
RULE = "#c9ced6"
TEXT = "#5b6470"


class Point(NamedTuple):
    """How well a policy did at a moment of its training."""

    steps: int
    """Of the task, all instances together, so far."""
    mean_return: float


def draw(title: str, curve: Sequence[Point], path: Path) -> None:
    """Writes the curve as SVG: the same file for the same curve."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "steward", "svg.fonttype": "none", "font.size": 9}
    with rc_context(settings):
        figure = Figure(figsize=(5.6, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*zip(*curve, strict=True), color=LINE, linewidth=1.6)
        axes.set_title(title, loc="left", fontsize=9, color=TEXT)
        axes.set_xlabel("steps of the task", color=TEXT)
        axes.grid(axis="y", color=RULE, linewidth=0.6)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(RULE)
        axes.tick_params(colors=TEXT, length=0)
        axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
