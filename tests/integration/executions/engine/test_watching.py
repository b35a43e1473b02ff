"""Who watches runs gets every event in order, and of frames the newest, however slow they are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, cast

import pytest

from steward.executions.v1 import executions_pb2 as pb
from steward_server.calls import Call
from steward_server.errors import NotFound
from steward_server.executions import feed as feeds
from steward_server.executions.execution import About
from steward_server.executions.outlet import MAX_FRAMES, Shown
from steward_server.executions.service import ExecutionService
from steward_server.executions.work import Job
from steward_server.principals import Principal
from tests.integration.executions.engine.conftest import (
    ADA,
    ADMIN,
    BOB,
    World,
    playbook,
    sleep,
    step,
)

STEPS = playbook(*(sleep(f"s{at}", 0) for at in range(20)))


async def _told(metadata: Any) -> None:
    return


def context(who: Principal) -> Call:
    call = Call((), peer="ipv4:127.0.0.1:1", send_initial=_told)
    call.principal = who
    return call


def service(world: World) -> ExecutionService:
    return ExecutionService(world.room, world.engine)


async def watch(
    world: World, execution_id: str, *, since: int = 0, frames: bool = False, who: Any = ADA
) -> list[pb.WatchResponse]:
    """Everything that a watcher of a run is sent."""
    request = pb.WatchRequest(execution_id=execution_id, since=since, frames=frames)
    async with asyncio.timeout(10):
        return [each async for each in service(world).Watch(request, context(who))]


class Exchange:
    """One exchange: what is said, and what is heard."""

    def __init__(self, world: World, who: Principal = ADA, shown: Any = None) -> None:
        self._said = asyncio.Queue[pb.ExchangeRequest | None]()
        self._service = service(world) if shown is None else shown
        heard = self._service.Exchange(self._requests(), context(who))
        self.heard = cast("AsyncGenerator[pb.ExchangeResponse, None]", heard)

    def subscribe(self, **wanted: Any) -> None:
        request = pb.SubscribeRequest(**wanted)
        self._said.put_nowait(pb.ExchangeRequest(subscribe=request))

    def ping(self, timestamp: int) -> None:
        self._said.put_nowait(pb.ExchangeRequest(ping=pb.Ping(timestamp=timestamp)))

    def hang_up(self) -> None:
        self._said.put_nowait(None)

    async def next(self) -> pb.ExchangeResponse:
        async with asyncio.timeout(30):
            return await anext(self.heard)

    async def updates(self, until: str = "ended") -> list[pb.ExecutionUpdate]:
        found = list[pb.ExecutionUpdate]()
        while not found or found[-1].event != until:
            each = await self.next()
            if each.WhichOneof("message") == "execution_update":
                found.append(each.execution_update)
        return found

    async def _requests(self) -> AsyncIterator[pb.ExchangeRequest]:
        while (request := await self._said.get()) is not None:
            yield request


async def test_watching_a_run_tells_all_of_it_in_order_and_ends_with_it(world: World) -> None:
    execution_id = await world.begin(STEPS)
    told = await watch(world, execution_id)
    seen = await world.seen(execution_id)
    assert [each.sequence for each in told] == [each.number for each in seen.events]
    assert told[-1].execution_update.event == "ended"
    # Afterwards as well, and from anywhere.
    assert [each.sequence for each in await watch(world, execution_id)] == [
        each.sequence for each in told
    ]
    middle = told[10].sequence
    later = await watch(world, execution_id, since=middle)
    assert [each.sequence for each in later] == [each.sequence for each in told[11:]]


async def test_watching_from_beyond_the_end_ends_too(world: World) -> None:
    execution_id = await world.begin(playbook(sleep("one", 0.1)))
    told = await watch(world, execution_id, since=10**12)
    assert [each.execution_update.event for each in told][-1] == "ended"
    assert await watch(world, execution_id, since=10**12) == []
    with pytest.raises(NotFound):
        await watch(world, execution_id, who=BOB)
    with pytest.raises(NotFound):
        await watch(world, "none")


@pytest.mark.parametrize("kept", [4, 4_096])
async def test_nothing_is_lost_over_the_end_of_what_is_kept_in_memory(
    world: World, monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(feeds, "MOST_KEPT", kept)
    monkeypatch.setattr(feeds, "READ_AT_ONCE", 3)
    with world.engine.feed.watched():
        ids = [await world.begin(STEPS) for _ in range(3)]
        watchers = [asyncio.create_task(watch(world, each)) for each in ids]
        exchange = Exchange(world)
        exchange.subscribe(since=0)
        numbers = list[int]()
        ended = 0
        while ended < 3:
            for update in await exchange.updates():
                numbers.append(update.sequence)
                ended += update.event == "ended"
            await asyncio.sleep(0.02)  # it falls behind
    rows = await world.database.fetch_all("SELECT number FROM execution_event ORDER BY number")
    assert numbers == [row["number"] for row in rows]
    for each, watcher in zip(ids, watchers, strict=True):
        seen = await world.seen(each)
        assert [told.sequence for told in await watcher] == [e.number for e in seen.events]
    await exchange.heard.aclose()


async def test_large_outputs_are_not_all_kept_for_those_who_watch(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MOST_KEPT_SIZE", 500_000)

    async def gives(job: Job) -> Any:
        return {"x": "y" * 150_000}

    world.does["gives"] = gives
    large = [step(f"s{at}", "gives") for at in range(8)]
    shown = service(world)
    exchange = Exchange(world, shown=shown)
    exchange.subscribe(since=0)
    execution_id = await world.begin(playbook(*large))
    told = await exchange.updates()
    seen = await world.seen(execution_id)
    assert [each.sequence for each in told] == [each.number for each in seen.events]
    feed = world.engine.feed
    assert feed._size == sum(event.size for _, event in feed._newest) <= 500_000
    assert sum(each.ByteSize() for each in shown.shown._events.values()) < 150_000
    assert len(await watch(world, execution_id)) == len(told)
    await exchange.heard.aclose()


async def test_what_somebody_subscribed_to_is_what_they_hear(world: World) -> None:
    async def logs(job: Job) -> Any:
        await job.log("a line")
        return {}

    world.does["logs"] = logs
    text = playbook(step("one", "logs"), step("two", "fail"))
    ids = [(await world.run(text)).execution.execution_id for _ in range(2)]
    other = (await world.run(text, who=BOB)).execution.execution_id

    async def heard(who: Principal, **wanted: Any) -> list[pb.ExecutionUpdate]:
        request = pb.SubscribeRequest(since=0, **wanted)
        watching, found = await service(world)._subscribed(request, who), list[Any]()
        while told := await watching.take():
            found += told
        return [Shown().of(each).execution_update for each in found]

    assert {each.execution_id for each in await heard(ADA)} == {*ids}
    assert {each.execution_id for each in await heard(ADMIN)} == {*ids, other}
    assert {each.execution_id for each in await heard(ADA, execution_id=ids[:1])} == {ids[0]}
    failed = await heard(ADA, status=[pb.EXECUTION_STATUS_FAILED])
    assert {each.event for each in failed} == {"ended"}
    assert await heard(ADA, status=[pb.EXECUTION_STATUS_UNSPECIFIED]) != []
    assert "logged" in {each.event for each in await heard(ADA)}
    assert "logged" not in {each.event for each in await heard(ADA, logs=False)}


async def test_a_subscription_that_is_refused_is_told_and_the_next_one_counts(
    world: World,
) -> None:
    exchange = Exchange(world, BOB)
    execution_id = await world.begin(playbook(sleep("one", 0.2)))
    exchange.subscribe(execution_id=[execution_id])
    refusal = (await exchange.next()).refusal
    assert "not found" in refusal.message
    exchange.subscribe(status=[99])
    assert (await exchange.next()).WhichOneof("message") == "refusal"
    own = await world.begin(playbook(sleep("one", 0.2)), who=BOB)
    exchange.subscribe(since=0)
    assert {each.execution_id for each in await exchange.updates()} == {own}
    exchange.hang_up()
    await exchange.heard.aclose()


async def test_a_subscription_takes_the_place_of_the_one_before(world: World) -> None:
    ids = [(await world.run(playbook(step("one", "give")))).execution.execution_id for _ in "12"]
    exchange = Exchange(world)
    exchange.subscribe(execution_id=ids[:1], since=0)
    assert {each.execution_id for each in await exchange.updates()} == {ids[0]}
    exchange.subscribe(execution_id=ids[1:], since=0)
    assert {each.execution_id for each in await exchange.updates()} == {ids[1]}
    await exchange.heard.aclose()


async def test_whoever_watches_nothing_and_hangs_up_is_let_go(world: World) -> None:
    exchange = Exchange(world)
    exchange.ping(7)
    exchange.hang_up()
    async with asyncio.timeout(30):
        found = [each async for each in exchange.heard]
    assert [each.pong.timestamp for each in found] == [7]
    assert not world.engine.feed.is_watched


async def test_pings_are_answered_amid_what_happens(world: World) -> None:
    ids = [await world.begin(STEPS) for _ in range(4)]
    for each in ids:
        await world.ended(each)
    exchange = Exchange(world)
    exchange.subscribe(since=0)
    first = await exchange.next()
    assert first.WhichOneof("message") == "execution_update"
    for at in range(10):
        exchange.ping(at)
    await asyncio.sleep(0.01)
    found = [await exchange.next() for _ in range(60)]
    pongs = [each.pong.timestamp for each in found if each.WhichOneof("message") == "pong"]
    assert pongs == [*range(10)]
    await exchange.heard.aclose()


async def _all(told: AsyncIterator[pb.WatchResponse]) -> list[pb.WatchResponse]:
    return [each async for each in told]


async def test_who_is_far_behind_when_their_run_is_deleted_is_told_that_it_is_gone(
    world: World,
) -> None:
    execution_id = await world.begin(playbook(sleep("one", 0.05)))
    request = pb.WatchRequest(execution_id=execution_id)
    told = service(world).Watch(request, context(ADA))
    assert (await anext(told)).execution_update.event == "started"
    # Its events are not kept in memory for one who comes to them late.
    world.engine.feed._newest.clear()
    await world.ended(execution_id)
    world.engine.feed._newest.clear()
    world.engine.feed._begin = world.engine.feed._end
    await world.room.delete(ADA, execution_id)
    with pytest.raises(NotFound):
        await asyncio.wait_for(_all(told), 30)


async def test_commits_of_others_wake_nobody(world: World) -> None:
    with world.engine.feed.watched():
        await world.run(playbook(step("one", "give")))
        await asyncio.sleep(0.05)
        bell = world.engine.feed.bell

        async def other(transaction: Any) -> None:
            await transaction.execute("UPDATE execution SET debug_mode = 1")

        await world.database.run(other)
        await asyncio.sleep(0.05)
        assert not bell.done()


def about(execution_id: str) -> About:
    return About(execution_id, ADA.subject, "", "Test", 1, "")


async def test_a_slow_watcher_sees_the_newest_frame_only(world: World) -> None:
    execution_id = await world.begin(playbook(sleep("one")))
    await world.until_in(execution_id, "one")
    exchange = Exchange(world)
    exchange.subscribe(execution_id=[execution_id])
    exchange.ping(1)
    assert (await exchange.next()).WhichOneof("message") == "pong"
    for at in range(50):
        world.engine.feed.show(about(execution_id), at, b"png")
        world.engine.feed.show(about("another"), at, b"png")
    frame = (await exchange.next()).screenshot_frame
    assert (frame.execution_id, frame.timestamp) == (execution_id, 49)
    assert frame.frame == "data:image/png;base64,cG5n"
    await world.cancel(execution_id)
    left = await exchange.updates()
    assert left[-1].event == "ended"
    await exchange.heard.aclose()


async def test_fifty_watchers_share_each_frame_and_the_newest_only_is_kept(world: World) -> None:
    execution_id = await world.begin(playbook(sleep("one")))
    await world.until_in(execution_id, "one")
    shown = service(world)
    exchanges = [Exchange(world, shown=shown) for _ in range(50)]
    for each in exchanges:
        each.subscribe(execution_id=[execution_id])
    waiting = [asyncio.create_task(each.next()) for each in exchanges]
    await asyncio.sleep(0.05)
    for at in range(24):
        world.engine.feed.show(about(execution_id), at, b"x" * 300_000)
        frames = await asyncio.gather(*waiting)
        assert len({id(each) for each in frames}) == 1, "one object for all"
        assert frames[0].screenshot_frame.timestamp == at
        waiting = [asyncio.create_task(each.next()) for each in exchanges]
    assert [*shown.shown._frames] == [execution_id], "the newest is all that is kept"
    for at in range(100):
        world.engine.feed.show(about(f"run {at}"), at, b"png")
        shown.shown.frame(world.engine.feed.frames_after(0)[-1])
    assert len(shown.shown._frames) <= MAX_FRAMES
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    for each in exchanges:
        await each.heard.aclose()
    assert not world.engine.feed.is_watched
