"""Agents that book and tell, over a real database; and the same added up by plain loops."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import orjson

from steward_server.agents import store as agents_store
from steward_server.agents.agent import Agent, DesiredState, RunState
from steward_server.agents.directory import Directory
from steward_server.analytics.edges import Edges
from steward_server.analytics.figures import NOTHING, Key, Sums
from steward_server.analytics.ingestion import Ingested, Ingestion
from steward_server.analytics.periods import Window
from steward_server.analytics.queries import Apart, Scope
from steward_server.analytics.rollups import Rollups, Tidier, catch_up
from steward_server.analytics.telling import COMPLETED, FAILED, Told
from steward_server.budget.bookings import Answer, Batch, Fact, book
from steward_server.budget.desk import Desk
from steward_server.budget.receipts import Receipts
from steward_server.budget.store import Terms
from steward_server.budget.values import LeasePolicy
from steward_server.db import Row, Transaction
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite

DAY_S = 86_400
START_US = int(datetime(2026, 3, 30, 22, 40, 7, 123_456, tzinfo=UTC).timestamp() * 1e6)
"""Near the end of a day, of a month and of an hour."""

POLICY = LeasePolicy(lease_ttl_ms=400 * DAY_S * 1_000, settle_grace_ms=400 * DAY_S * 1_000)
GRANT_NANOUSD = 500
AGENTS = ("agent_a", "agent_b", "agent_c")
OWNERS = {"agent_a": "ann", "agent_b": "ann", "agent_c": "ben"}
PROJECTS = {"agent_a": "crawl", "agent_b": "", "agent_c": "crawl"}
ROOMS = ("events", "auth", "tokens", "agents", "providers", "budget", "analytics")


@dataclass(frozen=True, slots=True)
class RawCall:
    """One call, as it must be counted."""

    key: Key
    at_us: int
    sums: Sums
    request_id: str


class Straight:
    """Reads a database file on the thread that asks: thousands of queries need not wait for it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def fetch_one(self, sql: str, *parameters: object) -> Row | None:
        return cast("Row | None", self._connection.execute(sql, parameters).fetchone())

    async def fetch_all(self, sql: str, *parameters: object) -> list[Row]:
        return cast("list[Row]", self._connection.execute(sql, parameters).fetchall())


@dataclass
class World:
    """What the tests act on."""

    path: Path
    database: Sqlite
    now_us: int = START_US
    tally: Rollups | None = field(default_factory=Rollups)
    told: dict[tuple[str, str], RawCall] = field(default_factory=dict)
    edges: Edges = field(default_factory=Edges)
    """Kept all along, as the room keeps them."""

    @contextmanager
    def reader(self) -> Iterator[Straight]:
        with closing(sqlite3.connect(self.path, cached_statements=1_000)) as connection:
            connection.row_factory = sqlite3.Row
            yield Straight(connection)

    def clock(self) -> int:
        return self.now_us

    @property
    def tidier(self) -> Tidier:
        return Tidier(self.database, self.clock, 30 * DAY_S * 1_000_000)

    async def book(self, agent_id: str, *calls: tuple[str, str, str, int, int]) -> Any:
        """Book calls: of each its id, provider, model, tokens and cost."""
        facts = [
            Fact(name, 0, provider, model, tokens, 2 * tokens, 1, 2, cost, "1", "measured", 0)
            for name, provider, model, tokens, cost in calls
        ]
        batch = Batch(f"lease_of_{agent_id}", agent_id, len(facts), lambda _: facts)

        async def work(transaction: Transaction) -> Any:
            return await book(
                transaction,
                [batch],
                policy=POLICY,
                now_us=self.now_us,
                listeners=[self.tally] if self.tally else [],
            )

        (answer,) = await self.database.run(work)
        assert isinstance(answer, Answer)
        return answer

    async def tell(self, agent_id: str, *events: Told) -> Ingested:
        """Ingest events, and note what must be counted of them."""
        ingestion = Ingestion(self.database, Directory({}), Receipts(), self.clock)
        done = await ingestion.ingest(agent_id, events)
        refused = {index for index, _ in done.rejected}
        booked = {call.request_id for call in self.booked_calls() if call.key.agent_id == agent_id}
        for index, event in enumerate(events):
            place = agent_id, event.event_id
            if index not in refused and event.event_id not in booked:
                self.told.setdefault(place, _raw(agent_id, event, self.now_us))
        return done

    def booked_calls(self) -> list[RawCall]:
        connection = sqlite3.connect(self.path)
        rows = connection.execute(
            "SELECT agent_id, at_us, key, body FROM journal WHERE kind = 'usage'"
        ).fetchall()
        connection.close()
        calls = []
        for agent_id, at_us, name, text in rows:
            body = orjson.loads(text)
            cost = body["cost"]
            sums = Sums(
                request_count=1,
                input_tokens=body["input"],
                output_tokens=body["output"],
                cached_tokens=body["cache_read"] + body["cache_write"],
                cost_nanousd=cost,
                least_nanousd=cost,
                most_nanousd=cost,
            )
            key = Key(agent_id, body["provider"], body["model"])
            calls.append(RawCall(key, at_us, sums, name))
        return calls

    def calls(self) -> list[RawCall]:
        """Every call once: what is booked counts as booked, whatever was told of it."""
        booked = self.booked_calls()
        known = {(call.key.agent_id, call.request_id) for call in booked}
        return booked + [call for place, call in self.told.items() if place not in known]

    def used_nanousd(self) -> dict[str, int]:
        """What the ledger's accounts say was spent, by agent."""
        connection = sqlite3.connect(self.path)
        rows = connection.execute(
            "SELECT account_id, spent_nanousd + overrun_nanousd FROM account"
            " WHERE scope_id LIKE 'agent:%'"
        ).fetchall()
        connection.close()
        return dict(rows)


