"""Journal entries as events, and what runtimes tell as journal entries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from steward.events.v1 import events_pb2 as pb
from steward_server.errors import InvalidArgument
from steward_server.events.hub import Entry
from steward_server.events.projection import KINDS, body_of, event_of, kinds_of

AT_US = 1_700_000_000_123_456


def entry(kind: str, body: dict[str, Any], key: str | None = None) -> Entry:
    return Entry(7, AT_US, kind, "agent_1", "lease_1", key, body)


def test_no_types_are_all_types() -> None:
    assert kinds_of([]) == frozenset(kind for kinds in KINDS.values() for kind in kinds)
    assert kinds_of(["CostUpdate"]) == {"usage"}


@pytest.mark.parametrize("name", ["", "costupdate", "usage", "Heartbeat", "Gap"])
def test_a_type_that_does_not_exist_is_refused_by_name(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        kinds_of(["CostUpdate", name])
    assert repr(name) in refused.value.fields["type"]


def test_an_event_has_the_number_and_time_of_its_entry() -> None:
    body = {"threshold": 80, "spent": 8, "limit": 10}
    event = event_of(entry("budget.warning", body))
    assert (event.event_id, event.sequence, event.agent_id) == ("evt_7", 7, "agent_1")
    assert event.timestamp == Timestamp(seconds=1_700_000_000, nanos=123_456_000)
    assert event.budget_warning == pb.BudgetWarning(
        threshold_percent=80, spent_nanousd=8, limit_nanousd=10, scope="agent:agent_1"
    )


def test_a_warning_of_a_project_says_whose_budget_it_is_of() -> None:
    body = {"threshold": 80, "spent": 8, "limit": 10, "scope": "project:p"}
    assert event_of(entry("budget.warning", body)).budget_warning.scope == "project:p"


def test_a_usage_is_seen_as_a_cost_with_all_its_input_together() -> None:
    body = {
        "provider": "openai",
        "model": "m",
        "input": 1,
        "cache_read": 20,
        "cache_write": 300,
        "output": 5,
        "cost": 9,
        "spent": 10,
        "available": 11,
        "lease_left": 12,
    }
    assert event_of(entry("usage", body, "call-1")).cost_update == pb.CostUpdate(
        lease_id="lease_1",
        request_id="call-1",
        provider="openai",
        model="m",
        input_tokens=321,
        output_tokens=5,
        cost_nanousd=9,
        spent_nanousd=10,
        remaining_nanousd=11,
        lease_remaining_nanousd=12,
    )


ASKED = {
    "requester": "user_ann",
    "reviewer": None,
    "agent_id": "agent_1",
    "current_nanousd": 5,
    "requested_nanousd": 8,
    "expires_in_s": 60,
}


def test_a_request_is_seen_with_what_is_asked() -> None:
    assert event_of(entry("budget.requested", ASKED)).budget_requested == pb.BudgetRequested(
        budget_request_id="lease_1",
        requester_id="user_ann",
        current_budget_nanousd=5,
        requested_budget_nanousd=8,
        expires_in_s=60,
    )


def test_an_approval_is_seen_with_what_it_granted_and_for_how_long() -> None:
    granted = {"previous_nanousd": 5, "approved_nanousd": 7, "ends_at_us": 1_000_000}
    body = ASKED | granted | {"reviewer": "user_bob"}
    assert event_of(entry("budget.approved", body)).budget_reviewed == pb.BudgetReviewed(
        budget_request_id="lease_1",
        status="approved",
        requester_id="user_ann",
        reviewer_id="user_bob",
        requested_budget_nanousd=8,
        previous_budget_nanousd=5,
        approved_budget_nanousd=7,
        expires_at=Timestamp(seconds=1),
    )


@pytest.mark.parametrize("status", ["rejected", "cancelled"])
def test_what_was_not_approved_is_seen_without_money(status: str) -> None:
    body = ASKED | {"reviewer": "user_bob"}
    seen = event_of(entry(f"budget.{status}", body)).budget_reviewed
    assert (seen.status, seen.reviewer_id) == (status, "user_bob")
    assert not seen.HasField("approved_budget_nanousd")
    assert not seen.HasField("expires_at")


def test_a_change_of_a_budget_is_seen_with_who_and_why() -> None:
    body = {"previous": 5, "allocated": 8, "cause": "raised", "by": "user_bob", "request": "breq"}
    assert event_of(entry("account.reallocated", body)).budget_changed == pb.BudgetChanged(
        old_budget_nanousd=5,
        new_budget_nanousd=8,
        cause="raised",
        changed_by="user_bob",
        budget_request_id="breq",
        scope="agent:agent_1",
    )
    old = event_of(entry("account.reallocated", {"previous": 5, "allocated": 8})).budget_changed
    assert (old.new_budget_nanousd, old.cause) == (8, "")


def test_a_change_of_a_shared_budget_says_whose_it_is_and_what_has_no_limit() -> None:
    body = {"previous": None, "allocated": 8, "cause": "set", "scope": "project:p"}
    change = entry("account.reallocated", body)
    seen = event_of(replace(change, agent_id="")).budget_changed
    assert seen == pb.BudgetChanged(new_budget_nanousd=8, cause="set", scope="project:p")
    assert not seen.HasField("old_budget_nanousd")


def test_what_is_no_event_has_no_form_as_one() -> None:
    with pytest.raises(ValueError, match=r"lease\.opened"):
        event_of(entry("lease.opened", {}))


@pytest.mark.parametrize(
    ("told", "member"),
    [
        (
            pb.AgentStarted(runtime_id="r", runtime_version="1", script="a.py", budget_nanousd=5),
            "agent_started",
        ),
        (pb.AgentStarted(), "agent_started"),
        (pb.AgentStopped(runtime_id="r", exit_code=-9, reason="killed"), "agent_stopped"),
        (pb.AgentStopped(runtime_id="r", reason="lost"), "agent_stopped"),
        (
            pb.PiiAlert(
                request_id="c",
                direction=pb.PII_DIRECTION_OUTPUT,
                action=pb.PII_ACTION_BLOCK,
                findings=[
                    pb.PiiFinding(kind=pb.PII_KIND_CARD, count=2),
                    pb.PiiFinding(kind=pb.PII_KIND_SSN, count=1),
                ],
            ),
            "pii_alert",
        ),
    ],
    ids=["started", "started with nothing", "stopped by a signal", "lost", "alert"],
)
def test_what_was_told_is_seen_unchanged(
    told: pb.AgentStarted | pb.AgentStopped | pb.PiiAlert, member: str
) -> None:
    kind, body = body_of(told)
    event = event_of(entry(kind, body))
    assert event.WhichOneof("data") == member
    assert getattr(event, member) == told


def test_findings_of_one_kind_are_added_up() -> None:
    email = pb.PiiFinding(kind=pb.PII_KIND_EMAIL, count=2)
    told = pb.PiiAlert(
        direction=pb.PII_DIRECTION_INPUT, action=pb.PII_ACTION_ALERT, findings=[email, email]
    )
    assert body_of(told)[1]["findings"] == {"email": 4}


@pytest.mark.parametrize(
    ("told", "fields"),
    [
        (pb.AgentStarted(runtime_id="r" * 101, script="\n", budget_nanousd=-1), 3),
        (pb.AgentStarted(runtime_version="v" * 101), 1),
        (pb.AgentStopped(reason="bored", runtime_id="\x00"), 2),
        (pb.PiiAlert(), 3),
        (
            pb.PiiAlert(
                request_id="c" * 101,
                direction=9,  # type: ignore[arg-type]
                action=pb.PII_ACTION_ALERT,
                findings=[pb.PiiFinding(kind=pb.PII_KIND_EMAIL, count=0), pb.PiiFinding(count=1)],
            ),
            4,
        ),
    ],
    ids=["started", "version", "stopped", "empty alert", "alert"],
)
def test_everything_that_is_wrong_is_told_at_once(
    told: pb.AgentStarted | pb.AgentStopped | pb.PiiAlert, fields: int
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        body_of(told)
    assert len(refused.value.fields) == fields, refused.value.fields
