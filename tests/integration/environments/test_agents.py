"""Agents as callers: a token makes environments for its agent's owner, and uses those alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from steward.environments.v1 import environments_pb2 as pb
from steward.environments.v1 import ports_pb2
from steward.environments.v1.ports_pb2_grpc import PortServiceStub
from steward_server.agents.directory import Directory
from steward_server.errors import Unavailable
from tests.integration.conftest import refusal_of
from tests.integration.environments.conftest import CREATION, Site, Sites, until
from tests.live import Agent, Api

PATH = "/api/v1/environments"


def as_agent(site: Site, agent: Agent) -> Api:
    return site.live.api.acting_as(x_ic_key=agent.ic_token)


async def _read_all(stream: Any) -> None:
    while await stream.read() is not grpc.aio.EOF:
        pass


async def agent_of(site: Site, owner: Api) -> tuple[Agent, Api]:
    """An agent of somebody's, and its runtime."""
    me = (await owner.call("GET", "/api/v1/auth/me")).body
    body = {"name": "scout", "budget_usd": 1, "owner_id": me["id"]}
    made = await site.admin.call("POST", "/api/v1/agents", body)
    assert made.status == 201, made
    token = await site.admin.call("POST", "/api/tokens", {"agent_id": made.body["id"]})
    agent = Agent(made.body["id"], token.body["id"], token.body["token"])
    return agent, as_agent(site, agent)


async def test_what_an_agent_creates_is_its_owners_and_the_agents(site: Site) -> None:
    owner, other = await site.person("owner"), await site.person("other")
    agent, runtime = await agent_of(site, owner)
    environment_id = await site.running(runtime)

    for api in (runtime, owner, site.admin):
        seen = (await site.get(environment_id, api)).body
        assert seen["agent_id"] == agent.agent_id
        assert seen["permission"] == "admin"
        assert seen["owner_id"] == (await owner.call("GET", "/api/v1/auth/me")).body["id"]
    assert (await site.get(environment_id, other)).status == 404
    ran = await site.run(environment_id, "echo", "hello", api=runtime)
    assert ran["stdout"] == "hello\n"
    created = next(
        each for each in site.audit(environment_id) if each["action"].endswith("created")
    )
    assert (created["actor_kind"], created["actor_id"]) == ("agent", agent.agent_id)
    assert (await runtime.call("DELETE", f"{PATH}/{environment_id}?force=true")).status == 204


async def test_an_agent_reaches_nothing_that_it_has_not_created(site: Site) -> None:
    owner = await site.person("owner")
    _, runtime = await agent_of(site, owner)
    _, sibling = await agent_of(site, owner)
    persons = await site.running(owner)
    own, siblings = await site.running(runtime), await site.running(sibling)

    listed = (await runtime.call("GET", PATH)).body
    assert [each["id"] for each in listed["environments"]] == [own]
    assert listed["total"] == 1
    assert (await owner.call("GET", PATH)).body["total"] == 3
    for foreign in (persons, siblings):
        assert (await site.get(foreign, runtime)).status == 404
        body = {"command": ["true"]}
        assert (await runtime.call("POST", f"{PATH}/{foreign}/exec", body)).status == 404
        assert (await runtime.call("DELETE", f"{PATH}/{foreign}")).status == 404
    share = f"{PATH}/{own}/shares/owner"
    assert (await runtime.call("PUT", share, {"permission": "read"})).status == 403
    assert (await runtime.call("POST", f"{PATH}/{own}/tickets", {})).status == 403


async def test_what_an_agent_creates_counts_in_its_owners_quota(site: Site) -> None:
    owner = await site.person("owner")
    _, runtime = await agent_of(site, owner)
    large: dict[str, Any] = {"resources": {"cpu": "8", "memory": "8Mi", "storage": "1Mi"}}
    for _ in range(8):
        await site.create(owner, **large)

    refused = await runtime.call("POST", PATH, CREATION | large)
    assert refused.status == 429
    assert "the agent's owner would have more than the quota allows" in refused.body["message"]


async def test_a_token_for_something_else_is_no_way_to_a_machine(site: Site) -> None:
    agent = (await site.admin.call("POST", "/api/v1/agents", {"name": "a", "budget_usd": 1})).body
    body = {"agent_id": agent["id"], "scopes": ["budget"]}
    token = (await site.admin.call("POST", "/api/tokens", body)).body["token"]
    runtime = site.live.api.acting_as(x_ic_key=token)

    refused = await runtime.call("POST", PATH, CREATION)
    assert refused.status == 403
    assert "agents with the scope 'environments'" in refused.body["message"]


async def test_a_stopped_agent_looks_on_and_removes_what_it_has(site: Site) -> None:
    agent, runtime = await agent_of(site, site.admin)
    environment_id = await site.running(runtime)
    await site.admin.call("POST", f"/api/agents/{agent.agent_id}/stop")

    one = f"{PATH}/{environment_id}"
    for verb, path, body in (
        ("POST", PATH, CREATION),
        ("POST", f"{one}/exec", {"command": ["true"]}),
        ("POST", f"{one}/pause", {}),
        ("PATCH", one, {"timeout": 7200}),
    ):
        refused = await runtime.call(verb, path, body)
        assert refused.status == 409
        assert "was told to stop" in refused.body["message"]
    assert (await site.get(environment_id, runtime)).status == 200
    await site.admin.call("POST", f"/api/agents/{agent.agent_id}/start")
    await site.run(environment_id, "true", api=runtime)
    await site.admin.call("POST", f"/api/agents/{agent.agent_id}/stop")
    assert (await runtime.call("DELETE", f"{PATH}/{environment_id}?force=true")).status == 204


