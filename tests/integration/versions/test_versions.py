"""Versions of what several people change, through REST and gRPC, for every kind of thing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from steward.agents.v1 import agents_pb2
from steward.agents.v1.agents_pb2_grpc import AgentServiceStub
from steward.limits.v1 import limits_pb2
from steward.limits.v1.limits_pb2_grpc import LimitServiceStub
from steward.projects.v1 import projects_pb2
from steward.projects.v1.projects_pb2_grpc import ProjectServiceStub
from steward.providers.v1 import providers_pb2
from steward.providers.v1.providers_pb2_grpc import ProviderServiceStub
from steward.users.v1 import users_pb2
from steward.users.v1.users_pb2_grpc import UserServiceStub
from steward_gateway.contracts import load_contracts, method_rule
from tests.live import Answer, Live, create_agent, live_server, live_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of thing that has versions.

    Attributes:
        make: makes one; gives the path it is read at.
        change: the method, what follows the path, and the body of a change that can be repeated.
        call: the same change over gRPC, by its path, with these further fields.
    """

    make: Callable[[Live], Awaitable[str]]
    change: tuple[str, str, Mapping[str, Any]]
    call: Callable[[Live, str, Mapping[str, Any]], Awaitable[Any]]
    deleted: bool = True


async def agent(live: Live) -> str:
    return f"/api/v1/agents/{(await create_agent(live.admin)).agent_id}"


async def project(live: Live) -> str:
    made = await live.admin.call("POST", "/api/v1/projects", {"name": "p", "budget_usd": 5})
    return f"/api/v1/projects/{made.body['id']}"


async def organisation(_live: Live) -> str:
    return "/api/v1/organisation"


async def provider(live: Live) -> str:
    name = f"p{next_number()}"
    body = {"name": name, "kind": "openai", "api_key": "sk-0123456789"}
    made = await live.admin.call("POST", "/api/v1/providers", body)
    return f"/api/v1/providers/{made.body['id']}"


async def user(live: Live) -> str:
    made = await live.admin.call(
        "POST",
        "/api/v1/users",
        {"username": f"u{next_number()}", "password": "a long enough one", "role": "user"},
    )
    return f"/api/v1/users/{made.body['id']}"


async def limit(live: Live) -> str:
    scope = f"agent:{(await create_agent(live.admin)).agent_id}"
    await live.admin.call("PUT", f"/api/v1/limits/{scope}", {"max_tokens_per_day": 9})
    return f"/api/v1/limits/{scope}"


numbers = iter(range(1, 10_000))


def next_number() -> int:
    return next(numbers)


def metadata(live: Live) -> tuple[tuple[str, str], ...]:
    return (("authorization", live.admin.headers["authorization"]),)


def last(path: str) -> str:
    return path.rpartition("/")[2]


async def update_agent(live: Live, path: str, more: Mapping[str, Any]) -> Any:
    request = agents_pb2.UpdateAgentRequest(agent_id=last(path), name="x", **more)
    stub: Any = AgentServiceStub(live.channel)
    return (await stub.UpdateAgent(request, metadata=metadata(live))).agent


async def update_project(live: Live, path: str, more: Mapping[str, Any]) -> Any:
    request = projects_pb2.UpdateProjectRequest(project_id=last(path), name="x", **more)
    stub: Any = ProjectServiceStub(live.channel)
    return (await stub.UpdateProject(request, metadata=metadata(live))).project


async def update_organisation(live: Live, _path: str, more: Mapping[str, Any]) -> Any:
    request = projects_pb2.UpdateOrganisationRequest(name="x", **more)
    stub: Any = ProjectServiceStub(live.channel)
    return (await stub.UpdateOrganisation(request, metadata=metadata(live))).organisation


async def update_provider(live: Live, path: str, more: Mapping[str, Any]) -> Any:
    request = providers_pb2.UpdateProviderRequest(
        provider_id=last(path), allow_plaintext_key=True, **more
    )
    stub: Any = ProviderServiceStub(live.channel)
    return (await stub.UpdateProvider(request, metadata=metadata(live))).provider


async def reset_password(live: Live, path: str, more: Mapping[str, Any]) -> Any:
    request = users_pb2.ResetPasswordRequest(
        user_id=last(path), new_password="another long one", **more
    )
    stub: Any = UserServiceStub(live.channel)
    return (await stub.ResetPassword(request, metadata=metadata(live))).user


async def set_limit(live: Live, path: str, more: Mapping[str, Any]) -> Any:
    request = limits_pb2.SetLimitRequest(scope=last(path), max_tokens_per_day=5, **more)
    stub: Any = LimitServiceStub(live.channel)
    return (await stub.SetLimit(request, metadata=metadata(live))).limit


