"""The ledger's rules, one sentence each, with their boundaries."""

from collections.abc import Callable
from itertools import product

import pytest

from steward_server.budget.allocation import (
    lendable_nanousd,
    reallocate,
    thresholds_crossed,
    tightest,
)
from steward_server.budget.audit import check
from steward_server.budget.ledger import (
    Closing,
    Denial,
    Growth,
    Opening,
    begin_expiry,
    book,
    cut_short,
    end_draining,
    give_back,
    grow,
    open_lease,
    revoke,
    touch,
)
from steward_server.budget.ledger_errors import (
    BudgetBelowCommitted,
    BudgetExceeded,
    IllegalTransition,
    InvalidAmount,
    LeaseClosed,
    LedgerError,
    SequenceGap,
    SequenceReused,
)
from steward_server.budget.values import (
    MAX_BALANCE_NANOUSD,
    MAX_COST_NANOUSD,
    NANOUSD_PER_USD,
    NEXT,
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeasePolicy,
    LeaseState,
    Mode,
    Path,
    scope_of_agent,
)
from tests.changed import replace

NOW_US = 1_700_000_000_000_000
TTL_US = 900 * 1_000_000
GRACE_US = 60 * 1_000_000
POLICY = LeasePolicy()
AGENT = AgentId("agent_1")

ACTIVE, DRAINING = LeaseState.ACTIVE, LeaseState.DRAINING
CLOSED, EXPIRED, REVOKED = LeaseState.CLOSED, LeaseState.EXPIRED, LeaseState.REVOKED


def account(
    allocated_nanousd: int | None,
    *,
    spent: int = 0,
    leased: int = 0,
    overrun: int = 0,
    name: str = "agent_1",
) -> Account:
    return Account(AccountId(name), scope_of_agent(name), allocated_nanousd, spent, leased, overrun)


def tree(*allocated_nanousd: int | None) -> Path:
    """A path, the agent's account first, with these allocations."""
    return tuple(
        account(amount, name=f"level_{level}") for level, amount in enumerate(allocated_nanousd)
    )


def opened(
    path: Path,
    requested_nanousd: int | None = None,
    *,
    minimum_nanousd: int = 0,
    now_us: int = NOW_US,
    policy: LeasePolicy = POLICY,
) -> Opening:
    return open_lease(
        path,
        lease_id=LeaseId("lease_1"),
        agent_id=AGENT,
        requested_nanousd=requested_nanousd,
        minimum_nanousd=minimum_nanousd,
        now_us=now_us,
        policy=policy,
    )


def lent(granted_nanousd: int = 100, *, allocated_nanousd: int = 1_000) -> tuple[Path, Lease]:
    """A path and an active lease on it."""
    opening = opened(tree(allocated_nanousd), granted_nanousd)
    return opening.path, opening.lease


def assert_sound(path: Path, lease: Lease) -> None:
    assert check(path, [lease], complete=True) == []


def in_state(state: LeaseState, ending: LeaseState | None = None) -> tuple[Path, Lease]:
    """A lease of 100 with 30 spent, brought to a state by the rules alone."""
    path, lease = lent(100)
    booking = book(path, lease, sequence=0, cost_nanousd=30, now_us=NOW_US)
    path, lease = booking.path, booking.lease
    if state is ACTIVE:
        return path, lease
    if state is CLOSED:
        closing = give_back(path, lease, now_us=NOW_US)
        return closing.path, closing.lease
    if (ending or state) is REVOKED:
        lease = revoke(lease, lease.expires_at_us, POLICY)
    else:
        lease = begin_expiry(lease, lease.expires_at_us, POLICY)
    if state is DRAINING:
        return path, lease
    closing = end_draining(path, lease, lease.settle_until_us)
    return closing.path, closing.lease


# --- accounts


def test_free_money_is_what_is_neither_spent_nor_leased() -> None:
    assert account(100, spent=30, leased=20).free_nanousd == 50


def test_committed_money_is_spent_and_leased() -> None:
    assert account(100, spent=30, leased=20).committed_nanousd == 50


def test_overspent_money_is_not_available_again() -> None:
    assert account(100, spent=30, leased=20, overrun=10).available_nanousd == 40


@pytest.mark.parametrize(("overrun", "available"), [(49, 1), (50, 0), (51, 0), (10_000, 0)])
def test_available_money_never_falls_below_nothing(overrun: int, available: int) -> None:
    assert account(100, spent=50, overrun=overrun).available_nanousd == available


def test_an_overrun_does_not_touch_the_equation_of_allocated_spent_leased_and_free() -> None:
    overrun = account(100, spent=50, leased=20, overrun=500)
    assert overrun.free_nanousd is not None
    assert overrun.spent_nanousd + overrun.leased_nanousd + overrun.free_nanousd == 100


def test_values_cannot_be_changed_in_place() -> None:
    path, lease = lent()
    with pytest.raises(AttributeError):
        lease.spent_nanousd = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        path[0].leased_nanousd = 1  # type: ignore[misc]


def test_the_tightest_account_of_a_path_is_found_at_any_level() -> None:
    assert [
        tightest(tree(*amounts)).account_id for amounts in [(1, 5, 5), (5, 1, 5), (5, 5, 1)]
    ] == [
        "level_0",
        "level_1",
        "level_2",
    ]


# --- opening


