"""Steps of equal length that a period is told in. Pure."""

from __future__ import annotations

from enum import Enum

from steward_server.analytics.periods import ALL_TIME, DAY_US, HOUR_US, LAST_HOUR, MINUTE_US, Window

MAX_POINTS = 400
MONDAY_DAY = 4
"""The first day after the first of January 1970 that was a Monday, by its number."""


class Step(Enum):
    """How long one is, in microseconds."""

    MINUTE = MINUTE_US
    HOUR = HOUR_US
    DAY = DAY_US
    WEEK = 7 * DAY_US

    @property
    def noun(self) -> str:
        return self.name.lower()

    @property
    def _offset_us(self) -> int:
        return MONDAY_DAY * DAY_US if self is Step.WEEK else 0

    def number(self, at_us: int) -> int:
        """Of the step a moment lies in."""
        return (at_us - self._offset_us) // self.value

    def begins_us(self, number: int) -> int:
        return number * self.value + self._offset_us


def usual_step(period: str) -> Step:
    """The one that is taken where none is named."""
    if period == LAST_HOUR:
        return Step.MINUTE
    return Step.HOUR if period in ("today", "yesterday") else Step.DAY


def fault_in(step: Step, period: str, window: Window, now_us: int) -> str | None:
    """What is wrong with telling a period in such steps, as far as that can be said beforehand."""
    if step is Step.MINUTE and period != LAST_HOUR:
        return f"is 'minute'; minutes are told of {LAST_HOUR} only, take hour, day or week"
    if step is Step.HOUR and period == ALL_TIME:
        return f"is 'hour'; of {ALL_TIME} take day or week"
    if window.since_us is None:
        return None
    return fault_in_count(step, len(numbers(step, window.since_us, window, now_us)))


def fault_in_count(step: Step, count: int) -> str | None:
    if count <= MAX_POINTS:
        return None
    return (
        f"is {step.noun!r}, which gives {count} points; at most {MAX_POINTS} are allowed,"
        " take a longer step or a shorter period"
    )


def numbers(step: Step, since_us: int, window: Window, now_us: int) -> range:
    """Of the steps from a moment on up to the end of a window."""
    last_us = now_us if window.until_us is None else window.until_us - 1
    return range(step.number(since_us), max(step.number(since_us), step.number(last_us)) + 1)
