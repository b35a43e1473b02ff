"""Runs, and what happened to them, as messages."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from steward.executions.v1 import executions_pb2 as pb
from steward_server.executions.execution import About, Event, Execution
from steward_server.executions.feed import Frame
from steward_server.executions.room import Seen
from steward_server.executions.run import Change, Kind, Run, State, StepState
from steward_server.executions.store import Kept
from steward_server.playbooks.playbook import Step
from steward_server.playbooks.references import Reference
from steward_server.structs import struct_of

STATES = {
    State.PENDING: pb.EXECUTION_STATUS_PENDING,
    State.RUNNING: pb.EXECUTION_STATUS_RUNNING,
    State.PAUSED: pb.EXECUTION_STATUS_PAUSED,
    State.COMPLETED: pb.EXECUTION_STATUS_COMPLETED,
    State.FAILED: pb.EXECUTION_STATUS_FAILED,
    State.CANCELLED: pb.EXECUTION_STATUS_CANCELLED,
}
STATE_OF = {status: state for state, status in STATES.items()}
_STEP_STATES = {
    StepState.PENDING: pb.STEP_STATUS_PENDING,
    StepState.RUNNING: pb.STEP_STATUS_RUNNING,
    StepState.COMPLETED: pb.STEP_STATUS_COMPLETED,
    StepState.FAILED: pb.STEP_STATUS_FAILED,
    StepState.SKIPPED: pb.STEP_STATUS_SKIPPED,
}
_AFTER = {
    Kind.STEP_STARTED: pb.STEP_STATUS_RUNNING,
    Kind.STEP_COMPLETED: pb.STEP_STATUS_COMPLETED,
    Kind.STEP_SKIPPED: pb.STEP_STATUS_SKIPPED,
    Kind.STEP_REOPENED: pb.STEP_STATUS_PENDING,
}
MAX_OUTPUT_BYTES = 2 << 20
"""Of all steps of a run in one answer: messages of gRPC are no larger than 4 MiB."""
KINDS = {
    "screenshot": pb.ARTIFACT_KIND_SCREENSHOT,
    "download": pb.ARTIFACT_KIND_DOWNLOAD,
    "report": pb.ARTIFACT_KIND_REPORT,
}


def of_row(execution: Execution) -> pb.Execution:
    """A run as lists show it."""
    shown = pb.Execution(
        execution_id=execution.execution_id,
        playbook_name=execution.playbook_name,
        status=STATES[execution.state],
        current_step_index=execution.step_index,
        total_steps=execution.total_steps,
        created_at=_time(execution.created_at_us),
        playbook_path=execution.playbook_path,
        debug_mode=execution.debug_mode,
        owner_id=execution.owner_id,
        agent_id=execution.agent_id,
        gateway_url=execution.gateway_url,
        credential_name=execution.credential_name,
        parent_execution_id=execution.parent_id,
        rerun_of=execution.rerun_of,
    )
    if execution.started_at_us is not None:
        shown.started_at.CopyFrom(_time(execution.started_at_us))
    if execution.ended_at_us is not None:
        shown.completed_at.CopyFrom(_time(execution.ended_at_us))
    return shown


def in_full(seen: Seen) -> pb.Execution:
    """A run with its steps."""
    run, playbook = seen.run, seen.playbook
    shown = of_row(seen.execution)
    shown.error = run.why
    shown.pausing = run.pausing
    shown.cancelling = run.stop is not None and not run.state.is_over
    shown.parameters.CopyFrom(struct_of(_plain(seen.execution.parameters)))
    if seen.events:
        shown.sequence = seen.events[-1].number
    if run.state is State.PAUSED:
        paused = (
            each.change.text for each in reversed(seen.events) if each.change.kind is Kind.PAUSED
        )
        shown.paused_at = next(paused, "")
    if run.asks is not None:
        shown.question.CopyFrom(_question(run.asks))
    by_step: dict[str, list[Event]] = {}
    for event in seen.events:
        by_step.setdefault(event.change.step_id, []).append(event)
    undo = [each for step in playbook.steps for each in step.undo if each.id in run.made]
    steps = (*playbook.steps, *undo, *playbook.finally_)
    left = MAX_OUTPUT_BYTES
    for step in steps:
        result = _result(step, run, by_step.get(step.id, ()))
        left -= result.output.ByteSize()
        if left < 0:
            result.ClearField("output")
            result.output_omitted = True
        shown.step_results.append(result)
    return shown


def _result(step: Step, run: Run, events: Sequence[Event]) -> pb.StepResult:
    made = run.made.get(step.id)
    shown = pb.StepResult(
        step_id=step.id,
        step_name=step.name,
        step_type=step.type,
        status=_STEP_STATES[made.state] if made else pb.STEP_STATUS_PENDING,
    )
    if made is None:
        return shown
    shown.attempts = made.attempts
    if made.state in (StepState.FAILED, StepState.SKIPPED):
        shown.error = made.text
    for event in events:
        change = event.change
        if change.kind is Kind.STEP_STARTED and not shown.HasField("started_at"):
            shown.started_at.CopyFrom(_time(event.at_us))
        elif change.kind is Kind.STEP_REOPENED:
            shown.ClearField("completed_at")
        elif made.state.is_over and change.kind in _ENDS:
            shown.completed_at.CopyFrom(_time(event.at_us))
            _tell(shown, change)
    return shown


_ENDS = (Kind.STEP_COMPLETED, Kind.STEP_FAILED, Kind.STEP_SKIPPED)


def update(about: About, event: Event) -> pb.ExecutionUpdate:
    """Something that happened."""
    change = event.change
    shown = pb.ExecutionUpdate(
        execution_id=about.execution_id,
        status=STATES[event.run_state],
        current_step_index=event.step_index,
        sequence=event.number,
        event=change.kind,
        message=change.text,
        timestamp=_time(event.at_us),
        playbook_name=about.playbook_name,
        total_steps=about.total_steps,
        parent_execution_id=about.parent_id,
        level=change.data.get("level", "") if change.kind is Kind.LOGGED else "",
        by=change.data.get("by", ""),
    )
    if change.kind is Kind.ASKED:
        shown.question.CopyFrom(_question(change))
    if change.step_id and change.kind in (*_AFTER, Kind.STEP_FAILED):
        result = shown.step_result
        result.step_id = change.step_id
        result.step_name = change.data.get("name", "")
        result.step_type = change.data.get("type", "")
        result.status = _AFTER.get(
            change.kind, pb.STEP_STATUS_FAILED if change.is_final else pb.STEP_STATUS_RUNNING
        )
        if change.kind in (Kind.STEP_FAILED, Kind.STEP_SKIPPED):
            result.error = change.text
        _tell(result, change)
    return shown


def _tell(shown: pb.StepResult, change: Change) -> None:
    outputs, context = change.data.get("outputs"), change.data.get("context")
    if outputs:
        shown.output.CopyFrom(struct_of(outputs))
    if context:
        shown.context.CopyFrom(struct_of(context))
    # Of those that run a playbook.
    shown.child_execution_id = str((outputs or context or {}).get("execution_id", ""))


def _question(change: Change) -> pb.Question:
    data = change.data
    return pb.Question(
        step_id=change.step_id,
        message=change.text,
        not_by_starter=data["not_by_starter"],
        expires_at=_time(data["expires_at_us"]),
    )


def frame(shown: Frame) -> pb.ScreenshotFrame:
    """What the browser of a run shows."""
    data = base64.b64encode(shown.png).decode()
    return pb.ScreenshotFrame(
        execution_id=shown.about.execution_id,
        frame=f"data:image/png;base64,{data}",
        timestamp=shown.at_ms,
    )


def of_artifact(kept: Kept) -> pb.Artifact:
    """A file that a run has made."""
    return pb.Artifact(
        artifact_id=kept.artifact.artifact_id,
        name=kept.artifact.name,
        kind=KINDS[kept.artifact.kind],
        content_type=kept.artifact.content_type,
        size_bytes=kept.artifact.size_bytes,
        step_id=kept.step_id,
        created_at=_time(kept.created_at_us),
    )


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f"{{{{ {value} }}}}" if isinstance(value, Reference) else value
        for name, value in parameters.items()
    }


def _time(at_us: int) -> Timestamp:
    at = Timestamp()
    at.FromMicroseconds(at_us)
    return at