def test_opening_moves_free_money_to_leased() -> None:
    opening = opened(tree(1_000), 400)
    assert opening.path == (account(1_000, leased=400, name="level_0"),)
    assert opening.lease.granted_nanousd == 400
    assert not opening.partial
    assert_sound(opening.path, opening.lease)


def test_a_new_lease_is_active_unspent_and_expires_after_its_time() -> None:
    lease = opened(tree(1_000), 400).lease
    assert lease == Lease(
        LeaseId("lease_1"),
        (AccountId("level_0"),),
        AGENT,
        granted_nanousd=400,
        spent_nanousd=0,
        overrun_nanousd=0,
        sequence=0,
        state=ACTIVE,
        ending=None,
        expires_at_us=NOW_US + TTL_US,
        settle_until_us=0,
    )


def test_opening_without_an_amount_asks_for_the_default_tranche() -> None:
    opening = opened(tree(100 * NANOUSD_PER_USD))
    assert opening.requested_nanousd == opening.lease.granted_nanousd == 10 * NANOUSD_PER_USD
    assert not opening.partial


@pytest.mark.parametrize(
    ("requested", "granted", "partial"), [(99, 99, False), (100, 100, False), (101, 100, True)]
)
def test_opening_grants_no_more_than_is_available(
    *, requested: int, granted: int, partial: bool
) -> None:
    opening = opened(tree(100), requested)
    assert (opening.lease.granted_nanousd, opening.partial) == (granted, partial)


def test_a_default_tranche_that_does_not_fit_is_partial() -> None:
    opening = opened(tree(1))
    assert (opening.lease.granted_nanousd, opening.partial) == (1, True)


@pytest.mark.parametrize(("over", "partial"), [(-1, False), (0, False), (1, True)])
def test_a_request_above_the_maximum_is_granted_up_to_it(*, over: int, partial: bool) -> None:
    maximum = POLICY.maximum_tranche_nanousd
    opening = opened(tree(5_000 * NANOUSD_PER_USD), maximum + over)
    assert opening.lease.granted_nanousd == min(maximum, maximum + over)
    assert (opening.requested_nanousd, opening.partial) == (maximum + over, partial)


@pytest.mark.parametrize("level", range(5))
def test_opening_grants_what_the_tightest_level_can_lend(level: int) -> None:
    amounts = [1_000] * 5
    amounts[level] = 300
    opening = opened(tree(*amounts), 500)
    assert opening.lease.granted_nanousd == 300
    assert [account.leased_nanousd for account in opening.path] == [300] * 5
    assert_sound(opening.path, opening.lease)


def test_opening_with_nothing_available_is_refused_with_its_facts() -> None:
    path = (account(100, spent=60, leased=40),)
    with pytest.raises(BudgetExceeded, match="agent_1") as refusal:
        opened(path, 5)
    assert refusal.value.facts() == {
        "agent_id": "agent_1",
        "requested_nanousd": "5",
        "available_nanousd": "0",
        "scope": "agent:agent_1",
    }


def test_opening_names_the_level_that_has_nothing_left() -> None:
    with pytest.raises(BudgetExceeded) as refusal:
        opened(tree(1_000, 0, 1_000), 5)
    assert refusal.value.scope == "agent:level_1"


def test_an_agent_that_overran_is_not_lent_the_money_it_has_overspent() -> None:
    assert opened((account(100, overrun=99),), 50).lease.granted_nanousd == 1
    with pytest.raises(BudgetExceeded):
        opened((account(100, overrun=100),), 50)


@pytest.mark.parametrize("available", [50, 51])
def test_a_minimum_that_fits_is_granted(available: int) -> None:
    opening = opened(tree(available), 100, minimum_nanousd=50)
    assert opening.lease.granted_nanousd == available


def test_less_than_the_minimum_is_refused_and_says_what_there_is() -> None:
    with pytest.raises(BudgetExceeded) as refusal:
        opened(tree(49), 100, minimum_nanousd=50)
    assert refusal.value.available_nanousd == 49


@pytest.mark.parametrize("requested", [0, -1, -MAX_BALANCE_NANOUSD])
def test_a_request_of_nothing_is_invalid(requested: int) -> None:
    with pytest.raises(InvalidAmount, match="requested_nanousd"):
        opened(tree(100), requested)


@pytest.mark.parametrize("minimum", [-1, 101])
def test_a_minimum_outside_what_is_requested_is_invalid(minimum: int) -> None:
    with pytest.raises(InvalidAmount, match="minimum_nanousd"):
        opened(tree(1_000), 100, minimum_nanousd=minimum)


def test_a_minimum_above_the_maximum_tranche_is_invalid() -> None:
    maximum = POLICY.maximum_tranche_nanousd
    with pytest.raises(InvalidAmount, match="minimum_nanousd"):
        opened(tree(5 * maximum), 2 * maximum, minimum_nanousd=maximum + 1)


def test_a_refused_opening_changes_nothing() -> None:
    path = tree(1_000, 0)
    with pytest.raises(BudgetExceeded):
        opened(path, 5)
    assert path == tree(1_000, 0)


@pytest.mark.parametrize("path", [(), tree(None), (replace(tree(5)[0], mode=Mode.INFORMATIVE),)])
def test_a_path_that_nothing_limits_is_a_fault_of_the_caller(path: Path) -> None:
    with pytest.raises(ValueError, match="limits it"):
        opened(path, 5)
    with pytest.raises(ValueError, match="limits it"):
        tightest(path)


