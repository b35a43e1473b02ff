"""How sums add up, and what is read off them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_server.analytics.figures import (
    NOTHING,
    Grain,
    Key,
    Sums,
    grain_for,
    percent,
    rounded_share,
    series_of,
    total,
)
from steward_server.analytics.risk import Risk, Standing, risk_of, standing_of

COUNTS = st.integers(0, 10**15)
SUMS = st.builds(Sums, *[COUNTS] * len(Sums._fields))


@given(SUMS, SUMS, SUMS)
def test_sums_add_up_in_any_order(first: Sums, second: Sums, third: Sums) -> None:
    assert first.plus(second).plus(third) == third.plus(second.plus(first))
    assert total([first, second]) == first.plus(second)


@given(SUMS)
def test_nothing_adds_nothing(sums: Sums) -> None:
    assert sums.plus(NOTHING) == sums
    assert total([]) == NOTHING


@given(st.integers(0, 10**20), st.integers(1, 10**9))
def test_a_share_is_rounded_half_to_even(amount: int, count: int) -> None:
    assert rounded_share(amount, count) == round(Fraction(amount, count))


def test_nothing_has_no_share() -> None:
    assert rounded_share(5, 0) == 0
    assert percent(5, 0) == 0.0
    assert percent(1, 8) == 12.5


def test_a_call_counts_in_a_series_of_each_grain() -> None:
    series = dict(series_of(Key("agent", "openai", "gpt-5")))
    assert series == {
        Grain.MODEL_OF_AGENT: Key("agent", "openai", "gpt-5"),
        Grain.PROVIDER_OF_AGENT: Key("agent", "openai", ""),
        Grain.AGENT: Key("agent", "", ""),
        Grain.MODEL: Key("", "openai", "gpt-5"),
    }


@pytest.mark.parametrize("agent", [True, False])
@pytest.mark.parametrize("provider", [True, False])
@pytest.mark.parametrize("model", [True, False])
def test_the_grain_tells_apart_what_must_be(*, agent: bool, provider: bool, model: bool) -> None:
    grain = grain_for(agent=agent, provider=provider, model=model)
    key = next(key for each, key in series_of(Key("a", "p", "m")) if each is grain)
    assert bool(key.agent_id) is agent
    assert key.provider or not provider
    assert key.model or not model


@pytest.mark.parametrize(
    ("percent_used", "risk"),
    [
        (0.0, Risk.LOW),
        (49.999, Risk.LOW),
        (50.0, Risk.MEDIUM),
        (79.999, Risk.MEDIUM),
        (80.0, Risk.HIGH),
        (94.999, Risk.HIGH),
        (95.0, Risk.CRITICAL),
        (99.999, Risk.CRITICAL),
        (100.0, Risk.EXHAUSTED),
        (250.0, Risk.EXHAUSTED),
    ],
)
def test_risk_rises_with_what_is_used(percent_used: float, risk: Risk) -> None:
    assert risk_of(percent_used) is risk


def test_an_agent_without_money_is_exhausted_whether_it_may_run_or_not() -> None:
    assert standing_of(100, stop_wanted=True) is Standing.EXHAUSTED
    assert standing_of(99, stop_wanted=True) is Standing.INACTIVE
    assert standing_of(99, stop_wanted=False) is Standing.ACTIVE
