"""The audit by itself: it must see what is wrong, or its silence in other tests means nothing."""

from typing import Any

import pytest

from steward_server.budget.audit import EMPTY, JournalContradiction, check, replay
from steward_server.budget.values import (
    ORGANISATION,
    Account,
    AccountId,
    AgentId,
    Lease,
    LeaseId,
    LeaseState,
    Mode,
    scope_of_agent,
)
from steward_server.events.journal import JournalEntry
from tests.changed import replace

ORG = Account(AccountId("org"), ORGANISATION, 1_000, 30, 70, 0)
AGENT = Account(AccountId("agent"), scope_of_agent("agent"), 500, 30, 70, 0)
LEASE = Lease(
    LeaseId("lease"),
    (AGENT.account_id, ORG.account_id),
    AgentId("agent"),
    granted_nanousd=100,
    spent_nanousd=30,
    overrun_nanousd=0,
    sequence=2,
    state=LeaseState.ACTIVE,
    ending=None,
    expires_at_us=900,
    settle_until_us=0,
)


def test_sound_balances_have_nothing_wrong() -> None:
    assert check([], []) == []
    assert check([ORG, AGENT], [LEASE]) == []
    assert check([ORG, AGENT], [LEASE], complete=True) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"allocated_nanousd": -1}, "allocated is -1"),
        ({"spent_nanousd": -1}, "spent is -1"),
        ({"leased_nanousd": -1}, "leased is -1"),
        ({"overrun_nanousd": -1}, "overrun is -1"),
        ({"allocated_nanousd": 99}, "free is -1"),
    ],
)
def test_an_account_below_zero_is_found(wrong: dict[str, Any], told: str) -> None:
    account = replace(AGENT, **wrong)
    assert any(f"account 'agent': {told}" in text for text in check([ORG, account], [LEASE]))


def test_an_account_that_blocks_nothing_may_go_over() -> None:
    informative = replace(ORG, allocated_nanousd=99, mode=Mode.INFORMATIVE)
    unlimited = replace(ORG, allocated_nanousd=None)
    assert check([informative, AGENT], [LEASE], complete=True) == []
    assert check([unlimited, AGENT], [LEASE], complete=True) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"spent_nanousd": 101}, "spent 101 of 100 granted"),
        ({"spent_nanousd": -1}, "spent -1 of 100 granted"),
        ({"overrun_nanousd": -1}, "overrun is -1"),
        ({"overrun_nanousd": 1}, "active with an overrun of 1"),
        ({"sequence": -1}, "sequence is -1"),
        ({"sequence": 0}, "spent without a report"),
        ({"state": LeaseState.DRAINING}, "draining with ending None"),
        ({"ending": LeaseState.EXPIRED}, "active with ending expired"),
        ({"account_ids": (AccountId("nobody"),)}, "no account 'nobody'"),
        ({"account_ids": (AGENT.account_id,) * 2}, "draws twice on one of ('agent', 'agent')"),
        ({"period_ends_at_us": 899}, "lives to 900, its period to 899"),
    ],
)
def test_a_lease_that_cannot_be_is_found(wrong: dict[str, Any], told: str) -> None:
    assert f"lease 'lease': {told}" in check([ORG, AGENT], [replace(LEASE, **wrong)])


@pytest.mark.parametrize("field", ["spent", "leased", "overrun"])
def test_an_account_that_its_leases_do_not_add_up_to_is_found(field: str) -> None:
    name = f"{field}_nanousd"
    own = getattr(AGENT, name)
    accounts = [replace(one, **{name: own + 10}) for one in (ORG, AGENT)]
    told = [
        f"account {one!r}: {field} is {own + 10}, and its leases' is {own}"
        for one in ("org", "agent")
    ]
    assert check(accounts, [LEASE], complete=True) == told
    assert check(accounts, [LEASE]) == (told if field == "leased" else [])


def test_an_ended_lease_that_still_holds_money_is_found() -> None:
    found = check([ORG, AGENT], [replace(LEASE, state=LeaseState.CLOSED)])
    assert "account 'agent': leased is 70, and its leases' is 0" in found


# --- replaying

