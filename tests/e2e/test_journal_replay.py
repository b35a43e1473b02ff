"""The journal of a real server tells the whole truth, and shows where it was tampered with."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import orjson
import pytest

from steward_server.budget.audit import replay
from steward_server.budget.config import BudgetConfig
from steward_server.settings import Settings
from tests.books import DATABASE, read_books, wrong_in
from tests.live import (
    Api,
    Live,
    TurnedClock,
    create_agent,
    create_provider,
    live_server,
    live_settings,
)

TTL_S, GRACE_S = 30, 5

Tamper = Callable[[sqlite3.Connection], object]


async def live_a_little(live: Live, clock: TurnedClock, folder: Path) -> None:
    """Agents borrow, spend, overspend, grow, return, are stopped and forgotten."""
    await create_provider(live.admin)
    agents = [await create_agent(live.admin, budget_usd=5) for _ in range(4)]

    async def run(number: int, runtime: Api) -> None:
        for turn in range(3):
            wanted = {"requested_budget_usd": 0.5 + turn}
            granted = await runtime.call("POST", "/api/budget/handshake", wanted)
            if granted.status == 402:
                return
            lease = {"lease_id": granted.body["lease_id"]}
            for call in range(5):
                cost_usd = 0.07 * (number + 1) + 0.000000001
                usage = {"request_id": str(call), "model": "gpt-4o", "cost_usd": round(cost_usd, 9)}
                await runtime.call("POST", "/api/budget/report", lease | usage)
            more = {"requested_budget_usd": 0.25}
            await runtime.call("POST", "/api/budget/refresh", lease | more)
            if turn != number:
                await runtime.call("POST", "/api/budget/return", lease)

    runtimes = [live.api.acting_as(x_ic_key=agent.ic_token) for agent in agents]
    await asyncio.gather(*(run(number, runtime) for number, runtime in enumerate(runtimes)))
    await live.admin.call("POST", f"/api/agents/{agents[0].agent_id}/stop", {})
    await live.admin.call("PATCH", f"/api/v1/agents/{agents[1].agent_id}", {"budget_usd": 50})
    for seconds in (TTL_S, GRACE_S):
        before = len(read_books(folder).journal)
        clock.advance(seconds)
        async with asyncio.timeout(30):
            while len(read_books(folder).journal) == before:
                await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database file of a server that has lived and was stopped."""
    folder = tmp_path_factory.mktemp("server") / "data"

    async def write() -> None:
        clock = TurnedClock()
        config = BudgetConfig(lease_ttl_s=TTL_S, settle_grace_s=GRACE_S, sweep_interval_s=0.01)
        settings = live_settings(folder, Settings(budget=config))
        async with live_server(settings, clock) as live:
            await live_a_little(live, clock, folder)

    asyncio.run(write())
    return folder / DATABASE


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> sqlite3.Connection:
    """A copy of the file, without the triggers that keep the journal from being changed."""
    with closing(sqlite3.connect(f"file:{written}?mode=ro", uri=True)) as source:
        connection = sqlite3.connect(tmp_path / DATABASE)
        source.backup(connection)
    for trigger in ("journal_is_not_updated", "journal_is_not_deleted"):
        connection.execute(f"DROP TRIGGER {trigger}")
    return connection


def test_the_journal_alone_gives_every_account_and_lease_to_the_last_bit(written: Path) -> None:
    books = read_books(written)
    kinds = {entry.kind for entry in books.entries}
    assert kinds >= {
        "account.opened",
        "account.reallocated",
        "lease.opened",
        "usage",
        "lease.grown",
        "lease.draining",
        "lease.ended",
        "budget.warning",
        "agent.stopping",
    }
    states = {lease.state for lease in books.leases.values()}
    assert states >= {"closed", "expired", "revoked"}
    assert replay(books.entries).accounts == books.accounts
    assert wrong_in(books) == []