def test_what_only_counts_and_what_has_no_limit_lets_anything_be_lent() -> None:
    informative = replace(account(3, spent=9, name="level_1"), mode=Mode.INFORMATIVE)
    path = (account(1_000), informative, account(None, name="level_2"))
    assert (tightest(path), lendable_nanousd(path)) == (path[0], 1_000)
    opening = opened(path, 600)
    assert opening.lease.granted_nanousd == 600
    assert [one.leased_nanousd for one in opening.path] == [600] * 3
    assert [one.free_nanousd for one in opening.path] == [400, 3 - 9 - 600, None]
    assert [one.available_nanousd for one in opening.path] == [400, None, None]


@pytest.mark.parametrize(
    ("ends", "period_end", "expires"),
    [
        ((None, None), None, TTL_US),
        ((None, TTL_US + 1), TTL_US + 1, TTL_US),
        ((TTL_US - 1, TTL_US + 1), TTL_US - 1, TTL_US - 1),
        ((TTL_US + 1, 1), 1, 1),
    ],
)
def test_a_lease_never_outlives_the_first_period_of_its_path_to_end(
    ends: tuple[int | None, ...], period_end: int | None, expires: int
) -> None:
    path = tuple(
        replace(one, ends_at_us=None if end is None else NOW_US + end)
        for one, end in zip(tree(1_000, 1_000), ends, strict=True)
    )
    opening = opened(path, 100)
    path, lease = opening.path, opening.lease
    assert lease.period_ends_at_us == (None if period_end is None else NOW_US + period_end)
    assert lease.expires_at_us == NOW_US + expires
    if period_end is not None:
        last_us = lease.expires_at_us - 1
        touched = touch(lease, now_us=last_us, policy=POLICY)
        grown = grow(path, lease, requested_nanousd=1, now_us=last_us, policy=POLICY)
        assert isinstance(grown, Growth)
        assert touched.expires_at_us == grown.lease.expires_at_us <= NOW_US + period_end


def test_a_lease_is_cut_short_as_if_its_time_were_over() -> None:
    path, lease = in_state(ACTIVE)
    draining = cut_short(lease, NOW_US, POLICY)
    assert (draining.state, draining.ending) == (DRAINING, EXPIRED)
    assert draining.settle_until_us == NOW_US + GRACE_US
    booking = book(path, draining, sequence=2, cost_nanousd=10, now_us=NOW_US + 1)
    assert (booking.covered_nanousd, booking.overrun_nanousd) == (10, 0)
    assert end_draining(path, draining, NOW_US + GRACE_US).returned_nanousd == 70


@pytest.mark.parametrize("state", [DRAINING, CLOSED, EXPIRED, REVOKED])
def test_only_an_active_lease_is_cut_short(state: LeaseState) -> None:
    _, lease = in_state(state)
    assert cut_short(lease, NOW_US, POLICY) is lease


# --- booking


def test_booking_moves_leased_money_to_spent() -> None:
    path, lease = lent(100)
    booking = book(path, lease, sequence=1, cost_nanousd=30, now_us=NOW_US)
    assert booking.path == (account(1_000, spent=30, leased=70, name="level_0"),)
    assert booking.lease.spent_nanousd == 30
    assert (booking.covered_nanousd, booking.overrun_nanousd) == (30, 0)
    assert_sound(booking.path, booking.lease)


@pytest.mark.parametrize("depth", range(1, 6))
def test_booking_moves_the_whole_path(depth: int) -> None:
    opening = opened(tree(*[1_000] * depth), 100)
    booking = book(opening.path, opening.lease, sequence=1, cost_nanousd=120, now_us=NOW_US)
    assert {
        (one.spent_nanousd, one.leased_nanousd, one.overrun_nanousd) for one in booking.path
    } == {(100, 0, 20)}
    assert_sound(booking.path, booking.lease)


def test_a_cost_of_nothing_is_booked_and_numbered() -> None:
    path, lease = lent(100)
    booking = book(path, lease, sequence=0, cost_nanousd=0, now_us=NOW_US)
    assert booking.path == path
    assert booking.lease == replace(lease, sequence=1)


@pytest.mark.parametrize(
    ("cost", "spent", "overrun", "state"),
    [(99, 99, 0, ACTIVE), (100, 100, 0, ACTIVE), (101, 100, 1, DRAINING)],
)
def test_only_a_cost_above_the_grant_overruns(
    cost: int, spent: int, overrun: int, state: LeaseState
) -> None:
    path, lease = lent(100)
    booking = book(path, lease, sequence=1, cost_nanousd=cost, now_us=NOW_US)
    assert booking.lease.spent_nanousd == booking.path[0].spent_nanousd == spent
    assert booking.lease.overrun_nanousd == booking.path[0].overrun_nanousd == overrun
    assert (booking.covered_nanousd, booking.overrun_nanousd) == (spent, overrun)
    assert booking.lease.state is state
    assert_sound(booking.path, booking.lease)


def test_an_overrun_freezes_the_lease_which_will_end_revoked() -> None:
    path, lease = lent(100)
    frozen = book(path, lease, sequence=1, cost_nanousd=101, now_us=NOW_US).lease
    assert (frozen.state, frozen.ending) == (DRAINING, REVOKED)
    assert frozen.settle_until_us == lease.expires_at_us


