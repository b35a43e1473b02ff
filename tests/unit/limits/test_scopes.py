"""Days and months of UTC, and who is in which scope."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from steward_server.limits.scopes import (
    day_of,
    month_of,
    next_day_us,
    next_month_us,
    scopes_of,
)


def us(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("now", "day", "month", "tomorrow", "next_month"),
    [
        ("2026-11-25T12:00:00", "2026-11-25", "2026-11", "2026-11-26", "2026-12-01"),
        ("2026-12-31T23:59:59", "2026-12-31", "2026-12", "2027-01-01", "2027-01-01"),
        ("2028-02-29T00:00:00", "2028-02-29", "2028-02", "2028-03-01", "2028-03-01"),
        ("2027-01-31T05:00:00", "2027-01-31", "2027-01", "2027-02-01", "2027-02-01"),
    ],
)
def test_days_and_months_end_at_midnight_utc(
    now: str, day: str, month: str, tomorrow: str, next_month: str
) -> None:
    now_us = us(now) + 999_999
    assert (day_of(now_us), month_of(now_us)) == (day, month)
    assert next_day_us(now_us) == us(tomorrow)
    assert next_month_us(now_us) == us(next_month)


def test_an_agent_is_in_these_scopes() -> None:
    assert scopes_of("agent_1", "user_1", "") == ("everyone", "user:user_1", "agent:agent_1")
    assert scopes_of("agent_1", "user_1", "project_1") == (
        *("everyone", "user:user_1", "project:project_1", "agent:agent_1"),
    )
