"""Runs of playbooks as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

ExecutionStatus = Literal[
    "unspecified", "pending", "running", "paused", "completed", "failed", "cancelled"
]
StepStatus = Literal["unspecified", "pending", "running", "completed", "failed", "skipped"]
ArtifactKind = Literal["unspecified", "screenshot", "download", "report"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a step that waits for a person's word asks for."""

    step_id: str
    message: str
    not_by_starter: bool
    """Somebody else than who started the run must approve."""
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class StepResult:
    """What became of a step."""

    step_id: str
    step_name: str
    step_type: str
    status: StepStatus
    attempts: int
    """Those begun."""
    started_at: datetime | None
    completed_at: datetime | None
    error: str
    """Why it failed or was skipped."""
    output: dict[str, Any]
    """What it gave; secrets are masked."""
    context: dict[str, Any]
    """What helps to find out why it failed."""
    child_execution_id: str
    """The run of the playbook that it runs."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A run of a playbook."""

    execution_id: str
    playbook_name: str
    playbook_path: str
    status: ExecutionStatus
    current_step_index: int
    """How many of its steps are over."""
    total_steps: int
    """Without those of `finally`, and those that undo others."""
    created_at: datetime | None
    started_at: datetime | None
    """None: it waits for its turn."""
    completed_at: datetime | None
    error: str
    """Why it ended as it did, or is being ended."""
    debug_mode: bool
    pausing: bool
    """It is to pause at the next safe point."""
    cancelling: bool
    paused_at: str
    question: Question | None
    owner_id: str
    agent_id: str
    """The agent that started it."""
    gateway_url: str
    credential_name: str
    parameters: dict[str, Any]
    """What it was started with; secrets are masked."""
    parent_execution_id: str
    rerun_of: str
    sequence: int
    """Of the newest thing that happened to it, which `watch` goes on after; 0 in a list."""
    step_results: tuple[StepResult, ...]
    """In the order they are made in; empty in a list."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that a run has made."""

    artifact_id: str
    name: str
    """Unique in its run. Strangers may have chosen it."""
    kind: ArtifactKind
    content_type: str
    size_bytes: int
    step_id: str
    created_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExecutionUpdate:
    """Something that happened to a run."""

    execution_id: str
    sequence: int
    """Grows over all runs, with holes; what `since` takes."""
    timestamp: datetime
    event: str
    """"started", "step_completed", "asked", "logged", "ended" …"""
    status: ExecutionStatus
    current_step_index: int
    total_steps: int
    step_result: StepResult | None
    """Of the step it happened to, without its times."""
    message: str
    """Why it happened, or what was said."""
    level: str
    """Of a line that was logged: "debug", "info", "warning", "error"."""
    question: Question | None
    playbook_name: str
    parent_execution_id: str


@dataclass(frozen=True, slots=True)
class ScreenshotFrame:
    """What the browser of a run shows."""

    execution_id: str
    png: bytes
    at: datetime
