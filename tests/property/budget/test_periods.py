"""Periods of budgets: every moment lies in exactly one, and they are those of the calendar."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.budget.period import DAY_US, Period, date_text, period_of
from steward_server.budget.scopes import Scope, account_at, account_id_of, current
from steward_server.budget.values import ORGANISATION, Mode, ScopeId, scope_of_agent
from tests.property.budget.model import end_us

REPEATED = [Period.DAY, Period.WEEK, Period.MONTH]
moments = st.integers(0, 4_102_444_800_000_000)  # to the year 2100
repeated = st.sampled_from(REPEATED)


def us(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]


def bounds(period: Period, at_us: int) -> tuple[int, int]:
    starts_at_us, ends_at_us = period_of(period, at_us)
    assert ends_at_us is not None
    return starts_at_us, ends_at_us


@given(repeated, moments)
def test_a_moment_lies_in_its_period(period: Period, at_us: int) -> None:
    starts_at_us, ends_at_us = bounds(period, at_us)
    assert starts_at_us <= at_us < ends_at_us
    assert starts_at_us % DAY_US == ends_at_us % DAY_US == 0


@given(repeated, moments)
def test_all_moments_of_a_period_have_the_same_and_the_next_begins_at_its_end(
    period: Period, at_us: int
) -> None:
    starts_at_us, ends_at_us = bounds(period, at_us)
    assert period_of(period, starts_at_us) == period_of(period, ends_at_us - 1)
    assert bounds(period, ends_at_us)[0] == ends_at_us
    if starts_at_us > 0:
        assert bounds(period, starts_at_us - 1)[1] == starts_at_us


@given(repeated, moments)
def test_periods_are_those_of_the_calendar(period: Period, at_us: int) -> None:
    starts_at_us, ends_at_us = bounds(period, at_us)
    first = datetime.fromtimestamp(starts_at_us // 1_000_000, UTC)
    after = datetime.fromtimestamp(ends_at_us // 1_000_000, UTC)
    assert ends_at_us == end_us(period, at_us)
    assert date_text(starts_at_us) == f"{first:%Y-%m-%d}"
    match period:
        case Period.DAY:
            assert after - first == timedelta(days=1)
        case Period.WEEK:
            assert (after - first, first.isoweekday()) == (timedelta(days=7), 1)
        case _:
            assert (first.day, after.day) == (1, 1)
            assert 28 <= (after - first).days <= 31


@given(moments)
def test_what_is_for_ever_has_one_period(at_us: int) -> None:
    assert period_of(Period.NONE, at_us) == (0, None)


@pytest.mark.parametrize(
    ("period", "at", "starts", "ends"),
    [
        (Period.DAY, (2026, 11, 20, 23, 59, 59), (2026, 11, 20), (2026, 11, 21)),
        (Period.DAY, (2026, 11, 21), (2026, 11, 21), (2026, 11, 22)),
        # Clocks in Berlin are turned on these days; the days have 24 hours all the same.
        (Period.DAY, (2026, 3, 29, 1, 30), (2026, 3, 29), (2026, 3, 30)),
        (Period.DAY, (2026, 10, 25, 2, 30), (2026, 10, 25), (2026, 10, 26)),
        (Period.WEEK, (2026, 11, 22, 23, 59, 59), (2026, 11, 16), (2026, 11, 23)),
        (Period.WEEK, (2026, 11, 23), (2026, 11, 23), (2026, 11, 30)),
        (Period.WEEK, (2027, 1, 1), (2026, 12, 28), (2027, 1, 4)),
        (Period.MONTH, (2026, 1, 31, 23, 59, 59), (2026, 1, 1), (2026, 2, 1)),
        (Period.MONTH, (2026, 2, 28, 23, 59, 59), (2026, 2, 1), (2026, 3, 1)),
        (Period.MONTH, (2028, 2, 29, 12), (2028, 2, 1), (2028, 3, 1)),
        (Period.MONTH, (2000, 2, 29), (2000, 2, 1), (2000, 3, 1)),
        (Period.MONTH, (2100, 2, 28, 12), (2100, 2, 1), (2100, 3, 1)),
        (Period.MONTH, (2026, 4, 30, 12), (2026, 4, 1), (2026, 5, 1)),
        (Period.MONTH, (2026, 12, 31, 23, 59, 59), (2026, 12, 1), (2027, 1, 1)),
    ],
)
def test_a_period_ends_where_people_expect_it(
    period: Period, at: tuple[int, ...], starts: tuple[int, ...], ends: tuple[int, ...]
) -> None:
    assert period_of(period, us(*at)) == (us(*starts), us(*ends))


# --- the accounts of a scope


def scope(period: Period) -> Scope:
    return Scope(scope_of_agent("agent_1"), ORGANISATION, 500, Mode.INFORMATIVE, period)


@given(repeated, moments, moments)
def test_two_moments_share_an_account_if_and_only_if_they_share_their_period(
    period: Period, one_us: int, other_us: int
) -> None:
    one, other = account_at(scope(period), one_us), account_at(scope(period), other_us)
    assert (one == other) == (period_of(period, one_us) == period_of(period, other_us))
    assert (one.account_id == other.account_id) == (one == other)


@given(st.lists(repeated, min_size=2, max_size=2, unique=True), moments)
def test_periods_of_different_kinds_never_share_an_account(
    periods: list[Period], at_us: int
) -> None:
    one, other = (account_at(scope(period), at_us).account_id for period in periods)
    assert one != other


@given(st.sampled_from(Period), moments, st.integers(-10 * DAY_US, 40 * DAY_US))
def test_a_scope_goes_on_to_its_next_account_and_never_back(
    period: Period, at_us: int, later_us: int
) -> None:
    first = current(scope(period), None, at_us)._replace(spent_nanousd=77)
    then = current(scope(period), first, at_us + later_us)
    if first.is_over(at_us + later_us):
        assert then == account_at(scope(period), at_us + later_us)
    else:
        assert then is first


@given(repeated, repeated, moments, st.integers(0, 40 * DAY_US))
def test_no_change_of_period_brings_an_earlier_one_back(
    old: Period, new: Period, at_us: int, back_us: int
) -> None:
    since_us, _ = period_of(old, at_us)
    wanted = scope(new)._replace(since_us=since_us)
    ends_at_us = current(wanted, None, max(0, at_us - back_us)).ends_at_us
    assert ends_at_us is not None
    assert ends_at_us > since_us


def test_an_account_is_named_after_its_scope_and_its_first_day() -> None:
    assert account_id_of(scope_of_agent("agent_1"), Period.NONE, 0) == "agent_1"
    assert account_id_of(ORGANISATION, Period.NONE, 0) == "organisation"
    month_us = us(2026, 11, 1)
    assert account_id_of(ORGANISATION, Period.MONTH, month_us) == "organisation/month/2026-11-01"
    assert account_id_of(ScopeId("project:p"), Period.DAY, month_us) == "p/day/2026-11-01"