Said = tuple[str, str, dict[str, Any]]

OPENED: list[Said] = [
    (
        "account.opened",
        "org",
        {"scope": "organisation", "allocated": 1_000, "mode": "restrictive", "ends_at_us": None},
    ),
    # As it was written before there were scopes.
    ("account.opened", "agent", {"parent": None, "allocated": 500}),
    (
        "lease.opened",
        "lease",
        {
            "account": "agent",
            "above": ["org"],
            "granted": 60,
            "requested": 60,
            "provider": "openai",
            "token": "t",
            "expires_at_us": 800,
        },
    ),
]
SPENT: list[Said] = [
    ("usage", "lease", {"seq": 1, "cost": 10, "over": 0, "model": "m"}),
    ("lease.grown", "lease", {"added": 40, "expires_at_us": 900}),
    ("usage", "lease", {"seq": 2, "cost": 20, "over": 0, "model": "m"}),
]
DRAINING: Said = (
    "lease.draining",
    "lease",
    {"ending": "expired", "settle_until_us": 960, "why": "expired"},
)
ENDED: Said = ("lease.ended", "lease", {"state": "expired", "returned": 70})


def journal(*said: Said, first_lsn: int = 1) -> list[JournalEntry]:
    return [
        JournalEntry(lsn, lsn * 10, kind, "agent", subject, None, body)
        for lsn, (kind, subject, body) in enumerate(said, first_lsn)
    ]


def test_a_journal_adds_up_to_its_balances() -> None:
    balances = replay(journal(*OPENED, *SPENT))
    assert balances.lsn == 6
    assert balances.accounts == {ORG.account_id: ORG, AGENT.account_id: AGENT}
    assert balances.leases == {LEASE.lease_id: LEASE}


def test_a_lease_is_followed_to_its_end() -> None:
    balances = replay(journal(*OPENED, *SPENT, DRAINING, ENDED))
    assert balances.leases[LEASE.lease_id] == replace(
        LEASE, state=LeaseState.EXPIRED, settle_until_us=960
    )
    assert balances.accounts[ORG.account_id] == replace(ORG, leased_nanousd=0)
    assert check(balances.accounts.values(), balances.leases.values(), complete=True) == []


def test_facts_that_come_after_the_end_are_overrun() -> None:
    late: Said = ("usage", "lease", {"seq": 3, "cost": 5, "over": 5})
    balances = replay(journal(*OPENED, *SPENT, DRAINING, ENDED, late))
    assert balances.leases[LEASE.lease_id].overrun_nanousd == 5
    assert {one.overrun_nanousd for one in balances.accounts.values()} == {5}


def test_a_new_allocation_is_followed() -> None:
    said: Said = ("account.reallocated", "agent", {"allocated": 400, "previous": 500})
    balances = replay(journal(*OPENED, said))
    assert balances.accounts[AGENT.account_id].allocated_nanousd == 400


def test_an_allocation_that_blocks_nothing_and_one_without_a_limit_are_followed() -> None:
    counts: Said = (
        "account.reallocated",
        "org",
        {"allocated": 5, "previous": 1_000, "mode": "informative"},
    )
    unlimited: Said = (
        "account.reallocated",
        "org",
        {"allocated": None, "previous": 5, "mode": "restrictive"},
    )
    org = replay(journal(*OPENED, counts)).accounts[ORG.account_id]
    assert (org.allocated_nanousd, org.leased_nanousd, org.mode) == (5, 60, Mode.INFORMATIVE)
    org = replay(journal(*OPENED, counts, unlimited)).accounts[ORG.account_id]
    assert (org.allocated_nanousd, org.limit_nanousd) == (None, None)


def test_nothing_is_lent_from_an_account_that_is_over() -> None:
    opened: Said = (
        "account.opened",
        "agent/day",
        {"scope": "agent:agent", "allocated": 100, "mode": "restrictive", "ends_at_us": 50},
    )
    lent = OPENED[2][2] | {"account": "agent/day", "above": [], "expires_at_us": 50}
    in_time = replay(journal(opened, ("lease.opened", "lease", lent | {"period_ends_at_us": 50})))
    assert in_time.leases[LEASE.lease_id].period_ends_at_us == 50
    late = journal(*OPENED[:2], opened)
    with pytest.raises(JournalContradiction, match="account 'agent/day' was over"):
        replay([*late, *journal(("lease.opened", "lease", lent), first_lsn=5)])


