"""Which agents step: listed for whoever they belong to, and for administrators."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.inference.conftest import Site
from tests.live import ADMIN_PASSWORD, Api
from tests.people import add_person

OBSERVATION = {"observation": [1, 0, 0], "deterministic": True}


async def listed(api: Api, query: str = "") -> Any:
    answer = await api.call("GET", f"/api/v1/inference/agents{query}")
    assert answer.status == 200, answer
    return answer.body


async def test_an_agent_is_listed_with_what_it_has_done(site: Site) -> None:
    await site.client.call("POST", "/reset", {"agent_id": "arm"})
    fresh = await listed(site.client)
    assert fresh == {
        "agents": [
            {
                "agent_id": "arm",
                "owner": fresh["agents"][0]["owner"],
                "policy": "adding@1",
                "step_count": 0,
                "pressure": 0.0,
                "last_step_at": None,
            }
        ],
        "total": 1,
    }
    for _ in range(2):
        step = await site.client.call("POST", "/step", {**OBSERVATION, "agent_id": "arm"})
    (arm,) = (await listed(site.client))["agents"]
    assert (arm["step_count"], arm["pressure"]) == (2, step.body["pressure"])
    assert arm["last_step_at"] is not None
    await site.client.call("POST", "/reset", {"agent_id": "arm"})
    (anew,) = (await listed(site.client))["agents"]
    assert (anew["step_count"], anew["pressure"]) == (0, 0.0)


async def test_each_agent_of_a_batch_is_counted_and_rows_of_nobody_are_not(site: Site) -> None:
    for name in ("a", "b"):
        await site.client.call("POST", "/reset", {"agent_id": name})
    rows = [[1, 0, 0], [3, 0, 0]]
    together = {"observations": rows, "agent_ids": ["a", "b"]}
    assert (await site.client.call("POST", "/step_batch", together)).status == 200
    assert (await site.client.call("POST", "/step_batch", {"observations": rows})).status == 200
    found = (await listed(site.client, "?order_by=pressure"))["agents"]
    assert [(each["agent_id"], each["step_count"]) for each in found] == [("b", 1), ("a", 1)]
    assert found[0]["pressure"] > found[1]["pressure"]


async def test_a_policy_without_pressure_has_none_and_policies_choose(site: Site) -> None:
    await site.client.call("POST", "/reset", {"agent_id": "arm"})
    await site.client.call("POST", "/reset", {"agent_id": "wheel", "policy": "steering"})
    (wheel,) = (await listed(site.client, "?policy=steering@1"))["agents"]
    assert (wheel["agent_id"], wheel["pressure"]) == ("wheel", None)
    assert (await listed(site.client, "?policy=adding"))["total"] == 1
    assert (await listed(site.client, "?limit=1"))["total"] == 2
    assert len((await listed(site.client, "?limit=1"))["agents"]) == 1


async def test_people_see_their_own_and_administrators_everybodys(site: Site) -> None:
    await site.client.call("POST", "/reset", {"agent_id": "of a client"})
    add_person(site.folder.parent, "ada", "user")
    login = {"username": "ada", "password": ADMIN_PASSWORD}
    signed_in = await site.live.api.call("POST", "/api/auth/login", login)
    ada = site.live.api.acting_as(authorization=f"Bearer {signed_in.body['access_token']}")
    await ada.call("POST", "/reset", {"agent_id": "of ada"})
    assert [each["agent_id"] for each in (await listed(ada))["agents"]] == ["of ada"]
    everybody = await listed(site.live.admin)
    assert {each["agent_id"] for each in everybody["agents"]} == {"of a client", "of ada"}


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("?limit=1001", 400, "is 1001; it must be from 0 to 1000"),
        ("?policy=a@b", 400, "names no policy"),
        ("?policy=none", 404, "no policy 'none'; there are adding, cartpole"),
        ("?order_by=age", 400, "order_by"),
    ],
)
async def test_what_cannot_be_listed_is_refused(
    site: Site, query: str, status: int, text: str
) -> None:
    answer = await site.client.call("GET", f"/api/v1/inference/agents{query}")
    assert answer.status == status, answer
    assert text in answer.body["error"]["message"]
