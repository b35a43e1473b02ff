"""Spans of time that are asked about, cut into hours, days and weeks that are summed up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

MINUTE_US = 60 * 1_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

ALL_TIME = "all-time"
LAST_HOUR = "last-hour"
TODAY = "today"
PERIODS = (
    LAST_HOUR,
    TODAY,
    "yesterday",
    "last-7-days",
    "last-30-days",
    "this-month",
    "last-month",
    ALL_TIME,
)

LONGEST_ROLLING_DAYS = 30


class Window(NamedTuple):
    """From a moment on and before another, in microseconds since 1970, UTC."""

    since_us: int | None
    """None: from the beginning."""
    until_us: int | None
    """None: up to now. Else the end of a day."""

    @property
    def is_all_time(self) -> bool:
        return self.since_us is None

    def holds(self, at_us: int) -> bool:
        """Whether a moment lies in it."""
        return (self.since_us is None or at_us >= self.since_us) and (
            self.until_us is None or at_us < self.until_us
        )


class Stretch(NamedTuple):
    """Whole hours, days or weeks, by their numbers since 1970."""

    first: int
    end: int | None
    """The first that is not in it; None if it goes on."""

    @property
    def is_empty(self) -> bool:
        return self.end is not None and self.end <= self.first


class Stretches(NamedTuple):
    """A window in parts that follow each other, the empty ones left out but for the first."""

    edge_us: tuple[int, int]
    """The part of an hour it begins with: from where and up to where; both the same if none."""
    hours: Sequence[Stretch]
    days: Sequence[Stretch]
    weeks: Sequence[Stretch]


def window_of(period: str, now_us: int) -> Window:
    """What a period spans now.

    Raises:
        KeyError: there is no such period.
    """
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    month = midnight.replace(day=1)
    month_before = (month - timedelta(days=1)).replace(day=1)
    return {
        LAST_HOUR: Window(now_us - HOUR_US, None),
        TODAY: Window(_us(midnight), None),
        "yesterday": Window(_us(midnight) - DAY_US, _us(midnight)),
        "last-7-days": Window(now_us - 7 * DAY_US, None),
        "last-30-days": Window(now_us - LONGEST_ROLLING_DAYS * DAY_US, None),
        "this-month": Window(_us(month), None),
        "last-month": Window(_us(month_before), _us(month)),
        ALL_TIME: Window(None, None),
    }[period]


def stretches_of(since_us: int, until_us: int | None) -> Stretches:
    """The parts of a window that begins at `since_us` and ends with a day, or not at all.

    Weeks are of seven days from the first of January 1970 on; nobody sees them.
    """
    first_hour, first_day = -(-since_us // HOUR_US), -(-since_us // DAY_US)
    first_week = -(-first_day // 7)
    hours = Stretch(first_hour, first_day * 24)
    if until_us is None:
        days = [Stretch(first_day, first_week * 7)]
        weeks = Stretch(first_week, None)
    else:
        end_day = until_us // DAY_US
        end_week = max(first_week, end_day // 7)
        weeks = Stretch(first_week, end_week)
        days = [
            Stretch(first_day, min(first_week * 7, end_day)),
            Stretch(max(first_day, end_week * 7), end_day),
        ]
    return Stretches(
        (since_us, first_hour * HOUR_US),
        [each for each in [hours] if not each.is_empty],
        [each for each in days if not each.is_empty],
        [each for each in [weeks] if not each.is_empty],
    )


def _us(moment: datetime) -> int:
    return int(moment.timestamp()) * 1_000_000
