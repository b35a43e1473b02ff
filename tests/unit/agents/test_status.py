"""What an agent is doing, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from steward_server.agents.agent import Agent, DesiredState, RunState
from steward_server.agents.status import Status, status_of
from steward_server.balance import Balance

AGENT = Agent(
    agent_id="agent_1",
    name="scout",
    owner_id="user_1",
    project_id="",
    provider="",
    desired_state=DesiredState.RUNNING,
    stop_reason="",
    run_state=RunState.NONE,
    runtime_id="",
    started_at_us=None,
    stopped_at_us=None,
    exit_code=None,
    last_seen_at_us=None,
    created_at_us=0,
    updated_at_us=0,
)


def shown(agent: Agent, open_leases: int = 0, now_us: int = 100) -> Status:
    return status_of(agent, open_leases=open_leases, now_us=now_us, vanished_after_us=50)


@pytest.mark.parametrize(
    ("run_state", "open_leases", "wanted", "unwanted"),
    [
        (RunState.NONE, 0, Status.IDLE, Status.STOPPED),
        (RunState.NONE, 1, Status.RUNNING, Status.STOPPING),
        (RunState.RUNNING, 0, Status.RUNNING, Status.STOPPING),
        (RunState.RUNNING, 1, Status.RUNNING, Status.STOPPING),
        (RunState.ENDED, 0, Status.STOPPED, Status.STOPPED),
        (RunState.ENDED, 1, Status.RUNNING, Status.STOPPING),
        (RunState.FAILED, 0, Status.FAILED, Status.STOPPED),
        (RunState.FAILED, 1, Status.RUNNING, Status.STOPPING),
    ],
)
def test_every_case(
    run_state: RunState, open_leases: int, wanted: Status, unwanted: Status
) -> None:
    agent = replace(AGENT, run_state=run_state, last_seen_at_us=100)
    assert shown(agent, open_leases) is wanted
    assert shown(agent.stop("enough", 100), open_leases) is unwanted


def test_a_runtime_that_fell_silent_is_gone_to_the_microsecond() -> None:
    agent = AGENT.started("runtime_1", 100)
    assert shown(agent, now_us=149) is Status.RUNNING
    assert shown(agent, now_us=150) is Status.FAILED
    assert shown(agent.stop("enough", 150), now_us=150) is Status.STOPPED
    assert shown(agent, 1, now_us=150) is Status.RUNNING


@pytest.mark.parametrize(
    ("exit_code", "reason", "status"),
    [
        (0, "exited", Status.STOPPED),
        (None, "exited", Status.STOPPED),
        (1, "exited", Status.FAILED),
        (-15, "stopped", Status.STOPPED),
        (-9, "killed", Status.FAILED),
        (None, "lost", Status.FAILED),
        (0, "lost", Status.FAILED),
    ],
)
def test_how_a_script_ended_decides(exit_code: int | None, reason: str, status: Status) -> None:
    agent = AGENT.started("runtime_1", 10).stopped("runtime_1", exit_code, reason, 20)
    assert shown(agent) is status
    assert (agent.exit_code, agent.stopped_at_us) == (exit_code, 20)


def test_news_of_a_replaced_runtime_does_not_stop_the_new_one() -> None:
    agent = AGENT.started("runtime_1", 10).started("runtime_2", 20)
    late = agent.stopped("runtime_1", 1, "exited", 30)
    assert late.run_state is RunState.RUNNING
    assert (late.runtime_id, late.last_seen_at_us) == ("runtime_2", 30)


def test_a_start_forgets_how_the_last_run_ended() -> None:
    failed = AGENT.started("r", 10).stopped("r", 1, "exited", 20).stop("enough", 30)
    assert shown(failed.start(40)) is Status.IDLE


def test_a_start_before_the_stop_was_obeyed_finds_it_running() -> None:
    agent = AGENT.started("r", 90).stop("enough", 95).start(96)
    assert shown(agent) is Status.RUNNING
    assert agent.stop_reason == ""


def test_stopping_and_starting_twice_changes_nothing() -> None:
    stopped = AGENT.stop("enough", 1)
    assert stopped.stop("more than enough", 2) is stopped
    assert AGENT.start(1) is AGENT


def test_the_share_used_is_exact_where_it_can_be() -> None:
    balance = Balance(1_000, 140, 0, 0, 860, 0)
    assert balance.percent_used == 14.0
    assert Balance(1_000, 1_000, 0, 500, 0, 0).percent_used == 150.0
    assert Balance(0, 0, 0, 0, 0, 0).percent_used == 100.0


def test_a_budget_is_exhausted_when_nothing_can_be_lent() -> None:
    assert not Balance(10, 5, 4, 0, 1, 1).is_exhausted
    assert Balance(10, 5, 5, 0, 0, 1).is_exhausted
