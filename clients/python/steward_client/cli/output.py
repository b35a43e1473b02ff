"""What commands print: tables and sentences for people, exact JSON for programs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import click
import orjson
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from steward_client.money import usd_text

_UNCUT_WIDTH = 1_000
"""Where nobody looks, lines are as long as they need to be."""

_BRIEF = 80
"""Characters of a value that stands among others."""

_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f]")

_COLOURS = {
    "active": "green",
    "running": "green",
    "healthy": "green",
    "approved": "green",
    "stopping": "yellow",
    "terminating": "yellow",
    "pending": "yellow",
    "rejected": "red",
    "exhausted": "red",
    "failed": "red",
    "completed": "green",
    "paused": "yellow",
    "cancelled": "red",
    "critical": "red",
    "high": "yellow",
    "revoked": "red",
    "expired": "red",
    "degraded": "red",
    "delivered": "green",
    "dead": "red",
}


def json_text(value: Any, *, indented: bool = True) -> str:
    """The value as JSON; decimals as numbers with all their digits."""
    options = orjson.OPT_UTC_Z | (orjson.OPT_INDENT_2 if indented else 0)
    return orjson.dumps(value, default=_plain, option=options).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(decimal_text(value).encode())
    raise TypeError(f"{type(value).__name__} has no JSON")


def decimal_text(amount: Decimal) -> str:
    """The number without an exponent and without zeros that say nothing."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def dollars(amount: Decimal) -> str:
    """An amount as people read it."""
    return usd_text(int(amount.scaleb(9)))


def per_period(amount: Decimal | None, period: str) -> str:
    """A limit as people read it: `$5 a day`, `unlimited`."""
    if amount is None:
        return "unlimited"
    return dollars(amount) if period == "none" else f"{dollars(amount)} a {period}"


def moment(at: datetime | None) -> str:
    """A time as people read it, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at else "-"


def word(text: str) -> Text:
    """A state in its colour."""
    return Text(text, style=_COLOURS.get(text, ""))


def table(
    columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, totals: Sequence[str] = ()
) -> Table:
    """Columns whose heading is in capitals; those of numbers begin with `#` and are set right."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=bool(totals))
    for index, column in enumerate(columns):
        shown.add_column(
            column.removeprefix("#"),
            justify="right" if column.startswith("#") else "left",
            footer=totals[index] if totals else "",
            overflow="fold",
        )
    for row in rows:
        shown.add_row(*row)
    return shown


def card(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """One thing, a line for each of its properties."""
    shown = Table.grid(padding=(0, 2))
    shown.add_column(style="bold")
    shown.add_column(overflow="fold")
    for name, text in rows:
        shown.add_row(name, text)
    return shown


def show(rendered: RenderableType) -> None:
    """Print for people; without a terminal, without colours and without cutting anything."""
    console = _console()
    if console.is_terminal:
        console.print(rendered)
        return
    plain = _console(width=_UNCUT_WIDTH, no_color=True)
    with plain.capture() as captured:
        plain.print(rendered)
    text = "\n".join(each.rstrip() for each in captured.get().splitlines()).strip("\n")
    line(text)


def without_controls(text: str) -> str:
    """A text that strangers wrote, with nothing in it that a terminal would act upon."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def brief(value: Any) -> str:
    """A value that strangers chose, on one line, cut where it is long."""
    text = value if isinstance(value, str) else json_text(value, indented=False)
    text = without_controls(" ".join(text.split()))
    return text if len(text) <= _BRIEF else f"{text[: _BRIEF - 1]}…"


def terminal() -> Console | None:
    """Where people look and things can move; None: what is printed goes elsewhere."""
    console = _console()
    return console if console.is_terminal and not console.is_dumb_terminal else None


def _console(**options: Any) -> Console:
    """Prints texts as they are: what somebody was called, or wrote, is no markup of ours."""
    return Console(highlight=False, markup=False, emoji=False, **options)


def say(sentence: str) -> None:
    """Tell people what was done; not part of the output."""
    click.echo(sentence, err=True)


def line(text: str) -> None:
    """Print a line now, whoever reads it."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
