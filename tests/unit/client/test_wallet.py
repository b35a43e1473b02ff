"""The money of one lease."""

from __future__ import annotations

import pytest

from steward_client.wallet import Refusal, UnknownHold, Wallet, WalletState


def wallet(granted_nanousd: int = 1_000, duration_s: float = 30.0) -> Wallet:
    return Wallet.of_lease(
        "lease_1", granted_nanousd=granted_nanousd, duration_s=duration_s, asked_at_s=100.0
    )


def test_a_hold_sets_money_aside() -> None:
    purse = wallet()

    assert purse.hold("a", 400, 100.0) is None
    assert (purse.available_nanousd, purse.held_nanousd, purse.spent_nanousd) == (600, 400, 0)


def test_settling_gives_back_what_a_call_did_not_cost() -> None:
    purse = wallet()
    purse.hold("a", 400, 100.0)
    purse.settle("a", 150)

    assert (purse.available_nanousd, purse.held_nanousd, purse.spent_nanousd) == (850, 0, 150)


def test_releasing_gives_back_everything() -> None:
    purse = wallet()
    purse.hold("a", 400, 100.0)
    purse.release("a")

    assert (purse.available_nanousd, purse.spent_nanousd) == (1_000, 0)


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
def test_a_hold_ends_exactly_once(first: str, second: str) -> None:
    purse = wallet()
    purse.hold("a", 400, 100.0)

    def end(how: str) -> None:
        purse.settle("a", 100) if how == "settle" else purse.release("a")

    end(first)
    before = purse.spent_nanousd
    with pytest.raises(UnknownHold):
        end(second)
    assert purse.spent_nanousd == before


def test_a_call_has_one_hold() -> None:
    purse = wallet()
    purse.hold("a", 1, 100.0)

    with pytest.raises(ValueError, match="already has a hold"):
        purse.hold("a", 1, 100.0)


def test_what_would_fit_later_is_told_from_what_never_will() -> None:
    purse = wallet()
    purse.hold("a", 900, 100.0)

    assert purse.hold("b", 101, 100.0) is Refusal.IN_FLIGHT
    assert purse.hold("b", 1_001, 100.0) is Refusal.TOO_LARGE
    assert purse.hold("b", 100, 100.0) is None


def test_no_call_starts_near_the_end_of_the_lease() -> None:
    purse = wallet(duration_s=30.0)

    assert purse.margin_s == 1.5
    assert purse.refusal_for(1, 128.4) is None
    assert purse.refusal_for(1, 128.5) is Refusal.EXPIRED
    assert not purse.expired(129.9)
    assert purse.expired(130.0)


def test_a_draining_wallet_settles_and_holds_nothing_new() -> None:
    purse = wallet()
    purse.hold("a", 400, 100.0)
    purse.drain()

    assert purse.hold("b", 1, 100.0) is Refusal.DRAINING
    purse.settle("a", 10)
    assert purse.spent_nanousd == 10


def test_a_stopped_wallet_does_not_start_again_by_draining() -> None:
    purse = wallet()
    purse.stop()
    purse.drain()

    assert purse.state is WalletState.STOPPED
    assert purse.hold("b", 1, 100.0) is Refusal.STOPPED


def test_a_fact_above_its_hold_is_booked_and_shows_as_overrun() -> None:
    purse = wallet()
    purse.hold("a", 400, 100.0)
    purse.settle("a", 1_200)

    assert (purse.spent_nanousd, purse.overrun_nanousd, purse.available_nanousd) == (1_200, 200, 0)
    assert purse.hold("b", 1, 100.0) is Refusal.TOO_LARGE


def test_a_grant_adds_and_moves_the_expiry_never_backwards() -> None:
    purse = wallet(duration_s=30.0)
    purse.grow(granted_nanousd=500, duration_s=30.0, asked_at_s=120.0)
    assert (purse.granted_nanousd, purse.expires_at_s) == (1_500, 150.0)

    purse.grow(granted_nanousd=0, duration_s=10.0, asked_at_s=121.0)
    assert (purse.granted_nanousd, purse.expires_at_s) == (1_500, 150.0)
    assert purse.last_grant_nanousd == 500


def test_more_is_wanted_below_a_third_of_the_last_grant() -> None:
    purse = wallet(granted_nanousd=900)
    purse.hold("a", 600, 100.0)
    assert not purse.wants_money()
    purse.hold("b", 1, 100.0)
    assert purse.wants_money()


def test_time_is_wanted_when_two_thirds_of_it_have_passed() -> None:
    purse = wallet(duration_s=30.0)

    assert not purse.wants_time(119.9)
    assert purse.wants_time(120.0)
    purse.drain()
    assert not purse.wants_time(120.0)


@pytest.mark.parametrize("amount", [-1, -(10**18)])
def test_a_negative_amount_is_refused(amount: int) -> None:
    purse = wallet()
    purse.hold("a", 1, 100.0)

    with pytest.raises(ValueError, match="0 or more"):
        purse.hold("b", amount, 100.0)
    with pytest.raises(ValueError, match="0 or more"):
        purse.settle("a", amount)
    with pytest.raises(ValueError, match="0 or more"):
        purse.grow(granted_nanousd=amount, duration_s=1, asked_at_s=100.0)