def test_an_overrun_after_the_expiry_nobody_acted_on_freezes_until_now() -> None:
    path, lease = lent(100)
    late_us = lease.expires_at_us + 5
    frozen = book(path, lease, sequence=1, cost_nanousd=101, now_us=late_us).lease
    assert frozen.settle_until_us == late_us


def test_a_frozen_lease_neither_grows_nor_renews() -> None:
    path, lease = lent(100)
    booking = book(path, lease, sequence=1, cost_nanousd=101, now_us=NOW_US)
    denial = grow(booking.path, booking.lease, requested_nanousd=1, now_us=NOW_US, policy=POLICY)
    assert denial == Denial("lease_draining")
    assert touch(booking.lease, now_us=NOW_US + 1, policy=POLICY) is booking.lease


def test_a_frozen_lease_still_takes_facts_all_as_overrun() -> None:
    path, lease = lent(100)
    first = book(path, lease, sequence=1, cost_nanousd=101, now_us=NOW_US)
    second = book(first.path, first.lease, sequence=2, cost_nanousd=7, now_us=NOW_US)
    assert second.lease == replace(first.lease, overrun_nanousd=8, sequence=2)
    assert second.path[0].overrun_nanousd == 8
    assert_sound(second.path, second.lease)


@pytest.mark.parametrize("ending", [EXPIRED, REVOKED])
def test_a_draining_lease_still_covers_what_it_was_granted(ending: LeaseState) -> None:
    path, lease = in_state(DRAINING, ending)
    booking = book(path, lease, sequence=0, cost_nanousd=70, now_us=lease.expires_at_us)
    assert (booking.covered_nanousd, booking.overrun_nanousd) == (70, 0)
    assert booking.lease == replace(lease, spent_nanousd=100, sequence=2)


@pytest.mark.parametrize("ending", [EXPIRED, REVOKED])
def test_an_overrun_leaves_a_draining_lease_to_end_as_it_would(ending: LeaseState) -> None:
    path, lease = in_state(DRAINING, ending)
    booking = book(path, lease, sequence=0, cost_nanousd=71, now_us=lease.expires_at_us)
    assert booking.lease == replace(lease, spent_nanousd=100, overrun_nanousd=1, sequence=2)


@pytest.mark.parametrize("late_us", [-1, 0, 1, 10**9])
def test_a_draining_lease_takes_reports_until_someone_ends_it(late_us: int) -> None:
    path, lease = in_state(DRAINING, EXPIRED)
    now_us = lease.settle_until_us + late_us
    booking = book(path, lease, sequence=0, cost_nanousd=70, now_us=now_us)
    assert booking.covered_nanousd == 70


@pytest.mark.parametrize("late_us", [-1, 0, 1])
def test_an_active_lease_takes_reports_until_someone_ends_it(late_us: int) -> None:
    path, lease = lent(100)
    now_us = lease.expires_at_us + late_us
    booking = book(path, lease, sequence=1, cost_nanousd=70, now_us=now_us)
    assert (booking.covered_nanousd, booking.lease.state) == (70, ACTIVE)


@pytest.mark.parametrize("state", [EXPIRED, REVOKED])
def test_facts_that_come_after_the_server_ended_a_lease_are_all_overrun(state: LeaseState) -> None:
    path, lease = in_state(state)
    booking = book(path, lease, sequence=2, cost_nanousd=5, now_us=NOW_US)
    assert booking.lease == replace(lease, overrun_nanousd=5, sequence=2)
    assert booking.path == (replace(path[0], overrun_nanousd=5),)
    assert_sound(booking.path, booking.lease)


@pytest.mark.parametrize("cost", [0, 1])
def test_a_lease_returned_by_its_runtime_takes_nothing_more(cost: int) -> None:
    path, lease = in_state(CLOSED)
    with pytest.raises(LeaseClosed, match="lease_1") as refusal:
        book(path, lease, sequence=0, cost_nanousd=cost, now_us=NOW_US)
    assert refusal.value.facts() == {"lease_id": "lease_1", "state": "closed"}


def test_reports_are_numbered_from_one() -> None:
    path, lease = lent(100)
    for expected in (1, 2, 3):
        booking = book(path, lease, sequence=expected % 2 * expected, cost_nanousd=1, now_us=NOW_US)
        path, lease = booking.path, booking.lease
        assert booking.sequence == lease.sequence == expected


@pytest.mark.parametrize("got", [3, 4, 100])
def test_a_gap_in_the_numbers_is_refused_with_the_number_expected(got: int) -> None:
    path, lease = in_state(ACTIVE)
    with pytest.raises(SequenceGap, match="send from 2 on") as refusal:
        book(path, lease, sequence=got, cost_nanousd=1, now_us=NOW_US)
    assert refusal.value.facts() == {"lease_id": "lease_1", "expected": "2", "got": str(got)}


@pytest.mark.parametrize("got", [1, -1])
def test_a_number_that_was_booked_is_refused(got: int) -> None:
    path, lease = in_state(ACTIVE)
    with pytest.raises(SequenceReused, match="the next is 2") as refusal:
        book(path, lease, sequence=got, cost_nanousd=1, now_us=NOW_US)
    assert (refusal.value.expected, refusal.value.got) == (2, got)


@pytest.mark.parametrize("cost", [-1, MAX_COST_NANOUSD + 1])
def test_a_cost_that_cannot_be_is_refused(cost: int) -> None:
    path, lease = lent(100)
    with pytest.raises(InvalidAmount, match="cost_nanousd") as refusal:
        book(path, lease, sequence=1, cost_nanousd=cost, now_us=NOW_US)
    assert refusal.value.amount_nanousd == cost


