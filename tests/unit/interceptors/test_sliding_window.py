"""The sliding window, against the plainest way to say the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steward_server.interceptors.rate_limit import SlidingWindow, Taken


def test_the_limit_is_what_it_says_in_any_window() -> None:
    window = SlidingWindow(limit=2, window_us=10)
    assert window.take("a", 0) == Taken(allowed=True, remaining=1, reset_us=10)
    assert window.take("a", 4) == Taken(allowed=True, remaining=0, reset_us=6)
    assert window.take("a", 9) == Taken(allowed=False, remaining=0, reset_us=1)
    assert window.take("a", 10) == Taken(allowed=True, remaining=0, reset_us=4)


def test_keys_do_not_share() -> None:
    window = SlidingWindow(limit=1, window_us=10)
    assert window.take("a", 0).allowed
    assert window.take("b", 0).allowed
    assert not window.take("a", 0).allowed


def test_refused_attempts_do_not_prolong_the_wait() -> None:
    window = SlidingWindow(limit=1, window_us=10)
    window.take("a", 0)
    for now_us in range(1, 10):
        assert not window.take("a", now_us).allowed
    assert window.take("a", 10).allowed


def test_memory_is_bounded_however_many_call() -> None:
    window = SlidingWindow(limit=3, window_us=10, most_keys=100)
    for number in range(10_000):
        window.take(str(number), 0)
    assert len(window._times_us) == 100
    for _ in range(50):
        window.take("9999", 0)
    assert len(window._times_us["9999"]) == 3


@given(
    st.integers(1, 5),
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 7)), max_size=60),
)
def test_it_decides_as_counting_would(
    limit: int, window_us: int, attempts: list[tuple[str, int]]
) -> None:
    window = SlidingWindow(limit, window_us)
    allowed_us: dict[str, list[int]] = {"a": [], "b": []}
    now_us = 0
    for key, step_us in attempts:
        now_us += step_us
        recent = [at_us for at_us in allowed_us[key] if now_us - at_us < window_us]
        taken = window.take(key, now_us)
        assert taken.allowed == (len(recent) < limit)
        assert taken.remaining == max(0, limit - len(recent) - 1)
        assert 0 <= taken.reset_us <= window_us
        if taken.allowed:
            allowed_us[key].append(now_us)
        else:
            assert SlidingWindow.take(window, key, now_us + taken.reset_us - 1).allowed is False
