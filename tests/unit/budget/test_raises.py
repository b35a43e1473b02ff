"""What raises give back when they end."""

from __future__ import annotations

from steward_server.budget.raises import Raise, grant, take_back
from steward_server.budget.values import Account, AccountId, ScopeId

NOW = 1_000


def account(allocated: int, *, spent: int = 0, leased: int = 0, overrun: int = 0) -> Account:
    return Account(AccountId("agent"), ScopeId("agent:agent"), allocated, spent, leased, overrun)


def raised(request_id: str, owed: int, ends_at_us: int = NOW, ended_in: str = "") -> Raise:
    return Raise(request_id, "agent", ends_at_us, owed, ended_in)


def taken(held: Account, *raises: Raise, now_us: int = NOW) -> dict[str, tuple[int, int]]:
    """What each raise gives back, and what it owes after that."""
    return {
        each.raised.request_id: (each.taken_nanousd, each.raised.owed_nanousd)
        for each in take_back(held, raises, now_us)
    }


def test_a_raise_gives_back_all_it_added_if_nothing_of_it_was_used() -> None:
    assert taken(account(150, spent=30, leased=20), raised("r", 50)) == {"r": (50, 0)}


def test_a_raise_gives_nothing_back_before_its_time() -> None:
    assert taken(account(150), raised("r", 50, NOW + 1)) == {}


def test_what_is_spent_of_a_raise_stays_for_good() -> None:
    assert taken(account(150, spent=120), raised("r", 50)) == {"r": (30, 0)}


def test_what_is_lent_of_a_raise_is_owed_until_its_lease_ends() -> None:
    assert taken(account(150, spent=90, leased=50), raised("r", 50)) == {"r": (10, 40)}
    assert taken(account(140, spent=90, leased=50), raised("r", 40, ended_in="agent")) == {}
    assert taken(account(140, spent=110, leased=0), raised("r", 40)) == {"r": (30, 0)}


def test_a_raise_owes_no_more_than_leases_could_give_back() -> None:
    assert taken(account(150, spent=140, leased=10), raised("r", 50)) == {"r": (0, 10)}


def test_an_overrun_is_not_protected() -> None:
    assert taken(account(150, spent=100, overrun=40), raised("r", 50)) == {"r": (50, 0)}


def test_of_a_budget_with_periods_those_to_come_have_nothing_of_a_raise_once_it_has_ended() -> None:
    held = account(150, spent=90, leased=50)
    (given,) = take_back(held, [raised("r", 50)], NOW, repeats=True)
    owes = raised("r", 40, ended_in="agent")
    assert given == (owes, 10, 50)
    assert take_back(held._replace(allocated_nanousd=140), [owes], NOW, repeats=True) == []
    given_back = account(140, spent=90, leased=20)
    (given,) = take_back(given_back, [owes], NOW, repeats=True)
    assert given == (owes._replace(owed_nanousd=10), 30, 0)


def test_a_period_owes_nothing_of_a_raise_that_ended_in_the_one_before() -> None:
    owes = raised("r", 40, ended_in="agent/day/2026-11-20")
    (given,) = take_back(account(100, leased=50), [owes], NOW, repeats=True)
    assert given == (owes._replace(owed_nanousd=0, ended_in="agent"), 0, 0)


def test_each_of_several_raises_takes_back_its_own_part() -> None:
    first, second = raised("a", 50, NOW), raised("b", 30, NOW + 10)
    assert taken(account(180), first, second) == {"a": (50, 0)}
    assert taken(account(130), second, now_us=NOW + 10) == {"b": (30, 0)}
    assert taken(account(180), second, first, now_us=NOW + 10) == {"a": (50, 0), "b": (30, 0)}


def test_raises_that_ended_together_share_what_leases_may_give_back() -> None:
    held = account(200, spent=150, leased=40)
    assert taken(held, raised("a", 50), raised("b", 50)) == {"a": (10, 40), "b": (0, 0)}


def granted(held: Account, *raises: Raise, to: int, ends_at_us: int | None) -> list[Raise]:
    return grant(
        held.allocated_nanousd or 0,
        raises,
        agent_id="agent",
        request_id="new",
        allocated_nanousd=to,
        ends_at_us=ends_at_us,
        now_us=NOW,
    )


def test_a_raise_counts_from_the_allocation_it_found() -> None:
    later = NOW + 5
    assert granted(account(100), to=150, ends_at_us=later) == [Raise("new", "agent", later, 50)]
    assert granted(account(100), to=150, ends_at_us=None) == []


def test_a_raise_that_has_ended_does_not_go_on_when_the_clock_is_set_back() -> None:
    owes = raised("r", 40, ended_in="agent")
    assert taken(account(140, spent=90, leased=20), owes, now_us=NOW - 1) == {"r": (30, 10)}
    assert granted(account(140), owes._replace(ends_at_us=NOW + 1), to=160, ends_at_us=None) == [
        owes._replace(ends_at_us=NOW + 1, owed_nanousd=0)
    ]


def test_a_raise_takes_over_what_ended_raises_still_owe() -> None:
    held = account(140, spent=90, leased=50)
    over, going_on = raised("a", 40), raised("b", 7, NOW + 1)
    assert granted(held, over, going_on, to=160, ends_at_us=NOW + 5) == [
        over._replace(owed_nanousd=0),
        Raise("new", "agent", NOW + 5, 60),
    ]
    assert granted(held, over, going_on, to=160, ends_at_us=None) == [over._replace(owed_nanousd=0)]