KINDS = {
    "agent": Kind(agent, ("PATCH", "", {"name": "x"}), update_agent),
    "project": Kind(project, ("PATCH", "", {"name": "x"}), update_project),
    "organisation": Kind(
        organisation, ("PATCH", "", {"name": "x"}), update_organisation, deleted=False
    ),
    "provider": Kind(provider, ("PATCH", "", {"allow_plaintext_key": True}), update_provider),
    "user": Kind(
        user, ("POST", "/reset-password", {"new_password": "another long one"}), reset_password
    ),
    "limit": Kind(limit, ("PUT", "", {"max_tokens_per_day": 5}), set_limit),
}
each_kind = pytest.mark.parametrize("name", KINDS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def live(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Live]:
    settings = live_settings(tmp_path_factory.mktemp("versions") / "data")
    async with live_server(settings) as live:
        yield live


async def ask(live: Live, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    return await live.admin.call(method, path, body, **headers)


async def change(live: Live, name: str, path: str, **headers: str) -> Answer:
    method, below, body = KINDS[name].change
    return await ask(live, method, path + below, dict(body), **headers)


def tag_of(answer: Answer) -> str:
    return answer.headers["Etag"]  # as the client spells it


@each_kind
async def test_what_is_read_has_a_tag_and_is_not_sent_again(live: Live, name: str) -> None:
    path = await KINDS[name].make(live)
    read = await ask(live, "GET", path)
    tag = tag_of(read)
    assert re.fullmatch(rf'"{read.body["version"]}~[0-9a-f]{{18}}"', tag)
    again = await ask(live, "GET", path, If_None_Match=tag)
    assert (again.status, tag_of(again)) == (304, tag)
    await change(live, name, path)
    changed = await ask(live, "GET", path, If_None_Match=tag)
    assert (changed.status, changed.body["version"]) == (200, read.body["version"] + 1)


@each_kind
async def test_a_change_is_made_to_the_version_that_was_read_and_to_no_other(
    live: Live, name: str
) -> None:
    path = await KINDS[name].make(live)
    tag = tag_of(await ask(live, "GET", path))
    first = await change(live, name, path, If_Match=tag)
    second = await change(live, name, path, If_Match=tag)
    assert (first.status, second.status) == (200, 412)
    error = second.body["error"]
    assert (error["code"], error["reason"]) == ("PRECONDITION_FAILED", "VERSION_PASSED")
    assert error["details"]["version"] == str(first.body["version"])
    third = await change(live, name, path, If_Match=tag_of(first))
    assert (third.status, third.body["version"]) == (200, first.body["version"] + 1)
    assert (await ask(live, "GET", path)).body["version"] == third.body["version"]


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.deleted])
async def test_only_the_version_that_was_read_is_deleted(live: Live, name: str) -> None:
    path = await KINDS[name].make(live)
    tag = tag_of(await ask(live, "GET", path))
    newer = tag_of(await change(live, name, path))
    assert (await ask(live, "DELETE", path, If_Match=tag)).status == 412
    assert (await ask(live, "GET", path)).status == 200
    assert (await ask(live, "DELETE", path, If_Match=newer)).status == 204
    assert (await ask(live, "DELETE", path, If_Match=newer)).status == 404


@each_kind
async def test_over_grpc_a_passed_version_is_aborted_with_its_reason(live: Live, name: str) -> None:
    path = await KINDS[name].make(live)
    version = (await ask(live, "GET", path)).body["version"]
    changed = await KINDS[name].call(live, path, {"expected_version": version})
    assert changed.version == version + 1
    for passed in (version, 0):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await KINDS[name].call(live, path, {"expected_version": passed})
        assert refused.value.code() is grpc.StatusCode.ABORTED
        status = rpc_status.from_call(refused.value)  # type: ignore[arg-type]
        info = error_details_pb2.ErrorInfo()
        assert status is not None
        assert status.details[0].Unpack(info)
        assert info.reason == "VERSION_PASSED"
        assert info.metadata["version"] == str(version + 1)


@each_kind
async def test_a_field_in_the_body_is_as_good_and_409(live: Live, name: str) -> None:
    path = await KINDS[name].make(live)
    method, below, body = KINDS[name].change
    refused = await ask(live, method, path + below, {**body, "expected_version": 4711})
    assert (refused.status, refused.body["error"]["reason"]) == (409, "VERSION_PASSED")


