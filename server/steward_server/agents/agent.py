"""An agent: what is wanted of it, and what its runtimes told. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum


class DesiredState(Enum):
    """What its owner wants."""

    RUNNING = "running"
    STOPPED = "stopped"


class RunState(Enum):
    """What its runtimes told last."""

    NONE = "none"
    """Nothing, since it was let run."""
    RUNNING = "running"
    ENDED = "ended"
    """As it should."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent. Its money is in the ledger."""

    agent_id: str
    name: str
    owner_id: str
    project_id: str
    """Whose budget it spends from as well; empty: only the organisation's."""
    provider: str
    """The name of the provider it may use; empty: any."""
    desired_state: DesiredState
    stop_reason: str
    run_state: RunState
    runtime_id: str
    """Of the runtime that told of the newest start."""
    started_at_us: int | None
    stopped_at_us: int | None
    exit_code: int | None
    last_seen_at_us: int | None
    created_at_us: int
    updated_at_us: int
    version: int = 1
    """Of what people may change."""

    @property
    def stop_wanted(self) -> bool:
        """Whether nothing may be lent to it and its runtimes should end."""
        return self.desired_state is DesiredState.STOPPED

    def stop(self, reason: str, now_us: int) -> Agent:
        """Want it stopped; the same agent comes back if that is wanted already."""
        if self.stop_wanted:
            return self
        return replace(
            self, desired_state=DesiredState.STOPPED, stop_reason=reason, updated_at_us=now_us
        )

    def start(self, now_us: int) -> Agent:
        """Let it run again; the same agent comes back if it may already.

        How its last run ended is over with that, unless it has not ended yet.
        """
        if not self.stop_wanted:
            return self
        return replace(
            self,
            desired_state=DesiredState.RUNNING,
            stop_reason="",
            run_state=self.run_state if self.run_state is RunState.RUNNING else RunState.NONE,
            updated_at_us=now_us,
        )

    def started(self, runtime_id: str, now_us: int) -> Agent:
        """A runtime began its script."""
        return replace(
            self,
            run_state=RunState.RUNNING,
            runtime_id=runtime_id,
            started_at_us=now_us,
            stopped_at_us=None,
            exit_code=None,
            last_seen_at_us=now_us,
        )

    def stopped(self, runtime_id: str, exit_code: int | None, reason: str, now_us: int) -> Agent:
        """A runtime's script ended; news of a runtime that was replaced is only a sign of life.

        `reason` is "exited", "stopped", "killed" or "lost".
        """
        if self.run_state is RunState.RUNNING and self.runtime_id != runtime_id:
            return replace(self, last_seen_at_us=now_us)
        well = reason == "stopped" or (reason == "exited" and not exit_code)
        return replace(
            self,
            run_state=RunState.ENDED if well else RunState.FAILED,
            runtime_id=runtime_id,
            stopped_at_us=now_us,
            exit_code=exit_code,
            last_seen_at_us=now_us,
        )
