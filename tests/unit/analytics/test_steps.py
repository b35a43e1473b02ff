"""Which steps a period is told in."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from steward_server.analytics.periods import DAY_US, PERIODS, Window, window_of
from steward_server.analytics.steps import (
    MAX_POINTS,
    Step,
    fault_in,
    fault_in_count,
    numbers,
    usual_step,
)

NOW_US = int(datetime(2026, 3, 18, 13, 30, 15, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize("step", Step)
def test_a_moment_lies_in_the_step_of_its_number_and_in_no_other(step: Step) -> None:
    begins_us = step.begins_us(step.number(NOW_US))
    assert begins_us <= NOW_US < begins_us + step.value
    assert step.number(begins_us) == step.number(NOW_US) == step.number(begins_us - 1) + 1


def test_weeks_begin_on_monday() -> None:
    begins_us = Step.WEEK.begins_us(Step.WEEK.number(NOW_US))
    assert datetime.fromtimestamp(begins_us / 1e6, UTC) == datetime(2026, 3, 16, tzinfo=UTC)


@pytest.mark.parametrize("period", PERIODS)
def test_the_usual_step_of_a_period_is_never_refused(period: str) -> None:
    assert fault_in(usual_step(period), period, window_of(period, NOW_US), NOW_US) is None


def test_a_period_that_begins_in_the_middle_of_a_step_has_that_step_too() -> None:
    window = window_of("last-hour", NOW_US)
    assert window.since_us is not None
    assert len(numbers(Step.MINUTE, window.since_us, window, NOW_US)) == 61


def test_a_day_that_is_over_has_24_hours() -> None:
    window = window_of("yesterday", NOW_US)
    assert window.since_us is not None
    assert len(numbers(Step.HOUR, window.since_us, window, NOW_US)) == 24


def test_too_many_points_are_refused_with_what_to_do() -> None:
    window = Window(NOW_US - 30 * DAY_US, None)
    fault = fault_in(Step.HOUR, "last-30-days", window, NOW_US)
    assert fault is not None
    assert "721 points; at most 400 are allowed" in fault
    assert fault_in_count(Step.DAY, MAX_POINTS) is None
    assert fault_in_count(Step.DAY, MAX_POINTS + 1) is not None


@pytest.mark.parametrize("period", [each for each in PERIODS if each != "last-hour"])
def test_minutes_are_told_of_the_last_hour_only(period: str) -> None:
    fault = fault_in(Step.MINUTE, period, window_of(period, NOW_US), NOW_US)
    assert fault is not None
    assert "last-hour only" in fault
