"""Every figure is what adding up the single calls gives, and the ledger says the same."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steward.gateway.v1.options_pb2 import ROLE_ADMIN, ROLE_USER
from steward_server.agents.directory import Directory
from steward_server.analytics.edges import Edges
from steward_server.analytics.figures import Key, Sums
from steward_server.analytics.over_time import FIELDS, OTHERS, points
from steward_server.analytics.periods import PERIODS, Window, window_of
from steward_server.analytics.queries import Apart, Scope, payers, sums
from steward_server.analytics.rollups import Rollups, catch_up
from steward_server.analytics.room import SPENDING, TOKENS
from steward_server.analytics.steps import Step, fault_in
from steward_server.analytics.traces import FROM_THE_NEWEST, Position, TraceRoom, Wanted
from steward_server.budget.desk import Desk
from steward_server.db.migrate import migrate
from steward_server.principals import Kind, Principal
from steward_server.projects.room import ProjectRoom
from tests.property.analytics.world import (
    AGENTS,
    DAY_S,
    OWNERS,
    POLICY,
    PROJECTS,
    ROOMS,
    Straight,
    World,
    added_up,
    event,
    whole_window,
    without_nothing,
    world_in,
)

MODELS = ("gpt-4o", "gpt-5", "claude")
K = TypeVar("K")
NAMES = tuple(f"call-{number}" for number in range(12))
LONGEST_US = 30 * DAY_S * 1_000_000
"""As far back as a period may begin in the middle of an hour."""

BOOKED = st.tuples(
    st.just("book"),
    st.sampled_from(AGENTS),
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.sampled_from(MODELS),
            st.integers(0, 50),
            st.integers(0, 300),
        ),
        min_size=1,
        max_size=4,
    ),
)
TOLD = st.tuples(
    st.just("tell"),
    st.sampled_from(AGENTS),
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.booleans(),
            st.sampled_from((0, -1, 100, -3_599, -DAY_S, -8 * DAY_S, -31 * DAY_S)),
            st.sampled_from(MODELS),
            st.integers(0, 20),
        ),
        min_size=1,
        max_size=3,
    ),
)
WAITED = st.tuples(
    st.just("wait"),
    st.sampled_from((1, 59, 1_800, 3_600, 3_601, 7 * 3_600, DAY_S, 6 * DAY_S, 23 * DAY_S)),
    st.integers(0, 999_999),
)
TIDIED = st.tuples(st.just("tidy"), st.none(), st.none())
STEPS = st.lists(st.one_of(BOOKED, TOLD, WAITED, WAITED, TIDIED), min_size=3, max_size=25)
UNHURRIED = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EXAMPLES = pytest.mark.parametrize(
    "example_count",
    [pytest.param(4, id="few"), pytest.param(100, id="many", marks=pytest.mark.proof)],
)


def provider_of(model: str) -> str:
    return "openai" if model.startswith("gpt") else "anthropic"


async def act(world: World, step: tuple[str, Any, Any]) -> None:
    match step:
        case ("book", agent_id, calls):
            await world.book(
                agent_id,
                *[
                    (name, provider_of(model), model, tokens, cost)
                    for name, model, tokens, cost in calls
                ],
            )
        case ("tell", agent_id, events):
            told = [
                event(
                    name,
                    failed=failed,
                    at_us=world.now_us + offset_s * 1_000_000,
                    model=model,
                    tokens=tokens,
                )
                for name, failed, offset_s, model, tokens in events
            ]
            await world.tell(agent_id, *told)
        case ("wait", seconds, micros):
            world.now_us += seconds * 1_000_000 + micros
        case ("tidy", _, _):
            await world.tidier.tidy()


async def check_all(world: World) -> None:
    with world.reader() as reader:
        await check_figures(world, reader)


async def check_figures(world: World, reader: Straight) -> None:
    calls = world.calls()
    windows = [window_of(period, world.now_us) for period in PERIODS]
    # Those that begin at a call and just after it, in the middle of its hour.
    recent_us = {call.at_us for call in calls if call.at_us >= world.now_us - LONGEST_US}
    begins_us = sorted({at_us + later for at_us in recent_us for later in (0, 1)})[:6]
    windows += [Window(since_us, None) for since_us in begins_us]
    whose: list[list[str] | None] = [None, ["agent_a"], ["agent_a", "agent_b"]]
    for window, agent_ids, provider, model in product(
        windows, whose, ("", "openai"), ("", "gpt-5")
    ):
        scope = Scope(window, agent_ids, provider, model)
        for apart in (
            Apart(),
            Apart(agent=True),
            Apart(agent=True, provider=True),
            Apart(provider=True, model=True),
        ):
            expected = without_nothing(added_up(calls, scope, apart))
            found = without_nothing(await sums(reader, scope, apart, edges=world.edges))
            assert found == expected, (scope, apart)
            for fields in (SPENDING, TOKENS):
                # Of an hour that is too busy to be remembered.
                some = await sums(reader, scope, apart, fields, Edges(max_calls=0))
                assert chosen(some, fields) == chosen(expected, fields), (scope, apart, fields)
        apart = Apart(agent=True, provider=True)
        paid = {
            key[:2] for key, each in added_up(calls, scope, apart).items() if each.request_count
        }
        assert await payers(reader, scope, world.edges) == paid
    await check_steps(world, reader)
    spent = await sums(reader, Scope(whole_window()), Apart(agent=True))
    used = {
        agent_id: spent[Key(agent_id, "", "")].cost_nanousd
        for agent_id in AGENTS
        if Key(agent_id, "", "") in spent
    }
    assert dict.fromkeys(AGENTS, 0) | used == world.used_nanousd()


async def check_steps(world: World, reader: Straight) -> None:
    """Each step is what the calls in it add up to, by one that is named and the others."""
    calls = world.calls()
    apart, named = Apart(model=True), ["gpt-5"]
    for period, step in product(PERIODS, Step):
        window = window_of(period, world.now_us)
        if fault_in(step, period, window, world.now_us):
            continue
        for agent_ids, provider in product((None, ["agent_a", "agent_b"]), ("", "openai")):
            scope = Scope(window, agent_ids, provider)
            expected: dict[tuple[int, str], Sums] = {}
            for call in calls:
                for key, one in added_up([call], scope, apart).items():
                    group = key.model if key.model in named else OTHERS
                    place = step.number(call.at_us), group
                    expected[place] = expected.get(place, Sums()).plus(one)
            found = await points(reader, scope, step, apart, named, world.now_us, world.edges)
            assert chosen(found, FIELDS) == chosen(expected, FIELDS), (scope, step)


def chosen(found: Mapping[K, Sums], fields: Sequence[str]) -> dict[K, list[int]]:
    """Some of the sums, where they are not all nothing."""
    some = {key: [getattr(each, name) for name in fields] for key, each in found.items()}
    return {key: each for key, each in some.items() if any(each)}


@EXAMPLES
def test_every_query_is_what_the_single_calls_add_up_to(example_count: int) -> None:
    @settings(UNHURRIED, max_examples=example_count)
    @given(STEPS)
    def told(steps: list[tuple[str, Any, Any]]) -> None:
        async def run(folder: Path) -> None:
            async with world_in(folder) as world:
                for step in steps:
                    await act(world, step)
                await check_all(world)
                world.now_us += 3_600 * 1_000_000
                await world.tidier.tidy()
                await check_all(world)

        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(Path(folder)))

    told()


@EXAMPLES
def test_what_was_booked_before_there_were_sums_is_caught_up_with(example_count: int) -> None:
    @settings(UNHURRIED, max_examples=example_count)
    @given(STEPS)
    def told(steps: list[tuple[str, Any, Any]]) -> None:
        async def run(folder: Path) -> None:
            async with world_in(folder, counted=False) as world:
                half = len(steps) // 2
                for step in steps[:half]:
                    if step[0] in ("book", "wait"):
                        await act(world, step)
                await migrate(world.database, [f"steward_server.{room}" for room in ROOMS])
                await catch_up(world.database, 0)
                world.tally = Rollups()
                for step in steps[half:]:
                    await act(world, step)
                assert await catch_up(world.database, 0) == 0
                await check_all(world)

        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(run(Path(folder)))

    told()


@UNHURRIED
@given(STEPS, st.sampled_from((1, 2, 5)))
def test_traces_are_every_call_once_newest_first(
    steps: list[tuple[str, Any, Any]], size: int
) -> None:
    async def run(folder: Path) -> None:
        async with world_in(folder) as world:
            for step in steps:
                await act(world, step)
            agents, retention_us = Directory({}), 30 * DAY_S * 1_000_000
            projects = ProjectRoom(world.database, Desk(POLICY), agents, world.clock)
            room = TraceRoom(world.database, agents, projects, retention_us, world.clock)
            for wanted, user in product(
                (
                    Wanted(),
                    Wanted(agent_id="agent_a"),
                    Wanted(project_id="crawl"),
                    Wanted(model="gpt-5"),
                    Wanted(provider="openai", is_failed=False),
                    Wanted(is_failed=True),
                    Wanted(since_us=world.now_us - DAY_S * 1_000_000),
                    Wanted(until_us=world.now_us - 3_600 * 1_000_000),
                ),
                ("admin", "ann"),
            ):
                await check_traces(world, room, wanted, user, size)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))


async def check_traces(world: World, room: TraceRoom, wanted: Wanted, user: str, size: int) -> None:
    caller = Principal(Kind.PERSON, user, ROLE_ADMIN if user == "admin" else ROLE_USER)
    listed, position = [], FROM_THE_NEWEST
    following: Position | None = position
    while following is not None:
        page, following = await room.page(caller, wanted, position, size)
        assert len(page) == size or following is None
        listed += page
        position = following or position
    since_us = max(world.now_us - 30 * DAY_S * 1_000_000, wanted.since_us or 0)
    window = Window(since_us, wanted.until_us)
    expected = [
        (call.at_us, call.key.agent_id, call.request_id)
        for call in world.calls()
        if window.holds(call.at_us)
        and wanted.agent_id in ("", call.key.agent_id)
        and wanted.project_id in ("", PROJECTS[call.key.agent_id])
        and wanted.provider in ("", call.key.provider)
        and wanted.model in ("", call.key.model)
        and wanted.is_failed in (None, call.sums.failed_count == 1)
        and user in ("admin", OWNERS[call.key.agent_id])
    ]
    shown = [(trace.recorded_at_us, trace.agent_id, trace.request_id) for trace in listed]
    assert sorted(shown) == sorted(expected)
    times = [at_us for at_us, _, _ in shown]
    assert times == sorted(times, reverse=True)
    assert len({trace.trace_id for trace in listed}) == len(listed)
    for trace in listed[:2]:
        assert await room.get(caller, trace.trace_id) == trace
