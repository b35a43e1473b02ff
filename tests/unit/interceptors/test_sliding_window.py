"""The sliding window, against the plainest way to say the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steward_server.windows import SlidingWindow


def test_the_limit_is_what_it_says_in_any_window() -> None:
    window = SlidingWindow(limit=2, window_us=10)
    assert window.take("a", 0) == (True, 1, 10)
    assert window.take("a", 4) == (True, 0, 6)
    assert window.take("a", 9) == (False, 0, 1)
    assert window.take("a", 10) == (True, 0, 4)


def test_keys_do_not_share() -> None:
    window = SlidingWindow(limit=1, window_us=10)
    assert window.take("a", 0)[0]
    assert window.take("b", 0)[0]
    assert not window.take("a", 0)[0]


def test_refused_attempts_do_not_prolong_the_wait() -> None:
    window = SlidingWindow(limit=1, window_us=10)
    window.take("a", 0)
    for now_us in range(1, 10):
        assert not window.take("a", now_us)[0]
    assert window.take("a", 10)[0]


def test_memory_is_bounded_however_many_call() -> None:
    window = SlidingWindow(limit=3, window_us=10, most_keys=100)
    for number in range(10_000):
        window.take(str(number), 0)
    assert len(window._recent) == 100


def test_memory_is_bounded_however_much_one_may() -> None:
    window = SlidingWindow(limit=1_000_000, window_us=60_000, slot_us=1_000)
    for now_us in range(0, 600_000, 7):
        assert window.take("a", now_us)[0]
    recent = window._recent["a"]
    assert len(recent.runs) == 61
    assert recent.count == sum(run.count for run in recent.runs)


def test_whoever_was_seen_last_is_forgotten_last() -> None:
    window = SlidingWindow(limit=1, window_us=10, most_keys=2)
    for key in ("a", "b", "a", "c"):
        window.take(key, 0)
    assert not window.take("a", 0)[0]
    assert window.take("b", 0)[0]


def test_a_clock_set_back_lets_nobody_in_sooner() -> None:
    window = SlidingWindow(limit=2, window_us=10)
    window.take("a", 100)
    window.take("a", 95)
    assert window.take("a", 99) == (False, 0, 11)
    assert window.take("a", 110)[0]


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
        allowed, remaining, reset_us = window.take(key, now_us)
        assert allowed == (len(recent) < limit)
        assert remaining == max(0, limit - len(recent) - 1)
        assert 0 <= reset_us <= window_us
        if allowed:
            allowed_us[key].append(now_us)
        else:
            assert SlidingWindow.take(window, key, now_us + reset_us - 1)[0] is False


@given(
    st.integers(1, 6),
    st.integers(1, 8),
    st.integers(1, 7),
    st.lists(st.integers(0, 9), max_size=80),
)
def test_slots_let_in_never_more_than_the_limit_and_never_wait_longer_than_one(
    limit: int, slots: int, slot_us: int, steps_us: list[int]
) -> None:
    """Against counting every time: too many are never let in, and whoever is turned away would
    have been let in a slot earlier at most."""
    window_us = slots * slot_us
    window = SlidingWindow(limit, window_us, slot_us=slot_us)
    allowed_us: list[int] = []
    now_us = 0
    for step_us in steps_us:
        now_us += step_us
        allowed, remaining, reset_us = window.take("a", now_us)
        within = [at_us for at_us in allowed_us if now_us - at_us < window_us]
        slot_longer = [at_us for at_us in allowed_us if now_us - at_us < window_us + slot_us]
        if allowed:
            assert len(within) < limit
            assert remaining >= limit - len(slot_longer) - 1
            allowed_us.append(now_us)
        else:
            assert len(slot_longer) >= limit
            assert 0 < reset_us < window_us + slot_us
            assert not window.take("a", now_us + reset_us - 1)[0]
    assert all(len(recent.runs) <= slots + 1 for recent in window._recent.values())
