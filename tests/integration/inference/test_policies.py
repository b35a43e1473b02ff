"""Versions of policies: listed, loaded, replaced while agents step, and refused."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.integration.inference.conftest import Site, open_site, open_site_by
from tests.live import TurnedClock
from tests.unit.inference.models import adding

STEP = {"observation": [1, 0, 0], "deterministic": True}


async def policy(site: Site, name: str = "adding") -> Any:
    answer = await site.client.call("GET", f"/api/v1/policies/{name}")
    assert answer.status == 200, answer
    return answer.body


async def test_policies_are_listed_with_what_they_take_and_give(site: Site) -> None:
    listed = await site.client.call("GET", "/api/v1/policies")
    names = [each["name"] for each in listed.body["policies"]]
    assert {"adding", "steering"} <= set(names)
    told = await policy(site)
    assert (told["latest"], told["is_default"]) == (1, True)
    (version,) = told["versions"]
    assert version["is_loaded"]
    assert version["fault"] == ""
    assert (version["obs_dim"], version["action_type"], version["action_size"]) == (
        3,
        "discrete",
        3,
    )
    assert version["state"] == [{"name": "total", "shape": [3]}]
    assert version["memory"] == {"name": "memory", "shape": [4, 2]}
    missing = await site.client.call("GET", "/api/v1/policies/none")
    assert (missing.status, missing.body["error"]["reason"]) == (404, "POLICY_NOT_FOUND")


async def test_what_is_not_loaded_is_listed_with_what_its_manifest_says(tmp_path: Path) -> None:
    adding(tmp_path / "policies" / "adding" / "1")
    place = adding(tmp_path / "policies" / "adding" / "2")
    (place / "policy.yaml").write_text("description: broken")
    async with open_site(tmp_path, load="demand") as site:
        broken, whole = (await policy(site))["versions"]
        assert (whole["is_loaded"], whole["loaded_at"], whole["agent_count"]) == (False, None, 0)
        assert (whole["obs_dim"], whole["action_type"], whole["action_size"]) == (3, "discrete", 3)
        assert whole["state"] == [{"name": "total", "shape": [3]}]
        assert whole["memory"] == {"name": "memory", "shape": [4, 2]}
        assert (broken["obs_dim"], broken["description"]) == (0, "")


async def test_a_continuous_action_is_a_list(site: Site) -> None:
    reset = {"agent_id": "wheel", "policy": "steering"}
    assert (await site.client.call("POST", "/reset", reset)).status == 200
    body = {"observation": [0.25, -0.5], "agent_id": "wheel", "deterministic": True}
    step = await site.client.call("POST", "/step", body)
    assert (step.status, step.body["action"]) == (200, [0.25, -0.5])
    assert step.body["log_prob"] == pytest.approx(-1.837877)


async def test_a_newer_version_disturbs_nobody_who_is_at_it(site: Site) -> None:
    for name in ("old", "new"):
        await site.client.call("POST", "/reset", {"agent_id": name})
        await site.client.call("POST", "/step", STEP | {"agent_id": name})
    adding(site.folder / "adding" / "2", gain=2.0, description="Adds up, twice.")
    loaded = await site.live.admin.call("POST", "/api/v1/policies/adding/load")
    assert (loaded.status, loaded.body["latest"]) == (200, 2)
    await site.client.call("POST", "/reset", {"agent_id": "new"})
    old = await site.client.call("POST", "/step", STEP | {"agent_id": "old"})
    new = await site.client.call("POST", "/step", STEP | {"agent_id": "new"})
    assert (old.body["value"], new.body["value"]) == (1.5, 1.0)
    assert [
        (each["version"], each["agent_count"]) for each in (await policy(site))["versions"]
    ] == [(2, 1), (1, 1)]
    pinned = await site.client.call("POST", "/reset", {"agent_id": "new", "policy": "adding@1"})
    assert pinned.body["policy"] == "adding@1"


async def test_a_version_that_comes_into_the_folder_is_loaded_by_itself(tmp_path: Path) -> None:
    async with open_site(tmp_path, reload_interval_s=0.05) as site:
        adding(site.folder / "adding" / "2")
        for _ in range(200):
            if (await policy(site))["latest"] == 2:
                break
        else:
            pytest.fail("the new version is not seen")


async def test_what_cannot_be_served_is_told_and_takes_nothing_from_anybody(site: Site) -> None:
    place = adding(site.folder / "adding" / "2")
    with (place / "model.onnx").open("ab") as file:
        file.write(b"more")
    refused = await site.live.admin.call("POST", "/api/v1/policies/adding/load")
    assert (refused.status, refused.body["error"]["reason"]) == (409, "POLICY_UNUSABLE")
    assert "digest" in refused.body["error"]["message"]
    told = await policy(site)
    assert told["latest"] == 1
    assert "digest" in told["versions"][0]["fault"]
    assert (await site.client.call("POST", "/step", STEP)).status == 200


@pytest.mark.parametrize("load", ["start", "demand"])
async def test_a_server_that_starts_with_a_broken_version_serves_the_one_before(
    tmp_path: Path, load: str
) -> None:
    async with open_site(tmp_path) as site:
        broken = adding(site.folder / "adding" / "2")
        (broken / "policy.yaml").write_text("description: broken")
    async with open_site(tmp_path, load=load) as site:
        step = await site.client.call("POST", "/step", STEP)
        assert (step.status, step.body) == (200, step.body | {"value": 1.0})
        told = await policy(site)
        assert told["latest"] == 1
        assert "obs_dim is missing" in told["versions"][0]["fault"]


async def test_a_version_that_was_broken_is_served_once_its_files_are_right(tmp_path: Path) -> None:
    async with open_site(tmp_path, reload_interval_s=0.02) as site:
        made = adding(tmp_path / "made")
        place = site.folder / "adding" / "2"
        place.mkdir()
        whole = (made / "model.onnx").read_bytes()
        (place / "model.onnx").write_bytes(whole[:100])
        shutil.copy(made / "policy.yaml", place)
        async with asyncio.timeout(30):
            while not (await policy(site))["versions"][0]["fault"]:
                await asyncio.sleep(0.01)
            assert (await policy(site))["latest"] == 1
            (place / "model.onnx").write_bytes(whole)
            while (await policy(site))["latest"] != 2:
                await asyncio.sleep(0.01)


async def test_a_policy_in_use_is_let_go_of_only_by_force(site: Site) -> None:
    await site.client.call("POST", "/reset", {"agent_id": "arm"})
    path = "/api/v1/policies/adding/unload"
    refused = await site.live.admin.call("POST", path, {})
    assert (refused.status, refused.body["error"]["reason"]) == (409, "POLICY_IN_USE")
    done = await site.live.admin.call("POST", path, {"force": True})
    assert (done.status, done.body["versions"][0]["is_loaded"]) == (200, False)
    ended = await site.client.call("POST", "/step", STEP | {"agent_id": "arm"})
    assert (ended.status, "not initialized" in ended.body["detail"]) == (400, True)
    assert (await site.client.call("POST", "/reset", {"agent_id": "arm"})).status == 200


async def test_only_administrators_load_and_unload(site: Site) -> None:
    for verb in ("load", "unload"):
        refused = await site.client.call("POST", f"/api/v1/policies/adding/{verb}")
        assert refused.status == 403


async def test_a_server_without_its_default_policy_is_not_ready(tmp_path: Path) -> None:
    async with open_site(tmp_path) as site:
        shutil.rmtree(site.folder / "adding")
    async with open_site(tmp_path) as site:
        step = await site.client.call("POST", "/step", STEP)
        assert step.status == 400
        assert "no policy 'adding'" in step.body["detail"]


@pytest.mark.parametrize("name", ["../secret", "A", "adding@x", "adding@-1", "a b"])
async def test_a_name_that_is_none_is_told(site: Site, name: str) -> None:
    reset = await site.client.call("POST", "/reset", {"agent_id": "arm", "policy": name})
    assert (reset.status, "names no policy" in reset.body["detail"]) == (422, True)


async def test_room_for_agents_ends_and_comes_back(tmp_path: Path) -> None:
    async with open_site(tmp_path, max_agents=2) as site:
        for name in ("one", "two"):
            assert (await site.client.call("POST", "/reset", {"agent_id": name})).status == 200
        full = await site.client.call("POST", "/reset", {"agent_id": "three"})
        assert (full.status, "all there is room for" in full.body["detail"]) == (429, True)
        await site.client.call("DELETE", "/api/v1/inference/agents/one")
        assert (await site.client.call("POST", "/reset", {"agent_id": "three"})).status == 200


async def test_the_idlest_agent_makes_room_where_that_is_wanted(tmp_path: Path) -> None:
    async with open_site(tmp_path, max_agents=2, when_full="evict") as site:
        for name in ("one", "two", "three"):
            assert (await site.client.call("POST", "/reset", {"agent_id": name})).status == 200
            await site.client.call("POST", "/step", STEP | {"agent_id": name})
        gone = await site.client.call("POST", "/step", STEP | {"agent_id": "one"})
        kept = await site.client.call("POST", "/step", STEP | {"agent_id": "two"})
        assert (gone.status, kept.status) == (400, 200)


async def test_an_agent_that_was_idle_too_long_is_refused_by_name(tmp_path: Path) -> None:
    clock = TurnedClock()
    async with open_site_by(clock, tmp_path, idle_s=60, reload_interval_s=0.02) as site:
        for name in ("idle", "busy"):
            await site.client.call("POST", "/reset", {"agent_id": name})
        clock.advance(40)
        await site.client.call("POST", "/step", STEP | {"agent_id": "busy"})
        clock.advance(40)
        async with asyncio.timeout(30):
            while (await policy(site))["versions"][0]["agent_count"] > 1:
                await asyncio.sleep(0.01)
        idle = await site.client.call("POST", "/step", STEP | {"agent_id": "idle"})
        busy = await site.client.call("POST", "/step", STEP | {"agent_id": "busy"})
        assert "Agent 'idle' not initialized" in idle.body["detail"]
        assert (busy.status, busy.body["value"]) == (200, 1.5)


async def test_the_agents_of_others_are_others(site: Site) -> None:
    await site.client.call("POST", "/reset", {"agent_id": "arm"})
    await site.client.call("POST", "/step", STEP | {"agent_id": "arm"})
    theirs = await site.live.admin.call("POST", "/step", STEP | {"agent_id": "arm"})
    assert theirs.status == 400
    await site.live.admin.call("POST", "/reset", {"agent_id": "arm"})
    theirs = await site.live.admin.call("POST", "/step", STEP | {"agent_id": "arm"})
    mine = await site.client.call("POST", "/step", STEP | {"agent_id": "arm"})
    assert (theirs.body["value"], mine.body["value"]) == (1.0, 1.5)


async def test_administrators_are_told_what_becomes_of_policies(site: Site) -> None:
    admin = site.live.admin
    types = "&".join(f"type=Policy{each}" for each in ("Loaded", "Unloaded", "Failed"))
    url = f"{admin.base_url}/ws?{types}"
    async with admin.session.ws_connect(url, headers=admin.headers) as socket:
        await site.client.call("POST", "/reset", {"agent_id": "wheel", "policy": "steering"})
        await admin.call("POST", "/api/v1/policies/steering/unload", {"force": True})
        folder = adding(site.folder / "adding" / "2")
        await admin.call("POST", "/api/v1/policies/adding/load")
        (folder.parent / "3").mkdir()
        shutil.copy(folder / "policy.yaml", folder.parent / "3")
        await admin.call("POST", "/api/v1/policies/adding/load")
        told = [await socket.receive_json(timeout=10) for _ in range(4)]
        with pytest.raises(TimeoutError):
            await socket.receive_json(timeout=0.1)
    seen = [(each["type"], each["data"]["policy"], each["agent_id"]) for each in told]
    assert seen == [
        ("PolicyUnloaded", "steering@1", ""),
        ("PolicyLoaded", "adding@2", ""),
        ("PolicyUnloaded", "adding@1", ""),
        ("PolicyFailed", "adding@3", ""),
    ]
    assert told[0]["data"]["agents_ended"] == 1
    assert len(told[1]["data"]["model_sha256"]) == 64
    assert "model.onnx cannot be read" in told[3]["data"]["reason"]


async def test_what_was_unloaded_is_not_loaded_again_before_somebody_asks_for_it(
    tmp_path: Path,
) -> None:
    async def is_loaded() -> bool:
        return bool((await policy(site, "steering"))["versions"][0].get("is_loaded"))

    async def are_loaded() -> list[bool]:
        return [each.get("is_loaded", False) for each in (await policy(site))["versions"]]

    async with open_site(tmp_path, reload_interval_s=0.02) as site:
        assert await is_loaded()
        await site.live.admin.call("POST", "/api/v1/policies/steering/unload")
        await asyncio.sleep(0.1)
        assert not await is_loaded()
        adding(site.folder / "adding" / "2")
        async with asyncio.timeout(10):
            while await are_loaded() != [True, False]:
                await asyncio.sleep(0.01)
        await site.live.admin.call("POST", "/api/v1/policies/adding@2/unload")
        await asyncio.sleep(0.1)
        assert await are_loaded() == [False, False]
        await site.client.call("POST", "/reset", {"policy": "steering"})
        assert await is_loaded()


async def test_a_default_policy_that_cannot_be_served_shows_in_the_servers_health(
    tmp_path: Path,
) -> None:
    folder = adding(tmp_path / "policies" / "adding" / "1")
    (folder / "model.onnx").write_bytes(b"nothing")
    async with open_site(tmp_path) as site:
        health = await site.live.api.call("GET", "/health")
        assert health.body["status"] == "degraded"
        (notice,) = health.body["notices"]
        assert notice.startswith("the default policy 'adding@1' cannot be served: model.onnx has")
        adding(folder)
        await site.live.admin.call("POST", "/api/v1/policies/adding/load")
        assert (await site.live.api.call("GET", "/health")).body["status"] == "healthy"