def added_up(calls: list[RawCall], scope: Scope, apart: Apart) -> dict[Key, Sums]:
    """What `queries.sums` should say."""
    found: dict[Key, Sums] = {}
    for call in calls:
        if (
            scope.window.holds(call.at_us)
            and (scope.agent_ids is None or call.key.agent_id in scope.agent_ids)
            and scope.provider in ("", call.key.provider)
            and scope.model in ("", call.key.model)
        ):
            key = apart.key(*call.key)
            found[key] = found.get(key, NOTHING).plus(call.sums)
    return found


def without_nothing(found: dict[Key, Sums]) -> dict[Key, Sums]:
    """Sums of zeros are left behind where a call was told of first and booked later."""
    return {key: sums for key, sums in found.items() if sums != NOTHING}


def event(name: str, *, failed: bool, at_us: int, model: str, tokens: int) -> Told:
    provider = "openai" if model.startswith("gpt") else "anthropic"
    kind = FAILED if failed else COMPLETED
    return Told(name, kind, at_us, model, provider, tokens, 3 * tokens, 77, "", "", 5)


def _raw(agent_id: str, told: Told, now_us: int) -> RawCall:
    sums = Sums(failed_count=1)
    if told.event_type == COMPLETED:
        tokens = told.input_tokens + told.output_tokens
        sums = Sums(0, 1, 0, told.input_tokens, told.output_tokens, 0, tokens)
    at_us = min(told.at_us or 0, now_us)
    return RawCall(Key(agent_id, told.provider, told.model), at_us, sums, told.event_id)


@asynccontextmanager
async def world_in(folder: Path, *, counted: bool = True) -> AsyncIterator[World]:
    """Agents with a lease each; `counted` is whether what they book is summed up at once."""
    path = folder / "steward.db"
    database = await Sqlite.open(path)
    try:
        rooms = ROOMS if counted else ROOMS[:-1]
        await migrate(database, [f"steward_server.{room}" for room in rooms])
        world = World(path, database, tally=Rollups() if counted else None)
        if counted:
            await catch_up(database, 0)
        await database.run(_open_accounts)
        yield world
    finally:
        await database.close()


async def _open_accounts(transaction: Transaction) -> None:
    desk = Desk(POLICY)
    for agent_id in AGENTS:
        agent = Agent(
            agent_id=agent_id,
            name=agent_id,
            owner_id=OWNERS[agent_id],
            project_id=PROJECTS[agent_id],
            provider="",
            desired_state=DesiredState.RUNNING,
            stop_reason="",
            run_state=RunState.NONE,
            runtime_id="",
            started_at_us=None,
            stopped_at_us=None,
            exit_code=None,
            last_seen_at_us=None,
            created_at_us=START_US,
            updated_at_us=START_US,
        )
        await agents_store.insert(transaction, agent)
        await desk.open_account(
            transaction, agent_id=agent_id, allocated_nanousd=10_000, now_us=START_US
        )
        await desk.open_lease(
            transaction,
            lease_id=f"lease_of_{agent_id}",
            agent_id=agent_id,
            requested_nanousd=GRANT_NANOUSD,
            minimum_nanousd=0,
            terms=Terms("openai", "openai", "token", "runtime", None, b"", 0),
            now_us=START_US,
        )


def whole_window() -> Window:
    return Window(None, None)
