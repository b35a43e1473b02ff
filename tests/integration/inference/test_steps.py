"""Steps over REST, as their document has them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.integration.inference.conftest import Site

AGENT = {"agent_id": "session_abc123"}


async def test_an_agent_is_reset_and_steps(site: Site) -> None:
    reset = await site.client.call("POST", "/reset", AGENT)
    assert (reset.status, reset.body) == (
        200,
        {
            "message": "Agent state reset",
            "agent_id": "session_abc123",
            "state": {"hidden": "initialized", "memory": "initialized"},
            "policy": "adding@1",
        },
    )
    body = {"observation": [0.5, 1, 2.0], "deterministic": True, **AGENT}
    first = await site.client.call("POST", "/step", body)
    assert first.status == 200
    assert list(first.body) == ["action", "value", "log_prob", "agent_id", "pressure"]
    assert (first.body["action"], first.body["value"]) == (2, 3.5)
    weights = [math.exp(each) for each in (0.5, 1, 2)]
    assert first.body["log_prob"] == pytest.approx(math.log(weights[2] / sum(weights)))
    assert (first.body["agent_id"], first.body["pressure"]) == ("session_abc123", 3.5)
    second = await site.client.call("POST", "/step", body)
    assert second.body["value"] == 3.5 + 1.75
    await site.client.call("POST", "/reset", AGENT)
    again = await site.client.call("POST", "/step", body)
    assert again.body == first.body


async def test_the_default_agent_is_there_from_the_start(site: Site) -> None:
    step = await site.client.call("POST", "/step", {"observation": [1, 2, 3]})
    assert (step.status, step.body["agent_id"]) == (200, "default")
    nothing: list[Any] = [{}, None]
    for body in nothing:
        reset = await site.client.call("POST", "/reset", body)
        assert (reset.status, reset.body["agent_id"]) == (200, "default")


async def test_the_default_agent_tells_where_it_begins(site: Site) -> None:
    step = {"observation": [1, 2, 3]}
    batch = {"observations": [[1, 2, 3]], "agent_ids": ["default"]}
    first = await site.client.call("POST", "/step", step)
    assert first.headers["x-agent-begun"] == "default"
    assert "x-agent-begun" not in (await site.client.call("POST", "/step", step)).headers
    await site.client.call("DELETE", "/api/v1/inference/agents/default")
    again = await site.client.call("POST", "/step_batch", batch)
    assert again.headers["x-agent-begun"] == "default"


@pytest.mark.parametrize("seed", [-(2**63), -1, 0, 2**63 - 1])
async def test_any_seed_makes_draws_repeatable(site: Site, seed: int) -> None:
    drawn = []
    for _ in range(2):
        reset = await site.client.call("POST", "/reset", AGENT | {"seed": seed})
        assert reset.status == 200
        steps = [
            await site.client.call("POST", "/step", AGENT | {"observation": [0, 0, 0]})
            for _ in range(12)
        ]
        drawn.append([each.body["action"] for each in steps])
    assert drawn[0] == drawn[1]


async def test_another_agent_needs_a_reset(site: Site) -> None:
    body = {"observation": [1, 2, 3], "agent_id": "unknown_agent"}
    step = await site.client.call("POST", "/step", body)
    assert (step.status, step.body) == (
        400,
        {"detail": "Agent 'unknown_agent' not initialized. Call /reset first."},
    )


async def test_an_observation_of_another_length_is_told(site: Site) -> None:
    step = await site.client.call("POST", "/step", {"observation": [0.1, 0.2]})
    assert (step.status, step.body) == (
        400,
        {"detail": "Expected observation of length 3, got 2"},
    )


async def test_a_batch_steps_each_agent_in_its_order(site: Site) -> None:
    for name in ("agent_1", "agent_2"):
        await site.client.call("POST", "/reset", {"agent_id": name})
    body = {
        "observations": [[1, 0, 0], [0, 2, 0], [0, 0, 3]],
        "agent_ids": ["agent_1", "agent_2", "agent_1"],
        "deterministic": True,
    }
    made = await site.client.call("POST", "/step_batch", body)
    assert made.status == 200
    assert made.body["agent_ids"] == ["agent_1", "agent_2", "agent_1"]
    assert made.body["values"] == [1.0, 2.0, 3.5]
    assert made.body["actions"] == [0, 1, 2]
    assert len(made.body["log_probs"]) == 3


async def test_rows_without_agents_begin_from_a_fresh_state(site: Site) -> None:
    body = {"observations": [[1, 0, 0], [0, 2, 0]], "deterministic": True}
    for _ in range(2):
        made = await site.client.call("POST", "/step_batch", body)
        assert (made.status, made.body["values"]) == (200, [1.0, 2.0])
    bodies: list[dict[str, list[float]]] = [{}, {"observations": []}]
    for nothing in bodies:
        refused = await site.client.call("POST", "/step_batch", nothing)
        assert (refused.status, refused.body["detail"]) == (422, "Missing 'observations' field")


async def test_what_a_policy_does_is_counted(site: Site) -> None:
    for _ in range(3):
        await site.client.call("POST", "/step", {"observation": [0.1, 0.2, 0.1]})
    told = (await site.live.api.call("GET", "/metrics")).body
    labels = '{policy="adding",version="1"}'
    assert f"policy_steps_total{labels} 3.0" in told
    assert f"policy_agents{labels} 1.0" in told
    assert f"policy_run_seconds_count{labels} 3.0" in told
    assert 'policy_pressure_bucket{le="0.4",policy="adding",version="1"} 1.0' in told
    assert 'request_count_total{endpoint="/step",status="success"} 3.0' in told


async def test_every_step_tells_how_many_more_are_let_in(site: Site) -> None:
    left = []
    for path, body in (
        ("/reset", {}),
        ("/step", {"observation": [1, 0, 0]}),
        ("/step_batch", {"observations": [[1, 0, 0]]}),
    ):
        answer = await site.client.call("POST", path, body)
        assert (answer.status, answer.headers["X-RateLimit-Limit"]) == (200, "600000")
        assert int(answer.headers["X-RateLimit-Reset"]) > 1_700_000_000
        left.append(answer.headers["X-RateLimit-Remaining"])
    assert left == ["599999", "599998", "599997"]
