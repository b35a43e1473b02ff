"""Periods of budgets: days, weeks from Monday and months, all UTC. Pure.

UTC knows no daylight saving, so a day always has 24 hours.
"""

from __future__ import annotations

from datetime import date
from enum import StrEnum

DAY_US = 86_400 * 1_000_000
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class Period(StrEnum):
    """How often a budget begins anew. The values are what the journal and the tables hold."""

    NONE = "none"
    """Never: it is for ever."""
    DAY = "day"
    WEEK = "week"
    """From Monday on."""
    MONTH = "month"


def period_of(period: Period, at_us: int) -> tuple[int, int | None]:
    """Start and end of the period that a time lies in; the end belongs to the next one.

    A period that never ends starts at 0 and ends at None.
    """
    match period:
        case Period.NONE:
            return 0, None
        case Period.DAY:
            first_day, next_day = (day := at_us // DAY_US), day + 1
        case Period.WEEK:
            day = at_us // DAY_US
            first_day = day - (day + 3) % 7  # 1970 began on a Thursday
            next_day = first_day + 7
        case Period.MONTH:
            first = date.fromordinal(at_us // DAY_US + _EPOCH_ORDINAL).replace(day=1)
            after = date(first.year + first.month // 12, first.month % 12 + 1, 1)
            first_day, next_day = _day_of(first), _day_of(after)
    return first_day * DAY_US, next_day * DAY_US


def date_text(at_us: int) -> str:
    """The day of a time, as ``2026-11-20``."""
    return date.fromordinal(at_us // DAY_US + _EPOCH_ORDINAL).isoformat()


def _day_of(day: date) -> int:
    return day.toordinal() - _EPOCH_ORDINAL
