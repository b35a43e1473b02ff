"""Names that nobody has are answered as those of people are: by count, by time, after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from steward_server.auth import stranger_store
from steward_server.auth.accounts import Attempts, Role
from steward_server.auth.config import AuthConfig
from steward_server.auth.tasks import sweep
from steward_server.settings import Settings
from tests.integration.conftest import Server, refusal
from tests.live import ADMIN_PASSWORD, Live, TurnedClock, live_server, live_settings

MANY_LOGINS = AuthConfig(logins_per_minute=1_000, password_queue=100)
NAMES = ["ann", "nobody"]
"""Somebody's, and nobody's."""


@pytest.fixture
def settings() -> dict[str, Any]:
    return {"auth": MANY_LOGINS}


@pytest.mark.parametrize("name", NAMES)
async def test_guesses_at_the_same_time_meet_the_same_lock(server: Server, name: str) -> None:
    server.add_user("ann", Role.USER)
    refusals = await asyncio.gather(*(refusal(server.sign_in(name, "x")) for _ in range(25)))
    reasons = [each.reason for each in refusals]
    assert reasons.count("INVALID_CREDENTIALS") == 10
    assert reasons.count("ACCOUNT_LOCKED") == 15


async def attempt(live: Live, name: str) -> tuple[int, str]:
    body = {"username": name, "password": "x"}
    answer = await live.api.call("POST", "/api/auth/login", body)
    return answer.status, answer.body["error"]["reason"]


async def test_a_restart_forgets_no_count_and_no_lock(tmp_path: Path) -> None:
    clock = TurnedClock()
    settings = live_settings(tmp_path / "data", Settings(auth=MANY_LOGINS))
    async with live_server(settings, clock) as live:
        body = {"username": "ann", "password": ADMIN_PASSWORD, "role": "user"}
        assert (await live.admin.call("POST", "/api/v1/users", body)).status == 201
        for _ in range(9):
            seen = [await attempt(live, name) for name in NAMES]
            assert seen == [(401, "INVALID_CREDENTIALS")] * 2
    async with live_server(settings, clock) as live:
        for status, reason in ((401, "INVALID_CREDENTIALS"), (429, "ACCOUNT_LOCKED")):
            seen = [await attempt(live, name) for name in NAMES]
            assert seen == [(status, reason)] * 2
    async with live_server(settings, clock) as live:
        for wait_s, status in ((1_799, 429), (1, 401)):
            clock.advance(wait_s)
            assert [(await attempt(live, name))[0] for name in NAMES] == [status] * 2


async def test_a_password_typed_for_a_name_is_not_kept(server: Server) -> None:
    await refusal(server.sign_in("hunter2 hunter2", "x"))
    assert await server.database.fetch_one("SELECT * FROM stranger") is not None
    held = b"".join(each.read_bytes() for each in server.folder.glob("steward.db*"))
    assert b"admin" in held
    assert b"hunter2" not in held


async def test_the_newest_names_are_kept_and_no_more(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steward_server.auth.tasks.MAX_STRANGERS", 3)
    for name in ("a", "b", "c", "d", "b", "e"):
        server.clock.advance(1)
        await refusal(server.sign_in(f"nobody-{name}", "x"))
    assert await sweep(server.database, server.clock()) == 2
    assert await sweep(server.database, server.clock()) == 0
    rows = await server.database.fetch_all("SELECT * FROM stranger ORDER BY seen_at_us")
    assert [row["failed_logins"] for row in rows] == [1, 2, 1]
    unknown = bytes(32)
    assert await stranger_store.attempts(server.database, unknown) == Attempts()
