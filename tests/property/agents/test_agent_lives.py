"""Agents through any series of what is wanted and what is told."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from steward_server.agents.agent import Agent, DesiredState, RunState
from steward_server.agents.status import Status, status_of

EVENTS = st.lists(
    st.one_of(
        st.just(("stop",)),
        st.just(("start",)),
        st.tuples(st.just("started"), st.sampled_from("ab")),
        st.tuples(
            st.just("stopped"),
            st.sampled_from("ab"),
            st.sampled_from([None, 0, 1]),
            st.sampled_from(["exited", "stopped", "killed", "lost"]),
        ),
    ),
    max_size=30,
)


def lived(events: list[tuple[object, ...]]) -> tuple[Agent, int]:
    agent = Agent(
        "agent_1", "a", "user_1", "", "", DesiredState.RUNNING, "", RunState.NONE, "",
        None, None, None, None, 1, 1,
    )  # fmt: skip
    now_us = 1
    for now_us, event in enumerate(events, start=2):
        match event:
            case ("stop",):
                agent = agent.stop("enough", now_us)
            case ("start",):
                agent = agent.start(now_us)
            case ("started", str(runtime_id)):
                agent = agent.started(runtime_id, now_us)
            case ("stopped", str(runtime_id), int() | None as exit_code, str(reason)):
                agent = agent.stopped(runtime_id, exit_code, reason, now_us)
    return agent, now_us


def shown(agent: Agent, open_leases: int, now_us: int) -> Status:
    return status_of(agent, open_leases=open_leases, now_us=now_us, vanished_after_us=1_000)


@given(EVENTS, st.integers(0, 3), st.integers(0, 2_000))
def test_what_is_shown_never_contradicts_what_is_wanted_or_lent(
    events: list[tuple[object, ...]], open_leases: int, silent_us: int
) -> None:
    agent, now_us = lived(events)
    status = shown(agent, open_leases, now_us + silent_us)
    if agent.stop_wanted:
        assert status in (Status.STOPPING, Status.STOPPED)
    else:
        assert status is not Status.STOPPING
    if open_leases:
        assert status in (Status.RUNNING, Status.STOPPING)


@given(EVENTS)
def test_after_the_end_of_its_runtime_nothing_shows_as_running(
    events: list[tuple[object, ...]],
) -> None:
    agent, now_us = lived(events)
    over = agent.stopped(agent.runtime_id, 0, "exited", now_us + 1)
    assert shown(over, 0, now_us + 1) is Status.STOPPED


@given(EVENTS)
def test_a_stop_and_a_start_leave_it_wanted_as_before(events: list[tuple[object, ...]]) -> None:
    agent, now_us = lived(events)
    again = agent.stop("enough", now_us + 1).start(now_us + 2)
    assert not again.stop_wanted
    assert again.runtime_id == agent.runtime_id
