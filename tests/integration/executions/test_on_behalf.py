"""The server's methods, called by a run as whoever started it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import pytest_asyncio

from steward.agents.v1 import agents_pb2
from steward.budget.v1 import budget_pb2
from steward.events.v1 import events_pb2
from steward.gateway.v1.options_pb2 import ROLE_VIEWER
from steward.projects.v1 import projects_pb2 as pb
from steward.projects.v1.projects_pb2_grpc import ProjectServiceStub
from steward_server.calls import CURRENT
from steward_server.errors import Unauthenticated
from steward_server.executions import on_behalf
from steward_server.principals import Principal
from steward_server.rates import RatesConfig
from tests.integration.executions.acting import Acting, administrator, always, failure, person
from tests.live import TurnedClock, create_agent, live_server, live_settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROJECTS = "/steward.projects.v1.ProjectService"
CLAIMS = tuple(
    (name, "admin")
    for name in ("on-behalf-of", "on_behalf_of", "x-on-behalf-of", "x-steward-on-behalf-of")
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Acting]:
    folder = tmp_path_factory.mktemp("server")
    async with live_server(live_settings(folder)) as live:
        yield Acting(live, folder, administrator(folder))


async def test_a_call_is_answered_as_over_a_wire(acting: Acting) -> None:
    made = await acting.steward().call(
        f"{PROJECTS}/CreateProject", pb.CreateProjectRequest(name="Moon", budget_nanousd=5)
    )
    seen = await acting.live.admin.call("GET", f"/api/v1/projects/{made.project.id}")
    assert seen.body["name"] == "Moon"


async def test_whoever_started_the_run_is_whom_it_acts_as(acting: Acting) -> None:
    request = agents_pb2.CreateAgentRequest(name="scout", budget_nanousd=10**9)
    method = "/steward.agents.v1.AgentService/CreateAgent"
    agent = (await acting.steward().call(method, request)).agent
    assert agent.owner_id == acting.principal.subject
    sql = "SELECT actor_id, address, user_agent FROM audit_entry WHERE resource_id = ?"
    assert acting.rows(sql, agent.id) == [
        (acting.principal.subject, "run", "steward-run/exec_1"),
    ]


async def test_what_they_may_not_the_run_may_not(acting: Acting) -> None:
    steward = acting.steward(always(person(acting.data_dir, "kim")))
    request = pb.CreateProjectRequest(name="Mars")
    failed = await failure(steward.call(f"{PROJECTS}/CreateProject", request))
    assert "is for people with the role admin" in str(failed)
    assert failed.context == {"code": "PERMISSION_DENIED", "reason": "ROLE_NOT_ALLOWED"}


async def test_rights_are_asked_for_anew_at_each_call(acting: Acting) -> None:
    now = acting.principal

    async def who() -> Principal:
        return now

    steward, request = acting.steward(who), pb.CreateProjectRequest(name="Venus")
    await steward.call(f"{PROJECTS}/CreateProject", request)
    now = replace(now, role=ROLE_VIEWER)
    failed = await failure(steward.call(f"{PROJECTS}/CreateProject", request))
    assert failed.context["reason"] == "ROLE_NOT_ALLOWED"


async def test_nobody_acts_for_somebody_who_is_gone(acting: Acting) -> None:
    async def gone() -> Principal:
        raise Unauthenticated("who started the run was suspended", reason="USER_SUSPENDED")

    steward = acting.steward(gone)
    failed = await failure(steward.call(f"{PROJECTS}/ListProjects", pb.ListProjectsRequest()))
    assert str(failed) == "who started the run was suspended"
    assert failed.context["reason"] == "USER_SUSPENDED"


async def test_a_password_that_must_be_changed_stops_runs_as_well(acting: Acting) -> None:
    steward = acting.steward(always(replace(acting.principal, must_change_password=True)))
    failed = await failure(steward.call(f"{PROJECTS}/ListProjects", pb.ListProjectsRequest()))
    assert failed.context["reason"] == "PASSWORD_CHANGE_REQUIRED"


async def test_repeats_are_known_by_the_id_of_the_request(acting: Acting) -> None:
    steward = acting.steward()
    request = pb.CreateProjectRequest(name="Io", request_id="exec_1/make")
    first = await steward.call(f"{PROJECTS}/CreateProject", request)
    again = await steward.call(f"{PROJECTS}/CreateProject", request)
    assert first.project.id == again.project.id
    request.name = "Europa"
    failed = await failure(steward.call(f"{PROJECTS}/CreateProject", request))
    assert failed.context["reason"] == "REQUEST_ID_REUSED"


async def test_calls_of_runs_count_among_those_of_their_person_and_wait_for_their_turn(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("limited")
    clock, waited = TurnedClock(), []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(on_behalf, "asyncio", SimpleNamespace(sleep=sleep))
    rates = RatesConfig(default_per_minute=2, address_per_minute=0)
    async with live_server(live_settings(folder, rates=rates), clock) as live:
        steward = Acting(live, folder, administrator(folder)).steward()
        request = pb.ListProjectsRequest()
        await steward.call(f"{PROJECTS}/ListProjects", request)
        assert (await live.admin.call("GET", "/api/v1/projects")).status == 200
        assert (await live.admin.call("GET", "/api/v1/projects")).status == 429
        assert waited == []
        await steward.call(f"{PROJECTS}/ListProjects", request)
    assert len(waited) == 1
    assert 55 < waited[0] <= 61


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("/steward.projects.v1.ProjectService/Nothing", pb.ListProjectsRequest()),
        ("/steward.events.v1.EventService/Subscribe", events_pb2.SubscribeRequest()),
    ],
    ids=["unknown", "a stream"],
)
async def test_what_cannot_be_called_is_told(acting: Acting, method: str, request_: Any) -> None:
    failed = await failure(acting.steward().call(method, request_))
    assert str(failed) == f"{method} cannot be called by steps"


async def test_lines_of_the_log_after_a_call_are_not_its_own(acting: Acting) -> None:
    before = CURRENT.get()
    await acting.steward().call(f"{PROJECTS}/ListProjects", pb.ListProjectsRequest())
    assert CURRENT.get() is before


async def test_nothing_that_comes_over_grpc_acts_for_somebody(acting: Acting) -> None:
    stub: Any = ProjectServiceStub(acting.live.channel)
    metadata = (*CLAIMS, ("user-agent", "steward-run/exec_1"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ListProjects(pb.ListProjectsRequest(), metadata=metadata)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_nothing_that_comes_over_http_acts_for_somebody(acting: Acting) -> None:
    claims = dict(CLAIMS) | {"user-agent": "steward-run/exec_1", "x-steward-peer": "run"}
    answer = await acting.live.api.call("GET", "/api/v1/projects", **claims)
    assert answer.status == 401


async def test_a_credential_in_the_request_is_not_looked_at(acting: Acting) -> None:
    """Of the two that could say who calls, the one that the server knows itself counts."""
    agent = await create_agent(acting.live.admin)
    request = budget_pb2.ReturnRequest(lease_id="lease_1", ic_token=agent.ic_token)
    failed = await failure(
        acting.steward().call("/steward.budget.v1.BudgetService/Return", request)
    )
    assert failed.context["code"] == "PERMISSION_DENIED"
    assert "belongs to a person with the role admin" in str(failed)
