"""What an agent is doing, from what is wanted, what was told and what is lent. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from steward_server.agents.agent import Agent, RunState


@dataclass(frozen=True, slots=True)
class Balance:
    """The money of an agent."""

    allocated_nanousd: int
    spent_nanousd: int
    leased_nanousd: int
    overrun_nanousd: int
    available_nanousd: int
    open_leases: int

    @property
    def percent_used(self) -> float:
        """Spent and overrun as a share of what is allocated; for showing, not for deciding."""
        if not self.allocated_nanousd:
            return 100.0
        return (self.spent_nanousd + self.overrun_nanousd) * 100 / self.allocated_nanousd

    @property
    def is_exhausted(self) -> bool:
        """Whether nothing is left to lend."""
        return self.available_nanousd <= 0


class Status(Enum):
    """What an agent is doing."""

    IDLE = "idle"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FAILED = "failed"


def status_of(agent: Agent, *, open_leases: int, now_us: int, vanished_after_us: int) -> Status:
    """What the agent is doing now.

    A runtime that holds a lease is alive: leases end by themselves. One that holds none and was
    silent for `vanished_after_us` is gone.
    """
    told_running = agent.run_state is RunState.RUNNING
    silent_us = now_us - (agent.last_seen_at_us or agent.started_at_us or now_us)
    is_alive = open_leases > 0 or (told_running and silent_us < vanished_after_us)
    if agent.stop_wanted:
        return Status.STOPPING if is_alive else Status.STOPPED
    if is_alive:
        return Status.RUNNING
    if told_running or agent.run_state is RunState.FAILED:
        return Status.FAILED
    return Status.STOPPED if agent.run_state is RunState.ENDED else Status.IDLE