def test_kinds_that_move_no_money_are_passed_over() -> None:
    other: Said = ("agent.started", "agent", {"parent": "nobody"})
    assert replay(journal(other, *OPENED, *SPENT)).leases == {LEASE.lease_id: LEASE}


@pytest.mark.parametrize("cut", range(9))
def test_a_journal_may_be_replayed_in_parts(cut: int) -> None:
    entries = journal(*OPENED, *SPENT, DRAINING, ENDED)
    first = replay(entries[:cut], onto=EMPTY)
    kept = dict(first.accounts), dict(first.leases)
    assert replay(entries[cut:], onto=first) == replay(entries)
    assert (first.accounts, first.leases) == kept


def usage(**body: int) -> Said:
    return "usage", "lease", {"seq": 3, "cost": 1, "over": 0} | body


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (OPENED[0], "it exists already"),
        (OPENED[2], "it exists already"),
        (
            ("account.reallocated", "x", {"allocated": 1, "previous": 1}),
            "it does not exist",
        ),
        (
            ("account.reallocated", "agent", {"allocated": 1_000, "previous": 1}),
            "500 was allocated, not 1",
        ),
        (
            ("account.reallocated", "agent", {"allocated": 99, "previous": 500}),
            "100 is spent and leased",
        ),
        (("lease.opened", "x", OPENED[2][2] | {"account": "x"}), "account 'x' does not exist"),
        (("lease.opened", "x", OPENED[2][2] | {"granted": 401}), "account 'agent' would have"),
        (("lease.opened", "x", OPENED[2][2] | {"above": ["y"]}), "account 'y' does not exist"),
        (("usage", "x", {"seq": 1, "cost": 1, "over": 0}), "it does not exist"),
        (usage(seq=2), "report 2 follows 2"),
        (usage(seq=4), "report 4 follows 2"),
        (usage(over=2), "2 of a cost of 1 is overrun"),
        (usage(over=-1), "-1 of a cost of 1 is overrun"),
        (usage(cost=71), "71 was spent; 70 was left"),
        (("lease.ended", "lease", {"state": "closed", "returned": 69}), "69 was returned; 70"),
        (("lease.ended", "lease", {"state": "active", "returned": 70}), "it ended as active"),
        (("lease.ended", "x", {"state": "closed", "returned": 0}), "it does not exist"),
    ],
)
def test_a_journal_that_contradicts_itself_is_refused(said: Said, told: str) -> None:
    with pytest.raises(JournalContradiction, match=told) as contradiction:
        replay(journal(*OPENED, *SPENT, said))
    assert contradiction.value.lsn == 7


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (usage(), "1 was spent from a lease that had ended"),
        (SPENT[1], "it grew while expired"),
        (DRAINING, "it drained while expired"),
        (ENDED, "it ended while expired"),
    ],
)
def test_a_lease_that_ended_cannot_go_on(said: Said, told: str) -> None:
    if said[0] == "lease.grown":
        with pytest.raises(JournalContradiction, match="it grew while draining"):
            replay(journal(*OPENED, *SPENT, DRAINING, said))
    with pytest.raises(JournalContradiction, match=told):
        replay(journal(*OPENED, *SPENT, DRAINING, ENDED, said))


def test_a_lease_its_runtime_returned_hears_nothing_more() -> None:
    returned: Said = ("lease.ended", "lease", {"state": "closed", "returned": 70})
    with pytest.raises(JournalContradiction, match="its runtime had returned it"):
        replay(journal(*OPENED, *SPENT, returned, usage(over=1)))


@pytest.mark.parametrize("lsn", [1, 3])
def test_entries_out_of_order_are_refused(lsn: int) -> None:
    with pytest.raises(JournalContradiction, match="comes after entry 3"):
        replay([*journal(*OPENED), *journal(SPENT[0], first_lsn=lsn)])
