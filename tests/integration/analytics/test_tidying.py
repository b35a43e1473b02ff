"""Sums move, what is over its retention goes, and what a crash cuts off is caught up with."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from steward_server.analytics import rollups
from steward_server.analytics.figures import Key
from steward_server.analytics.queries import Apart, Scope, sums
from steward_server.analytics.rollups import Rollups, catch_up
from steward_server.db.migrate import migrate
from tests.property.analytics.world import (
    DAY_S,
    ROOMS,
    World,
    event,
    whole_window,
    world_in,
)


def count(world: World, table: str, where: str = "1 = 1") -> int:
    connection = sqlite3.connect(world.path)
    (found,) = connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()
    connection.close()
    return int(found)


async def spent(world: World) -> int:
    found = await sums(world.database, Scope(whole_window()), Apart())
    return found[Key("", "", "")].cost_nanousd


async def test_the_rows_of_an_hour_move_once_it_is_over(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        await world.book("agent_a", ("call", "openai", "gpt-5", 1, 7))
        await world.tidier.tidy()
        assert (count(world, "usage_fresh"), count(world, "usage_series")) == (1, 0)
        world.now_us += 3_600 * 1_000_000
        await world.tidier.tidy()
        assert (count(world, "usage_fresh"), count(world, "usage_series")) == (0, 4)
        assert await spent(world) == 7


async def test_hours_and_messages_that_nobody_may_see_are_forgotten(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        await world.book("agent_a", ("call", "openai", "gpt-5", 1, 7))
        told = event("f", failed=True, at_us=world.now_us, model="gpt-5", tokens=0)
        await world.tell("agent_a", told._replace(error_message="a sad story"))
        world.now_us += 29 * DAY_S * 1_000_000
        await world.tidier.tidy()
        assert count(world, "llm_event", "error_message <> ''") == 1
        assert count(world, "usage_hour") == 4
        world.now_us += 3 * DAY_S * 1_000_000
        await world.tidier.tidy()
        assert count(world, "llm_event", "error_message <> ''") == 0
        assert count(world, "usage_hour") == 0
        assert count(world, "usage_day") == 4
        again = await world.tell("agent_a", told._replace(error_message="a sad story"))
        assert again.duplicates == 1


async def test_catching_up_goes_on_where_it_was_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world_in(tmp_path, counted=False) as world:
        monkeypatch.setattr(rollups, "ENTRIES_AT_ONCE", 50)
        for first in range(0, 150, 30):
            calls = [(f"call-{first + n}", "openai", "gpt-5", 1, 2) for n in range(30)]
            await world.book("agent_a", *calls)
        await migrate(world.database, [f"steward_server.{room}" for room in ROOMS])
        run, runs = world.database.run, 0

        class Cut(Exception):
            """The server was killed."""

        async def cut_off(work: object) -> object:
            nonlocal runs
            runs += 1
            if runs == 3:
                raise Cut
            return await run(work)  # type: ignore[arg-type]

        world.database.run = cut_off  # type: ignore[method-assign, assignment]
        try:
            await catch_up(world.database, 0)
        except Cut:
            pass
        else:
            raise AssertionError("it was not cut off")
        world.database.run = run  # type: ignore[method-assign]
        assert 0 < await spent(world) < 300
        await catch_up(world.database, 0)
        assert await spent(world) == 300
        assert await catch_up(world.database, 0) == 0
        world.tally = Rollups()
        await world.book("agent_b", ("call", "openai", "gpt-5", 1, 2))
        assert await catch_up(world.database, 0) == 0
        assert await spent(world) == 300 + 2
