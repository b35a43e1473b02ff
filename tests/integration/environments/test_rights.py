"""Who may do what with an environment: owners, those it is shared with, keys; and quotas."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import grpc
import pytest

from steward.environments.v1 import environments_pb2, files_pb2
from steward_server.db.sqlite import Sqlite
from steward_server.rates import RatesConfig
from tests.child_driver import _marked
from tests.integration.conftest import refusal_of
from tests.integration.environments.conftest import CREATION, Site, Sites, until
from tests.integration.environments.test_attach import attach, last_frame
from tests.live import Api

READ = ("GET ", "GET /logs")
READ_RUNNING = ("GET /processes",)
WRITE = ("POST /exec", "POST /tickets", "GET /files", "POST /pause", "POST /resume")
ADMIN = ("PATCH ", "GET /shares", "PUT /shares/somebody", "DELETE /shares/nobody")
BODIES: dict[str, Any] = {
    "POST /exec": {"command": ["true"]},
    "POST /tickets": {},
    "POST /pause": {},
    "POST /resume": {},
    "PATCH ": {"timeout": 7200},
    "PUT /shares/somebody": {"permission": "read"},
}


async def allowed(api: Api, environment_id: str) -> set[str]:
    """What somebody may do, by trying all of it but the deletion."""
    found = set()
    for name in (*READ, *READ_RUNNING, *WRITE, *ADMIN):
        verb, _, rest = name.partition(" ")
        path = f"/api/v1/environments/{environment_id}{rest}"
        answer = await api.call(verb, path, BODIES.get(name))
        if answer.status == 404 and name == "DELETE /shares/nobody":
            if "environment" not in answer.body["message"]:
                found.add(name)
        elif answer.status == 404 and name == "GET ":
            continue
        elif answer.status not in (403, 404):
            assert answer.status < 300, (name, answer)
            found.add(name)
    return found


ALL_READ = {*READ, *READ_RUNNING}
ALL_WRITE = ALL_READ | {*WRITE}
EVERYTHING = ALL_WRITE | {*ADMIN}


async def test_what_it_is_shared_for_is_what_may_be_done(site: Site) -> None:
    await site.person("somebody")
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner)
    share = f"/api/v1/environments/{environment_id}/shares/friend"

    assert await allowed(owner, environment_id) == EVERYTHING
    assert await allowed(site.admin, environment_id) == EVERYTHING
    assert await allowed(friend, environment_id) == set()
    for permission, what in (("read", ALL_READ), ("write", ALL_WRITE), ("admin", EVERYTHING)):
        shared = await owner.call("PUT", share, {"permission": permission})
        assert shared.status == 200
        assert (shared.body["username"], shared.body["permission"]) == ("friend", permission)
        assert await allowed(friend, environment_id) == what
    assert (await owner.call("DELETE", share)).status == 204
    assert await allowed(friend, environment_id) == set()
    assert (await owner.call("DELETE", share)).status == 404
    assert (await site.get(environment_id, friend)).status == 404


async def test_deletion_needs_admin(site: Site) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner)
    path = f"/api/v1/environments/{environment_id}"
    assert (await friend.call("DELETE", path)).status == 404
    await owner.call("PUT", f"{path}/shares/friend", {"permission": "write"})
    refused = await friend.call("DELETE", path)
    assert refused.status == 403
    assert "needs the permission admin" in refused.body["message"]
    await owner.call("PUT", f"{path}/shares/friend", {"permission": "admin"})
    assert (await friend.call("DELETE", path)).status == 204


async def test_lists_show_what_may_be_read(site: Site) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    mine, shared = await site.running(owner), await site.running(owner)
    await owner.call("PUT", f"/api/v1/environments/{shared}/shares/friend", {"permission": "read"})

    async def seen(api: Api) -> set[str]:
        answer = await api.call("GET", "/api/v1/environments")
        assert answer.body["total"] == len(answer.body["environments"])
        return {each["id"] for each in answer.body["environments"]}

    assert await seen(owner) == {mine, shared}
    assert await seen(friend) == {shared}
    limits = [{"environment_id": mine, "permission": "read"}]
    assert await seen(await site.key(owner, permissions=limits)) == {mine}
    assert await seen(await site.key(friend, permissions=limits)) == set()
    assert await seen(site.admin) == {mine, shared}


async def test_a_key_may_do_the_least_of_its_own_and_its_owners(site: Site) -> None:
    await site.person("somebody")
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id, other_id = await site.running(owner), await site.running(owner)

    def limit(permission: str) -> list[dict[str, str]]:
        return [{"environment_id": environment_id, "permission": permission}]

    for permission, what in (("read", ALL_READ), ("write", ALL_WRITE), ("admin", EVERYTHING)):
        key = await site.key(owner, permissions=limit(permission))
        assert await allowed(key, environment_id) == what
        assert await allowed(key, other_id) == set()
    assert await allowed(await site.key(owner), other_id) == EVERYTHING
    assert await allowed(await site.key(owner, role="readonly"), environment_id) == ALL_READ
    executor = await allowed(await site.key(owner, role="executor"), environment_id)
    assert executor == ALL_WRITE

    share = f"/api/v1/environments/{environment_id}/shares/friend"
    await owner.call("PUT", share, {"permission": "read"})
    assert await allowed(await site.key(friend, permissions=limit("admin")), environment_id) == (
        ALL_READ
    )
    admins = await site.key(site.admin, role="admin", permissions=limit("read"))
    assert await allowed(admins, environment_id) == ALL_READ
    assert await allowed(admins, other_id) == set()


async def test_a_limited_key_creates_none(site: Site) -> None:
    limits = [{"environment_id": "env-abc123", "permission": "admin"}]
    key = await site.key(site.admin, role="admin", permissions=limits)
    refused = await key.call("POST", "/api/v1/environments", CREATION)
    assert refused.status == 403
    assert "limited to 1 environments" in refused.body["message"]


async def test_a_viewer_may_only_look(site: Site) -> None:
    viewer, owner = await site.person("looker", "viewer"), await site.person("owner")
    assert (await viewer.call("POST", "/api/v1/environments", CREATION)).status == 403
    environment_id = await site.running(owner)
    share = f"/api/v1/environments/{environment_id}/shares/looker"
    await owner.call("PUT", share, {"permission": "admin"})
    assert await allowed(viewer, environment_id) == ALL_READ


async def test_values_of_variables_are_for_who_may_use_them(site: Site) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner, env={"SECRET": "s3cret"})
    share = f"/api/v1/environments/{environment_id}/shares/friend"
    await owner.call("PUT", share, {"permission": "read"})
    assert (await site.get(environment_id, friend)).body["env"] == {"SECRET": "***"}
    await owner.call("PUT", share, {"permission": "write"})
    assert (await site.get(environment_id, friend)).body["env"] == {"SECRET": "s3cret"}


async def test_what_is_taken_away_ends_open_streams(site: Site) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner)
    share = f"/api/v1/environments/{environment_id}/shares/friend"
    await owner.call("PUT", share, {"permission": "write"})
    logs = f"{friend.base_url}/api/v1/environments/{environment_id}/logs?follow=true"
    async with (
        attach(friend, environment_id, "?session=mine") as socket,
        friend.session.get(logs, headers=friend.headers) as answer,
    ):
        await socket.send_json({"type": "ping"})
        await last_frame(socket)
        await owner.call("DELETE", share)
        message = await socket.receive()
        while message.type is aiohttp.WSMsgType.TEXT:
            message = await socket.receive()
        assert socket.close_code == 4007
        told = (await asyncio.wait_for(answer.content.read(), 10)).decode()
        assert "event: error" in told
        assert "was changed" in told
    await until(lambda: not _marked(environment_id), "the shell that waited for them has ended")


@pytest.mark.parametrize("how", ["DELETE", "PUT"])
async def test_open_streams_end_though_who_takes_the_right_away_has_left(
    site: Site, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    owner, friend = await site.person("owner"), await site.person("friend")
    environment_id = await site.running(owner)
    share = f"/api/v1/environments/{environment_id}/shares/friend"
    await owner.call("PUT", share, {"permission": "write"})
    run, begun, gate = Sqlite.run, asyncio.Event(), asyncio.Event()

    async def slow(database: Sqlite, work: Any) -> Any:
        done = await run(database, work)
        begun.set()
        await gate.wait()
        return done

    async with attach(friend, environment_id) as socket:
        await socket.send_json({"type": "ping"})
        await last_frame(socket)
        monkeypatch.setattr(Sqlite, "run", slow)
        body = {"permission": "read"} if how == "PUT" else None
        asking = asyncio.create_task(owner.call(how, share, body))
        async with asyncio.timeout(10):
            await begun.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await asyncio.sleep(0.1)
        gate.set()
        async with asyncio.timeout(10):
            while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
        assert socket.close_code == 4007


async def test_a_long_command_and_a_file_on_its_way_end_with_the_key_they_came_with(
    site: Site,
) -> None:
    environment_id = await site.running()
    key = (await site.admin.call("POST", "/api/v1/api-keys", {})).body
    metadata = (("authorization", f"Bearer {key['key']}"),)
    request = environments_pb2.ExecRequest(environment_id=environment_id, command=["sleep", "600"])
    running = site.stub.Exec(request, metadata=metadata)
    writing = site.files.WriteFile(metadata=metadata)
    start = files_pb2.WriteFileStart(environment_id=environment_id, path="/half")
    await writing.write(files_pb2.WriteFileRequest(start=start))
    await writing.write(files_pb2.WriteFileRequest(data=b"half"))
    draft = site.driver.host.folder / environment_id / ".half.draft"
    await until(lambda: _marked(environment_id) and draft.exists(), "both are under way")

    revoked = await site.admin.call("DELETE", f"/api/v1/api-keys/{key['id']}")
    assert revoked.status == 204
    for call in (running, writing):
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await asyncio.wait_for(call, 10)
        assert refusal_of(ended.value).reason == "CREDENTIAL_ENDED"
    await until(lambda: not _marked(environment_id), "the command has ended")
    assert not draft.exists()


async def test_sharing_is_refused_where_it_makes_no_sense(site: Site) -> None:
    owner = await site.person("owner")
    environment_id = await site.running(owner)
    path = f"/api/v1/environments/{environment_id}/shares"
    for user, body, status, words in (
        ("nobody", {"permission": "read"}, 404, "no user 'nobody'"),
        ("owner", {"permission": "read"}, 400, "owns the environment"),
        ("admin", {}, 400, "permission"),
        ("admin", {"permission": "root"}, 400, "read, write, admin"),
    ):
        answer = await owner.call("PUT", f"{path}/{user}", body)
        assert (answer.status, words in answer.body["message"]) == (status, True), answer


async def test_a_deleted_persons_environments_go_to_who_deleted_them(site: Site) -> None:
    owner = await site.person("owner")
    environment_id = await site.running(owner)
    me = (await owner.call("GET", "/api/v1/auth/me")).body
    admin = (await site.admin.call("GET", "/api/v1/auth/me")).body
    deleted = await site.admin.call("DELETE", f"/api/v1/users/{me['id']}")
    assert deleted.status == 204
    shown = (await site.get(environment_id)).body
    assert (shown["owner_id"], shown["status"]) == (admin["id"], "running")


# Quotas and rates.


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"max_per_user": 1}, "count: 1 at most, 1 in use, 2 with this one"),
        ({"cpu_per_user": "600m"}, "cpu: 600m at most, 500m in use, 1 with this one"),
        ({"memory_per_user": "1000Mi"}, "memory: 1000Mi at most, 512Mi in use, 1Gi with"),
        ({"storage_per_user": "1Gi"}, "storage: 1Gi at most, 1Gi in use, 2Gi with this one"),
        ({"max_total": 1}, "all users of this server together"),
        ({"memory_total": "600Mi"}, "all users of this server together"),
    ],
)
async def test_beyond_a_quota_creation_is_refused_with_the_figures(
    sites: Sites, limits: dict[str, Any], words: str
) -> None:
    async with sites.open(**limits) as site:
        user = await site.person("user")
        environment_id = await site.running(user)
        refused = await user.call("POST", "/api/v1/environments", CREATION)
        assert (refused.status, refused.body["error"]) == (429, "Too Many Requests")
        assert words in refused.body["message"]
        if "total" not in next(iter(limits)):
            await site.running(site.admin)  # whose own is not used up
        await user.call("DELETE", f"/api/v1/environments/{environment_id}")
        if "total" not in next(iter(limits)):
            await site.running(user)


async def test_many_creations_at_once_do_not_go_beyond_a_quota(sites: Sites) -> None:
    async with sites.open(max_per_user=5) as site:
        calls = (site.admin.call("POST", "/api/v1/environments", CREATION) for _ in range(20))
        statuses = [answer.status for answer in await asyncio.gather(*calls)]
        assert sorted(statuses) == [201] * 5 + [429] * 15


async def test_rates_are_those_of_the_guide(sites: Sites) -> None:
    async with replace(sites, rates=RatesConfig(address_per_minute=0)).open() as site:
        made = await site.admin.call("POST", "/api/v1/environments", CREATION)

        def told(answer: Any, name: str) -> str:
            headers = {key.lower(): text for key, text in answer.headers.items()}
            return str(headers[f"x-ratelimit-{name}"])

        assert told(made, "limit") == "20"
        environment_id = made.body["id"]
        await site.becomes(environment_id, "running")
        path = f"/api/v1/environments/{environment_id}"
        ran = await site.admin.call("POST", f"{path}/exec", {"command": ["true"]})
        assert told(ran, "limit") == "100"
        assert told(ran, "remaining") == "99"
        seen = await site.admin.call("GET", path)
        assert told(seen, "limit") == "200"
        statuses = [
            (await site.admin.call("POST", "/api/v1/environments", CREATION)).status
            for _ in range(20)
        ]
        assert statuses == [201] * 19 + [429]
