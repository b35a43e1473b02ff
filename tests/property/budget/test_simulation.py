"""Long random runs of the ledger, and proof that they would notice if it were wrong."""

from collections.abc import Callable
from typing import Any

import pytest

from steward_server.budget import allocation, ledger, raises
from steward_server.budget.ledger import Booking, Closing, Denial, Growth, Opening
from steward_server.budget.raises import Raise
from steward_server.budget.scopes import Scope, current
from steward_server.budget.values import Account, Lease, LeasePolicy, LeaseState, Mode, Path
from tests.changed import replace
from tests.property.budget.bank import LEDGER, Rules
from tests.property.budget.simulation import Counterexample, Stats, run

# Every answer there is. A run that misses one has not looked at the rule behind it.
OUTCOMES = {
    "balance: read",
    "end: ILLEGAL_TRANSITION",
    "end: ended",
    "expire: draining",
    "expire: unchanged",
    "give_back: LEASE_CLOSED",
    "give_back: ended",
    "handshake: BUDGET_EXCEEDED",
    "handshake: INVALID_AMOUNT",
    "handshake: granted",
    "heartbeat: heard",
    "open_account: opened",
    "reallocate: BUDGET_BELOW_COMMITTED",
    "reallocate: INVALID_AMOUNT",
    "reallocate: reallocated",
    "refresh: INVALID_AMOUNT",
    "refresh: grown",
    "refresh: insufficient_budget",
    "refresh: lease_draining",
    "refresh: lease_ended",
    "refresh: lease_expired",
    "report: INVALID_AMOUNT",
    "report: LEASE_CLOSED",
    "report: REQUEST_ID_REUSED",
    "report: SEQUENCE_GAP",
    "report: SEQUENCE_REUSED",
    "report: booked",
    "revoke: draining",
    "revoke: unchanged",
    "roll: opened",
    "roll: unchanged",
    "move: moved",
    "raise_to: APPROVAL_DECREASES_BUDGET",
    "raise_to: raised",
    "take_back: settled",
    "change_period: BUDGET_BELOW_COMMITTED",
    "change_period: begun",
    "change_period: unchanged",
}


def assert_every_rule_was_met(stats: Stats) -> None:
    assert set(stats.outcomes) == OUTCOMES
    assert stats.outcomes["report: booked"] > stats.operations // 3
    assert stats.billed_nanousd > stats.operations


def test_forty_thousand_operations_keep_every_law() -> None:
    assert_every_rule_was_met(run(seed=1, operations=40_000))


@pytest.mark.parametrize("seed", range(2, 12))
def test_short_runs_from_other_seeds_keep_every_law(seed: int) -> None:
    assert run(seed=seed, operations=2_000).operations == 2_000


@pytest.mark.proof
def test_a_million_operations_keep_every_law() -> None:
    assert_every_rule_was_met(run(seed=20_261_121, operations=1_000_000))


def test_a_seed_gives_the_same_run_again() -> None:
    assert run(seed=7, operations=3_000) == run(seed=7, operations=3_000)


# --- planted bugs: each is one the ledger could plausibly have had


def without_leased(path: Path, amount_nanousd: int) -> Path:
    return tuple(
        replace(account, leased_nanousd=account.leased_nanousd - amount_nanousd) for account in path
    )


def book_frees_twice(path: Path, lease: Lease, **how: Any) -> Booking:
    booking = ledger.book(path, lease, **how)
    return replace(booking, path=without_leased(booking.path, booking.covered_nanousd))


def book_moves_only_the_leaf(path: Path, lease: Lease, **how: Any) -> Booking:
    booking = ledger.book(path, lease, **how)
    return replace(booking, path=(booking.path[0], *path[1:]))


def book_forgets_what_no_grant_covers(path: Path, lease: Lease, **how: Any) -> Booking:
    booking = ledger.book(path, lease, **how)
    unseen = zip(booking.path, path, strict=True)
    return replace(
        booking,
        path=tuple(
            replace(after, overrun_nanousd=before.overrun_nanousd) for after, before in unseen
        ),
    )


def book_goes_on_after_an_overrun(path: Path, lease: Lease, **how: Any) -> Booking:
    booking = ledger.book(path, lease, **how)
    return replace(
        booking,
        lease=replace(
            booking.lease,
            state=lease.state,
            ending=lease.ending,
            settle_until_us=lease.settle_until_us,
        ),
    )


def book_takes_any_number(path: Path, lease: Lease, **how: Any) -> Booking:
    return ledger.book(path, lease, **how | {"sequence": 0})


def book_spends_from_an_ended_lease(path: Path, lease: Lease, **how: Any) -> Booking:
    if lease.is_open or lease.state is LeaseState.CLOSED:
        return ledger.book(path, lease, **how)
    booking = ledger.book(path, replace(lease, state=LeaseState.ACTIVE), **how)
    return replace(booking, lease=replace(booking.lease, state=lease.state, ending=None))


