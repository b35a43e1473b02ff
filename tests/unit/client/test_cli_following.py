"""What the table of a run that is followed shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from steward.executions.v1 import executions_pb2 as pb
from steward_client.cli.executions_following import applied, took
from steward_client.client.executions_values import Execution, ExecutionUpdate
from steward_client.client.values import value_of

BEGUN = datetime(2026, 11, 1, tzinfo=UTC)
QUESTION = {"step_id": "a", "message": "Go on?", "expires_at": "2026-11-01T01:00:00Z"}


def run(*events: dict[str, Any]) -> Execution:
    """A run of one step, a, after these events, a second after one another."""
    steps = [{"step_id": "a", "step_name": "A", "status": "STEP_STATUS_PENDING"}]
    shown = value_of(Execution, ParseDict({"step_results": steps}, pb.Execution()))
    for second, event in enumerate(events):
        told = ParseDict({"status": "EXECUTION_STATUS_RUNNING"} | event, pb.ExecutionUpdate())
        told.timestamp.FromDatetime(BEGUN + timedelta(seconds=second))
        shown = applied(shown, value_of(ExecutionUpdate, told))
    return shown


def step(event: str, status: str, step_id: str = "a", error: str = "") -> dict[str, Any]:
    result = {
        "step_id": step_id,
        "step_name": step_id.title(),
        "status": f"STEP_STATUS_{status}",
        "error": error,
    }
    return {"event": event, "step_result": result}


def test_a_step_is_counted_for_each_attempt_and_over_after_the_last() -> None:
    begins, again = step("step_started", "RUNNING"), step("step_failed", "RUNNING", error="no")
    trying = run({"event": "started"}, begins, again, begins).step_results[0]
    failed = run({"event": "started"}, begins, again, begins, step("step_failed", "FAILED"))

    assert (trying.status, trying.attempts, trying.completed_at) == ("running", 2, None)
    assert trying.step_name == "A"
    over = failed.step_results[0]
    assert over.started_at == BEGUN + timedelta(seconds=1)
    assert over.completed_at == BEGUN + timedelta(seconds=4)


def test_a_step_that_undoes_another_is_shown_when_it_begins() -> None:
    shown = run(step("step_started", "RUNNING", "undo-a"))

    assert [(each.step_id, each.step_name) for each in shown.step_results] == [
        ("a", "A"),
        ("undo-a", "Undo-A"),
    ]


def test_a_question_is_shown_until_it_is_answered_or_its_step_is_over() -> None:
    asks = {"event": "asked", "question": QUESTION}

    assert run(asks, {"event": "logged"}).question is not None
    assert run(asks, {"event": "answered"}).question is None
    assert run(asks, step("step_skipped", "SKIPPED")).question is None


def test_what_a_run_is_about_to_do_is_shown_until_it_does() -> None:
    assert run({"event": "pause_asked"}, {"event": "logged"}).pausing
    assert not run({"event": "pause_asked"}, {"event": "paused"}).pausing
    assert run({"event": "stop_asked", "message": "why"}, {"event": "cut"}).cancelling
    assert not run({"event": "stop_asked"}, {"event": "ended"}).cancelling


def test_a_run_that_never_had_its_turn_took_no_time() -> None:
    ended = run({"event": "ended", "status": "EXECUTION_STATUS_CANCELLED", "message": "why"})

    assert (ended.status, ended.error, ended.started_at) == ("cancelled", "why", None)
    assert took(ended.started_at, ended.completed_at) == "-"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (3_725, "1:02:05"), (-5, "0.0 s")],
)
def test_times_are_told_as_people_read_them(seconds: float, told: str) -> None:
    assert took(BEGUN, BEGUN + timedelta(seconds=seconds)) == told