def test_the_largest_cost_is_booked() -> None:
    path, lease = lent(100)
    booking = book(path, lease, sequence=1, cost_nanousd=MAX_COST_NANOUSD, now_us=NOW_US)
    assert booking.overrun_nanousd == MAX_COST_NANOUSD - 100


@pytest.mark.parametrize("level", range(3))
def test_an_overrun_that_would_not_fit_a_balance_is_refused(level: int) -> None:
    opening = opened(tree(1_000, 1_000, 1_000), 100)
    path = list(opening.path)
    path[level] = replace(path[level], overrun_nanousd=MAX_BALANCE_NANOUSD - 10)
    booking = book(tuple(path), opening.lease, sequence=1, cost_nanousd=110, now_us=NOW_US)
    assert booking.path[level].overrun_nanousd == MAX_BALANCE_NANOUSD
    with pytest.raises(InvalidAmount, match="keep the overrun"):
        book(tuple(path), opening.lease, sequence=1, cost_nanousd=111, now_us=NOW_US)


def test_a_refused_booking_does_not_use_up_its_number() -> None:
    path, lease = lent(100)
    with pytest.raises(InvalidAmount):
        book(path, lease, sequence=1, cost_nanousd=-1, now_us=NOW_US)
    assert book(path, lease, sequence=1, cost_nanousd=1, now_us=NOW_US).sequence == 1


# --- growing


def grown(path: Path, lease: Lease, requested: int | None, *, now_us: int = NOW_US) -> Growth:
    growth = grow(path, lease, requested_nanousd=requested, now_us=now_us, policy=POLICY)
    assert isinstance(growth, Growth)
    return growth


def test_growing_adds_to_the_same_lease_and_renews_it() -> None:
    path, lease = in_state(ACTIVE)
    growth = grown(path, lease, 50, now_us=NOW_US + 7)
    assert growth.lease == replace(lease, granted_nanousd=150, expires_at_us=NOW_US + 7 + TTL_US)
    assert growth.path == (replace(path[0], leased_nanousd=120),)
    assert (growth.added_nanousd, growth.requested_nanousd, growth.partial) == (50, 50, False)
    assert_sound(growth.path, growth.lease)


@pytest.mark.parametrize(
    ("requested", "added", "partial"), [(899, 899, False), (900, 900, False), (901, 900, True)]
)
def test_growing_adds_no_more_than_is_available(
    *, requested: int, added: int, partial: bool
) -> None:
    path, lease = lent(100)
    growth = grown(path, lease, requested)
    assert (growth.added_nanousd, growth.partial) == (added, partial)


def test_growing_adds_no_more_than_the_tightest_level_can_lend() -> None:
    opening = opened(tree(1_000, 150, 1_000), 100)
    growth = grown(opening.path, opening.lease, 100)
    assert [one.leased_nanousd for one in growth.path] == [150] * 3
    assert (growth.added_nanousd, growth.partial) == (50, True)


def test_growing_without_an_amount_asks_for_the_default_tranche() -> None:
    path, lease = lent(1, allocated_nanousd=100 * NANOUSD_PER_USD)
    growth = grown(path, lease, None)
    assert growth.added_nanousd == growth.requested_nanousd == POLICY.default_tranche_nanousd


def test_growing_is_cut_to_the_maximum_tranche() -> None:
    maximum = POLICY.maximum_tranche_nanousd
    path, lease = lent(1, allocated_nanousd=5 * maximum)
    growth = grown(path, lease, maximum + 1)
    assert (growth.added_nanousd, growth.partial) == (maximum, True)


@pytest.mark.parametrize("requested", [0, -1])
def test_growing_by_nothing_is_invalid(requested: int) -> None:
    path, lease = lent(100)
    with pytest.raises(InvalidAmount, match="requested_nanousd"):
        grow(path, lease, requested_nanousd=requested, now_us=NOW_US, policy=POLICY)


def test_growing_with_nothing_available_is_denied() -> None:
    path, lease = lent(100, allocated_nanousd=100)
    denial = grow(path, lease, requested_nanousd=1, now_us=NOW_US, policy=POLICY)
    assert denial == Denial("insufficient_budget", path[0].scope_id)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (DRAINING, "lease_draining"),
        (CLOSED, "lease_ended"),
        (EXPIRED, "lease_ended"),
        (REVOKED, "lease_ended"),
    ],
)
def test_only_an_active_lease_grows(state: LeaseState, reason: str) -> None:
    path, lease = in_state(state)
    denial = grow(path, lease, requested_nanousd=1, now_us=NOW_US, policy=POLICY)
    assert denial == Denial(reason)


def test_a_lease_grows_until_the_moment_of_its_expiry() -> None:
    path, lease = lent(100)
    assert grown(path, lease, 1, now_us=lease.expires_at_us - 1).added_nanousd == 1
    for now_us in (lease.expires_at_us, lease.expires_at_us + 1):
        denial = grow(path, lease, requested_nanousd=1, now_us=now_us, policy=POLICY)
        assert denial == Denial("lease_expired")


def test_growing_never_brings_the_expiry_forward() -> None:
    path, lease = lent(100)
    assert grown(path, lease, 1, now_us=NOW_US - 5).lease.expires_at_us == lease.expires_at_us


