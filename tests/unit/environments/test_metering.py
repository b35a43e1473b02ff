"""How busy a machine is said to be."""

from __future__ import annotations

from steward_server.environments.metering import Meter


def test_at_first_it_is_over_the_whole_life() -> None:
    assert Meter(100.0).millicores(104.0, 2.0) == 500


def test_the_first_moments_are_not_taken_for_a_busy_life() -> None:
    assert Meter(100.0).millicores(100.001, 0.01) == 100


def test_later_it_is_over_the_time_since_it_was_last_asked() -> None:
    meter = Meter(0.0)
    meter.millicores(10.0, 0.0)
    assert meter.millicores(20.0, 5.0) == 500
    assert meter.millicores(30.0, 15.0) == 1000


def test_who_asks_many_times_a_second_is_told_of_at_least_half_a_second() -> None:
    meter = Meter(0.0)
    told = [meter.millicores(tenth / 10, tenth / 10 * 0.25) for tenth in range(1, 100)]
    assert set(told) == {250}
    assert meter.millicores(9.95, 9.9 * 0.25 + 0.05) < 400


def test_it_keeps_no_more_the_more_it_is_asked() -> None:
    meter = Meter(0.0)
    for second in range(1000):
        meter.millicores(float(second), 0.0)
    assert len(meter._looks) == 2
