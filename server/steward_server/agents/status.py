"""What an agent is doing, from what is wanted, what was told and what is lent. Pure."""

from __future__ import annotations

from enum import Enum

from steward_server.agents.agent import Agent, RunState


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