@each_kind
async def test_of_changes_at_once_to_one_version_one_is_made(live: Live, name: str) -> None:
    path = await KINDS[name].make(live)
    tag = tag_of(await ask(live, "GET", path))
    answers = await asyncio.gather(*(change(live, name, path, If_Match=tag) for _ in range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [412] * 7


async def test_a_refused_change_changes_nothing(live: Live) -> None:
    path = await agent(live)
    before = await ask(live, "GET", path)
    body = {"name": "y", "budget_usd": 7}
    assert (await ask(live, "PATCH", path, body, If_Match='"9"')).status == 412
    # One that is refused for another reason takes no version either.
    assert (await ask(live, "PATCH", path, {"provider": "none"})).status == 400
    assert (await ask(live, "GET", path)).body == before.body


async def test_what_an_agent_s_budget_is_raised_to_is_a_new_version(live: Live) -> None:
    made = await create_agent(live.admin, budget_usd=10)
    path = f"/api/v1/agents/{made.agent_id}"
    tag = tag_of(await ask(live, "GET", path))
    asked = await live.admin.call(
        "POST",
        "/api/v1/budget/requests",
        {
            "agent_id": made.agent_id,
            "requested_budget_usd": 20,
            "justification": "a larger corpus is to be read",
        },
    )
    approve = f"/api/v1/budget/requests/{asked.body['id']}/approve"
    assert (await live.admin.call("PATCH", approve, {})).status == 200
    after = (await ask(live, "GET", path)).body
    assert (after["budget"]["limit_usd"], after["version"]) == (20, 2)
    assert (await ask(live, "PATCH", path, {"budget_usd": 12}, If_Match=tag)).status == 412


async def test_what_runtimes_do_is_no_new_version_and_yet_no_304(live: Live) -> None:
    made = await create_agent(live.admin)
    path = f"/api/v1/agents/{made.agent_id}"
    tag = tag_of(await ask(live, "GET", path))
    await live.admin.call(
        "POST", "/api/v1/providers", {"name": "openai", "api_key": "sk-0123456789"}
    )
    runtime = live.api.acting_as(X_IC_Key=made.ic_token)
    lent = await runtime.call("POST", "/api/budget/handshake", {"provider": "openai"})
    assert lent.status == 200
    read = await ask(live, "GET", path, If_None_Match=tag)
    assert (read.status, read.body["version"]) == (200, 1)
    assert (await change(live, "agent", path, If_Match=tag)).status == 200


async def test_signing_in_is_no_new_version_and_a_password_of_one_s_own_is(live: Live) -> None:
    made = await live.admin.call(
        "POST",
        "/api/v1/users",
        {"username": "enters", "password": "a long enough one", "role": "user"},
    )
    path = f"/api/v1/users/{made.body['id']}"
    login = {"username": "enters", "password": "a long enough one"}
    entered = await live.api.call("POST", "/api/auth/login", login)
    await live.api.call("POST", "/api/auth/login", {**login, "password": "wrong"})
    assert (await ask(live, "GET", path)).body["version"] == 1
    own = live.api.acting_as(authorization=f"Bearer {entered.body['access_token']}")
    passwords = {"current_password": "a long enough one", "new_password": "another long one"}
    assert (await own.call("POST", "/api/v1/auth/password", passwords)).status in (200, 204)
    assert (await ask(live, "GET", path)).body["version"] == 2


async def test_who_inherits_an_agent_gets_a_new_version_of_it(live: Live) -> None:
    owner = last(await user(live))
    body = {"name": "a", "budget_usd": 1, "owner_id": owner}
    made = await live.admin.call("POST", "/api/v1/agents", body)
    assert (await live.admin.call("DELETE", f"/api/v1/users/{owner}")).status == 204
    path = f"/api/v1/agents/{made.body['id']}"
    assert (await ask(live, "GET", path)).body["version"] == 2


async def test_a_limit_that_is_set_again_does_not_begin_with_a_version_it_had(live: Live) -> None:
    path = await limit(live)
    tag = tag_of(await ask(live, "GET", path))
    assert (await ask(live, "DELETE", path)).status == 204
    assert (await change(live, "limit", path, If_Match=tag)).status == 412
    again = await change(live, "limit", path)
    assert (again.status, again.body["version"]) == (200, 3)
    assert again.body["created_at"] == again.body["updated_at"]
    assert (await change(live, "limit", path, If_Match=tag)).status == 412


async def test_an_agent_that_is_stopped_twice_is_changed_once(live: Live) -> None:
    path = await agent(live)
    for _ in range(2):
        assert (await ask(live, "POST", f"{path}/stop", {})).status == 202
    assert (await ask(live, "GET", path)).body["version"] == 2


async def test_versions_survive_a_restart(tmp_path: Path) -> None:
    async with live_server(live_settings(tmp_path / "data")) as live:
        path = await agent(live)
        tag = tag_of(await change(live, "agent", path))
    async with live_server(live_settings(tmp_path / "data")) as live:
        assert tag_of(await ask(live, "GET", path)) == tag
        assert (await change(live, "agent", path, If_Match=tag)).status == 200


async def test_what_has_a_version_is_never_changed_without_one_to_compare() -> None:
    """Every method that answers a versioned thing, but those that only make or read it."""
    for method in load_contracts().methods():
        rule = method_rule(method)
        if rule.etag_field and not method.name.startswith(("Get", "Create")):
            assert rule.if_match_field in ("expected_version", "expected_digest"), method.full_name
