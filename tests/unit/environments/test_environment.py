"""The life of an environment: which way leads where, and when it ends by itself."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from steward_server.environments.environment import (
    Environment,
    NetworkPolicy,
    Resources,
    SecurityContext,
    Spec,
    State,
    Toleration,
)
from steward_server.environments.rows import spec_of, spec_text
from steward_server.errors import FailedPrecondition

RESOURCES = Resources(500, 2**29, 2**30)
PENDING = Environment(
    "env-1", "mine", "user_1", Spec("python:3.11", RESOURCES), State.PENDING, 1_000_000, 61_000_000
)


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ([State.RUNNING, State.TERMINATING, State.TERMINATED], True),
        ([State.RUNNING, State.TERMINATED], True),
        ([State.RUNNING, State.FAILED], True),
        ([State.FAILED], True),
        ([State.TERMINATING, State.TERMINATED], True),
        ([State.TERMINATED], False),
        ([State.RUNNING, State.PENDING, State.RUNNING], True),
        ([State.TERMINATING, State.PENDING], False),
        ([State.FAILED, State.RUNNING], False),
        ([State.TERMINATING, State.RUNNING], False),
        ([State.RUNNING, State.TERMINATED, State.TERMINATED], False),
    ],
)
def test_only_these_ways_lead_on(path: list[State], *, leads: bool) -> None:
    at = PENDING
    for state in path[:-1]:
        at = at.to(state, 2_000_000)
    if leads:
        assert at.to(path[-1], 3_000_000).state is path[-1]
    else:
        with pytest.raises(FailedPrecondition, match=f"is {at.state}"):
            at.to(path[-1], 3_000_000)


def test_times_are_noted_on_the_way() -> None:
    running = PENDING.to(State.RUNNING, 2_000_000)
    assert (running.started_at_us, running.ended_at_us) == (2_000_000, None)
    over = replace(running, paused=True).to(State.TERMINATED, 3_000_000, reason="done")
    assert (over.started_at_us, over.ended_at_us, over.paused) == (2_000_000, 3_000_000, False)
    assert over.reason == "done"


def test_it_ends_by_age_or_by_idleness_whichever_comes_first() -> None:
    running = PENDING.to(State.RUNNING, 2_000_000)
    assert running.ends_at_us() == 61_000_000
    idle = replace(running, idle_timeout_s=10)
    assert idle.ends_at_us() == 12_000_000
    assert replace(idle, last_used_at_us=55_000_000).ends_at_us() == 61_000_000
    assert replace(PENDING, idle_timeout_s=10).ends_at_us() == 61_000_000
    assert replace(PENDING, expires_at_us=None).ends_at_us() is None


def test_what_does_not_run_says_its_state() -> None:
    with pytest.raises(FailedPrecondition) as refused:
        PENDING.must_run()
    assert refused.value.facts == {"environment_id": "env-1", "status": "pending"}
    with pytest.raises(FailedPrecondition, match="is paused"):
        replace(PENDING.to(State.RUNNING, 2), paused=True).must_run()


def test_what_was_asked_for_comes_back_from_its_row() -> None:
    spec = Spec(
        "python:3.11",
        RESOURCES,
        ("sh", "-c", "true"),
        {"A": "b"},
        "gvisor",
        NetworkPolicy(
            allow_internet=True,
            allowed_egress=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
            allowed_ingress_ports=(8080,),
            allow_cluster_internal=True,
        ),
        SecurityContext(1000, 1001, True, False, None),
        {"disk": "ssd"},
        (Toleration("k", "Exists", "", "NoExecute", 5),),
    )
    assert spec_of(spec_text(spec), "python:3.11", RESOURCES, {"A": "b"}) == spec
    assert "b" not in spec_text(replace(spec, env={"A": "secret"})).split('"A"')[-1][:3]
    assert "secret" not in spec_text(replace(spec, env={"A": "secret"}))