@pytest.mark.parametrize("how", ["revoked", "deleted"])
async def test_what_an_agent_has_open_ends_with_its_token_and_its_environments_stay(
    site: Site, how: str
) -> None:
    agent, runtime = await agent_of(site, site.admin)
    environment_id = await site.running(runtime)
    ports: Any = PortServiceStub(site.live.channel)
    request = ports_pb2.ListenRequest(environment_id=environment_id)
    stream = ports.Listen(request, metadata=agent.metadata)
    await stream.read()

    path = (
        f"/api/tokens/{agent.token_id}" if how == "revoked" else f"/api/v1/agents/{agent.agent_id}"
    )
    assert (await site.admin.call("DELETE", path)).status == 204

    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await stream.read()
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert refusal_of(ended.value).reason == "CREDENTIAL_ENDED"
    assert (await site.get(environment_id, runtime)).status == 401
    await site.run(environment_id, "true")


@pytest.fixture
async def impatient(sites: Sites) -> AsyncIterator[Site]:
    async with sites.open(agent_stop_grace_s=0.1) as opened:
        yield opened


async def test_what_a_stopped_agent_has_open_ends_unless_it_only_looks(impatient: Site) -> None:
    site = impatient
    agent, runtime = await agent_of(site, site.admin)
    environment_id = await site.running(runtime)
    ports: Any = PortServiceStub(site.live.channel)
    listening = ports.Listen(
        ports_pb2.ListenRequest(environment_id=environment_id), metadata=agent.metadata
    )
    await listening.read()
    started = pb.ExecStart(environment_id=environment_id, command=["sleep", "600"])
    running = site.stub.ExecStream(metadata=agent.metadata)
    await running.write(pb.ExecStreamRequest(start=started))
    opened = pb.AttachOpen(environment_id=environment_id, session="mine")
    attached = site.stub.Attach(metadata=agent.metadata)
    await attached.write(pb.AttachRequest(open=opened))
    await attached.read()
    follow = pb.FollowLogsRequest(environment_id=environment_id)
    following = site.stub.FollowLogs(follow, metadata=agent.metadata)
    await following.initial_metadata()

    command = pb.ExecRequest(environment_id=environment_id, command=["sleep", "600"])
    waiting = site.stub.Exec(command, metadata=agent.metadata)

    async def has(number: int) -> bool:
        return len(await site.driver.processes(environment_id)) == number

    await until(lambda: has(3), "the commands and the shell run")
    await site.admin.call("POST", f"/api/agents/{agent.agent_id}/stop")

    for stream in (listening, running, attached):
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await _read_all(stream)
        assert ended.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert refusal_of(ended.value).reason == "AGENT_STOPPED"
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await waiting
    assert refusal_of(ended.value).reason == "AGENT_STOPPED"
    assert not following.done()
    await until(lambda: has(0), "the commands and the shell have ended")


async def test_what_a_stopped_agent_has_open_ends_though_the_database_fails_for_a_moment(
    impatient: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, runtime = await agent_of(impatient, impatient.admin)
    environment_id = await impatient.running(runtime)
    started = pb.ExecStart(environment_id=environment_id, command=["sleep", "600"])
    running = impatient.stub.ExecStream(metadata=agent.metadata)
    await running.write(pb.ExecStreamRequest(start=started))
    await until(lambda: impatient.driver.processes(environment_id), "the command runs")
    await impatient.admin.call("POST", f"/api/agents/{agent.agent_id}/stop")
    failures = [Unavailable("the database does not answer")]
    record = Directory.record

    async def failing(*given: Any) -> Any:
        if failures:
            raise failures.pop()
        return await record(*given)

    monkeypatch.setattr(Directory, "record", failing)
    with pytest.raises(grpc.aio.AioRpcError) as ended:
        await asyncio.wait_for(_read_all(running), 10)
    assert refusal_of(ended.value).reason == "AGENT_STOPPED"
    assert not failures


async def test_an_agent_that_may_go_on_keeps_what_it_has_open(impatient: Site) -> None:
    agent, runtime = await agent_of(impatient, impatient.admin)
    environment_id = await impatient.running(runtime)
    started = pb.ExecStart(environment_id=environment_id, command=["cat"])
    running = impatient.stub.ExecStream(metadata=agent.metadata)
    await running.write(pb.ExecStreamRequest(start=started))

    async def says_back(data: bytes) -> bool:
        await running.write(pb.ExecStreamRequest(stdin=data))
        async with asyncio.timeout(30):
            return bool((await running.read()).stdout == data)

    assert await says_back(b"here")
    for turn in ("stop", "start"):
        await impatient.admin.call("POST", f"/api/agents/{agent.agent_id}/{turn}")
    await asyncio.sleep(0.3)

    assert await says_back(b"still here")
