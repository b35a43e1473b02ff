"""What the hub offers to readers that listen to an audience."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.events.hub import Entry, Hub, Subscription
from steward_server.events.store import NewEntry, append

KINDS = frozenset({"account.opened"})
PROJECT = "project:p"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    opened = await Sqlite.open(tmp_path / "steward.db")
    await migrate(opened, ["steward_server.events"])
    yield opened
    await opened.close()


@pytest.fixture
async def hub(database: Sqlite) -> AsyncIterator[Hub]:
    made = Hub(database)
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()


async def listen(hub: Hub, *audiences: str) -> Subscription:
    return await hub.subscribe(KINDS, lambda _: True, audiences=frozenset(audiences))


async def tell(database: Sqlite, *entries: tuple[str, str]) -> None:
    """Write entries down, each of an agent or a scope."""
    new = [
        NewEntry("account.opened", {"scope": scope}, agent_id, f"{agent_id}{scope}")
        for agent_id, scope in entries
    ]
    await database.run(lambda transaction: append(transaction, 1, *new))


async def heard(subscription: Subscription) -> str:
    async with asyncio.timeout(30):
        entry = await subscription.next()
    assert isinstance(entry, Entry)
    return entry.audience


async def test_a_reader_is_offered_what_is_about_its_audiences_and_nothing_else(
    database: Sqlite, hub: Hub
) -> None:
    mine = await listen(hub, "agent_1", PROJECT)
    all_there_is = await listen(hub)
    await tell(database, ("agent_2", "agent:agent_2"), ("", PROJECT), ("agent_1", "agent:agent_1"))
    assert [await heard(mine) for _ in range(2)] == [PROJECT, "agent_1"]
    assert [await heard(all_there_is) for _ in range(3)] == ["agent_2", PROJECT, "agent_1"]
    assert mine.take() is None


async def test_a_reader_may_come_to_listen_to_others(database: Sqlite, hub: Hub) -> None:
    reader = await listen(hub, "agent_1", PROJECT)
    hub.listen_to(reader, frozenset({"agent_1", "project:q"}))
    await tell(database, ("", PROJECT), ("", "project:q"))
    assert await heard(reader) == "project:q"


async def test_whoever_has_left_is_offered_nothing(database: Sqlite, hub: Hub) -> None:
    left, stays = await listen(hub, PROJECT), await listen(hub, PROJECT)
    hub.unsubscribe(left)
    await tell(database, ("", PROJECT))
    assert await heard(stays) == PROJECT
    assert left.take() is None