# --- renewing


def test_a_sign_of_life_renews_the_expiry() -> None:
    _, lease = lent(100)
    renewed = touch(lease, now_us=NOW_US + 3, policy=POLICY)
    assert renewed == replace(lease, expires_at_us=NOW_US + 3 + TTL_US)


def test_a_sign_of_life_comes_in_time_only_before_the_expiry() -> None:
    _, lease = lent(100)
    before = touch(lease, now_us=lease.expires_at_us - 1, policy=POLICY)
    assert before.expires_at_us == lease.expires_at_us - 1 + TTL_US
    assert touch(lease, now_us=lease.expires_at_us, policy=POLICY) is lease
    assert touch(lease, now_us=lease.expires_at_us + 1, policy=POLICY) is lease


@pytest.mark.parametrize("state", [DRAINING, CLOSED, EXPIRED, REVOKED])
def test_a_lease_that_is_not_active_does_not_renew(state: LeaseState) -> None:
    _, lease = in_state(state)
    assert touch(lease, now_us=NOW_US + 1, policy=POLICY) is lease


def test_a_clock_that_went_back_or_a_shorter_policy_takes_no_time_away() -> None:
    _, lease = lent(100)
    assert touch(lease, now_us=NOW_US - 1, policy=POLICY) is lease
    assert touch(lease, now_us=NOW_US, policy=POLICY) is lease
    assert touch(lease, now_us=NOW_US + 1, policy=LeasePolicy(lease_ttl_ms=1)) is lease


# --- ending


def test_returning_gives_back_exactly_what_was_not_spent() -> None:
    path, lease = in_state(ACTIVE)
    closing = give_back(path, lease, now_us=NOW_US)
    assert closing.returned_nanousd == 70
    assert closing.path == (account(1_000, spent=30, name="level_0"),)
    assert closing.lease == replace(lease, state=CLOSED)
    assert closing.ended_at_us == NOW_US
    assert_sound(closing.path, closing.lease)


@pytest.mark.parametrize(
    ("state", "ending", "end"),
    [(ACTIVE, None, CLOSED), (DRAINING, EXPIRED, CLOSED), (DRAINING, REVOKED, REVOKED)],
)
def test_a_returned_lease_is_closed_unless_it_was_revoked(
    state: LeaseState, ending: LeaseState | None, end: LeaseState
) -> None:
    path, lease = in_state(state, ending)
    closing = give_back(path, lease, now_us=NOW_US)
    assert (closing.lease.state, closing.lease.ending, closing.returned_nanousd) == (end, None, 70)
    assert closing.lease.remaining_nanousd == 0


@pytest.mark.parametrize("state", [CLOSED, EXPIRED, REVOKED])
def test_a_lease_that_has_ended_cannot_be_returned(state: LeaseState) -> None:
    path, lease = in_state(state)
    with pytest.raises(LeaseClosed, match=f"is {state}"):
        give_back(path, lease, now_us=NOW_US)


def test_a_used_up_lease_returns_nothing_and_is_closed_all_the_same() -> None:
    path, lease = lent(100)
    booking = book(path, lease, sequence=1, cost_nanousd=100, now_us=NOW_US)
    closing = give_back(booking.path, booking.lease, now_us=NOW_US)
    assert (closing.returned_nanousd, closing.lease.state) == (0, CLOSED)
    assert closing.path == booking.path


def test_expiry_begins_at_the_moment_of_expiry_and_not_before() -> None:
    _, lease = lent(100)
    at_us = lease.expires_at_us
    assert begin_expiry(lease, at_us - 1, POLICY) is lease
    for now_us in (at_us, at_us + 1):
        assert begin_expiry(lease, now_us, POLICY) == replace(
            lease, state=DRAINING, ending=EXPIRED, settle_until_us=now_us + GRACE_US
        )


@pytest.mark.parametrize("state", [DRAINING, CLOSED, EXPIRED, REVOKED])
def test_only_an_active_lease_begins_to_expire(state: LeaseState) -> None:
    _, lease = in_state(state)
    assert begin_expiry(lease, lease.expires_at_us + 10**9, POLICY) is lease


def test_revoking_lets_an_active_lease_drain_for_a_settle_grace() -> None:
    _, lease = lent(100)
    assert revoke(lease, NOW_US + 1, POLICY) == replace(
        lease, state=DRAINING, ending=REVOKED, settle_until_us=NOW_US + 1 + GRACE_US
    )


def test_revoking_an_expiring_lease_keeps_its_grace() -> None:
    _, lease = in_state(DRAINING, EXPIRED)
    assert revoke(lease, lease.expires_at_us + 5, POLICY) == replace(lease, ending=REVOKED)


def test_revoking_a_lease_frozen_by_an_overrun_brings_its_end_forward() -> None:
    path, lease = lent(100)
    frozen = book(path, lease, sequence=1, cost_nanousd=101, now_us=NOW_US).lease
    assert revoke(frozen, NOW_US, POLICY) == replace(frozen, settle_until_us=NOW_US + GRACE_US)


def test_revoking_twice_is_revoking_once() -> None:
    _, lease = lent(100)
    revoked = revoke(lease, NOW_US, POLICY)
    assert revoke(revoked, NOW_US + 10, POLICY) is revoked