def test_its_numbers_have_no_holes(written: Path) -> None:
    journal = read_books(written).journal
    assert [row.lsn for row in journal] == list(range(1, len(journal) + 1))


@pytest.mark.parametrize("sql", ["UPDATE journal SET at_us = 0", "DELETE FROM journal"])
def test_the_database_itself_refuses_to_change_it(written: Path, sql: str) -> None:
    with (
        closing(sqlite3.connect(written)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(sql)


def _cheaper(connection: sqlite3.Connection) -> None:
    """One usage costs a nano-dollar less, and the balances agree."""
    row = connection.execute("SELECT lsn, body FROM journal WHERE kind = 'usage'").fetchone()
    body = orjson.loads(row[1])
    body["cost"] -= 1
    connection.execute("UPDATE journal SET body = ? WHERE lsn = ?", (orjson.dumps(body), row[0]))


TAMPERINGS: dict[str, Tamper] = {
    "a usage made cheaper": _cheaper,
    "a time moved": lambda c: c.execute("UPDATE journal SET at_us = at_us + 1 WHERE lsn = 9"),
    "a kind changed": lambda c: c.execute("UPDATE journal SET kind = 'other' WHERE lsn = 9"),
    "a row given to another agent": lambda c: c.execute(
        "UPDATE journal SET agent_id = 'agent_other' WHERE kind = 'usage'"
    ),
    "a request id forgotten": lambda c: c.execute(
        "UPDATE journal SET key = NULL WHERE kind = 'usage'"
    ),
    "a row taken out": lambda c: c.execute("DELETE FROM journal WHERE lsn = 9"),
    "the first row taken out": lambda c: c.execute("DELETE FROM journal WHERE lsn = 1"),
    "its end cut off": lambda c: c.execute(
        "DELETE FROM journal WHERE lsn >= (SELECT max(lsn) FROM journal WHERE kind = 'lease.ended')"
    ),
    "a row put in": lambda c: c.execute(
        "INSERT INTO journal SELECT max(lsn) + 1, at_us, kind, agent_id, subject, 'k', body, hash"
        " FROM journal"
    ),
    "two rows exchanged": lambda c: c.executescript(
        "UPDATE journal SET lsn = -1 WHERE lsn = 9; UPDATE journal SET lsn = 9 WHERE lsn = 10;"
        "UPDATE journal SET lsn = 10 WHERE lsn = -1;"
    ),
    "money that nobody lent": lambda c: c.execute(
        "UPDATE account SET spent_nanousd = spent_nanousd + 1"
    ),
    "a lease that spent less": lambda c: c.execute(
        "UPDATE lease SET spent_nanousd = spent_nanousd - 1 WHERE spent_nanousd > 0"
    ),
    "a lease opened again": lambda c: c.execute(
        "UPDATE lease SET state = 'active' WHERE state = 'closed'"
    ),
    "a lease that was never opened": lambda c: c.execute(
        "INSERT INTO lease SELECT 'lease_x', account_id, project_account_id,"
        " organisation_account_id, agent_id, token_id, provider, provider_kind, runtime_id, 'r',"
        " request_digest, requested_nanousd, 0, 0, 0, 0, 'closed', NULL, 0, 0, NULL, 0, 0"
        " FROM lease LIMIT 1"
    ),
    "a budget that blocks no more": lambda c: c.execute("UPDATE account SET mode = 'informative'"),
    "a lease that the organisation does not see": lambda c: c.execute(
        "UPDATE lease SET organisation_account_id = NULL"
    ),
    "a lease taken out": lambda c: c.execute(
        "DELETE FROM lease WHERE lease_id = (SELECT max(lease_id) FROM lease)"
    ),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_tampering_is_found(copy: sqlite3.Connection, tmp_path: Path, what: str) -> None:
    assert wrong_in(read_books(tmp_path / DATABASE)) == []
    with closing(copy), copy:
        TAMPERINGS[what](copy)
        copy.commit()
        assert wrong_in(read_books(tmp_path / DATABASE)) != []
