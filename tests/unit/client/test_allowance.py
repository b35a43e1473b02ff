"""A lease's share of the limits, as its runtime keeps to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steward_client.allowance import Allowance, LimitReached, Told


def call(allowance: Allowance, now_s: float) -> None:
    allowance.begin(now_s)
    allowance.sent(now_s)


def test_what_is_not_limited_is_counted_for_when_it_is() -> None:
    allowance = Allowance()
    for second in range(5):
        call(allowance, second)
    allowance.obey(Told(1, requests=3))
    assert allowance.requests_held(5) == 5
    assert allowance.gives_back(5)
    with pytest.raises(LimitReached):
        allowance.begin(5)
    # 60 seconds after the first two, three are left; a fourth waits for the third to be over.
    assert not allowance.gives_back(61)
    with pytest.raises(LimitReached) as refused:
        allowance.begin(61)
    assert refused.value.retry_after_s == pytest.approx(1)
    call(allowance, 62)


def test_a_refusal_names_the_limit_and_the_share() -> None:
    allowance = Allowance(Told(1, requests=0, requests_scope="user:u", requests_limit=9))
    with pytest.raises(LimitReached, match=r"9 requests per minute on 'user:u'.*: 0 of them"):
        allowance.begin(0)


def test_a_call_that_is_being_started_counts() -> None:
    allowance = Allowance(Told(1, requests=1))
    allowance.begin(0)
    with pytest.raises(LimitReached):
        allowance.begin(0)
    allowance.cancel()
    call(allowance, 0)


def test_what_was_told_before_is_ignored() -> None:
    allowance = Allowance()
    assert allowance.obey(Told(3, requests=5))
    assert not allowance.obey(Told(2, requests=50))
    assert allowance.told.requests == 5


def test_tokens_are_held_and_settled() -> None:
    allowance = Allowance(Told(1, tokens=100, tokens_reset_at_s=500.0))
    allowance.hold_tokens(80)
    assert allowance.available_tokens == 20
    assert allowance.no_tokens(50, 0).retry_after_s == 1.0  # what is under way may use less
    allowance.settle_tokens(80, 70)
    assert (allowance.available_tokens, allowance.tokens_claimed) == (30, 100)
    assert allowance.no_tokens(50, 100.0).retry_after_s == 400.0
    allowance.hold_tokens(30)
    allowance.settle_tokens(30, 60)
    assert (allowance.available_tokens, allowance.tokens_claimed) == (0, 130)


@given(st.integers(0, 6), st.lists(st.floats(0, 40), max_size=60))
def test_no_minute_has_more_calls_than_the_share(share: int, pauses_s: list[float]) -> None:
    allowance = Allowance(Told(1, requests=share))
    now_s, made_s = 0.0, list[float]()
    for pause_s in pauses_s:
        now_s += pause_s
        wait_s = refused_for_s(allowance, now_s)
        if wait_s is not None:
            assert allowance.calls_in_window(now_s) == share
            # With a share of any, it is let in exactly then.
            left = sum(now_s + wait_s + 1e-6 - each < 60 for each in made_s)
            assert share == 0 or left < share
            continue
        made_s.append(now_s)
        assert sum(now_s - each < 60 for each in made_s) <= share


def refused_for_s(allowance: Allowance, now_s: float) -> float | None:
    """How long a call has to wait; None if it is let in."""
    try:
        call(allowance, now_s)
    except LimitReached as refused:
        return refused.retry_after_s
    return None