@pytest.mark.parametrize("state", [CLOSED, EXPIRED, REVOKED])
def test_revoking_a_lease_that_has_ended_changes_nothing(state: LeaseState) -> None:
    _, lease = in_state(state)
    assert revoke(lease, NOW_US, POLICY) is lease


@pytest.mark.parametrize("ending", [EXPIRED, REVOKED])
def test_a_draining_lease_ends_when_its_grace_is_over_and_not_before(ending: LeaseState) -> None:
    path, lease = in_state(DRAINING, ending)
    at_us = lease.settle_until_us
    assert not lease.is_ending_due(at_us - 1)
    with pytest.raises(IllegalTransition, match="settles until") as refusal:
        end_draining(path, lease, at_us - 1)
    assert refusal.value.facts() == {
        "lease_id": "lease_1",
        "state": "draining",
        "to": str(ending),
    }
    for now_us in (at_us, at_us + 1):
        assert lease.is_ending_due(now_us)
        closing = end_draining(path, lease, now_us)
        assert (closing.returned_nanousd, closing.ended_at_us) == (70, now_us)
        assert closing.lease == replace(lease, state=ending, ending=None)
        assert_sound(closing.path, closing.lease)


@pytest.mark.parametrize("state", [ACTIVE, CLOSED, EXPIRED, REVOKED])
def test_only_a_draining_lease_can_be_ended_by_the_clock(state: LeaseState) -> None:
    path, lease = in_state(state)
    assert not lease.is_ending_due(NOW_US + 10**12)
    with pytest.raises(IllegalTransition, match=f"is {state}"):
        end_draining(path, lease, NOW_US + 10**12)


def test_expiry_is_due_from_its_moment_on_while_active() -> None:
    _, lease = lent(100)
    at_us = lease.expires_at_us
    assert [lease.is_expiry_due(at_us + off) for off in (-1, 0, 1)] == [False, True, True]
    assert not replace(lease, state=CLOSED).is_expiry_due(at_us)


def _end_by_return(path: Path, lease: Lease) -> Closing | None:
    try:
        return give_back(path, lease, now_us=NOW_US)
    except LeaseClosed:
        return None


def _end_by_expiry(path: Path, lease: Lease) -> Closing | None:
    draining = begin_expiry(lease, lease.expires_at_us, POLICY)
    now_us = draining.settle_until_us
    return end_draining(path, draining, now_us) if draining.is_ending_due(now_us) else None


def _end_by_revocation(path: Path, lease: Lease) -> Closing | None:
    draining = revoke(lease, NOW_US, POLICY)
    now_us = draining.settle_until_us
    return end_draining(path, draining, now_us) if draining.is_ending_due(now_us) else None


ENDINGS = [_end_by_return, _end_by_expiry, _end_by_revocation]


@pytest.mark.parametrize(("first", "second"), [*product(ENDINGS, repeat=2)])
@pytest.mark.parametrize("depth", [1, 3])
def test_of_two_racing_endings_exactly_one_returns_the_money(
    depth: int,
    first: Callable[[Path, Lease], Closing | None],
    second: Callable[[Path, Lease], Closing | None],
) -> None:
    opening = opened(tree(*[1_000] * depth), 100)
    booking = book(opening.path, opening.lease, sequence=1, cost_nanousd=30, now_us=NOW_US)
    won = first(booking.path, booking.lease)
    assert won is not None
    assert second(won.path, won.lease) is None
    assert won.returned_nanousd == 70
    assert {(one.leased_nanousd, one.free_nanousd) for one in won.path} == {(0, 970)}
    assert_sound(won.path, won.lease)


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (lambda lease: revoke(lease, NOW_US, POLICY), REVOKED),
        (lambda lease: begin_expiry(lease, lease.expires_at_us, POLICY), CLOSED),
    ],
)
def test_a_return_beats_an_ending_that_has_only_begun(
    begin: Callable[[Lease], Lease], end: LeaseState
) -> None:
    path, lease = in_state(ACTIVE)
    draining = begin(lease)
    closing = give_back(path, draining, now_us=NOW_US)
    assert (closing.lease.state, closing.returned_nanousd) == (end, 70)
    with pytest.raises(IllegalTransition):
        end_draining(closing.path, closing.lease, draining.settle_until_us)


def test_nothing_leaves_an_end_state() -> None:
    assert {state for state, following in NEXT.items() if not following} == {
        CLOSED,
        EXPIRED,
        REVOKED,
    }
    assert set(NEXT) == set(LeaseState)


@pytest.mark.parametrize("state", LeaseState)
def test_only_open_leases_hold_money(state: LeaseState) -> None:
    _, lease = in_state(state)
    assert lease.is_open is (state in {ACTIVE, DRAINING})
    assert lease.remaining_nanousd == (70 if lease.is_open else 0)


def test_a_lease_of_another_account_is_a_fault_of_the_caller() -> None:
    _, lease = lent(100)
    other = (account(1_000, leased=100, name="someone_else"),)
    with pytest.raises(ValueError, match="someone_else"):
        book(other, lease, sequence=1, cost_nanousd=1, now_us=NOW_US)
    with pytest.raises(ValueError, match="someone_else"):
        give_back(other, lease, now_us=NOW_US)
    with pytest.raises(ValueError, match="someone_else"):
        grow(other, lease, requested_nanousd=1, now_us=NOW_US, policy=POLICY)


# --- allocations