def open_lends_what_was_overspent(path: Path, **how: Any) -> Opening:
    innocent = tuple(replace(account, overrun_nanousd=0) for account in path)
    opening = ledger.open_lease(innocent, **how)
    lent = opening.lease.granted_nanousd
    return replace(opening, path=without_leased(path, -lent))


def open_looks_only_at_the_leaf(path: Path, **how: Any) -> Opening:
    rich: list[Account] = [replace(one, allocated_nanousd=10**15) for one in path[1:]]
    opening = ledger.open_lease((path[0], *rich), **how)
    return replace(opening, path=without_leased(path, -opening.lease.granted_nanousd))


def open_ignores_the_minimum(path: Path, **how: Any) -> Opening:
    return ledger.open_lease(path, **how | {"minimum_nanousd": 0})


def grow_revives_an_expired_lease(path: Path, lease: Lease, **how: Any) -> Growth | Denial:
    return ledger.grow(path, replace(lease, expires_at_us=2**62), **how)


def grow_forgets_the_grant(path: Path, lease: Lease, **how: Any) -> Growth | Denial:
    growth = ledger.grow(path, lease, **how)
    return growth if isinstance(growth, Denial) else replace(growth, path=path)


def touch_comes_a_moment_late(lease: Lease, *, now_us: int, policy: LeasePolicy) -> Lease:
    return ledger.touch(lease, now_us=now_us - 1, policy=policy)


