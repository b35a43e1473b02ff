"""The step that looks at money."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from steward_server.executions.steps import budget
from steward_server.playbooks.catalogue.binding import BadValues
from tests.integration.executions.acting import (
    Acting,
    administrator,
    always,
    do,
    failure,
    person,
)
from tests.live import create_agent, create_provider, live_server, live_settings
from tests.spending import borrow

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = budget.work()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Acting]:
    folder = tmp_path_factory.mktemp("server")
    async with live_server(live_settings(folder)) as live:
        await create_provider(live.admin)
        yield Acting(live, folder, administrator(folder))


async def project(acting: Acting, **fields: object) -> str:
    made = await acting.live.admin.call("POST", "/api/v1/projects", {"name": "Moon", **fields})
    assert made.status == 201, made
    return str(made.body["id"])


async def test_what_an_agent_has_left_is_told_to_the_nano_dollar(acting: Acting) -> None:
    agent = await create_agent(acting.live.admin, budget_usd=2)
    spender = await borrow(acting.live, agent, budget_usd=1)
    await spender.spend("r1", "0.100000001")
    outputs = await do(acting.session(), WORK, "budget.check", agent_id=agent.agent_id)
    assert outputs == {
        "suffices": True,
        "free_usd": 1,  # the rest of the other one is lent
        "spent_usd": 0.100000001,
        "limit_usd": 2,
    }


async def test_exactly_as_much_as_is_wanted_suffices_and_a_nano_dollar_more_does_not(
    acting: Acting,
) -> None:
    agent = await create_agent(acting.live.admin, budget_usd=0.3)
    session = acting.session()
    await do(session, WORK, "budget.check", agent_id=agent.agent_id, at_least_usd=0.3)
    failed = await failure(
        do(session, WORK, "budget.check", agent_id=agent.agent_id, at_least_usd=0.300000001)
    )
    assert str(failed) == f"agent {agent.agent_id!r} has 0.3 dollars left, and not 0.300000001"
    assert failed.context["suffices"] is False


async def test_too_little_is_only_told_where_it_need_not_suffice(acting: Acting) -> None:
    agent = await create_agent(acting.live.admin, budget_usd=1)
    outputs = await do(
        acting.session(),
        WORK,
        "budget.check",
        agent_id=agent.agent_id,
        at_least_usd=5,
        must_suffice=False,
    )
    assert (outputs["suffices"], outputs["free_usd"]) == (False, 1)


async def test_a_project_has_what_its_budget_leaves(acting: Acting) -> None:
    project_id = await project(acting, budget_usd=12.5)
    outputs = await do(
        acting.session(), WORK, "budget.check", project_id=project_id, at_least_usd=12
    )
    assert outputs == {"suffices": True, "free_usd": 12.5, "spent_usd": 0, "limit_usd": 12.5}


async def test_what_has_no_limit_suffices_always(acting: Acting) -> None:
    project_id = await project(acting)
    outputs = await do(
        acting.session(), WORK, "budget.check", project_id=project_id, at_least_usd=1e9
    )
    assert (outputs["suffices"], outputs["free_usd"], outputs["limit_usd"]) == (True, None, None)


async def test_the_money_of_somebody_elses_agent_is_not_told(acting: Acting) -> None:
    agent = await create_agent(acting.live.admin)
    kim = acting.session(steward=acting.steward(always(person(acting.data_dir, "kim"))))
    failed = await failure(do(kim, WORK, "budget.check", agent_id=agent.agent_id))
    assert failed.context["reason"] == "AGENT_NOT_FOUND"


async def test_whose_money_it_is_must_be_told(acting: Acting) -> None:
    with pytest.raises(BadValues, match="needs agent_id or project_id"):
        await do(acting.session(), WORK, "budget.check")