@pytest.mark.parametrize("allocated", [50, 51, MAX_BALANCE_NANOUSD])
def test_an_allocation_may_fall_to_what_is_committed(allocated: int) -> None:
    before = account(100, spent=30, leased=20, overrun=9)
    after = reallocate(before, allocated, Mode.RESTRICTIVE)
    assert after == replace(before, allocated_nanousd=allocated)


def test_an_allocation_below_what_is_committed_is_refused() -> None:
    with pytest.raises(BudgetBelowCommitted, match="allocate at least that") as refusal:
        reallocate(account(100, spent=30, leased=20), 49, Mode.RESTRICTIVE)
    assert refusal.value.facts() == {
        "account_id": "agent_1",
        "allocated_nanousd": "49",
        "committed_nanousd": "50",
    }


def test_an_allocation_that_blocks_nothing_may_be_below_what_is_committed() -> None:
    before = account(100, spent=30, leased=20)
    after = reallocate(before, 1, Mode.INFORMATIVE)
    assert (after.allocated_nanousd, after.available_nanousd) == (1, None)
    with pytest.raises(BudgetBelowCommitted):
        reallocate(after, 1, Mode.RESTRICTIVE)
    assert reallocate(after, None, Mode.RESTRICTIVE).available_nanousd is None


@pytest.mark.parametrize("allocated", [-1, MAX_BALANCE_NANOUSD + 1])
@pytest.mark.parametrize("mode", Mode)
def test_an_allocation_that_cannot_be_is_refused(allocated: int, mode: Mode) -> None:
    with pytest.raises(InvalidAmount, match="allocated_nanousd"):
        reallocate(account(100), allocated, mode)


# --- warnings


@pytest.mark.parametrize(
    ("before", "after", "crossed"),
    [
        (0, 499, ()),
        (0, 500, (50,)),
        (499, 500, (50,)),
        (500, 501, ()),
        (499, 800, (50, 80)),
        (799, 799, ()),
        (799, 800, (80,)),
        (949, 950, (95,)),
        (999, 1_000, (100,)),
        (0, 1_000, (50, 80, 95, 100)),
        (1_000, 1_000, ()),
    ],
)
def test_a_threshold_is_crossed_when_its_percent_is_reached(
    before: int, after: int, crossed: tuple[int, ...]
) -> None:
    found = thresholds_crossed(
        account(1_000, spent=before), account(1_000, spent=after), frozenset()
    )
    assert found == crossed


def test_thresholds_count_overrun_as_used() -> None:
    before, after = account(100, spent=79), account(100, spent=79, overrun=1)
    assert thresholds_crossed(before, after, frozenset()) == (80,)


def test_what_only_counts_warns_all_the_same_and_no_limit_never() -> None:
    before = replace(account(100, spent=79), mode=Mode.INFORMATIVE)
    assert thresholds_crossed(before, replace(before, spent_nanousd=500), frozenset()) == (
        80,
        95,
        100,
    )
    assert thresholds_crossed(account(None), account(None, spent=5), frozenset()) == ()
    assert thresholds_crossed(account(None, spent=5), account(10, spent=5), frozenset()) == (50,)


def test_thresholds_that_were_announced_are_not_announced_again() -> None:
    assert thresholds_crossed(account(100), account(100, spent=96), frozenset({50, 95})) == (80,)


def test_a_fraction_of_a_nano_dollar_does_not_reach_a_threshold_early() -> None:
    assert thresholds_crossed(account(3), account(3, spent=1), frozenset()) == ()
    assert thresholds_crossed(account(3), account(3, spent=2), frozenset()) == (50,)


def test_a_lower_allocation_crosses_thresholds_and_a_higher_one_none() -> None:
    before = account(100, spent=60)
    assert thresholds_crossed(before, replace(before, allocated_nanousd=70), frozenset()) == (80,)
    assert thresholds_crossed(before, replace(before, allocated_nanousd=200), frozenset()) == ()


def test_an_account_without_money_warns_only_once_something_is_used() -> None:
    assert thresholds_crossed(account(0), account(0), frozenset()) == ()
    assert thresholds_crossed(account(0), account(0, overrun=1), frozenset()) == (50, 80, 95, 100)


# --- policies and refusals


@pytest.mark.parametrize(
    "wrong",
    [
        {"default_tranche_nanousd": 0},
        {"default_tranche_nanousd": 11, "maximum_tranche_nanousd": 10},
        {"maximum_tranche_nanousd": MAX_BALANCE_NANOUSD + 1},
        {"lease_ttl_ms": 0},
        {"settle_grace_ms": -1},
    ],
)
def test_a_policy_that_cannot_work_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LeasePolicy(**wrong)


def test_every_refusal_has_its_own_reason() -> None:
    reasons = [refusal.reason for refusal in LedgerError.__subclasses__()]
    assert sorted(reasons) == [
        "BUDGET_BELOW_COMMITTED",
        "BUDGET_EXCEEDED",
        "ILLEGAL_TRANSITION",
        "INVALID_AMOUNT",
        "LEASE_CLOSED",
        "SEQUENCE_GAP",
        "SEQUENCE_REUSED",
    ]


def test_a_refusal_speaks_of_dollars_exactly() -> None:
    refusal = BudgetExceeded(AGENT, 10 * NANOUSD_PER_USD, 1_500_000_001, scope_of_agent("a"))
    assert "asked for $10 and" in str(refusal)
    assert "lend $1.500000001;" in str(refusal)
