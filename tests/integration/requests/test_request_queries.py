"""Lists of requests are read by an index, however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steward_server.db import Row
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.requests import store
from steward_server.requests.store import Wanted


class Explained:
    """A reader that keeps the plan of every statement it runs."""

    def __init__(self, database: Sqlite) -> None:
        self._database = database
        self.plan: list[str] = []

    async def fetch_one(self, sql: str, *parameters: object) -> Row | None:
        raise NotImplementedError

    async def fetch_all(self, sql: str, *parameters: object) -> list[Row]:
        rows = await self._database.fetch_all(f"EXPLAIN QUERY PLAN {sql}", *parameters)
        self.plan += [row["detail"] for row in rows]
        return await self._database.fetch_all(sql, *parameters)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    opened = await Sqlite.open(tmp_path / "steward.db")
    await migrate(opened, ["steward_server.requests"])
    yield opened
    await opened.close()


@pytest.mark.parametrize("wanted", [{}, {"status": "pending"}, {"agent_id": "agent_1"}])
async def test_a_page_is_found_in_its_order(database: Sqlite, wanted: dict[str, Any]) -> None:
    reader = Explained(database)
    for before in (None, (1, "breq_1")):
        await store.page(reader, Wanted(**wanted), before=before, limit=10)
    assert not [step for step in reader.plan if "TEMP B-TREE" in step], reader.plan
    expected = "SEARCH" if wanted else "USING INDEX"
    assert all(expected in step for step in reader.plan), reader.plan
