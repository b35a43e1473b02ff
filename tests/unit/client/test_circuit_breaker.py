"""The circuit breaker, on a clock the tests turn."""

from __future__ import annotations

import pytest

from steward_client.breaker import BreakerConfig, BreakerState, CircuitBreaker, CircuitOpen


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(
        clock, BreakerConfig(window_s=30, minimum_calls=4, failure_share=0.5, open_s=10)
    )


def state(breaker: CircuitBreaker) -> BreakerState:
    return breaker.state


def call(breaker: CircuitBreaker, *outcomes: bool) -> None:
    for ok in outcomes:
        breaker.record(breaker.admit(), ok=ok)


def test_half_the_calls_failing_opens_the_circuit(breaker: CircuitBreaker) -> None:
    call(breaker, True, False, True)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, False)

    assert state(breaker) is BreakerState.OPEN
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.retry_after_s == 10


def test_a_few_failures_do_not_open_it(breaker: CircuitBreaker) -> None:
    call(breaker, False, False, False)
    assert state(breaker) is BreakerState.CLOSED


def test_what_is_long_ago_does_not_count(breaker: CircuitBreaker, clock: Clock) -> None:
    call(breaker, False, False, False)
    clock.now_s = 31
    call(breaker, True, True, True, False)
    assert state(breaker) is BreakerState.CLOSED


def test_after_a_while_one_probe_is_let_through(breaker: CircuitBreaker, clock: Clock) -> None:
    call(breaker, False, False, False, False)
    clock.now_s = 10
    assert state(breaker) is BreakerState.HALF_OPEN
    probe = breaker.admit()

    assert probe.probe
    with pytest.raises(CircuitOpen):
        breaker.admit()
    breaker.record(probe, ok=True)
    assert state(breaker) is BreakerState.CLOSED
    breaker.admit()


def test_a_probe_that_fails_opens_it_again(breaker: CircuitBreaker, clock: Clock) -> None:
    call(breaker, False, False, False, False)
    clock.now_s = 10
    breaker.record(breaker.admit(), ok=False)

    assert state(breaker) is BreakerState.OPEN
    clock.now_s = 19.9
    with pytest.raises(CircuitOpen):
        breaker.admit()


def test_a_call_from_before_can_neither_close_nor_open_it(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    early, late = breaker.admit(), breaker.admit()
    call(breaker, False, False, False, False)
    breaker.record(early, ok=True)
    assert state(breaker) is BreakerState.OPEN
    clock.now_s = 10
    breaker.record(breaker.admit(), ok=True)
    breaker.record(late, ok=False)

    assert state(breaker) is BreakerState.CLOSED


def test_a_probe_that_told_nothing_makes_room_for_another(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    call(breaker, False, False, False, False)
    clock.now_s = 10
    breaker.forget(breaker.admit())

    assert breaker.admit().probe


def test_an_opening_is_told_once_and_not_for_a_probe_that_fails(clock: Clock) -> None:
    told: list[tuple[int, float]] = []
    config = BreakerConfig(window_s=30, minimum_calls=4, failure_share=0.5, open_s=10)
    breaker = CircuitBreaker(clock, config, on_open=lambda *each: told.append(each))
    call(breaker, True, False, False, False)
    clock.now_s = 10
    call(breaker, False)
    assert told == [(3, 10)]
    clock.now_s = 20
    call(breaker, True, False, False, False, False)
    assert told == [(3, 10), (4, 10)]
