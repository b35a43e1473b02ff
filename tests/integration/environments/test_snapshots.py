"""Snapshots: what is kept of an environment, who may use it, and what becomes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from steward_server.environments.driver import Feature, Unusable
from tests.child_driver import ChildDriver
from tests.integration.environments.conftest import CREATION, Site, Sites, until
from tests.integration.environments.test_agents import agent_of
from tests.integration.environments.test_logs import LOGS, Events, follow
from tests.live import Api

PATH = "/api/v1/snapshots"
ENVIRONMENTS = "/api/v1/environments"


@pytest.fixture
def sites(sites: Sites) -> Sites:
    sites.has_images = True
    return sites


@pytest.fixture
async def site(sites: Sites) -> AsyncIterator[Site]:
    async with sites.open() as opened:
        yield opened


async def write(site: Site, environment_id: str, text: str, api: Api | None = None) -> None:
    command = ["sh", "-c", f"echo {text} > note"]
    assert (await site.run(environment_id, *command, api=api or site.admin))["exit_code"] == 0


async def read(site: Site, environment_id: str, api: Api | None = None) -> str:
    shown = await site.run(environment_id, "sh", "-c", "cat note || true", api=api or site.admin)
    return str(shown["stdout"])


async def keep(site: Site, environment_id: str, api: Api | None = None, **fields: Any) -> Any:
    """A snapshot that was just made."""
    path = f"{ENVIRONMENTS}/{environment_id}/snapshots"
    answer = await (api or site.admin).call("POST", path, {"name": "mine"} | fields)
    assert answer.status == 201, answer
    return answer.body


async def restore(site: Site, environment_id: str, snapshot_id: str, api: Api | None = None) -> Any:
    path = f"{ENVIRONMENTS}/{environment_id}/restore"
    return await (api or site.admin).call("POST", path, {"snapshot": snapshot_id})


async def test_an_environment_begins_with_the_files_of_a_snapshot(site: Site) -> None:
    source = await site.running(env={"SECRET": "of-the-source"})
    await write(site, source, "kept")

    made = await keep(site, source)

    await write(site, source, "later")
    again = await site.running(image=made["image"])
    assert await read(site, again) == "kept\n"
    assert made == {
        "id": made["id"],
        "name": "mine",
        "image": f"snapshot/{made['id']}",
        "environment_id": source,
        "base_image": CREATION["image"],
        "size_bytes": 5,
        "created_at": made["created_at"],
        "owner_id": made["owner_id"],
    }
    assert (await site.get(again)).body["env"] == {}
    listed = (await site.admin.call("GET", PATH)).body
    assert (listed["snapshots"], listed["total"]) == ([made], 1)
    assert (await site.admin.call("GET", f"{PATH}/{made['id']}")).body == made
    assert "environment.snapshot_made" in [each["action"] for each in site.audit(source)]


async def test_a_snapshot_outlives_its_environment_and_the_server(sites: Sites) -> None:
    async with sites.open() as site:
        source = await site.running()
        await write(site, source, "kept")
        made = await keep(site, source)
        await site.admin.call("DELETE", f"{ENVIRONMENTS}/{source}?force=true")
    async with sites.open() as site:
        again = await site.running(image=made["image"])
        assert await read(site, again) == "kept\n"


async def test_an_environment_is_put_back_to_a_snapshot(site: Site) -> None:
    name = await site.running(env={"KEPT": "yes"}, labels={"a": "b"})
    await write(site, name, "before")
    made = await keep(site, name)
    await write(site, name, "after")
    before = (await site.get(name)).body

    answer = await restore(site, name, made["id"])

    assert (answer.status, answer.body["status"]) == (200, "pending")
    back = await site.becomes(name, "running")
    assert await read(site, name) == "before\n"
    assert (await site.run(name, "sh", "-c", "echo $KEPT"))["stdout"] == "yes\n"
    changed = {"status", "image", "started_at", "metrics"}
    assert {key for key in before if before[key] != back.get(key)} <= changed
    assert back["image"] == made["image"]
    assert "environment.restored" in await site.journal(name)
    # Once more: the machine it has now is watched as the first one was.
    assert (await restore(site, name, made["id"])).status == 200
    await site.becomes(name, "running")
    assert (await site.admin.call("DELETE", f"{ENVIRONMENTS}/{name}?force=true")).status == 204


async def test_a_restore_that_a_server_did_not_finish_is_finished_by_the_next(
    sites: Sites,
) -> None:
    async with sites.open() as site:
        name = await site.running()
        await write(site, name, "before")
        made = await keep(site, name)
        await write(site, name, "after")
        site.driver.gates["create"] = asyncio.Event()
        assert (await restore(site, name, made["id"])).body["status"] == "pending"
    async with sites.open() as site:
        await site.becomes(name, "running")
        assert await read(site, name) == "before\n"


async def test_a_restore_that_fails_says_why(site: Site) -> None:
    name = await site.running()
    made = await keep(site, name)
    site.driver.faults["create"].append(Unusable("DISK_FULL", "the disk is full"))

    assert (await restore(site, name, made["id"])).status == 200

    assert (await site.becomes(name, "failed"))["reason"] == "the disk is full"
    refused = await restore(site, name, made["id"])
    assert (refused.status, "is failed" in refused.body["message"]) == (409, True)


async def test_others_know_nothing_of_a_snapshot(site: Site) -> None:
    owner, other = await site.person("owner"), await site.person("other")
    source, theirs = await site.running(owner), await site.running(other)
    made = await keep(site, source, owner)
    path = f"{PATH}/{made['id']}"

    assert (await other.call("GET", PATH)).body["snapshots"] == []
    for method in ("GET", "DELETE"):
        assert (await other.call(method, path)).status == 404
    assert (await restore(site, theirs, made["id"], other)).status == 404
    for image in (made["image"], f"docker.io/{made['image']}", f"localhost/{made['image']}:latest"):
        answer = await other.call("POST", ENVIRONMENTS, CREATION | {"image": image})
        assert (answer.status, "no snapshot" in answer.body["message"]) == (400, True)
    assert (await site.admin.call("GET", PATH)).body["total"] == 1
    assert (await owner.call("DELETE", path)).status == 204


async def test_a_snapshot_is_none_of_the_images_that_all_see(site: Site) -> None:
    made = await keep(site, await site.running())
    listed = (await site.admin.call("GET", "/api/v1/images")).body["images"]
    assert [each["name"] for each in listed] == ["python:3.11"]
    for method in ("GET", "DELETE"):
        answer = await site.admin.call(method, f"/api/v1/images/{made['image']}")
        assert (answer.status, PATH in answer.body["message"]) == (404, True)


async def test_who_may_write_keeps_a_copy_of_their_own(site: Site) -> None:
    owner, guest = await site.person("owner"), await site.person("guest")
    name = await site.running(owner)
    share = f"{ENVIRONMENTS}/{name}/shares/guest"
    path = f"{ENVIRONMENTS}/{name}/snapshots"
    await owner.call("PUT", share, {"permission": "read"})
    assert (await guest.call("POST", path, {"name": "mine"})).status == 403
    await owner.call("PUT", share, {"permission": "write"})

    made = await keep(site, name, guest)

    me = (await guest.call("GET", "/api/v1/auth/me")).body
    assert made["owner_id"] == me["id"]
    assert (await owner.call("GET", PATH)).body["total"] == 0
    # To throw away what somebody else has written takes more.
    assert (await restore(site, name, made["id"], guest)).status == 403


async def test_a_key_reaches_the_snapshots_of_its_environments_only(site: Site) -> None:
    owner = await site.person("owner")
    one, other = await site.running(owner), await site.running(owner)
    mine, theirs = await keep(site, one, owner), await keep(site, other, owner)
    key = await site.key(
        owner, permissions=[{"environment_id": one, "permission": "write"}], role="user"
    )

    listed = (await key.call("GET", PATH)).body["snapshots"]

    assert [each["id"] for each in listed] == [mine["id"]]
    assert (await key.call("GET", f"{PATH}/{theirs['id']}")).status == 404
    assert (await key.call("DELETE", f"{PATH}/{mine['id']}")).status == 403


async def test_what_an_agent_keeps_is_its_owners_and_the_agents(site: Site) -> None:
    owner = await site.person("owner")
    agent, runtime = await agent_of(site, owner)
    _, sibling = await agent_of(site, owner)
    persons = await keep(site, await site.running(owner), owner)

    made = await keep(site, await site.running(runtime), runtime)

    me = (await owner.call("GET", "/api/v1/auth/me")).body
    assert (made["owner_id"], made["agent_id"]) == (me["id"], agent.agent_id)
    listed = (await runtime.call("GET", PATH)).body["snapshots"]
    assert [each["id"] for each in listed] == [made["id"]]
    for caller, foreign in ((runtime, persons), (sibling, made), (sibling, persons)):
        assert (await caller.call("GET", f"{PATH}/{foreign['id']}")).status == 404
    assert (await runtime.call("DELETE", f"{PATH}/{made['id']}")).status == 204


async def test_a_snapshot_that_something_stands_on_stays(site: Site) -> None:
    made = await keep(site, await site.running())
    user = await site.running(image=made["image"])

    refused = await site.admin.call("DELETE", f"{PATH}/{made['id']}")

    assert (refused.status, user in refused.body["message"]) == (409, True)
    await site.admin.call("DELETE", f"{ENVIRONMENTS}/{user}?force=true")
    assert (await site.admin.call("DELETE", f"{PATH}/{made['id']}")).status == 204
    assert (await site.admin.call("DELETE", f"{PATH}/{made['id']}")).status == 404
    assert site.driver.host.snapshots == {}
    assert "snapshot.deleted" in [each["action"] for each in site.audit(made["id"])]


async def test_a_snapshot_that_the_driver_still_uses_is_there_as_before(site: Site) -> None:
    made = await keep(site, await site.running())

    async def in_use(name: str) -> None:
        raise Unusable("IMAGE_IN_USE", f"{name} is in use")

    site.driver.images.remove = in_use  # type: ignore[method-assign]
    assert (await site.admin.call("DELETE", f"{PATH}/{made['id']}")).status == 409
    assert (await site.admin.call("GET", f"{PATH}/{made['id']}")).body == made


async def test_as_many_are_kept_as_the_quota_allows(sites: Sites) -> None:
    async with sites.open(max_snapshots_per_user=2) as site:
        owner, other = await site.person("owner"), await site.person("other")
        name = await site.running(owner)
        kept = [await keep(site, name, owner) for _ in range(2)]
        path = f"{ENVIRONMENTS}/{name}/snapshots"

        refused = await owner.call("POST", path, {"name": "third"})

        assert (refused.status, "2 at most" in refused.body["message"]) == (429, True)
        await keep(site, await site.running(other), other)
        await owner.call("DELETE", f"{PATH}/{kept[0]['id']}")
        await keep(site, name, owner)


async def test_nothing_is_left_of_a_snapshot_that_is_too_large(sites: Sites) -> None:
    async with sites.open(snapshot_storage_per_user="8") as site:
        name = await site.running()
        await write(site, name, "much-too-much")

        refused = await site.admin.call("POST", f"{ENVIRONMENTS}/{name}/snapshots", {"name": "x"})

        assert (refused.status, "storage" in refused.body["message"]) == (429, True)
        assert site.driver.host.snapshots == {}
        assert site.rows("environment_snapshot", "environment_id", name) == []


async def test_what_a_killed_server_left_of_a_snapshot_is_cleared(sites: Sites) -> None:
    async with sites.open() as site:
        name = await site.running()
        made = await keep(site, name)
        # As it stands between the row and the image, and the machine with it.
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(site.folder / "steward.db")) as connection:
            connection.execute("UPDATE environment_snapshot SET size_bytes = NULL")
            connection.commit()
        site.driver.host.machines[name].is_paused = True
    async with sites.open() as site:
        assert (await site.admin.call("GET", f"{PATH}/{made['id']}")).status == 404
        assert site.driver.host.snapshots == {}
        assert site.rows("environment_snapshot", "environment_id", name) == []
        assert (await site.run(name, "echo", "hello"))["stdout"] == "hello\n"


async def test_a_snapshot_whose_caller_leaves_is_given_up(site: Site) -> None:
    name = await site.running()
    site.driver.gates["snapshot"] = asyncio.Event()
    path = f"{ENVIRONMENTS}/{name}/snapshots"
    asking = asyncio.create_task(site.admin.call("POST", path, {"name": "mine"}))
    await until(lambda: ("snapshot", name) in site.driver.calls, "it is begun")

    asking.cancel()

    await until(
        lambda: site.rows("environment_snapshot", "environment_id", name) == [], "it is gone"
    )
    assert (await site.run(name, "echo", "hello"))["stdout"] == "hello\n"


@pytest.mark.parametrize(
    ("body", "word"), [({}, "name"), ({"name": "No"}, "name"), ({"name": "a", "x": 1}, "x")]
)
async def test_a_snapshot_without_a_proper_name_is_refused(
    site: Site, body: dict[str, Any], word: str
) -> None:
    name = await site.running()
    answer = await site.admin.call("POST", f"{ENVIRONMENTS}/{name}/snapshots", body)
    assert (answer.status, word in answer.body["message"]) == (400, True)


async def test_what_does_not_run_is_not_kept(site: Site) -> None:
    over = await site.create(command=["true"])
    await site.becomes(over, "terminated")
    paused = await site.running()
    await site.admin.call("POST", f"{ENVIRONMENTS}/{paused}/pause", {})
    for name, why in ((over, "is terminated"), (paused, "is paused; resume it first")):
        answer = await site.admin.call("POST", f"{ENVIRONMENTS}/{name}/snapshots", {"name": "a"})
        assert (answer.status, why in answer.body["message"]) == (409, True)


async def test_a_driver_that_keeps_nothing_says_so(sites: Sites) -> None:
    driver = ChildDriver(sites.host)
    driver.features -= {Feature.SNAPSHOT}
    async with sites.open(driver) as site:
        name = await site.running()
        path = f"{ENVIRONMENTS}/{name}/snapshots"
        answer = await site.admin.call("POST", path, {"name": "a"})
        assert (answer.status, "does not support snapshot" in answer.body["message"]) == (409, True)


async def test_the_heir_of_a_person_has_their_snapshots(site: Site) -> None:
    owner = await site.person("owner")
    made = await keep(site, await site.running(owner), owner)
    me = (await owner.call("GET", "/api/v1/auth/me")).body

    assert (await site.admin.call("DELETE", f"/api/v1/users/{me['id']}")).status == 204

    kept = (await site.admin.call("GET", f"{PATH}/{made['id']}")).body
    assert kept["owner_id"] not in ("", me["id"])


@pytest.mark.parametrize("how", ["deleted", "expired"])
async def test_a_snapshot_under_way_does_not_hold_up_the_end(site: Site, how: str) -> None:
    name = await site.running(timeout=60)
    site.driver.gates["snapshot"] = asyncio.Event()
    path = f"{ENVIRONMENTS}/{name}/snapshots"
    keeping = asyncio.create_task(site.admin.call("POST", path, {"name": "mine"}))
    await until(lambda: ("snapshot", name) in site.driver.calls, "it is being taken")

    if how == "deleted":
        gone = await site.admin.call("DELETE", f"{ENVIRONMENTS}/{name}?force=true")
        assert gone.status == 204
    else:
        site.clock.advance(61)
        await site.becomes(name, "terminated")

    refused = await keeping
    assert (refused.status, "is ending" in refused.body["message"]) == (409, True)
    assert (await site.admin.call("GET", PATH)).body["total"] == 0
    assert site.rows("environment_snapshot", "environment_id", name) == []


async def test_who_follows_a_log_goes_on_across_a_restore(site: Site) -> None:
    name = await site.running()
    made = await keep(site, name)
    site.driver.host.machines[name].write("stdout", *(f"before {number}" for number in range(5)))
    async with follow(site.admin, name) as answer:
        events = Events(answer)
        before = [await events.next() for _ in range(5)]
        assert [each["id"] for each in before] == ["1", "2", "3", "4", "5"]

        await restore(site, name, made["id"])
        await site.becomes(name, "running")
        site.driver.host.machines[name].write("stdout", "after 1", "after 2")

        after = [await events.next() for _ in range(2)]
    assert [json.loads(each["data"])["message"] for each in after] == ["after 1", "after 2"]
    first, second = (int(each["id"]) for each in after)
    assert second == first + 1 > 6

    async with follow(site.admin, name, Last_Event_ID="5") as answer:
        assert (await Events(answer).next())["id"] == str(first)
    async with follow(site.admin, name, Last_Event_ID=str(first)) as answer:
        assert (await Events(answer).next())["id"] == str(second)
    path = LOGS.format(name)
    for number, messages in ((5, ["after 1", "after 2"]), (first, ["after 2"]), (second, [])):
        page = (await site.admin.call("GET", f"{path}?after={number}")).body
        assert [each["message"] for each in page["logs"]] == messages
        assert page.get("last_sequence", second) == second

    assert (await site.admin.call("DELETE", f"{ENVIRONMENTS}/{name}?force=true")).status == 204


async def test_what_ended_after_a_restore_is_read_by_the_same_numbers(site: Site) -> None:
    name = await site.running(command=["sh", "-c", "echo one; echo two; sleep 0.5"])
    made = await keep(site, name)
    await restore(site, name, made["id"])
    await site.becomes(name, "terminated")
    path = LOGS.format(name)
    page = (await site.admin.call("GET", path)).body
    assert [each["message"] for each in page["logs"]] == ["one", "two"]
    last = page["last_sequence"]
    page = (await site.admin.call("GET", f"{path}?after={last - 1}")).body
    assert [each["message"] for each in page["logs"]] == ["two"]


async def test_a_driver_without_images_hides_no_snapshot_of_another(sites: Sites) -> None:
    async with sites.open() as site:
        made = await keep(site, await site.running())
    sites.has_images = False
    async with sites.open() as site:
        refused = await site.admin.call("DELETE", f"{PATH}/{made['id']}")
        assert (refused.status, "keeps no images" in refused.body["message"]) == (409, True)
        assert (await site.admin.call("GET", f"{PATH}/{made['id']}")).status == 200
    sites.has_images = True
    async with sites.open() as site:
        assert (await site.admin.call("DELETE", f"{PATH}/{made['id']}")).status == 204
