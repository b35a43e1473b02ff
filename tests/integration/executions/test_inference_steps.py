"""Steps in which agents decide, on a server with policies of its own."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from steward_server.executions.steps import inference
from tests.integration.executions.acting import (
    Acting,
    administrator,
    always,
    do,
    failure,
    person,
)
from tests.integration.inference.conftest import open_site

pytestmark = pytest.mark.asyncio(loop_scope="module")

WORK = inference.work()
SEEN = [0.1, 0.9, 0.0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def acting(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Acting]:
    folder = tmp_path_factory.mktemp("server")
    async with open_site(folder) as site:
        yield Acting(site.live, folder, administrator(folder))


async def test_an_agent_begins_anew_and_decides(acting: Acting) -> None:
    session = acting.session()
    reset = await do(session, WORK, "inference.reset", agent_id="scout", policy="adding", seed=1)
    assert reset == {"agent_id": "scout", "policy": "adding@1"}
    step = await do(
        session,
        WORK,
        "inference.step",
        agent_id="scout",
        observation=SEEN,
        deterministic=True,
    )
    assert (step["action"], step["agent_id"]) == (1, "scout")
    assert step["value"] == pytest.approx(1.0)
    assert math.exp(step["log_prob"]) == pytest.approx(0.53, abs=0.05)


async def test_numbers_are_as_short_as_the_policy_means_them(acting: Acting) -> None:
    session = acting.session()
    await do(session, WORK, "inference.reset", agent_id="pilot", policy="steering", seed=-1)
    observation = [0.1, -0.25]
    step = await do(
        session,
        WORK,
        "inference.step",
        agent_id="pilot",
        observation=observation,
        deterministic=True,
    )
    assert step["action"] == [0.1, -0.25]


async def test_without_a_name_it_is_an_agent_of_the_run_which_ends_with_it(acting: Acting) -> None:
    session = acting.session(execution_id="exec_9")
    await do(session, WORK, "inference.reset")
    first = await do(session, WORK, "inference.step", observation=SEEN, deterministic=True)
    again = await do(session, WORK, "inference.step", observation=SEEN, deterministic=True)
    assert first["agent_id"] == "run-exec_9"
    assert again["value"] > first["value"]  # it remembers
    await session.aclose()
    after = acting.session(execution_id="exec_9")
    failed = await failure(do(after, WORK, "inference.step", observation=SEEN))
    assert failed.context["reason"] == "AGENT_NOT_INITIALIZED"
    await after.aclose()


async def test_an_agent_of_another_persons_run_is_another(acting: Acting) -> None:
    await do(acting.session(), WORK, "inference.reset", agent_id="ours")
    kim = acting.session(steward=acting.steward(always(person(acting.data_dir, "kim"))))
    failed = await failure(do(kim, WORK, "inference.step", agent_id="ours", observation=SEEN))
    assert failed.context["reason"] == "AGENT_NOT_INITIALIZED"


async def test_a_policy_that_is_not_there_is_told(acting: Acting) -> None:
    session = acting.session()
    failed = await failure(do(session, WORK, "inference.reset", agent_id="x", policy="nothing"))
    assert failed.context["reason"] == "POLICY_NOT_FOUND"
    assert "nothing" in str(failed)


@pytest.mark.parametrize("observation", [[1.0], [1.0, 2.0, 1e300]], ids=["too few", "too large"])
async def test_an_observation_that_does_not_fit_is_told(
    acting: Acting, observation: list[float]
) -> None:
    session = acting.session()
    await do(session, WORK, "inference.reset", agent_id="reader")
    failed = await failure(
        do(session, WORK, "inference.step", agent_id="reader", observation=observation)
    )
    assert failed.context["code"] == "INVALID_ARGUMENT"