def expire_begins_a_moment_early(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    return ledger.begin_expiry(lease, now_us + 1, policy)


def expire_skips_the_grace(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    return ledger.begin_expiry(lease, now_us, replace(policy, settle_grace_ms=0))


def revoke_starts_the_grace_anew(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    active = replace(lease, state=LeaseState.ACTIVE) if lease.is_open else lease
    return ledger.revoke(active, now_us, policy)


def give_back_returns_the_whole_grant(path: Path, lease: Lease, *, now_us: int) -> Closing:
    closing = ledger.give_back(path, lease, now_us=now_us)
    return replace(closing, path=without_leased(path, lease.granted_nanousd))


def give_back_pays_twice(path: Path, lease: Lease, *, now_us: int) -> Closing:
    if lease.is_open:
        return ledger.give_back(path, lease, now_us=now_us)
    left = lease.granted_nanousd - lease.spent_nanousd
    return Closing(without_leased(path, left), lease, left, now_us)


def give_back_closes_a_revoked_lease(path: Path, lease: Lease, *, now_us: int) -> Closing:
    closing = ledger.give_back(path, lease, now_us=now_us)
    return replace(closing, lease=replace(closing.lease, state=LeaseState.CLOSED))


def end_comes_a_moment_early(path: Path, lease: Lease, now_us: int) -> Closing:
    return replace(ledger.end_draining(path, lease, now_us + 1), ended_at_us=now_us)


def end_keeps_the_parents_money(path: Path, lease: Lease, now_us: int) -> Closing:
    closing = ledger.end_draining(path, lease, now_us)
    return replace(closing, path=(closing.path[0], *path[1:]))


def reallocate_takes_what_is_lent(
    account: Account, allocated_nanousd: int | None, mode: Mode
) -> Account:
    if allocated_nanousd is not None and allocated_nanousd < 0:
        return allocation.reallocate(account, allocated_nanousd, mode)
    return replace(account, allocated_nanousd=allocated_nanousd, mode=mode)


def reallocate_forgets_that_it_blocks(
    account: Account, allocated_nanousd: int | None, mode: Mode
) -> Account:
    after = allocation.reallocate(account, allocated_nanousd, mode)
    return replace(after, mode=account.mode)


def open_heeds_what_only_counts(path: Path, **how: Any) -> Opening:
    blocking = tuple(replace(account, mode=Mode.RESTRICTIVE) for account in path)
    opening = ledger.open_lease(blocking, **how)
    lent = opening.lease.granted_nanousd
    return replace(opening, path=without_leased(path, -lent))


def open_outlives_the_period(path: Path, **how: Any) -> Opening:
    for_ever = tuple(replace(account, ends_at_us=None) for account in path)
    opening = ledger.open_lease(for_ever, **how)
    return replace(opening, path=without_leased(path, -opening.lease.granted_nanousd))


def touch_goes_on_into_the_next_period(lease: Lease, *, now_us: int, policy: LeasePolicy) -> Lease:
    touched = ledger.touch(replace(lease, period_ends_at_us=None), now_us=now_us, policy=policy)
    return replace(touched, period_ends_at_us=lease.period_ends_at_us)


def cut_short_forgets_the_grace(lease: Lease, now_us: int, policy: LeasePolicy) -> Lease:
    return ledger.cut_short(lease, now_us, replace(policy, settle_grace_ms=0))


def current_comes_a_moment_late(scope: Scope, account: Account | None, now_us: int) -> Account:
    return current(scope, account, now_us if account is None else now_us - 1)


def current_brings_yesterday_back(scope: Scope, account: Account | None, now_us: int) -> Account:
    return current(scope._replace(since_us=0), None, now_us)


def current_zeroes_what_was_spent(scope: Scope, account: Account | None, now_us: int) -> Account:
    after = current(scope, account, now_us)
    if account is None or after.account_id == account.account_id:
        return after
    return replace(account, spent_nanousd=0, ends_at_us=after.ends_at_us)


def lasting_leaves_what_ended_raises_have_lent(budget_nanousd: int, *_: Any, **__: Any) -> int:
    return budget_nanousd


def grant_leaves_what_ended_raises_owe(*what: Any, **how: Any) -> list[Raise]:
    granted = raises.grant(*what, **how)
    return [each for each in granted if each.request_id == how["request_id"]]


def grant_counts_what_ended_raises_owe_as_the_agents_own(
    budget_nanousd: int, held: list[Raise], **how: Any
) -> list[Raise]:
    over = [each for each in held if each.has_ended(how["now_us"])]
    return [
        *(each._replace(owed_nanousd=0) for each in over),
        *raises.grant(budget_nanousd, [], **how),
    ]


def take_back_comes_a_moment_early(account: Account, held: Any, now_us: int, **how: Any) -> Any:
    return raises.take_back(account, held, now_us + 1, **how)


def take_back_forgives_what_is_lent(account: Account, held: Any, now_us: int, **how: Any) -> Any:
    taken = raises.take_back(account, held, now_us, **how)
    return [each._replace(raised=each.raised._replace(owed_nanousd=0)) for each in taken]


def take_back_leaves_the_periods_to_come(
    account: Account, held: Any, now_us: int, **how: Any
) -> Any:
    taken = raises.take_back(account, held, now_us, **how)
    return [each._replace(reduction_nanousd=each.taken_nanousd) for each in taken]


def take_back_follows_into_the_next_period(
    account: Account, held: list[Raise], now_us: int, **how: Any
) -> Any:
    here = [each._replace(ended_in=each.ended_in and account.account_id) for each in held]
    return raises.take_back(account, here, now_us, **how)


def take_back_takes_all_of_each_twice(account: Account, held: Any, now_us: int, **how: Any) -> Any:
    taken = raises.take_back(account, held, now_us, **how)
    owed = {each.request_id: each.owed_nanousd for each in held}
    return [
        each._replace(raised=each.raised._replace(owed_nanousd=owed[each.raised.request_id]))
        for each in taken
    ]


PLANTED: list[tuple[str, Callable[..., Any]]] = [
    ("book", book_frees_twice),
    ("book", book_moves_only_the_leaf),
    ("book", book_forgets_what_no_grant_covers),
    ("book", book_goes_on_after_an_overrun),
    ("book", book_takes_any_number),
    ("book", book_spends_from_an_ended_lease),
    ("open_lease", open_lends_what_was_overspent),
    ("open_lease", open_looks_only_at_the_leaf),
    ("open_lease", open_ignores_the_minimum),
    ("grow", grow_revives_an_expired_lease),
    ("grow", grow_forgets_the_grant),
    ("touch", touch_comes_a_moment_late),
    ("begin_expiry", expire_begins_a_moment_early),
    ("begin_expiry", expire_skips_the_grace),
    ("revoke", revoke_starts_the_grace_anew),
    ("give_back", give_back_returns_the_whole_grant),
    ("give_back", give_back_pays_twice),
    ("give_back", give_back_closes_a_revoked_lease),
    ("end_draining", end_comes_a_moment_early),
    ("end_draining", end_keeps_the_parents_money),
    ("reallocate", reallocate_takes_what_is_lent),
    ("reallocate", reallocate_forgets_that_it_blocks),
    ("open_lease", open_heeds_what_only_counts),
    ("open_lease", open_outlives_the_period),
    ("touch", touch_goes_on_into_the_next_period),
    ("cut_short", cut_short_forgets_the_grace),
    ("current", current_comes_a_moment_late),
    ("current", current_brings_yesterday_back),
    ("current", current_zeroes_what_was_spent),
    ("lasting", lasting_leaves_what_ended_raises_have_lent),
    ("grant", grant_leaves_what_ended_raises_owe),
    ("grant", grant_counts_what_ended_raises_owe_as_the_agents_own),
    ("take_back", take_back_comes_a_moment_early),
    ("take_back", take_back_forgives_what_is_lent),
    ("take_back", take_back_leaves_the_periods_to_come),
    ("take_back", take_back_follows_into_the_next_period),
    ("take_back", take_back_takes_all_of_each_twice),
]


@pytest.mark.parametrize(("rule", "bug"), PLANTED, ids=[bug.__name__ for _, bug in PLANTED])
def test_a_planted_bug_is_found(rule: str, bug: Callable[..., Any]) -> None:
    rules: Rules = replace(LEDGER, **{rule: bug})
    with pytest.raises(Counterexample, match="seed 3, step"):
        run(seed=3, operations=100_000, rules=rules)


def test_the_rules_that_bugs_are_planted_in_are_sound_without_them() -> None:
    assert {rule for rule, _ in PLANTED} == set(Rules.__dataclass_fields__)
    assert run(seed=3, operations=5_000).operations == 5_000
