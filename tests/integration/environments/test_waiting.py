"""Answers that are held back until an environment is made."""

from __future__ import annotations

import asyncio

from tests.integration.environments.conftest import CREATION, Site

ENVIRONMENTS = "/api/v1/environments"


async def test_a_creation_can_wait_until_the_environment_runs(site: Site) -> None:
    made = await site.admin.call("POST", ENVIRONMENTS, CREATION | {"wait": 10})
    assert (made.status, made.body["status"]) == (201, "running")
    assert made.body["started_at"]


async def test_a_creation_that_waits_tells_of_a_failure(site: Site) -> None:
    site.driver.faults["create"].append(RuntimeError("the disk is gone"))
    made = await site.admin.call("POST", ENVIRONMENTS, CREATION | {"wait": 10})
    assert (made.status, made.body["status"]) == (201, "failed")


async def test_a_creation_waits_no_longer_than_it_was_told_to(site: Site) -> None:
    site.driver.gates["create"] = asyncio.Event()
    made = await site.admin.call("POST", ENVIRONMENTS, CREATION | {"wait": 1})
    assert (made.status, made.body["status"]) == (201, "pending")


async def test_whoever_looks_can_wait_and_is_answered_as_soon_as_it_runs(site: Site) -> None:
    gate = site.driver.gates["create"] = asyncio.Event()
    environment_id = await site.create()
    path = f"{ENVIRONMENTS}/{environment_id}?wait=10"
    looking = asyncio.create_task(site.admin.call("GET", path))
    done, _ = await asyncio.wait({looking}, timeout=0.2)
    assert not done
    gate.set()
    seen = await looking
    assert (seen.status, seen.body["status"]) == (200, "running")


async def test_one_that_is_deleted_while_it_is_waited_for_is_no_longer_there(site: Site) -> None:
    site.driver.gates["create"] = asyncio.Event()
    environment_id = await site.create()
    path = f"{ENVIRONMENTS}/{environment_id}"
    looking = asyncio.create_task(site.admin.call("GET", f"{path}?wait=10"))
    await asyncio.wait({looking}, timeout=0.1)
    assert (await site.admin.call("DELETE", path)).status == 204
    seen = await looking
    assert seen.status == 404 or seen.body["status"] == "terminating"


async def test_a_wait_that_is_too_long_is_refused_with_its_limit(site: Site) -> None:
    environment_id = await site.running()
    for answer in (
        await site.admin.call("POST", ENVIRONMENTS, CREATION | {"wait": 31}),
        await site.admin.call("GET", f"{ENVIRONMENTS}/{environment_id}?wait=31"),
        await site.admin.call("GET", f"{ENVIRONMENTS}/{environment_id}?wait=-1"),
    ):
        assert answer.status == 400
        assert "wait" in answer.body["message"]
        assert "30" in answer.body["message"]
