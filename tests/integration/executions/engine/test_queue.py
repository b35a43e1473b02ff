"""So many runs at a time, the others in their order, and no more than may wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steward_server.db import Transaction
from steward_server.errors import NotFound, ResourceExhausted, Unavailable
from steward_server.executions.work import Job
from tests.integration.executions.engine.conftest import (
    ADA,
    AGENT,
    BOB,
    MakeWorld,
    World,
    playbook,
    sleep,
    states,
    step,
)


async def test_so_many_run_at_a_time_and_the_others_in_their_order(make_world: MakeWorld) -> None:
    world = await make_world(max_running=3)
    begun, at_once, most = list[str](), 0, 0

    async def counts(job: Job) -> Any:
        nonlocal at_once, most
        begun.append(job.session.execution_id)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return {}

    world.does["counts"] = counts
    text = playbook(step("one", "counts"))
    ids = [await world.begin(text) for _ in range(12)]
    for each in ids:
        assert (await world.ended(each)).run.state == "completed"
    assert begun == ids
    assert most == 3


async def test_whoever_has_the_fewest_runs_going_on_comes_first(make_world: MakeWorld) -> None:
    world = await make_world(max_running=2)
    begun = list[str]()

    async def counts(job: Job) -> Any:
        begun.append(job.session.execution_id)
        return {}

    world.does["counts"] = counts
    held = [await world.begin(playbook(sleep("one"))) for _ in range(2)]
    text = playbook(step("one", "counts"))
    of_ada = [await world.begin(text) for _ in range(3)]
    of_bob = await world.begin(text, who=BOB)
    await world.cancel(held[0])
    for each in (*of_ada, of_bob):
        await world.ended(each)
    assert begun == [of_bob, *of_ada]
    await world.cancel(held[1])


async def test_agents_leave_half_of_the_places_to_people(make_world: MakeWorld) -> None:
    world = await make_world(max_running=2)
    held = [await world.begin(playbook(sleep("one")), who=AGENT) for _ in range(2)]
    text = playbook(sleep("one", 0))
    assert (await world.run(text)).run.state == "completed"
    assert (await world.seen(held[1])).run.state == "pending"
    await world.cancel(held[0])
    await world.until_in(held[1], "one")
    await world.cancel(held[1])


async def test_a_run_whose_turn_comes_when_its_starter_may_act_no_more_fails(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_running=1)
    first = await world.begin(playbook(sleep("one")))
    second = await world.begin(playbook(step("two", "give")))
    world.refused.add(ADA.subject)
    await world.cancel(first)
    seen = await world.ended(second)
    assert (seen.run.state, seen.run.why) == ("failed", "the API key is revoked")
    assert world.made == []


async def test_more_than_may_wait_are_refused_with_a_delay_and_are_no_rows(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_running=1, max_queued=2)
    first = await world.begin(playbook(sleep("one")))
    text = playbook(step("one", "give"))
    found = await asyncio.gather(*(world.begin(text) for _ in range(8)), return_exceptions=True)
    refused = [each for each in found if isinstance(each, ResourceExhausted)]
    taken = [each for each in found if isinstance(each, str)]
    assert (len(taken), len(refused)) == (2, 6)
    assert refused[0].reason == "QUEUE_FULL"
    assert refused[0].retry_after_s == 30
    assert len(await world.database.fetch_all("SELECT 1 FROM execution")) == 3
    await world.cancel(first)
    for each in taken:
        assert (await world.ended(each)).run.state == "completed"


async def test_what_breaks_gives_its_place_back(make_world: MakeWorld) -> None:
    world = await make_world(max_running=1)

    class Odd(BaseException):
        pass

    async def breaks(job: Job) -> Any:
        raise Odd

    world.does["breaks"] = breaks
    ids = [await world.begin(playbook(step("one", "breaks"))) for _ in range(3)]
    for each in ids:
        assert (await world.ended(each)).run.state == "failed"
    assert (await world.run(playbook(step("one", "give")))).run.state == "completed"


async def test_a_credential_that_is_gone_when_it_is_the_runs_turn_fails_it(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_running=1)
    first = await world.begin(playbook(sleep("one")))
    second = await world.begin(playbook(step("one", "give")), credential_name="plant")
    world.credentials.passwords.clear()
    await world.cancel(first)
    seen = await world.ended(second)
    assert (seen.run.state, seen.run.why) == ("failed", "no credential 'plant'")
    with pytest.raises(NotFound):
        await world.begin(playbook(step("one", "give")), credential_name="plant")


class Refusing:
    """Has the next commits of a world's database refused."""

    def __init__(self, world: World) -> None:
        self.left = 0
        self._run = world.database.run
        world.database.run = self.run  # type: ignore[method-assign]

    async def run(self, work: Any) -> Any:
        if self.left:
            self.left -= 1

            async def refused(transaction: Transaction) -> Any:
                raise Unavailable("the database cannot write now; nothing was changed")

            return await self._run(refused)
        return await self._run(work)


@pytest.mark.parametrize("times", [1, 3])
async def test_a_commit_that_is_refused_ends_the_run_and_does_not_hang(
    make_world: MakeWorld, times: int
) -> None:
    world = await make_world(max_running=1)
    refusing = Refusing(world)

    async def refuses(job: Job) -> Any:
        refusing.left = times
        return {}

    world.does["refuses"] = refuses
    seen = await world.run(playbook(step("one", "refuses"), step("two", "give")))
    assert seen.run.state == "failed"
    assert "the database cannot write now" in seen.run.why
    assert states(seen) == {"one": "failed"}
    assert (await world.run(playbook(step("one", "give")))).run.state == "completed"


async def test_a_control_that_could_not_be_written_down_has_not_happened(world: World) -> None:
    refusing = Refusing(world)
    execution_id = await world.begin(playbook(sleep("one", 0.1)))
    await world.until_in(execution_id, "one")
    refusing.left = 1
    with pytest.raises(Unavailable):
        await world.cancel(execution_id)
    assert (await world.ended(execution_id)).run.state == "completed"


async def test_an_owner_who_is_deleted_has_their_runs_stopped_and_handed_on(
    make_world: MakeWorld,
) -> None:
    world = await make_world(max_running=1)
    first = await world.begin(playbook(sleep("one"), finally_=[step("last", "give")]))
    second = await world.begin(playbook(step("one", "give")))
    await world.until_in(first, "one")

    async def work(transaction: Transaction) -> Any:
        return await world.room.on_user_deleted(transaction, "user_ada", "user_bob", 0)

    handover = await world.database.run(work)
    handover.after_commit()
    for each in (first, second):
        seen = await world.ended(each)
        assert (seen.run.state, seen.run.why) == ("cancelled", "its owner was deleted")
        assert seen.execution.owner_id == "user_bob"
    assert world.made == ["last"]
