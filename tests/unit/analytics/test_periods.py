"""What periods span, and into which hours and days they fall apart."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.analytics.periods import (
    DAY_US,
    HOUR_US,
    PERIODS,
    Window,
    stretches_of,
    window_of,
)

MOMENTS_US = st.integers(400 * DAY_US, 40_000 * DAY_US)


def us(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[arg-type, misc]


NOW_US = us(2026, 3, 1, 13, 30, 15) + 7


@pytest.mark.parametrize(
    ("period", "since_us", "until_us"),
    [
        ("last-hour", us(2026, 3, 1, 12, 30, 15) + 7, None),
        ("today", us(2026, 3, 1), None),
        ("yesterday", us(2026, 2, 28), us(2026, 3, 1)),
        ("last-7-days", us(2026, 2, 22, 13, 30, 15) + 7, None),
        ("last-30-days", us(2026, 1, 30, 13, 30, 15) + 7, None),
        ("this-month", us(2026, 3, 1), None),
        ("last-month", us(2026, 2, 1), us(2026, 3, 1)),
        ("all-time", None, None),
    ],
)
def test_a_period_spans_what_it_says(
    period: str, since_us: int | None, until_us: int | None
) -> None:
    assert window_of(period, NOW_US) == Window(since_us, until_us)


def test_the_month_before_january_is_december() -> None:
    window = window_of("last-month", us(2026, 1, 15))
    assert window == Window(us(2025, 12, 1), us(2026, 1, 1))


@pytest.mark.parametrize("period", ["last7-days", "TODAY", "", "week"])
def test_another_period_is_none(period: str) -> None:
    with pytest.raises(KeyError):
        window_of(period, NOW_US)


@given(MOMENTS_US, st.sampled_from([period for period in PERIODS if period != "all-time"]))
def test_the_stretches_of_a_window_cover_it_once(now_us: int, period: str) -> None:
    since_us, until_us = window_of(period, now_us)
    assert since_us is not None
    edge_us, hours, days, weeks = stretches_of(since_us, until_us)
    parts_us = [edge_us] if edge_us[0] < edge_us[1] else []
    for unit_us, found in ((HOUR_US, hours), (DAY_US, days), (7 * DAY_US, weeks)):
        parts_us += [
            (first * unit_us, 10**18 if end is None else end * unit_us) for first, end in found
        ]
    parts_us.sort()
    assert edge_us[1] - edge_us[0] < HOUR_US
    assert sum(end - first for first, end in hours if end) < 24
    assert parts_us[0][0] == since_us
    assert parts_us[-1][1] == (10**18 if until_us is None else until_us)
    for (begin_us, end_us), following in pairwise(parts_us):
        assert begin_us < end_us == following[0]


@given(MOMENTS_US)
def test_now_is_in_every_period_that_goes_on(now_us: int) -> None:
    for period in PERIODS:
        is_over = period in ("yesterday", "last-month")
        assert window_of(period, now_us).holds(now_us) is not is_over
