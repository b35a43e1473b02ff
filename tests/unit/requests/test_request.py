"""Who may decide about a request, how, and that it is decided once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from steward_server.errors import InvalidArgument, PermissionDenied
from steward_server.requests.request import NEXT, AlreadyReviewed, BudgetRequest, Status

NOW = 1_790_000_000_000_000
PENDING = BudgetRequest(
    request_id="breq_1",
    agent_id="agent_1",
    agent_name="scout",
    owner_id="user_ann",
    requester_id="user_ann",
    requester_name="ann",
    requester_kind="person",
    current_nanousd=100,
    requested_nanousd=150,
    justification="The crawl has grown.",
    expires_in_s=None,
    created_at_us=1,
    updated_at_us=1,
)


def approve(
    request: BudgetRequest = PENDING,
    *,
    budget: int = 100,
    approved: int | None = None,
    expires_in_s: int | None = None,
) -> BudgetRequest:
    return request.approve(
        "user_bob",
        budget_nanousd=budget,
        approved_nanousd=approved,
        expires_in_s=expires_in_s,
        notes="",
        now_us=NOW,
    )


WAYS: dict[Status, Callable[[BudgetRequest], BudgetRequest]] = {
    Status.APPROVED: approve,
    Status.REJECTED: lambda request: request.reject("user_bob", reason="no", now_us=NOW),
    Status.CANCELLED: lambda request: request.cancel("user_ann", why="", now_us=NOW),
}


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_a_decision_is_for_good(first: Status, second: Status) -> None:
    decided = WAYS[first](PENDING)
    assert (decided.status, decided.reviewed_at_us, decided.updated_at_us) == (first, NOW, NOW)
    with pytest.raises(AlreadyReviewed) as refused:
        WAYS[second](decided)
    assert refused.value.facts == {
        "budget_request_id": "breq_1",
        "status": first.value,
        "reviewer_id": decided.reviewer_id,
        "reviewed_at": "2026-09-21T14:13:20Z",
    }


def test_every_state_but_the_first_is_final() -> None:
    assert {status for status, following in NEXT.items() if following} == {Status.PENDING}
    assert NEXT.keys() == set(Status)


def test_an_approval_grants_what_was_asked_unless_it_says_less() -> None:
    assert (approve().previous_nanousd, approve().approved_nanousd) == (100, 150)
    assert approve(approved=101).approved_nanousd == 101


@pytest.mark.parametrize(
    ("budget", "approved", "reason"),
    [
        (100, 151, "APPROVAL_EXCEEDS_REQUEST"),
        (100, 100, "APPROVAL_DECREASES_BUDGET"),
        (100, 99, "APPROVAL_DECREASES_BUDGET"),
        (150, None, "APPROVAL_DECREASES_BUDGET"),
    ],
)
def test_an_approval_is_an_increase_and_no_more_than_was_asked(
    budget: int, approved: int | None, reason: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        approve(budget=budget, approved=approved)
    assert refused.value.reason == reason
    assert refused.value.fields.keys() == {"approved_budget_usd"}


@pytest.mark.parametrize(
    ("asked_s", "granted_s", "holds_s"),
    [(None, None, None), (60, None, 60), (60, 30, 30), (60, 60, 60), (None, 30, 30)],
)
def test_a_raise_holds_as_long_as_was_asked_or_shorter(
    asked_s: int | None, granted_s: int | None, holds_s: int | None
) -> None:
    approved = approve(replace(PENDING, expires_in_s=asked_s), expires_in_s=granted_s)
    assert approved.ends_at_us == (None if holds_s is None else NOW + holds_s * 1_000_000)


def test_a_raise_does_not_hold_for_longer_than_was_asked() -> None:
    with pytest.raises(InvalidArgument) as refused:
        approve(replace(PENDING, expires_in_s=60), expires_in_s=61)
    assert refused.value.reason == "APPROVAL_EXCEEDS_REQUEST"
    assert refused.value.fields.keys() == {"expires_in_s"}


@pytest.mark.parametrize(
    ("asked", "reason"), [(100, "BUDGET_UNCHANGED"), (99, "BUDGET_DECREASE_REQUEST")]
)
def test_only_more_can_be_asked_for(asked: int, reason: str) -> None:
    assert PENDING.check_increase() is PENDING
    with pytest.raises(InvalidArgument) as refused:
        replace(PENDING, requested_nanousd=asked).check_increase()
    assert refused.value.reason == reason


def test_nobody_decides_about_their_own_request_while_there_is_another() -> None:
    PENDING.check_reviewer("user_bob", is_sole_administrator=False)
    PENDING.check_reviewer("user_ann", is_sole_administrator=True)
    with pytest.raises(PermissionDenied) as refused:
        PENDING.check_reviewer("user_ann", is_sole_administrator=False)
    assert refused.value.reason == "SELF_REVIEW_FORBIDDEN"


def test_what_an_agent_asks_for_counts_as_asked_by_its_owner() -> None:
    by_agent = replace(PENDING, requester_id="agent_1", requester_kind="agent")
    by_other = replace(PENDING, requester_id="user_eve")
    assert by_agent.is_of("user_ann")
    assert not by_other.is_of("user_ann")
    with pytest.raises(PermissionDenied):
        by_agent.check_reviewer("user_ann", is_sole_administrator=False)
