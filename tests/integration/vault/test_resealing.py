"""A new master key: at the next start everything is sealed with it, and the old one can go."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from steward_server.app import ROOMS, SEALED
from steward_server.credential import Credential
from steward_server.credentials.room import CredentialRoom
from steward_server.db import Database
from steward_server.db.migrate import migrate
from steward_server.db.sqlite import Sqlite
from steward_server.errors import Unavailable
from steward_server.principals import Kind, Principal
from steward_server.resealing import reseal
from steward_server.rotation import rotate_master_key
from steward_server.vault import Vault
from tests.live import live_server, live_settings

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
ANN = Principal(Kind.PERSON, "user_ann")
OTHERWISE = {
    ("remembered_answer", "sealed_answer"),  # for a day at most
    ("journal", "body"),  # not sealed
    ("webhook_delivery", "body"),
}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Sqlite]:
    database = await Sqlite.open(tmp_path / "steward.db")
    await migrate(database, ROOMS)
    yield database
    await database.close()


async def sealed_values(database: Database) -> list[bytes]:
    rows = await database.fetch_all(
        "SELECT sealed_password AS sealed FROM credential ORDER BY name"
    )
    return [row["sealed"] for row in rows]


async def test_what_an_old_key_sealed_is_sealed_with_the_newest(database: Database) -> None:
    both = Vault({1: OLD, 2: NEW})
    await CredentialRoom(database, Vault({1: OLD}), lambda: 1).save(
        ANN, Credential("a", "u", "of a")
    )
    await CredentialRoom(database, both, lambda: 2).save(ANN, Credential("b", "u", "of b"))
    before = await sealed_values(database)

    await reseal(database, both, SEALED)

    after = await sealed_values(database)
    assert [each.startswith(both.seals_begin) for each in before] == [False, True]
    assert [each.startswith(both.seals_begin) for each in after] == [True, True]
    assert after[1] == before[1]
    room = CredentialRoom(database, Vault({2: NEW}), lambda: 3)
    opened = [(await room.opened(database, "user_ann", name)).password for name in ("a", "b")]
    assert opened == ["of a", "of b"]


async def test_what_no_key_opens_stays_as_it_is(database: Database) -> None:
    room = CredentialRoom(database, Vault({1: OLD}), lambda: 1)
    await room.save(ANN, Credential("a", "u", "of a"))
    before = await sealed_values(database)

    await reseal(database, Vault({2: NEW}), SEALED)

    assert await sealed_values(database) == before
    assert (await room.opened(database, "user_ann", "a")).password == "of a"


async def test_every_sealed_column_there_is_is_sealed_anew(database: Database) -> None:
    tables = await database.fetch_all("SELECT name FROM sqlite_master WHERE type = 'table'")
    blobs = set()
    for table in tables:
        columns = await database.fetch_all(
            f"SELECT name, type FROM pragma_table_info('{table['name']}')"
        )
        blobs |= {(table["name"], each["name"]) for each in columns if each["type"] == "BLOB"}
    hashes = {each for each in blobs if "hash" in each[1] or "digest" in each[1]}
    assert blobs - hashes - OTHERWISE == {(each.table, each.column) for each in SEALED}


@asynccontextmanager
async def restarted(data_dir: Path, *lines: str) -> AsyncIterator[Any]:
    """A server with these master keys."""
    key_file = data_dir / "master.key"
    key_file.write_text("".join(lines))
    key_file.chmod(0o600)
    async with live_server(live_settings(data_dir)) as live:
        yield live


async def test_an_old_key_is_taken_out_after_a_start_with_the_new_one(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    old, new = (
        f"{version} {base64.b64encode(key).decode()}\n" for version, key in ((1, OLD), (2, NEW))
    )
    async with restarted(data_dir, old) as live:
        provider = {"name": "openai", "api_key": "sk-live-canary-0123456789abcdef"}
        credential = {"name": "gw", "username": "u", "password": "of gw"}
        webhook = {"url": "https://hooks.invalid/x"}
        for path, body in (
            ("/api/v1/providers", provider),
            ("/api/credentials", credential),
            ("/api/v1/webhooks", webhook),
        ):
            assert (await live.admin.call("POST", path, body)).status in (200, 201)
        signed_in = live.admin.headers
    async with restarted(data_dir, old, new):
        pass
    async with restarted(data_dir, new) as live:
        ann = live.api.acting_as(**signed_in)
        providers = await ann.call("GET", "/api/v1/providers")  # by a token signed long before
        health = await live.api.call("GET", "/health")
        me = (await ann.call("GET", "/api/v1/auth/me")).body["id"]
    assert [each["usable"] for each in providers.body["providers"]] == [True]
    assert health.body["status"] == "healthy"
    database = await Sqlite.open(data_dir / "steward.db")
    try:
        room = CredentialRoom(database, Vault({2: NEW}), lambda: 1)
        assert (await room.opened(database, me, "gw")).password == "of gw"
        with pytest.raises(Unavailable):
            await CredentialRoom(database, Vault({1: OLD}), lambda: 1).opened(database, me, "gw")
    finally:
        await database.close()


def test_a_key_is_added_where_the_settings_of_the_server_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEWARD_DATA_DIR", str(tmp_path))
    path = tmp_path / "master.key"

    missing = CliRunner().invoke(rotate_master_key)
    Vault.open(path, create=True)
    done = CliRunner().invoke(rotate_master_key)

    assert missing.exit_code == 1
    assert "there is no master key file" in missing.output
    assert done.output == f"{path} has key 2 now; restart the server, and keep a copy of the file\n"
    assert repr(Vault.open(path, create=False)) == "Vault(versions=[1, 2])"
